"""A broker that dies in mid-traffic: the link reports it itself, and asyncio has nothing to add."""

from __future__ import annotations

import asyncio
import gc
import random
import select
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from structlog.testing import capture_logs

from hypnocast.ports.journal.journal import Journal
from hypnocast.ports.mqtt.client import IN_FLIGHT, Client
from hypnocast.ports.mqtt.link import MqttLink
from hypnocast.ports.mqtt.link_states import Connected, Waiting
from hypnocast.ports.mqtt.settings import BrokerSettings
from support.brokers import DEADLINE_S, Mosquitto, running_mosquitto
from support.mqtt_lab import TOPICS, linked, until
from support.nights import a_batch, a_session, an_event

CUTS = 6


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with running_mosquitto(tmp_path) as mosquitto:
        yield mosquitto


@pytest.fixture
async def complaints() -> list[dict[str, Any]]:
    """What reached the loop's last resort, which prints it."""
    found: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: found.append(context))
    return found


async def test_a_broker_killed_in_mid_traffic_leaves_nothing_for_asyncio_to_print(
    tmp_path: Path,
    broker: Mosquitto,
    complaints: list[dict[str, Any]],
    capfd: pytest.CaptureFixture[str],
) -> None:
    chance = random.Random(20261121)
    with capture_logs():  # what the link itself logs is not looked for
        async with Journal.open(tmp_path / "state" / "journal.sqlite") as journal:
            await journal.commit(a_batch(session=a_session()))
            async with linked(BrokerSettings(port=broker.port), journal) as link:
                await _killed_in_mid_traffic(broker, journal, link, chance)
    assert complaints == []
    assert capfd.readouterr().err == ""


async def _killed_in_mid_traffic(
    broker: Mosquitto, journal: Journal, link: MqttLink, chance: random.Random
) -> None:
    epoch = 0
    for _ in range(CUTS):
        for _ in range(chance.randrange(20, 80)):
            await journal.commit(a_batch(an_event(epoch)))
            epoch += 1
        broker.restart()
        await until(lambda: isinstance(link.state, Waiting))
        link.reconnect()
        await until(lambda: isinstance(link.state, Connected))


async def test_what_a_dying_broker_acknowledged_sends_nothing_into_a_closed_socket(
    broker: Mosquitto, complaints: list[dict[str, Any]]
) -> None:
    """Each acknowledgement lets a next message go, and behind the last one lies the end."""
    for _ in range(CUTS):
        client = Client(BrokerSettings(port=broker.port), "5", identifier="cut-off")
        await client.join()
        for _ in range(2 * IN_FLIGHT):
            client.send(TOPICS.stage("bed1"), b"page")
        for _ in range(3):
            await asyncio.sleep(0)  # what may be in flight is handed to the system
        # While nothing is read: acknowledgements come, and then the end.
        connection = client._client.socket()
        assert connection is not None
        assert select.select([connection.fileno()], [], [], DEADLINE_S)[0]
        broker.kill()
        async with asyncio.timeout(DEADLINE_S):
            with pytest.raises(aiomqtt.MqttError):
                await client._disconnected
        await client.leave()
        broker.start()
    assert complaints == []


async def test_a_connection_cut_while_nobody_listens_leaves_nothing_for_asyncio_to_print(
    broker: Mosquitto, complaints: list[dict[str, Any]]
) -> None:
    client = Client(BrokerSettings(port=broker.port), "5", identifier="cut-off")
    await client.join()
    broker.kill()
    await until(client._disconnected.done, "the cut is noticed")
    await client.leave()
    del client
    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []
