"""A daemon that goes down and comes back: one session, one grid, every page once."""

from __future__ import annotations

import asyncio
import base64
import sqlite3
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import pytest

from hypnocast.core.night.session import Phase
from hypnocast.core.types import PAGE_S
from hypnocast.core.wire import payloads
from hypnocast.live.bed.bed_pipeline import BedPipeline
from hypnocast.ports.journal.reader import JournalReader
from hypnocast.simulate import SimulatedSource
from support.brokers import Mosquitto
from support.mqtt_lab import listening, until
from support.packs import make_tiny_pack
from support.ward_lab import (
    UTC_0,
    Coming,
    HandDriven,
    night,
    received_from,
    running_ward,
    shifted,
    unheard,
)

BED = "bed-01"
CLOCK_0 = 1000.0
PAGES = 12
DOWN, UP = CLOCK_0 + 3.5 * PAGE_S, CLOCK_0 + 5.7 * PAGE_S
"""The daemon is down from the middle of page 3 until late in page 5."""
END = CLOCK_0 + (PAGES - 1) * PAGE_S + 5.0


@pytest.fixture(scope="module")
def coming() -> list[Coming]:
    return night(SimulatedSource([BED], seed=7, pages=PAGES, skip_pages=60, truth=False))


async def _one_run(
    folder: Path, pack: Path, port: int, source: HandDriven, *, until: float, pages: int, boot: str
) -> list[payloads.StageEvent]:
    async with running_ward(folder, pack, source, port, boot_id=boot) as running:
        return list(await running.go_to(until, BED, pages))


def _seconds(instant: str) -> float:
    return datetime.fromisoformat(instant).timestamp()


def _once_each(events: Sequence[payloads.StageEvent]) -> None:
    """Check that all is one session on one grid: no epoch twice, none left out."""
    assert [event.epoch for event in events] == list(range(len(events)))
    assert len({event.id for event in events}) == len(events)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert len({event.session for event in events}) == 1
    start = _seconds(events[0].start)
    for event in events:
        assert _seconds(event.start) == pytest.approx(start + PAGE_S * event.epoch, abs=2e-3)


