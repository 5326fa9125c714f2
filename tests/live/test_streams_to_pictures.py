"""Whole nights through the daemon: pauses, the change of summer time, several beds at once."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import edfio
import numpy as np
import pytest

from hypnocast.config.tables import Config, SiteTable
from hypnocast.config.tables import PackTable as PackConfig
from hypnocast.core.types import PAGE_S, Chunk, ClockReading
from hypnocast.nights.replay import Replayed, ReplaySettings, replay
from hypnocast.simulate import SimulatedSource
from support.brokers import Mosquitto
from support.ward_lab import Coming, HandDriven, night, running_ward

BED = "bed-01"
CLOCK_0 = 1000.0


def _with_a_pause(since_page: int, minutes: float, pages_after: int) -> list[Coming]:
    """Give a bed that is unplugged for a while: no samples, and no clock that answers."""
    since = CLOCK_0 + since_page * PAGE_S
    until = since + 60.0 * minutes
    length = round((until - CLOCK_0) / PAGE_S) + pages_after
    sim = SimulatedSource([BED], seed=2, pages=length, truth=False, skip_pages=40)
    return [
        one
        for one in night(sim)
        if not (isinstance(one[2], Chunk | ClockReading) and since <= one[0] < until)
    ]


def _seconds(instant: str) -> float:
    return datetime.fromisoformat(instant).timestamp()


async def test_after_70_minutes_the_night_goes_on_where_its_grid_says(
    tmp_path: Path, pack: Path, broker: Mosquitto
) -> None:
    coming = _with_a_pause(4, 70.0, 4)
    async with running_ward(tmp_path, pack, HandDriven(coming), broker.port) as running:
        events = await running.go_to(CLOCK_0 + 4 * PAGE_S + 4200.0 + 95.0, BED, 147)
    assert {event.session for event in events} == {events[0].session}
    assert [event.epoch for event in events] == list(range(len(events)))
    start = _seconds(events[0].start)
    for event in events:
        assert _seconds(event.start) == pytest.approx(start + PAGE_S * event.epoch, abs=2e-3)
    staged = [event.epoch for event in events if event.status == "final"]
    assert staged == [0, 1, 2, 3, 144, 145, 146]
    assert {event.reason for event in events[4:144]} == {"low_coverage"}


async def test_after_100_minutes_the_night_has_ended_and_the_next_one_begins(
    tmp_path: Path, pack: Path, broker: Mosquitto
) -> None:
    coming = _with_a_pause(4, 100.0, 4)
    async with running_ward(tmp_path, pack, HandDriven(coming), broker.port) as running:
        events = await running.go_to(CLOCK_0 + 4 * PAGE_S + 6000.0 + 95.0, BED, 187)
    first = [event for event in events if event.session == events[0].session]
    second = [event for event in events if event.session != events[0].session]
    # The time-out of 90 minutes ends the night, not the moment at which it is noticed.
    assert [event.epoch for event in first] == list(range(len(first)))
    assert _seconds(first[-1].end) - _seconds(first[0].start) == pytest.approx(
        4 * PAGE_S + 5400.0, abs=PAGE_S
    )
    assert [event.epoch for event in first if event.status == "final"] == [0, 1, 2, 3]
    assert [(event.epoch, event.status) for event in second[:3]] == [
        (0, "final"), (1, "final"), (2, "final"),
    ]  # fmt: skip
    assert _seconds(second[0].start) == pytest.approx(
        _seconds(first[0].start) + 4 * PAGE_S + 6000.0, abs=1.0
    )


@pytest.mark.parametrize(
    ("begun", "goes_on"),
    [("2026-10-25T02:58:00", "02:00:00"), ("2026-03-29T01:58:00", "03:00:00")],
    ids=["an hour that comes twice", "an hour that never was"],
)
async def test_a_night_across_the_change_of_summer_time_has_no_page_twice_and_none_missing(
    tmp_path: Path, pack: Path, begun: str, goes_on: str
) -> None:
    zone = ZoneInfo("Europe/Berlin")
    path = tmp_path / "night.edf"
    _write_edf(path, datetime.fromisoformat(begun), pages=8)
    config = Config(pack=PackConfig(name=str(pack)), site=SiteTable(timezone="Europe/Berlin"))
    replayed = Replayed()
    await replay(config, ReplaySettings(path), watchers=(replayed,))
    assert [event.epoch for event in replayed.events] == list(range(8))
    starts = [datetime.fromisoformat(event.start) for event in replayed.events]
    assert [(b - a).total_seconds() for a, b in pairwise(starts)] == [30.0] * 7
    wall = [start.astimezone(zone).strftime("%H:%M:%S") for start in starts]
    assert wall[0] == begun.partition("T")[2]
    assert wall[4] == goes_on


def _write_edf(path: Path, start: datetime, pages: int) -> None:
    rng = np.random.default_rng(0)
    labels = ("F4-M1", "C4-M1", "O2-M1", "E1-M2", "E2-M2", "Chin1-Chin2")
    signals = [
        edfio.EdfSignal(
            rng.normal(0.0, 15.0, pages * 30 * 128),
            128,
            label=label,
            physical_dimension="uV",
            physical_range=(-500.0, 500.0),
        )
        for label in labels
    ]
    edfio.Edf(
        signals, starttime=start.time(), recording=edfio.Recording(startdate=start.date())
    ).write(path)
