"""A bed that nobody serves any more leaves every screen; one that is served stays."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from hypnocast.core.wire import payloads
from hypnocast.core.wire.topics import Topics
from hypnocast.errors import BrokerError, CommandError
from hypnocast.ports.mqtt.retire import retire
from hypnocast.ports.mqtt.settings import BrokerSettings
from support.brokers import Mosquitto, running_mosquitto
from support.mqtt_lab import kept_by_broker, listening, until

TOPICS = Topics("lab")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with running_mosquitto(tmp_path) as mosquitto:
        yield mosquitto


SERVING = payloads.DaemonState(
    at="2026-11-18T23:00:00.000Z", site="lab", node="pc1", version="1", pack="p",
    pack_version="1.0.0", pack_digest="sha256:" + "1" * 64, recipe="r", provider="cpu",
    degraded=(), uptime_s=1.0, beds=("busy",), counters={},
    outbox=payloads.OutboxCounters(waiting=0, oldest_s=None, sent=0),
)  # fmt: skip


def _status(bed: str, state: payloads.BedState) -> bytes:
    return payloads.encode(
        payloads.BedStatus(
            at="2026-11-18T23:00:00.000Z", site="lab", bed=bed, node="pc1", state=state,
            phase=None, session=None, subject=None, source="live", since=None, epoch=None,
            lights="unknown", streams=(), channels={}, problems=(), latency_ms=None,
            provider=None, pack=None,
        )
    )  # fmt: skip


async def test_a_bed_that_nobody_serves_is_cleared_and_no_other(broker: Mosquitto) -> None:
    settings = BrokerSettings(port=broker.port)
    async with listening(broker.port) as everyone:
        for bed in ("old", "new"):
            everyone.publish(TOPICS.status(bed), _status(bed, "ended"), retain=True)
            everyone.publish(TOPICS.stage(bed), b"{}", retain=True)
        everyone.publish(TOPICS.available("pc1"), b"online", retain=True)
        await until(lambda: len(everyone.messages) >= 5, "what was published")
        cleared = await retire(settings, TOPICS, "old")
        assert set(cleared) == {TOPICS.status("old"), TOPICS.stage("old")}
        kept = set(await asyncio.to_thread(kept_by_broker, broker.port))
        assert not any("/bed/old/" in topic for topic in kept)
        assert {TOPICS.status("new"), TOPICS.stage("new"), TOPICS.available("pc1")} <= kept
        with pytest.raises(BrokerError, match="nothing is retained of a bed old"):
            await retire(settings, TOPICS, "old")


async def test_a_bed_that_a_running_daemon_serves_is_not_cleared(broker: Mosquitto) -> None:
    settings = BrokerSettings(port=broker.port)
    async with listening(broker.port) as everyone:
        everyone.publish(TOPICS.status("busy"), _status("busy", "live"), retain=True)
        everyone.publish(TOPICS.available("pc1"), b"online", retain=True)
        await until(lambda: everyone.of(TOPICS.available("pc1")), "what was published")
        with pytest.raises(BrokerError, match="served by the daemon pc1"):
            await retire(settings, TOPICS, "busy")
        assert TOPICS.status("busy") in await asyncio.to_thread(kept_by_broker, broker.port)
        everyone.publish(TOPICS.available("pc1"), b"offline", retain=True)
        await until(lambda: everyone.of(TOPICS.available("pc1"))[-1] == b"offline", "offline")
        assert await retire(settings, TOPICS, "busy")


async def test_a_bed_that_a_running_daemon_serves_no_more_is_cleared(broker: Mosquitto) -> None:
    settings = BrokerSettings(port=broker.port)
    async with listening(broker.port) as everyone:
        everyone.publish(TOPICS.status("renamed"), _status("renamed", "live"), retain=True)
        everyone.publish(TOPICS.status("busy"), _status("busy", "live"), retain=True)
        everyone.publish(TOPICS.available("pc1"), b"online", retain=True)
        everyone.publish(TOPICS.daemon("pc1"), payloads.encode(SERVING), retain=True)
        await until(lambda: len(everyone.messages) >= 4, "what was published")
        assert await retire(settings, TOPICS, "renamed") == (TOPICS.status("renamed"),)
        with pytest.raises(BrokerError, match="served by the daemon pc1"):
            await retire(settings, TOPICS, "busy")


async def test_a_picture_and_a_long_night_are_cleared_too(broker: Mosquitto) -> None:
    async with listening(broker.port) as everyone:
        everyone.publish(TOPICS.page("old"), b"\x89PNG" + bytes(300_000), retain=True)
        await until(lambda: everyone.of(TOPICS.page("old")), "the picture")
        cleared = await retire(BrokerSettings(port=broker.port), TOPICS, "old")
        assert cleared == (TOPICS.page("old"),)
        assert TOPICS.page("old") not in await asyncio.to_thread(kept_by_broker, broker.port)


@pytest.mark.parametrize("bed", ["+", "#", "1/#", "", "a b"])
async def test_what_is_no_bed_clears_no_bed(broker: Mosquitto, bed: str) -> None:
    async with listening(broker.port) as everyone:
        everyone.publish(TOPICS.status("kept"), _status("kept", "ended"), retain=True)
        await until(lambda: everyone.of(TOPICS.status("kept")), "what was published")
        with pytest.raises(CommandError, match="is not the id of a bed"):
            await retire(BrokerSettings(port=broker.port), TOPICS, bed)
        assert TOPICS.status("kept") in await asyncio.to_thread(kept_by_broker, broker.port)


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_what_the_broker_forbids_is_not_called_cleared(
    tmp_path: Path, version: Literal["5", "3.1.1"]
) -> None:
    rules = tmp_path / "rules.acl"
    rules.write_text("topic read #\ntopic write hypnocast/lab/bed/old/stage\n")
    with running_mosquitto(tmp_path, f"acl_file {rules}") as broker:
        settings = BrokerSettings(port=broker.port, version=version, login_s=2.0)
        async with listening(broker.port) as everyone:
            everyone.publish(TOPICS.stage("old"), b"{}", retain=True)
            await until(lambda: everyone.of(TOPICS.stage("old")), "what was published")
            rules.write_text("topic read #\n")
            assert broker.process is not None
            broker.process.send_signal(signal.SIGHUP)
            with pytest.raises(BrokerError, match=r"broker's ACL"):
                await retire(settings, TOPICS, "old")
