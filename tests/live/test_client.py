"""The client: every event in order, whatever was dropped on the way; states; commands."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from hypnocast.client import HypnocastClient
from hypnocast.core.wire.commands import Command, Reply
from hypnocast.core.wire.payloads import StageEvent
from hypnocast.dashboard.ward import Incoming
from hypnocast.errors import CommandError
from hypnocast.ports.journal.journal import Journal
from hypnocast.ports.mqtt.settings import BrokerSettings
from support.brokers import Mosquitto
from support.mqtt_lab import linked, until
from support.nights import a_batch, a_session, an_event

EVENTS = 1000


class Forgetful(HypnocastClient):
    """A consumer that loses one message in twenty."""

    lost = 0
    _chance = random.Random(5)

    def _receive(self, message: Incoming) -> None:
        if message.topic.endswith("/events") and self._chance.random() < 0.05:
            self.lost += 1
            return
        super()._receive(message)


async def _follow(client: HypnocastClient, count: int) -> list[StageEvent]:
    found: list[StageEvent] = []
    async for event in client.events():
        found.append(event)
        if len(found) == count:
            break
    return found


async def test_no_event_is_missed_though_messages_are_lost(
    tmp_path: Path, broker: Mosquitto
) -> None:
    async with Journal.open(tmp_path / "journal.sqlite") as journal:
        await journal.commit(a_batch(session=a_session()))
        client = Forgetful("127.0.0.1", broker.port, since={"bed1": 0})
        async with client, linked(BrokerSettings(port=broker.port), journal):
            await until(lambda: client.link.connected, "the client is connected")
            following = asyncio.create_task(_follow(client, EVENTS))
            for first in range(0, EVENTS, 50):
                await journal.commit(a_batch(*map(an_event, range(first, first + 50))))
            found = await asyncio.wait_for(following, 120.0)
    assert client.lost > 20
    assert [event.sequence for event in found] == list(range(1, EVENTS + 1))
    assert client.unreadable == 0


async def test_a_refused_command_is_an_error_in_words(tmp_path: Path, broker: Mosquitto) -> None:
    async with Journal.open(tmp_path / "journal.sqlite") as journal:
        await journal.commit(a_batch(session=a_session()))

        async def refuse(bed: str, command: Command) -> Reply:
            raise CommandError(f"no session runs for {command.request}", where=f"bed {bed}")

        client = HypnocastClient("127.0.0.1", broker.port)
        async with client, linked(BrokerSettings(port=broker.port), journal, refuse):
            await until(lambda: client.link.connected, "the client is connected")
            with pytest.raises(CommandError, match="no session runs"):
                await client.note("bed1", "night", "x")
