"""The next person's night: what ends, what is cleared, and what an old command cannot do."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from hypnocast.core.types import PAGE_S, Mark
from hypnocast.core.wire.commands import StartSession
from hypnocast.ports.journal.reader import JournalReader
from hypnocast.ports.mqtt.link_states import Connected
from hypnocast.simulate import SimulatedSource
from support.brokers import Mosquitto, running_mosquitto
from support.mqtt_lab import Listener, kept_by_broker, listening
from support.packs import make_tiny_pack
from support.ward_lab import DEADLINE_S, Coming, HandDriven, Running, night, running_ward

BED = "bed-01"
TOPIC = f"hypnocast/lab/bed/{BED}"
CLOCK_0 = 1000.0


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_pack(tmp_path_factory.mktemp("pack") / "tiny")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with running_mosquitto(tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def coming() -> list[Coming]:
    return night(SimulatedSource([BED], seed=11, pages=8, skip_pages=60, truth=False))


@dataclass(frozen=True)
class LabRoom:
    """A ward with one bed, and somebody with plain paho beside it."""

    running: Running
    listener: Listener
    port: int

    async def ask(self, **found: object) -> Any:
        """Send a command and return the reply to it."""
        before = len(self.replies(str(found["request"])))
        self.listener.publish(f"{TOPIC}/command", found)
        request = str(found["request"])
        await self.running.until(lambda: len(self.replies(request)) > before, f"reply to {found}")
        return self.replies(request)[-1]

    def replies(self, request: str) -> list[Any]:
        """Return the replies to a request."""
        found = self.listener.json_of(f"{TOPIC}/reply")
        return [reply for reply in found if reply["request"] == request]

    async def kept(self, word: str) -> Any:
        """Return what is retained on one of the bed's topics, None where nothing is."""
        payload = (await asyncio.to_thread(kept_by_broker, self.port)).get(f"{TOPIC}/{word}")
        return None if payload is None else json.loads(payload)

    async def comes(self, word: str, **expected: object) -> None:
        """Wait until the bed's retained state shows it."""
        await self.running.until(
            lambda: (
                {**(self.listener.json_of(f"{TOPIC}/{word}") or [{}])[-1], **expected}
                == (self.listener.json_of(f"{TOPIC}/{word}") or [{}])[-1]
            ),
            f"{word} {expected}",
        )


@asynccontextmanager
async def room(folder: Path, pack: Path, port: int, coming: list[Coming]) -> AsyncIterator[LabRoom]:
    async with (
        listening(port) as listener,
        running_ward(folder, pack, HandDriven(coming), port) as running,
    ):
        yield LabRoom(running, listener, port)


async def test_the_next_start_ends_the_night_and_clears_what_was_retained(
    tmp_path: Path, pack: Path, broker: Mosquitto, coming: list[Coming]
) -> None:
    async with room(tmp_path, pack, broker.port, coming) as bed:
        first = (await bed.running.go_to(CLOCK_0 + 2 * PAGE_S + 10.0, BED, 2))[0].session
        await bed.comes("stage", epoch=1, session=first)
        reply = await bed.ask(command="start_session", request="next", subject="S-02")
        second = reply["session"]
        assert reply["ok"]
        assert second != first
        await bed.comes("status", session=second, subject="S-02", epoch=None)
        assert await bed.kept("stage") is None
        events = await bed.running.go_to(CLOCK_0 + 5 * PAGE_S, BED, 5)
        await bed.comes("night", session=second)
    assert [(e.session, e.epoch, e.reason) for e in events] == [
        (first, 0, None),
        (first, 1, None),
        (first, 2, "session_end"),
        (second, 0, None),
        (second, 1, None),
    ]
    assert [event.sequence for event in events] == [1, 2, 3, 4, 5]
    assert {event.subject for event in events[3:]} == {"S-02"}
    nights = bed.listener.json_of(f"{TOPIC}/night")
    assert [n["ended"] is not None for n in nights if n["session"] == first][-1]


async def test_an_old_end_does_not_end_the_next_persons_night(
    tmp_path: Path, pack: Path, broker: Mosquitto, coming: list[Coming]
) -> None:
    async with room(tmp_path, pack, broker.port, coming) as bed:
        first = (await bed.running.go_to(CLOCK_0 + PAGE_S + 10.0, BED, 1))[0].session
        end = {"command": "end_session", "request": "end-1", "session": first}
        assert (await bed.ask(**end))["ok"]
        await bed.comes("status", state="ended", session=first)
        second = (await bed.ask(command="start_session", request="next"))["session"]
        # The same request once more, and the same wish in a new request.
        assert (await bed.ask(**end))["ok"]
        assert (await bed.ask(**(end | {"request": "end-2"})))["ok"]
        events = await bed.running.go_to(CLOCK_0 + 3 * PAGE_S + 5.0, BED, 3)
        await bed.comes("status", session=second, state="live")
    assert [(e.session, e.reason) for e in events] == [
        (first, None), (first, "session_end"), (second, None),
    ]  # fmt: skip


