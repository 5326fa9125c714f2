"""Two brokers and the bridge of docs/examples between them: the centre gets the bed's events."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from hypnocast.core.types import PAGE_S
from hypnocast.core.wire.topics import Topics
from hypnocast.simulate import SimulatedSource
from support.brokers import Mosquitto, running_mosquitto
from support.mqtt_lab import kept_by_broker, listening, until
from support.packs import make_tiny_pack
from support.ward_lab import HandDriven, night, running_ward

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "mosquitto-bridge.conf"
BED = "bed-01"
CLOCK_0 = 1000.0
PAGES = 8
TOPICS = Topics("lab")


@pytest.fixture
def centre(tmp_path: Path) -> Iterator[Mosquitto]:
    folder = tmp_path / "centre"
    folder.mkdir()
    keep = f"max_queued_messages 100000\npersistence_location {folder}/"
    with running_mosquitto(folder, keep) as running:
        yield running


@pytest.fixture
def pipeline(tmp_path: Path, centre: Mosquitto) -> Iterator[Mosquitto]:
    folder = tmp_path / "bedside"
    folder.mkdir()
    with running_mosquitto(folder, bridge_to(centre.port, folder)) as running:
        yield running


def bridge_to(port: int, folder: Path) -> str:
    """Return the example, as it is but for what is particular to a place."""
    particular = {
        "address": f"address 127.0.0.1:{port}",
        "persistence": "",
        "persistence_location": f"persistence_location {folder}/",
        "bridge_cafile": "",
        "remote_username": "",
        "remote_password": "",
        "restart_timeout": "restart_timeout 1",
    }
    lines = EXAMPLE.read_text().splitlines()
    assert set(particular) <= {line.split()[0] for line in lines if line}
    return "\n".join(particular.get(line.partition(" ")[0], line) for line in lines)


async def test_the_centre_receives_every_event_once_by_id_though_it_was_down(
    tmp_path: Path, centre: Mosquitto, pipeline: Mosquitto
) -> None:
    pack = make_tiny_pack(tmp_path / "pack")
    source = HandDriven(night(SimulatedSource([BED], seed=3, pages=PAGES, truth=False)))
    async with contextlib.AsyncExitStack() as stack:
        before = await stack.enter_async_context(listening(centre.port))
        running = await stack.enter_async_context(
            running_ward(tmp_path / "ward", pack, source, pipeline.port)
        )
        await running.go_to(CLOCK_0 + 3 * PAGE_S + 2.0, BED, 3)
        await until(lambda: len(before.json_of(TOPICS.events(BED))) >= 3, "three events")
        found = before.json_of(TOPICS.events(BED))
        centre.kill()
        await running.go_to(CLOCK_0 + 5 * PAGE_S + 2.0, BED, 5)
        centre.start()
        after = await stack.enter_async_context(listening(centre.port))
        durable = await running.go_to(CLOCK_0 + 7 * PAGE_S + 2.0, BED, 7)
        want = [event.id for event in durable]

        def ids() -> list[str]:
            return [event["id"] for event in found + after.json_of(TOPICS.events(BED))]

        await until(lambda: set(want) <= set(ids()), "all events")
        assert list(dict.fromkeys(ids())) == want
        kept = kept_by_broker(centre.port)
        assert TOPICS.stage(BED) in kept
        assert TOPICS.status(BED) in kept


async def test_a_command_given_at_the_centre_is_obeyed_at_the_bed(
    tmp_path: Path, centre: Mosquitto, pipeline: Mosquitto
) -> None:
    pack = make_tiny_pack(tmp_path / "pack")
    source = HandDriven(night(SimulatedSource([BED], seed=3, pages=2, truth=False)))
    async with (
        listening(centre.port) as listener,
        running_ward(tmp_path / "ward", pack, source, pipeline.port, auto=False),
    ):
        source.go_to(CLOCK_0 + 10.0)
        await until(lambda: listener.of(TOPICS.status(BED)), "the bed")
        listener.publish(
            TOPICS.command(BED), {"command": "start_session", "request": "r1", "subject": "S1"}
        )
        await until(lambda: listener.json_of(TOPICS.reply(BED)), "the reply")
        (reply,) = listener.json_of(TOPICS.reply(BED))
        assert reply["ok"]
        assert reply["request"] == "r1"
