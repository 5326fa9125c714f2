"""A night that was live, and its tape: the same pictures and the same stages, every time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import edfio
import numpy as np
import pytest

from hypnocast.config.tables import Config
from hypnocast.config.tables import PackTable as PackConfig
from hypnocast.core.types import PAGE_S
from hypnocast.core.wire import commands, payloads
from hypnocast.errors import JournalError
from hypnocast.nights.replay import Replayed, ReplaySettings, replay
from hypnocast.simulate import SimulatedSource
from support.brokers import Mosquitto
from support.packs import make_tiny_pack
from support.ward_lab import HandDriven, night, running_ward

BED = "bed-01"
CLOCK_0 = 1000.0
PAGES = 120

TROUBLES = (
    "drift:150ppm",
    "jitter:5ms",
    "dropout@400+10",
    "bed-01/eog/dropout@700+40",
    "bed-01/eeg/restart:same@1000+4",
    "bed-01/eeg/restart:new@1300+6",
    "bed-01/eeg/late@1600+20",
    "bed-01/eog/silent@1900+100",
    "detached:M1@2300+90",
)
"""What happens in the hour."""


async def _replayed(pack: Path, tape: Path, *, bed: str = "") -> list[payloads.StageEvent]:
    replayed = Replayed()
    config = Config(pack=PackConfig(name=str(pack)))
    await replay(config, ReplaySettings(tape, bed=bed), watchers=(replayed,))
    return replayed.events


def _same_stages(
    ours: Sequence[payloads.StageEvent], theirs: Sequence[payloads.StageEvent]
) -> None:
    assert [(e.epoch, e.reason) for e in ours] == [(e.epoch, e.reason) for e in theirs]
    assert [e.digests.picture for e in ours] == [e.digests.picture for e in theirs]
    for a, b in zip(ours, theirs, strict=True):
        if a.probabilities is not None:
            best, second = sorted(_shares(a))[:-3:-1]
            if best - second > 1e-3:
                assert a.stage == b.stage


def _shares(event: payloads.StageEvent) -> list[float]:
    shares = event.probabilities
    return [] if shares is None else [shares.W, shares.N1, shares.N2, shares.N3, shares.R]


@pytest.mark.promise(5)
async def test_the_tape_of_a_live_hour_gives_its_pictures_and_stages_again(
    tmp_path: Path, pack: Path, broker: Mosquitto
) -> None:
    sim = SimulatedSource(
        [BED],
        seed=5,
        pages=PAGES,
        skip_pages=60,
        truth=False,
        montage="split",
        faults=TROUBLES,
        chunk_s=0.5,
    )
    source, tapes = HandDriven(night(sim)), tmp_path / "tapes"
    async with running_ward(tmp_path, pack, source, broker.port, tapes=tapes) as running:
        await running.go_to(CLOCK_0 + 90.5 * PAGE_S, BED, 90)
        session = running.terminal(BED)[0].session
        # Hands change: a next night on the same streams.
        begin = commands.StartSession(request="next", subject="S-02")
        await running.ward.command_handler.obey(BED, begin)
        await running.go_to(CLOCK_0 + PAGES * PAGE_S - 10.0, BED, 120)
        end = commands.EndSession(request="end", session=running.terminal(BED)[-1].session)
        await running.ward.command_handler.obey(BED, end)
        live = await running.pages(BED, 121)
    assert len({event.session for event in live}) == 2
    first = [event for event in live if event.session == session]
    reasons = [event.reason for event in first]
    assert reasons.count(None) >= 80
    assert {"low_coverage", "session_end", None} <= {*reasons}
    assert live[-1].reason == "session_end"
    # Each night has a tape of its own: without the first one's the second is whole.
    parts = sorted(tapes.rglob("*.xdf"))
    stems = sorted({part.name.rpartition("_")[0] for part in parts})
    first_night, second_night = ([p for p in parts if p.name.startswith(stem)] for stem in stems)
    assert len(first_night) > 1
    assert len(second_night) > 1
    _same_stages(await _replayed(pack, first_night[0]), first)
    for part in first_night:
        part.unlink()
    again, once_more = [await _replayed(pack, second_night[0]) for _ in range(2)]
    _same_stages(again, [event for event in live if event.session != session])
    assert [_comparable(event) for event in again] == [_comparable(event) for event in once_more]


def _comparable(event: payloads.StageEvent) -> tuple[object, ...]:
    return (event.session, event.epoch, event.start, event.reason, event.digests, *_shares(event))


async def test_a_night_judged_by_one_pack_is_never_shown_as_another_packs(
    tmp_path: Path, pack: Path
) -> None:
    recording = tmp_path / "night.edf"
    noise = np.random.default_rng(3).normal(0.0, 30.0, 128 * 60)
    signals = [
        edfio.EdfSignal(noise, 128, label=label, physical_dimension="uV")
        for label in ("F4-M1", "C4-M1", "O2-M1")
    ]
    edfio.Edf(signals).write(recording)
    settings = ReplaySettings(recording, journal=tmp_path / "journal")
    replayed = [Replayed(), Replayed()]
    for once in replayed:
        await replay(Config(pack=PackConfig(name=str(pack))), settings, watchers=(once,))
    assert (
        [event.id for event in replayed[0].events]
        == [event.id for event in replayed[1].events]
        != []
    )
    other = make_tiny_pack(tmp_path / "other", seed=9)
    with pytest.raises(JournalError, match="another pack"):
        await replay(Config(pack=PackConfig(name=str(other))), settings)
