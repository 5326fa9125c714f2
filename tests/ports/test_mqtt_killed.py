"""``kill -9`` between journal and broker: the last will is published, and every event arrives."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hypnocast.ports.journal.journal import Journal
from hypnocast.ports.mqtt.settings import BrokerSettings
from support.brokers import running_mosquitto
from support.mqtt_lab import TOPICS, Listener, kept_by_broker, linked, listening, until

PROCESS = Path(__file__).with_name("link_process.py")


@contextmanager
def _killed(port: int, path: Path) -> Iterator[None]:
    """Run a daemon's link, and kill it at the end, as a crash would."""
    with subprocess.Popen([sys.executable, str(PROCESS), str(port), str(path)]) as daemon:
        try:
            yield
        finally:
            daemon.kill()


async def _come(listener: Listener, count: int) -> None:
    await until(lambda: len(listener.of(TOPICS.events("bed1"))) >= count)


@pytest.mark.promise(1)
@pytest.mark.promise(2)
async def test_kill_9_loses_no_event_and_the_will_says_offline(tmp_path: Path) -> None:
    path = tmp_path / "state" / "journal.sqlite"
    chance = random.Random(20260302)
    with running_mosquitto(tmp_path) as broker:
        async with listening(broker.port) as listener:
            for _ in range(4):
                with _killed(broker.port, path):
                    await _come(listener, len(listener.sequences()) + chance.randrange(1, 200))
                await until(
                    lambda: kept_by_broker(broker.port)[TOPICS.available("node1")] == b"offline"
                )
            settings = BrokerSettings(port=broker.port)
            async with Journal.open(path) as journal, linked(settings, journal):
                rows = await journal.events("bed1", 0, 1_000_000)
                await until(lambda: rows[-1].sequence in listener.sequences()[-300:])
        seen: dict[int, str] = {}
        for event in listener.json_of(TOPICS.events("bed1")):
            assert seen.setdefault(event["sequence"], event["id"]) == event["id"]
    # First sight of every event is in order, whatever was repeated.
    assert list(seen) == list(range(1, len(rows) + 1))
    assert list(seen.values()) == [row.id for row in rows]