async def test_a_repeated_request_is_answered_again_and_done_once(
    tmp_path: Path, pack: Path, broker: Mosquitto, coming: list[Coming]
) -> None:
    async with room(tmp_path, pack, broker.port, coming) as bed:
        await bed.running.go_to(CLOCK_0 + PAGE_S + 10.0, BED, 1)
        begin = {"command": "start_session", "request": "r", "subject": "S-03"}
        replies = [await bed.ask(**begin) for _ in range(3)]
        assert replies[0] == replies[1] == replies[2]
        session = replies[0]["session"]
        note = {"command": "note", "request": "n", "session": session, "text": "coughs"}
        values = [await bed.ask(**note) for _ in range(2)]
        assert values[0] == values[1]
        await bed.running.until(
            lambda: bed.listener.json_of(f"{TOPIC}/night")[-1]["marks"], "the note in the night"
        )
        # The daemon comes back; a client that missed the answer asks again.
        sessions = {event.session for event in bed.running.events}
    again = [one for one in coming if one[0] < CLOCK_0 + 1.0]
    async with room(tmp_path, pack, broker.port, again) as bed:
        bed.running.source.go_to(CLOCK_0 + PAGE_S + 12.0)
        link = bed.running.ward.link
        await bed.running.until(lambda: isinstance(link.state, Connected), "a connection")
        assert await bed.ask(**begin) == replies[0]
        night_message = await bed.kept("night")
    assert len(sessions | {session}) == 2
    assert [mark["text"] for mark in night_message["marks"] if mark["kind"] == "note"] == ["coughs"]


async def test_a_command_for_a_night_that_does_not_run_is_refused_with_a_reason(
    tmp_path: Path, pack: Path, broker: Mosquitto, coming: list[Coming]
) -> None:
    async with room(tmp_path, pack, broker.port, coming) as bed:
        session = (await bed.running.go_to(CLOCK_0 + PAGE_S + 10.0, BED, 1))[0].session
        note = {"command": "note", "session": session, "text": "?"}
        for number, found in enumerate(
            (
                {"command": "note", "session": "yesterday", "text": "?"},
                {"command": "lights_off", "session": "yesterday"},
                {"command": "lights_off", "session": session, "at": "2126-01-01T00:00:00.000Z"},
                {"command": "lights_off", "session": session, "at": "2026-02-30T23:00:00.000Z"},
                {"command": "lights_off", "session": session, "at": "0026-11-18T23:00:00.000Z"},
                {**note, "at": "0026-11-18T23:00:00.000Z"},
                {**note, "at": "2126-01-01T00:00:00.000Z"},
                {"command": "lights_off", "session": session, "at": "23:05"},
                {"command": "lights_off", "session": session, "at": "2026-11-18T23:00:00"},
                {"command": "end_session", "session": "never-was"},
                {"command": "dance"},
                {"command": "start_session", "subject": "Jane Doe"},
            )
        ):
            reply = await bed.ask(request=f"bad-{number}", **found)
            assert reply["ok"] is False
            assert reply["error"]
            assert "internal" not in reply["error"]
        await bed.comes("status", session=session, state="live")
        # What is once recorded stays in the night for good: nothing of this may.
        assert bed.listener.json_of(f"{TOPIC}/night")[-1]["marks"] == []


async def test_lights_are_marked_back_dated_and_move_no_page(
    tmp_path: Path, pack: Path, broker: Mosquitto, coming: list[Coming]
) -> None:
    async with room(tmp_path, pack, broker.port, coming) as bed:
        (first,) = await bed.running.go_to(CLOCK_0 + PAGE_S + 10.0, BED, 1)
        off = {"command": "lights_off", "session": first.session, "at": first.start}
        assert (await bed.ask(request="off", **off))["ok"]
        await bed.comes("status", lights="off")
        # Lights on, marked now; then an earlier lights off that somebody had forgotten to mark.
        on = {"command": "lights_on", "session": first.session}
        assert (await bed.ask(request="on", **on))["ok"]
        forgotten = {**off, "at": first.end}
        assert (await bed.ask(request="forgotten", **forgotten))["ok"]
        await bed.comes("status", lights="on")
        # People and programs write times as they are used to.
        local = datetime.fromisoformat(first.end).astimezone(timezone(timedelta(hours=1)))
        for number, at in enumerate((local.isoformat(), local.strftime("%Y%m%dT%H%M%S%z"))):
            fields = {"command": "note", "session": first.session, "text": f"n{number}", "at": at}
            assert (await bed.ask(request=f"iso-{number}", **fields))["ok"], at
        events = await bed.running.go_to(CLOCK_0 + 3 * PAGE_S + 5.0, BED, 3)
    assert [event.epoch for event in events] == [0, 1, 2]
    assert [event.lights for event in events[1:]] == ["off", "on"]
    marks = bed.listener.json_of(f"{TOPIC}/night")[-1]["marks"]
    assert [mark["at"] for mark in marks if mark["kind"] == "lights_off"] == [
        first.start,
        first.end,
    ]
    assert len([mark for mark in marks if mark["kind"] == "lights_on"]) == 1


