"""A bed that nobody serves any more leaves every screen; one that is served stays."""

from __future__ import annotations

import asyncio

import pytest

from hypnocast.core.wire import payloads
from hypnocast.core.wire.topics import Topics
from hypnocast.errors import BrokerError
from hypnocast.live.service.retire import retire
from hypnocast.ports.mqtt.settings import BrokerSettings
from support.brokers import Mosquitto
from support.mqtt_lab import kept_by_broker, listening, until

TOPICS = Topics("lab")


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
