"""The embedded broker: retained, last will and QoS 1 as plain paho sees them; 3.1.1 only."""

from __future__ import annotations

import asyncio
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from hypnocast.errors import BrokerError
from hypnocast.ports.journal.journal import Journal
from hypnocast.ports.mqtt.embedded_broker import embedded_broker
from hypnocast.ports.mqtt.link_states import Connected
from hypnocast.ports.mqtt.settings import BrokerSettings
from support.mqtt_lab import TOPICS, kept_by_broker, linked, listening, until
from support.nights import a_batch, a_session, an_event


async def test_it_retains_and_says_the_last_will(caplog: pytest.LogCaptureFixture) -> None:
    async with embedded_broker() as settings:
        port = settings.port
        client = paho.Client(CallbackAPIVersion.VERSION2)
        client.will_set("will", b"gone", qos=1, retain=True)

        def publish() -> None:
            client.connect("127.0.0.1", port)
            client.loop_start()
            client.publish("kept", b"one", qos=1, retain=True).wait_for_publish(10)
            client.publish("kept", b"two", qos=1, retain=True).wait_for_publish(10)
            client.publish("passing", b"three", qos=1).wait_for_publish(10)

        def vanish() -> None:
            client.loop_stop()
            sock = client.socket()
            assert sock is not None
            sock.close()

        await asyncio.to_thread(publish)
        kept = await asyncio.to_thread(kept_by_broker, port, v5=False)
        assert kept == {"kept": b"two"}
        async with listening(port, v5=False) as listener:
            await asyncio.to_thread(vanish)
            await until(lambda: listener.of("will") == [b"gone"])
        assert (await asyncio.to_thread(kept_by_broker, port, v5=False))["will"] == b"gone"
    assert caplog.records == []


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "found out"])
async def test_the_link_falls_back_to_3_1_1(tmp_path: Path, announced: bool) -> None:
    async with embedded_broker() as offered:
        settings = offered if announced else BrokerSettings(port=offered.port, login_s=1.0)
        async with (
            Journal.open(tmp_path / "state" / "journal.sqlite") as journal,
            listening(settings.port, v5=False) as listener,
        ):
            await journal.commit(a_batch(an_event(0), session=a_session()))
            async with linked(settings, journal) as link:
                assert link.state == Connected("3.1.1")
                await until(lambda: listener.sequences() == [1])
                await until(lambda: listener.of(TOPICS.available("node1")) == [b"online"])
            await until(lambda: listener.of(TOPICS.available("node1"))[-1] == b"offline")


@pytest.mark.parametrize("turns", range(8))
async def test_it_ends_though_a_client_sends_at_that_very_moment(turns: int) -> None:
    """The demo stood still at its end where somebody who looked on acknowledged its last words."""
    async with asyncio.timeout(30.0):
        async with embedded_broker() as settings:
            reader, writer = await asyncio.open_connection(settings.host, settings.port)
            writer.write(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a")  # CONNECT, 60 s
            assert await reader.readexactly(4) == b"\x20\x02\x00\x00"
            writer.write(b"\xc0\x00")  # PINGREQ
            assert await reader.readexactly(2) == b"\xd0\x00"  # its reader waits for what comes
            writer.write(b"\xc0\x00")
            for _ in range(turns):
                await asyncio.sleep(0)
        writer.close()


async def test_a_port_in_use_is_one_clear_line() -> None:
    async with embedded_broker() as first:
        with pytest.raises(BrokerError, match=f"127.0.0.1:{first.port}.*choose another --port"):
            async with embedded_broker(first.port):
                pass
    async with embedded_broker(first.port) as again:
        assert again.port == first.port