async def test_a_clock_that_is_set_moves_no_note_of_the_night_and_holds_for_the_next(
    tmp_path: Path, pack: Path, broker: Mosquitto, coming: list[Coming]
) -> None:
    async with room(tmp_path, pack, broker.port, coming) as bed:
        (first,) = await bed.running.go_to(CLOCK_0 + PAGE_S + 10.0, BED, 1)
        bed.running.source.set_clock(3600.0)
        note = {"command": "note", "session": first.session, "text": "to the bathroom"}
        assert (await bed.ask(request="note", **note))["ok"]
        assert (await bed.ask(command="start_session", request="next"))["ok"]
        events = await bed.running.go_to(CLOCK_0 + 3 * PAGE_S, BED, 3)
    with closing(JournalReader(tmp_path / "journal.sqlite")) as reader:
        (noted,) = reader.marks(first.session)
    assert first.end < noted.at < events[1].end
    apart = datetime.fromisoformat(events[2].start) - datetime.fromisoformat(first.start)
    assert apart.total_seconds() == pytest.approx(3600.0 + PAGE_S + 10.0, abs=1.0)


async def test_a_command_is_answered_once_what_it_did_is_durable(
    tmp_path: Path, pack: Path, broker: Mosquitto, coming: list[Coming]
) -> None:
    async with running_ward(tmp_path, pack, HandDriven(coming), broker.port) as running:
        await running.go_to(CLOCK_0 + PAGE_S + 10.0, BED, 1)
        disk, writing = threading.Event(), threading.Event()

        def hold(_: object) -> int:
            writing.set()
            return int(disk.wait(DEADLINE_S))

        busy = running.journal._writer.chore(hold)
        assert await asyncio.to_thread(writing.wait, DEADLINE_S)  # what comes now is behind it
        orders, signal_thread = running.ward.command_handler, running.ward.signal_thread
        reply = asyncio.ensure_future(orders.obey(BED, StartSession(request="next")))
        old = running.terminal(BED)[0].session
        session = old
        while session == old:
            session = await asyncio.wrap_future(
                signal_thread.post(
                    BED,
                    lambda pipeline, _: (
                        pipeline.sessions.running.id if pipeline.sessions.running else ""
                    ),
                )
            )
        # The next night runs, and its command must not be answered yet.
        await asyncio.wrap_future(signal_thread.post(BED, lambda *_: None))
        assert not reply.done()
        disk.set()
        assert (await reply).session == session
        with closing(JournalReader(running.journal.path)) as reader:
            assert [record.id for record in reader.open_sessions()] == [session]
        assert await asyncio.wrap_future(busy)


async def test_a_command_given_up_before_its_turn_is_not_obeyed_and_ends_nothing(
    tmp_path: Path, pack: Path, broker: Mosquitto, coming: list[Coming]
) -> None:
    async with running_ward(tmp_path, pack, HandDriven(coming), broker.port) as running:
        (first,) = await running.go_to(CLOCK_0 + PAGE_S + 10.0, BED, 1)
        signal_thread, busy = running.ward.signal_thread, threading.Event()
        held = signal_thread.post(BED, lambda *_: busy.wait(DEADLINE_S))
        given_up = signal_thread.post(
            BED, lambda pipeline, now: pipeline.sessions.end(first.session, now)
        )
        assert given_up.cancel()
        busy.set()
        assert await asyncio.wrap_future(held)
        events = await running.go_to(CLOCK_0 + 3 * PAGE_S + 5.0, BED, 3)
    assert {event.session for event in events} == {first.session}


async def test_a_marker_from_the_future_begins_the_night_when_it_came(
    tmp_path: Path, pack: Path, broker: Mosquitto, coming: list[Coming]
) -> None:
    # Of a machine that was switched on a quarter of an hour before, its clock not measured yet.
    came = CLOCK_0 + PAGE_S
    mark = Mark("marks", stamp=came + 900.0, text="start session", arrived=came)
    found = sorted([*coming, (came, BED, mark)], key=lambda each: each[0])
    async with running_ward(tmp_path, pack, HandDriven(found), broker.port) as running:
        events = await running.go_to(came + 2 * PAGE_S + 5.0, BED, 3)
    assert [event.epoch for event in events] == [0, 0, 1]
    assert events[1].start == events[0].end
