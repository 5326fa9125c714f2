"""A whole ward in this process, at any speed: everything real but the amplifiers and the clock.

The source is of the kind ``live``: the daemon treats it as it treats the network, with deadlines,
sessions that can be resumed and nobody who waits. Its clock goes as far as the test lets
it, so that a night lasts seconds and a restart happens exactly where it should.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from hypnocast.config.tables import BesidePackTable, Config, PublishTable, RuleTable
from hypnocast.config.tables import PackTable as PackConfig
from hypnocast.core.timing.decisions import Decision, decision_to_json
from hypnocast.core.types import PAGE_S, Arrival, Chunk, ClockReading, Mark, StreamOpened
from hypnocast.core.wire import payloads
from hypnocast.core.wire.topics import Topics
from hypnocast.live.explaining.explanations import Depth
from hypnocast.live.explaining.past_pages import PastPages, reasons_later
from hypnocast.live.explaining.picture_store import PAGES, PictureStore
from hypnocast.live.explaining.published_explanations import PublishedExplanations
from hypnocast.live.service.build import JOURNAL, make_parts, pipeline_maker
from hypnocast.live.service.ward import Ward, WardParts
from hypnocast.live.staging.judging import Judge
from hypnocast.ports.journal.journal import Journal
from hypnocast.ports.mqtt.settings import BrokerSettings
from hypnocast.ports.recordings.tape_recorder import TapeLimits, TapeRecorder
from hypnocast.ports.supervision import Supervisor
from hypnocast.simulate import SimulatedSource
from hypnocast.stagers.packs.pack import load_pack

UTC_0 = 1_795_000_000.0
"""Seconds since 1970 when the local clock of the first boot reads 0."""
DEADLINE_S = 240.0
TAPE_PART_BYTES = 4_000_000
"""So little that the tape of a short night has several parts."""

Coming = tuple[float, str, Arrival]


def time_of(arrival: Arrival) -> float:
    """Return when something came, by the local clock."""
    return arrival.arrived if isinstance(arrival, Chunk | Mark) else arrival.at


def night(sim: SimulatedSource) -> list[Coming]:
    """Return all that a simulated ward sends, with the local time at which each thing comes."""
    return [(time_of(arrival), bed, arrival) for bed, arrival in sim]


def shifted(coming: Iterable[Coming], by: float) -> list[Coming]:
    """Return the same with another local clock: the host rebooted, the senders did not."""
    values: list[Coming] = []
    for at, bed, arrival in coming:
        moved: Arrival
        match arrival:
            case Chunk() | Mark():
                moved = replace(arrival, arrived=arrival.arrived + by)
            case ClockReading():
                moved = replace(arrival, at=arrival.at + by, offset=arrival.offset + by)
            case _:
                moved = replace(arrival, at=arrival.at + by)
        values.append((at + by, bed, moved))
    return values


def received_from(coming: Iterable[Coming], since: float) -> list[Coming]:
    """Return what a daemon started at ``since`` receives: open streams, their clocks, the rest."""
    opened: dict[tuple[str, str], Coming] = {}
    clocks: dict[tuple[str, str], Coming] = {}
    later: list[Coming] = []
    for at, bed, arrival in coming:
        if at >= since:
            later.append((at, bed, arrival))
        elif isinstance(arrival, StreamOpened):
            opened[bed, arrival.header.key] = (since, bed, replace(arrival, at=since))
        elif isinstance(arrival, ClockReading):
            clocks[bed, arrival.stream] = (since, bed, replace(arrival, at=since))
    return [*opened.values(), *clocks.values(), *later]


def unheard(coming: Iterable[Coming], since: float, until: float) -> list[Coming]:
    """Return the same without the samples of a stretch of time."""
    return [
        (at, bed, arrival)
        for at, bed, arrival in coming
        if not (isinstance(arrival, Chunk) and since <= at < until)
    ]


class HandDriven:
    """A live source whose time goes as far as the test lets it."""

    kind: Literal["live"] = "live"

    def __init__(self, coming: Sequence[Coming], *, utc_0: float = UTC_0) -> None:
        """Keep what comes, and the UTC at which the local clock read 0."""
        self.recorder: TapeRecorder | None = None
        """The tape that records it, as it comes."""
        self._coming = coming
        self._utc_0 = utc_0
        self._now = coming[0][0]
        self._until = float("-inf")
        self._stopped = False
        self._moved = threading.Condition()

    def go_to(self, local: float) -> None:
        """Let time go on until then."""
        with self._moved:
            self._until = max(self._until, local)
            self._moved.notify_all()

    def set_clock(self, by: float) -> None:
        """Set the host's clock ahead by so many seconds."""
        self._utc_0 += by

    def utc_of(self, local: float) -> float:
        """Return the UTC of a local time."""
        return self._utc_0 + local

    def now(self) -> float:
        """Return the local clock."""
        return self._now

    def measure_soon(self) -> None:
        """Measure nothing: what is to be measured comes with the rest."""

    def arrivals(self) -> Iterator[tuple[str, Arrival] | None]:
        """Give what comes, and ticks."""
        for at, bed, arrival in self._coming:
            while at > self._until and not self._stopped:
                self._now = max(self._now, self._until)
                yield None
                with self._moved:
                    self._moved.wait(0.005)
            if self._stopped:
                return
            if at > self._now:
                yield None
                self._now = at
            if self.recorder is not None:
                self.recorder.write(bed, arrival)
            yield bed, arrival
        while not self._stopped:
            self._now = max(self._now, self._until)
            yield None
            with self._moved:
                self._moved.wait(0.005)

    def stop(self) -> None:
        """End the arrivals."""
        self._stopped = True