@pytest.fixture(scope="module", params=["generative", "signal"])
def any_pack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that looks at each page, and one that carries a state from page to page."""
    return make_tiny_pack(tmp_path_factory.mktemp("pack") / "tiny", family=request.param)


@pytest.mark.promise(1)
async def test_pages_missed_are_withheld_and_the_night_goes_on_as_if_it_had_not_stopped(
    tmp_path: Path, any_pack: Path, broker: Mosquitto, coming: list[Coming]
) -> None:
    pack = any_pack
    before = await _one_run(
        tmp_path, pack, broker.port, HandDriven(coming), until=DOWN, pages=3, boot="a"
    )
    again = HandDriven(received_from(coming, UP))
    after = await _one_run(tmp_path, pack, broker.port, again, until=END, pages=PAGES - 4, boot="a")
    events = before + after
    _once_each(events)
    assert [event.reason for event in events[:6]] == [None] * 3 + ["daemon_down"] * 3
    assert {event.status for event in events[6:]} == {"final"}
    with JournalReader(tmp_path / "journal.sqlite") as reader:
        marks = [(mark.kind, mark.text) for mark in reader.marks(events[0].session)]
    assert ("gap", "the daemon was down: pages 3 to 4") in marks

    silent = HandDriven(unheard(coming, DOWN, UP))
    whole = await _one_run(
        tmp_path / "whole", pack, broker.port, silent, until=END, pages=PAGES - 1, boot="a"
    )
    assert [event.epoch for event in whole if event.status == "withheld"] == [3, 4, 5]
    for ours, theirs in zip(events[6:], whole[6:], strict=True):
        assert ours.digests.picture == theirs.digests.picture
        assert ours.probabilities == theirs.probabilities


async def test_after_a_reboot_the_grid_is_found_again_by_utc_and_stays_there(
    tmp_path: Path, pack: Path, broker: Mosquitto, coming: list[Coming]
) -> None:
    port, newer = broker.port, -CLOCK_0 - 90.0
    before = await _one_run(tmp_path, pack, port, HandDriven(coming), until=DOWN, pages=3, boot="a")
    utc_0 = UTC_0 - newer
    rebooted = shifted(received_from(coming, UP), newer)
    # The host's clock was off by a little after its reboot, and is set right later.
    first = HandDriven(rebooted, utc_0=utc_0 + 0.004)
    middle = await _one_run(tmp_path, pack, port, first, until=UP + newer + 95.0, pages=5, boot="b")
    with sqlite3.connect(tmp_path / "journal.sqlite") as db:
        # So it is written there where the host's clock was far behind when it came back.
        db.execute("UPDATE anchors SET recorded = '1970-01-01T00:00:09.000Z' WHERE boot_id = 'b'")
    late = UP + newer + 100.0
    second = HandDriven(received_from(rebooted, late), utc_0=utc_0 + 0.5)
    after = await _one_run(tmp_path, pack, port, second, until=END + newer, pages=3, boot="b")
    _once_each(before + middle + after)
    withheld = [e.epoch for e in before + middle + after if e.status == "withheld"]
    assert withheld == [3, 4, 5, 8]
    with JournalReader(tmp_path / "journal.sqlite") as reader:
        anchors = sorted(reader.anchors(before[0].session), key=lambda each: each.boot_id)
        marks = reader.marks(before[0].session)
    assert [anchor.boot_id for anchor in anchors] == ["a", "b"]
    # One mapping for each boot: the second daemon of the new boot has not looked at UTC again.
    assert anchors[1].lsl_t0 - anchors[0].lsl_t0 == pytest.approx(newer - 0.004, abs=1e-3)
    assert len([mark for mark in marks if "reboot" in mark.text]) == 1


async def test_what_is_shown_after_a_restart_is_the_night_that_runs_and_no_other(
    tmp_path: Path, pack: Path, broker: Mosquitto, coming: list[Coming]
) -> None:
    stage, page, spectrum = (
        f"hypnocast/lab/bed/{BED}/{word}" for word in ("stage", "page", "spectrum")
    )
    async with listening(broker.port) as listener:
        # Left over from a night that ended while the broker could not be reached.
        listener.publish(stage, {"epoch": 900}, retain=True)
        listener.publish(page, b"old", retain=True)
        await until(lambda: listener.of(page), "what is left over")
        async with running_ward(tmp_path, pack, HandDriven(coming), broker.port) as running:
            running.source.go_to(CLOCK_0 + 10.0)
            await until(lambda: listener.of(stage)[-1] == listener.of(page)[-1] == b"", "nothing")
            await running.go_to(DOWN, BED, 3)
            await until(
                lambda: [one["pages"] for one in listener.json_of(spectrum)][-1:] == [3], "3 pages"
            )
        known = listener.json_of(spectrum)[-1]
    # The broker forgets, the daemon comes back: the night is there again, before its next page.
    broker.restart()
    again = HandDriven(received_from(coming, DOWN + 1.0))
    async with (
        listening(broker.port) as listener,
        running_ward(tmp_path, pack, again, broker.port),
    ):
        await until(lambda: listener.json_of(stage), "the stage")
        assert [event["epoch"] for event in listener.json_of(stage)] == [2]
        await until(lambda: listener.json_of(spectrum), "the spectrum of the pages before")
        again_known = listener.json_of(spectrum)[-1]
        assert {**again_known, "at": known["at"]} == known
        assert base64.b64decode(known["levels"]).count(0) == 0
        assert known["derivations"][0]["epoch"] == 0


async def test_a_session_left_alone_for_too_long_has_ended_when_it_was_last_seen(
    tmp_path: Path, pack: Path, broker: Mosquitto, coming: list[Coming]
) -> None:
    port = broker.port
    async with running_ward(tmp_path, pack, HandDriven(coming), port, timeout_s=60.0) as running:
        before = list(await running.go_to(DOWN, BED, 3))
    again = HandDriven(received_from(coming, UP + 30.0))
    async with running_ward(tmp_path, pack, again, port, timeout_s=60.0) as running:
        after = await running.go_to(END, BED, 2)
    assert after[0].session != before[0].session
    assert [event.epoch for event in after[:2]] == [0, 1]
    with JournalReader(tmp_path / "journal.sqlite") as reader:
        ended = reader.session(before[0].session)
    assert ended is not None
    assert ended.ended == before[-1].end


async def test_a_phase_that_a_session_enters_is_a_mark_of_its_night(
    tmp_path: Path, pack: Path, broker: Mosquitto, coming: list[Coming]
) -> None:
    source = HandDriven(coming)
    async with running_ward(tmp_path, pack, source, broker.port, auto=False) as running:
        source.go_to(CLOCK_0 + 5.0)
        post = running.ward.signal_thread.post
        begun = post(BED, lambda pipeline, now: pipeline.sessions.start(None, Phase.SETUP, now))
        session = await asyncio.wrap_future(begun)

        def enter(phase: Phase) -> Callable[[BedPipeline, float], None]:
            def act(pipeline: BedPipeline, now: float) -> None:
                sessions = pipeline.sessions
                moment = sessions.moment(now)
                sessions._apply(sessions._keeper.enter(phase, moment, why="a marker"))

            return act

        for phase in (Phase.CALIBRATION, Phase.RECORDING):
            await asyncio.wrap_future(post(BED, enter(phase)))
        await running.ward._durable(BED)
    with JournalReader(tmp_path / "journal.sqlite") as reader:
        marks = [(mark.kind, mark.text) for mark in reader.marks(session.id)]
    assert marks == [("phase", "calibration"), ("phase", "recording")]
