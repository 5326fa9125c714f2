"""Simulated nights as a daemon leaves them behind: a journal, tapes, and the pages drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hypnocast.config.tables import Config, DaemonTable
from hypnocast.config.tables import PackTable as PackConfig
from hypnocast.core.timing.decisions import Decision, decision_to_json
from hypnocast.core.timing.utc import UtcAnchor
from hypnocast.core.types import Arrival, Chunk
from hypnocast.core.wire.topics import Topics
from hypnocast.live.bed.sources import RecordedSource
from hypnocast.live.explaining.past_pages import PastPages
from hypnocast.live.explaining.picture_store import PAGES, PictureStore
from hypnocast.live.service.build import JOURNAL, make_parts, pipeline_maker
from hypnocast.live.service.ward import Ward, WardParts, Watcher
from hypnocast.ports.journal.journal import Journal
from hypnocast.ports.mqtt.settings import BrokerSettings
from hypnocast.ports.recordings.tape_recorder import TapeRecorder
from hypnocast.simulate import SimulatedSource
from hypnocast.stagers.packs.pack import load_pack

BOOT = "a-boot"
T0 = 1_772_402_400.0
"""2026-03-01 22:00 UTC."""


@dataclass(frozen=True)
class Taped:
    """A state folder with nights in it."""

    config: Config
    sim: SimulatedSource


async def tape_nights(
    folder: Path,
    pack: Path,
    sim: SimulatedSource,
    *,
    port: int,
    watchers: Sequence[Watcher] = (),
    started: Callable[[Ward], None] = lambda _: None,
    hold: Callable[[float], None] = lambda _: None,
    home_assistant: bool = False,
) -> Taped:
    """Run a ward over simulated beds, with tapes; ``hold`` is called as the data's time goes on."""
    config = Config(daemon=DaemonTable(state_dir=str(folder)), pack=PackConfig(name=str(pack)))
    loaded = load_pack(pack)
    now = sim.clock_start
    recorder = TapeRecorder(
        config.tape_dir,
        facts={"boot_id": BOOT},
        now=lambda: T0 + now - sim.clock_start,
        clock=lambda: now,
    )

    def recorded() -> Iterator[tuple[str, Arrival]]:
        nonlocal now
        for bed, arrival in sim:
            if isinstance(arrival, Chunk):
                now = max(now, arrival.arrived)
                hold(now - sim.clock_start)
            recorder.write(bed, arrival)
            yield bed, arrival

    def decided(bed: str, decisions: Sequence[Decision]) -> None:
        for decision in decisions:
            recorder.note(bed, decision_to_json(decision), now)

    source = RecordedSource(recorded(), UtcAnchor(sim.clock_start, T0), "simulated")
    async with Journal.open(folder / JOURNAL) as journal:
        parts = make_parts(config, loaded, journal, live=False, on_step=lambda _: None)
        picture_store = PictureStore(folder / PAGES, loaded.recipe.digest)
        ward = Ward(
            WardParts(
                source=source,
                pack=loaded,
                parts=parts,
                topics=Topics("lab"),
                node="node1",
                broker=BrokerSettings(port=port),
                make_pipeline=pipeline_maker(
                    config,
                    loaded,
                    source,
                    boot_id=BOOT,
                    auto=True,
                    decided=decided,
                    change_tape=recorder.change,
                ),
                watchers=tuple(watchers),
                show_pages=home_assistant,
                home_assistant=home_assistant,
                past=PastPages(picture_store, parts.judge, journal, loaded, depth="patches"),
            )
        )
        started(ward)
        await ward.run()
        picture_store.close()
    recorder.close()
    return Taped(config, sim)