@dataclass(eq=False)
class Running:
    """A ward that runs, and every event that became durable while it did."""

    ward: Ward
    source: HandDriven
    journal: Journal
    events: list[payloads.StageEvent] = field(default_factory=list)

    def event(self, event: payloads.StageEvent) -> None:
        """Note an event."""
        self.events.append(event)

    def terminal(self, bed: str) -> list[payloads.StageEvent]:
        """Return a bed's terminal events."""
        return [e for e in self.events if e.bed == bed and e.status != "provisional"]

    async def until(self, true: Callable[[], object], what: str) -> None:
        """Wait for a condition while the ward runs."""
        deadline = time.monotonic() + DEADLINE_S
        while not true():
            assert time.monotonic() < deadline, f"{what} did not come true"
            await asyncio.sleep(0.005)

    async def pages(self, bed: str, count: int) -> list[payloads.StageEvent]:
        """Wait for so many terminal events of a bed and return them."""
        await self.until(lambda: len(self.terminal(bed)) >= count, f"page {count} of {bed}")
        return self.terminal(bed)

    async def go_to(self, local: float, bed: str, count: int) -> list[payloads.StageEvent]:
        """Let time go on, and wait for the terminal events that a bed has had by then."""
        self.source.go_to(local)
        await self.until(lambda: self.source.now() >= local, f"the time {local}")
        return await self.pages(bed, count)


@asynccontextmanager
async def running_ward(
    folder: Path,
    pack: Path,
    source: HandDriven,
    port: int,
    *,
    boot_id: str = "first-boot",
    auto: bool = True,
    timeout_s: float = 5400.0,
    judge: Judge | None = None,
    deadline_s: float | None = None,
    tapes: Path | None = None,
    hop_s: float | None = None,
    explain: Depth | None = None,
    beside: Sequence[Path] = (),
    beside_judge: Judge | None = None,
    rules: Sequence[RuleTable] = (),
    traces: bool = False,
) -> AsyncIterator[Running]:
    """Run a ward whose journal lies in ``folder``; at the end it stops as by SIGTERM.

    With ``tapes`` what comes, and what is decided about time, is taped there.
    """
    others = tuple(BesidePackTable(name=str(path)) for path in beside)
    config = Config(
        pack=PackConfig(name=str(pack), beside=others),
        publish=PublishTable(hop_s=hop_s, traces=traces),
        rule=tuple(rules),
    )
    config = replace_session(config, timeout_s)
    loaded = load_pack(pack)
    recorder = _recorder(tapes, source, boot_id) if tapes is not None else None
    source.recorder = recorder

    def decided(bed: str, decisions: Sequence[Decision]) -> None:
        if recorder is not None:
            for decision in decisions:
                recorder.note(bed, decision_to_json(decision), source.now())

    supervisor = Supervisor()
    async with Journal.open(folder / JOURNAL, supervisor) as journal:
        parts = make_parts(config, loaded, journal, live=True, on_step=lambda _: None)
        parts = dataclasses.replace(
            parts,
            judge=judge or parts.judge,
            deadline_s=deadline_s or parts.deadline_s,
            beside=tuple(
                dataclasses.replace(one, judge=beside_judge or one.judge) for one in parts.beside
            ),
        )
        picture_store = PictureStore(folder / PAGES, loaded.recipe.digest, supervisor=supervisor)
        past = PastPages(picture_store, parts.judge, journal, loaded, depth=explain or "channels")
        explanations_out = PublishedExplanations(
            functools.partial(past.explain, channels=explain is not None)
        )
        values: list[Running] = []

        class Watcher:
            def event(self, event: payloads.StageEvent) -> None:
                values[0].event(event)

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
                    boot_id=boot_id,
                    auto=auto,
                    decided=decided,
                    change_tape=None if recorder is None else recorder.change,
                ),
                boot_id=boot_id,
                watchers=(Watcher(), explanations_out)
                if explain or reasons_later(loaded)
                else (Watcher(),),
                past=past,
                supervisor=supervisor,
            )
        )
        running = Running(ward, source, journal)
        values.append(running)
        task = asyncio.create_task(ward.run())
        explaining = asyncio.create_task(explanations_out.run(ward.publishers))
        ready = asyncio.create_task(ward.ready.wait())
        await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
        try:
            yield running
        finally:
            ready.cancel()
            ward.stop()
            await task
            explaining.cancel()
            picture_store.close()
            if recorder is not None:
                recorder.close()


def _recorder(folder: Path, source: HandDriven, boot_id: str) -> TapeRecorder:
    return TapeRecorder(
        folder,
        limits=TapeLimits(part_bytes=TAPE_PART_BYTES),
        facts={"boot_id": boot_id},
        now=lambda: source.utc_of(source.now()),
        clock=source.now,
    )


def replace_session(config: Config, timeout_s: float) -> Config:
    """Return the configuration with another time-out of sessions."""
    import msgspec

    session = msgspec.structs.replace(config.session, timeout_s=timeout_s)
    return msgspec.structs.replace(config, session=session)


def page_end(anchor: float, epoch: int) -> float:
    """Return a local time at which a page has certainly closed."""
    return anchor + PAGE_S * (epoch + 1) + 3.0
