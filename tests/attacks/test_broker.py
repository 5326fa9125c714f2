"""Whoever has a login at the broker may not switch the daemon off, by its id or by its size.

In the long form the broker that is attacked is that of a whole daemon.
"""

from __future__ import annotations

import asyncio
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import aiomqtt
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from attacks.calm_bed import CALM, NODE, AttackedDaemon
from hypnocast.core.wire.topics import Topics
from hypnocast.ports.journal.journal import Journal
from hypnocast.ports.kept_word import MQTT_CLIENT, kept_word
from hypnocast.ports.mqtt import retained
from hypnocast.ports.mqtt.client import Client
from hypnocast.ports.mqtt.command_inbox import CommandInbox
from hypnocast.ports.mqtt.link import MqttLink
from hypnocast.ports.mqtt.link_states import Connected
from hypnocast.ports.mqtt.settings import BrokerSettings
from support.brokers import Mosquitto, running_mosquitto
from support.mqtt_lab import TOPICS
from support.paho_clients import end_client

pytestmark = pytest.mark.usefixtures("calm_bed")

SENSELESS = (b"{", b"[" * 8000, b"x" * 9000, b'{"command":"end_session"}', b"\x00" * 100,
             b'{"command":"page","request":"r","session":"s","epoch":1000000000000}')  # fmt: skip
"""Commands that break the contract of commands."""


async def until(true: Callable[[], object], what: str, deadline_s: float = 40.0) -> None:
    deadline = time.monotonic() + deadline_s
    while not true():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.02)


async def _nobody(bed: str, command: object) -> object:
    raise AssertionError((bed, command))


def a_link(port: int, journal: Journal, word: str = "") -> MqttLink:
    settings = BrokerSettings(port=port, client_word=word)
    return MqttLink(settings, TOPICS, "node1", journal, _nobody)  # type: ignore[arg-type] # is not called


@contextmanager
def connected(broker: Mosquitto, name: str) -> Iterator[paho.Client]:
    """Connect somebody under a client id."""
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=paho.MQTTv5)
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    try:
        yield client
    finally:
        end_client(client)


@pytest.mark.attack("broker: client id")
async def test_who_knows_site_and_node_does_not_know_the_client_id(
    tmp_path: Path, broker: Mosquitto
) -> None:
    async with Journal.open(tmp_path / "j.sqlite") as journal:
        link = a_link(broker.port, journal)
        task = link.start()
        await until(lambda: isinstance(link.state, Connected), "connected")
        for node in ("node1", NODE):
            for name in (f"hypnocast-lab-{node}", f"hypnocast-lab-{node}-", node, "hypnocast"):
                async with aiomqtt.Client("127.0.0.1", broker.port, identifier=name):
                    await asyncio.sleep(0.2)
        assert link.connections == 1
        link.stop()
        await task


@pytest.mark.attack("broker: client id")
async def test_a_client_that_takes_the_id_over_is_named_and_gets_it_once(
    tmp_path: Path, broker: Mosquitto
) -> None:
    async with Journal.open(tmp_path / "j.sqlite") as journal:
        link = a_link(broker.port, journal, "secret")
        task = link.start()
        await until(lambda: isinstance(link.state, Connected), "connected")
        with connected(broker, f"hypnocast-{TOPICS.site}-node1-secret"):
            await until(
                lambda: any("another client" in line for line in link.problems),
                "it is a problem",
            )
            await until(lambda: isinstance(link.state, Connected), "connected again")
            made = link.connections
            await asyncio.sleep(3.0)
            assert link.connections == made, "they take the id from each other"
        link.stop()
        await task


@pytest.mark.attack("broker: client id")
def test_the_word_outlives_a_restart_and_is_for_the_daemon_alone(tmp_path: Path) -> None:
    word = kept_word(tmp_path, MQTT_CLIENT, 6)
    assert kept_word(tmp_path, MQTT_CLIENT, 6) == word
    assert stat.S_IMODE((tmp_path / MQTT_CLIENT).stat().st_mode) == 0o600
    (tmp_path / MQTT_CLIENT).write_text("known")
    assert kept_word(tmp_path, MQTT_CLIENT, 6) not in ("known", word)


@pytest.mark.attack("broker: client id")
def test_a_planted_link_is_neither_read_nor_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("0123456789ab")
    state = tmp_path / "state"
    state.mkdir()
    (state / MQTT_CLIENT).symlink_to(elsewhere)
    assert kept_word(state, MQTT_CLIENT, 6) != "0123456789ab"
    assert elsewhere.read_text() == "0123456789ab"


