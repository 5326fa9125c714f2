"""Commands over a real broker: strictly read, bounded, obeyed once however often they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from hypnocast.core.wire import commands, schema
from hypnocast.core.wire.commands import Command, Reply
from hypnocast.errors import CommandError
from hypnocast.ports.journal.journal import Journal
from hypnocast.ports.mqtt.settings import BrokerSettings
from support.brokers import Mosquitto, running_mosquitto
from support.mqtt_lab import TOPICS, Listener, linked, listening, nobody, until
from support.nights import a_batch, a_session, an_event

COMMAND, REPLY = TOPICS.command("bed1"), TOPICS.reply("bed1")
NOTE = {"command": "note", "request": "n1", "session": "bed1-night", "text": "snores"}


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with running_mosquitto(tmp_path) as mosquitto:
        yield mosquitto


@pytest.fixture
async def listener(broker: Mosquitto) -> AsyncIterator[Listener]:
    async with listening(broker.port) as listening_one:
        yield listening_one


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    async with Journal.open(tmp_path / "state" / "journal.sqlite") as opened:
        await opened.commit(a_batch(session=a_session()))
        yield opened


class CommandedBed:
    """Obeys, and remembers its commands."""

    def __init__(self) -> None:
        self.obeyed: list[Command] = []

    async def __call__(self, bed: str, command: Command) -> Reply:
        self.obeyed.append(command)
        if isinstance(command, commands.EndSession):
            raise CommandError(f"session {command.session} does not run")
        if isinstance(command, commands.LightsOn):
            raise ZeroDivisionError
        return await nobody(bed, command)


async def _replies(listener: Listener, count: int) -> list[Any]:
    await until(lambda: len(listener.of(REPLY)) >= count, f"{count} replies")
    replies = listener.json_of(REPLY)
    validator = Draft202012Validator(schema.json_schemas()["reply"])
    for reply in replies:
        validator.validate(reply)
    return replies


async def test_a_repeated_command_is_obeyed_once_and_answered_each_time(
    broker: Mosquitto, journal: Journal, listener: Listener
) -> None:
    pipeline = CommandedBed()
    async with linked(BrokerSettings(port=broker.port), journal, pipeline):
        for _ in range(3):
            listener.publish(COMMAND, NOTE)
        assert len(await _replies(listener, 3)) == 3
    async with linked(BrokerSettings(port=broker.port), journal, pipeline):  # after a restart
        listener.publish(COMMAND, NOTE)
        replies = await _replies(listener, 4)
        assert all(reply == replies[0] for reply in replies)
        assert len(pipeline.obeyed) == 1
        listener.publish(COMMAND, {**NOTE, "text": "something else"})
        assert "another command" in (await _replies(listener, 5))[4]["error"]
        assert len(pipeline.obeyed) == 1


async def test_what_cannot_be_obeyed_is_answered_and_may_be_tried_again(
    broker: Mosquitto, journal: Journal, listener: Listener
) -> None:
    pipeline = CommandedBed()
    async with linked(BrokerSettings(port=broker.port), journal, pipeline):
        end = {"command": "end_session", "request": "e1", "session": "old"}
        listener.publish(COMMAND, end)
        listener.publish(COMMAND, end)
        first, second = await _replies(listener, 2)
        assert first == second
        assert first["error"] == "session old does not run"
        listener.publish(
            COMMAND, {"command": "lights_on", "request": "l1", "session": "bed1-night"}
        )
        listener.publish(COMMAND, NOTE)
        _, _, defect, after = await _replies(listener, 4)
        assert defect["error"] == "internal fault: ZeroDivisionError"
        assert after["ok"]


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"\xff\xfe{", "no command"),
        (b"[" * 5000, "no command"),
        (b'{"command":"reboot","request":"r7"}', "Invalid value 'reboot'"),
        (b'{"command":"note","request":"r7","session":"s","text":"x","more":1}', "unknown field"),
        (b'{"command":"note","request":"r7","session":"s","text":7}', "$.text"),
        (b" " * 9000, "at most 8192 bytes"),
        (b"", "no command"),
    ],
)
async def test_what_is_no_command_is_refused_in_words(
    broker: Mosquitto, journal: Journal, listener: Listener, payload: bytes, words: str
) -> None:
    pipeline = CommandedBed()
    async with linked(BrokerSettings(port=broker.port), journal, pipeline):
        listener.publish(COMMAND, payload)
        (reply,) = await _replies(listener, 1)
        assert words in reply["error"]
        assert reply["request"] == ("r7" if b"r7" in payload else "")
        named = next((name for name in ("note", "reboot") if name.encode() in payload), "")
        assert reply["command"] == named
        assert pipeline.obeyed == []


async def test_a_retained_command_is_ignored(
    broker: Mosquitto, journal: Journal, listener: Listener
) -> None:
    listener.publish(COMMAND, NOTE, retain=True)
    await until(lambda: listener.of(COMMAND))
    pipeline = CommandedBed()
    async with linked(BrokerSettings(port=broker.port), journal, pipeline) as link:
        await until(lambda: link._inbox.ignored)
        listener.publish(COMMAND, {**NOTE, "request": "n2"})
        await _replies(listener, 1)
        assert [command.request for command in pipeline.obeyed] == ["n2"]
        assert link._inbox.ignored == {"retained": 1}


async def test_a_flood_of_commands_is_cut_off_and_states_still_go_out(
    broker: Mosquitto, journal: Journal, listener: Listener
) -> None:
    async with linked(BrokerSettings(port=broker.port), journal) as link:
        for k in range(300):
            listener.publish(COMMAND, {**NOTE, "request": f"r{k}"})
        # What comes faster than it can be looked at is not even counted.
        await until(lambda: link._inbox.ignored.get("too_many", 0) > 20)
        assert len(listener.of(REPLY)) <= 40
        done = await journal.commit(a_batch(an_event(0)))
        link.stage(done.stored[0])
        await until(lambda: listener.of(TOPICS.stage("bed1")))


async def test_catch_up_closes_a_gap_in_pieces(
    broker: Mosquitto, journal: Journal, listener: Listener
) -> None:
    await journal.commit(a_batch(*(an_event(k) for k in range(30))))
    async with linked(BrokerSettings(port=broker.port), journal):
        have: list[int] = []
        more = True
        while more:
            since = have[-1] if have else 5
            asked = {"command": "catch_up", "request": f"c{since}", "since": since, "limit": 10}
            listener.publish(COMMAND, asked)
            reply = (await _replies(listener, len(have) // 10 + 1))[-1]
            have += [event["sequence"] for event in reply["events"]]
            more = reply["more"]
        assert have == list(range(6, 31))
        beyond = {"command": "catch_up", "request": "beyond", "since": 10**30}
        listener.publish(COMMAND, beyond)
        reply = next(
            one
            for one in await _replies(listener, len(have) // 10 + 2)
            if one["request"] == "beyond"
        )
        assert (reply["ok"], reply["events"], reply["more"]) == (True, [], False)


async def test_a_slow_question_does_not_hold_up_lights_off(
    broker: Mosquitto, journal: Journal, listener: Listener
) -> None:
    answer = asyncio.Event()

    async def slow(bed: str, command: Command) -> Reply:
        if isinstance(command, commands.Explain):
            await answer.wait()
        return await nobody(bed, command)

    async with linked(BrokerSettings(port=broker.port), journal, slow):
        listener.publish(
            COMMAND, {"command": "explain", "request": "x", "session": "bed1-night", "epoch": 0}
        )
        listener.publish(
            COMMAND, {"command": "lights_off", "request": "l", "session": "bed1-night"}
        )
        (first,) = await _replies(listener, 1)
        assert first["request"] == "l"
        answer.set()
        assert (await _replies(listener, 2))[1]["request"] == "x"