@pytest.mark.attack("broker: sizes")
@pytest.mark.parametrize("limit", ["", "max_packet_size 100000"])
async def test_a_state_that_is_too_long_is_reported_and_cuts_no_connection(
    tmp_path: Path, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retained, "MAX_STATE_BYTES", 200_000)
    with running_mosquitto(tmp_path, limit) as broker:
        async with Journal.open(tmp_path / "j.sqlite") as journal:
            link = a_link(broker.port, journal)
            link.retain_bytes(Topics("lab").page("bed1"), b"x" * 300_000, content_type="image/png")
            link.retain_bytes(Topics("lab").page("bed2"), b"x" * 1000, content_type="image/png")
            task = link.start()
            async with aiomqtt.Client("127.0.0.1", broker.port) as viewer:
                await viewer.subscribe("hypnocast/lab/bed/+/page")
                async with asyncio.timeout(40):
                    message = await anext(viewer.messages)
            assert message.topic.value.endswith("bed2/page")
            assert link.connections == 1
            assert any("bed1/page" in line and "too long" in line for line in link.problems)
            link.stop()
            await task


@pytest.mark.attack("commands")
async def test_leafing_through_pages_spends_nothing_of_what_commands_may() -> None:
    inbox = CommandInbox(None, None, lambda *_: None)  # type: ignore[arg-type] # nothing is obeyed
    for number in range(60):
        words = b'{"command":"page","request":"r%d","session":"s","epoch":1}' % number
        inbox.receive("bed1", words, retained=False)
    assert inbox.ignored["too_many"] == 40
    inbox.receive("bed1", b'{"command":"lights_off","request":"l","session":"s"}', retained=False)
    assert inbox.ignored["too_many"] == 40


@pytest.mark.attack("commands")
async def test_a_flood_at_one_bed_pushes_no_other_beds_command_out(broker: Mosquitto) -> None:
    """While nobody reads, for a moment, what comes from a real broker."""
    client = Client(BrokerSettings(port=broker.port), "5", identifier="daemon")
    await client.join()
    await client.listen("hypnocast/lab/bed/+/command")
    with connected(broker, "rude") as rude:
        for number in range(3000):
            rude.publish("hypnocast/lab/bed/bed/command", f"{number}", qos=0)
            if number == 2000:
                rude.publish("hypnocast/lab/bed/other/command", "lights", qos=1)
        await until(lambda: client.dropped >= 3001 - 64, "all but what there is room for")
        kept = [await anext(client.messages) for _ in range(64)]
    await client.leave()
    beds = [message.topic.value.split("/")[3] for message in kept]
    assert beds.count("other") == 1
    numbers = [int(bytes(m.payload)) for m in kept if "/bed/bed/" in m.topic.value]
    assert numbers == sorted(numbers), "in the order in which they came"


@pytest.mark.attack("commands")
async def test_garbage_without_end_is_left_unread() -> None:
    replies: list[bytes] = []
    inbox = CommandInbox(None, None, lambda _, reply: replies.append(reply))  # type: ignore[arg-type] # as above
    began = time.monotonic()
    for _ in range(5000):
        inbox.receive("bed1", b"[" * 8000, retained=False)
    allowed = 101 + 10 * (time.monotonic() - began)
    assert len(replies) <= allowed
    assert inbox.ignored["too_many"] >= 5000 - allowed


@pytest.mark.long
@pytest.mark.attack("commands")
@pytest.mark.parametrize("bed", ["bed", CALM])
def test_commands_without_sense_and_end_are_answered_and_end_no_night(
    attacked: AttackedDaemon, bed: str
) -> None:
    """A whole daemon: ten seconds of a thousand commands a second, and half of them retained."""
    with connected(attacked.broker, "rude") as rude:
        until_s = time.monotonic() + 10.0
        sent = 0
        while time.monotonic() < until_s:
            command = SENSELESS[sent % len(SENSELESS)]
            topic = f"hypnocast/lab/bed/{bed}/command"
            rude.publish(topic, command, qos=0, retain=sent % 2 == 0)
            sent += 1
            time.sleep(0.001)
        rude.publish(f"hypnocast/lab/bed/{bed}/command", b"", qos=1, retain=True)
        attacked.daemon.wait_for(
            lambda: attacked.listener.of(f"/bed/{bed}/reply"), "some of it is answered"
        )
    assert len(attacked.listener.of(f"/bed/{bed}/reply")) < sent / 2
