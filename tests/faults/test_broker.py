"""Whatever the broker and the network do, every event arrives, in order, and live ones at once."""

from __future__ import annotations

import asyncio
import json
import math
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from faults.checker import NightCheck, Truth, check_night
from faults.life import ORIGIN, UTC0, Alive, Orders, a_ward, is_bad
from faults.witness import FaultProxy, Witness, fault_proxy, witness
from hypnocast.ports.mqtt.link_states import Connected
from support.brokers import Mosquitto, running_mosquitto
from support.mqtt_lab import until


@dataclass(frozen=True)
class BrokerScene:
    """Everything a fault can be done to."""

    alive: Alive
    proxy: FaultProxy
    broker: Mosquitto
    listener: Witness

    @property
    def acknowledged(self) -> int:
        return self.alive.journal.sent

    async def connected(self) -> None:
        await until(lambda: isinstance(self.alive.ward.link.state, Connected), "connected")

    async def more(self, events: int) -> None:
        """Wait until so many more events are acknowledged."""
        enough = self.acknowledged + events
        await until(lambda: self.acknowledged >= enough, "events are acknowledged")


PAGES_AFTER = 20


async def the_night(
    folder: Path,
    pack: Path,
    fault: Callable[[BrokerScene], object],
    *,
    pace_s: float = 0.004,
    old: bool = False,
) -> NightCheck:
    """Run a night through the fault and check it whole; ``old``: the broker knows no MQTT 5."""
    with (
        running_mosquitto(folder) as broker,
        witness(broker.port) as listener,
        fault_proxy(broker.port) as proxy,
    ):
        proxy.old = old
        orders = Orders(
            state=str(folder / "state"),
            pack=str(pack),
            port=proxy.port,
            begins=ORIGIN,
            answer_s=1.0,
            pace_s=pace_s,
        )
        async with a_ward(orders, version="auto") as alive:
            ward = asyncio.create_task(alive.ward.run())
            scene = BrokerScene(alive, proxy, broker, listener)
            await scene.connected()
            done = fault(scene)
            if asyncio.iscoroutine(done):
                await done
            # Only now may the night end: some pages after the fault, within a page.
            after = ORIGIN + 30.0 * (alive.ward.signal_thread.pages["bed1"] + PAGES_AFTER)
            alive.source.orders = replace(orders, until=after + 12.0)
            await ward
            ends = alive.source.now()
        # What the end of the run left in the outbox goes out when the daemon is back.
        left = _left(folder)
        if left:
            async with a_ward(orders, version="auto") as alive:
                alive.source.stopped = True
                link = alive.ward.link.start()
                await until(lambda: alive.journal.sent >= left, "the rest is sent")
                alive.ward.link.stop()
                await link
        pages = math.ceil((ends - ORIGIN) / 30.0)
        await until(lambda: len(set(listener.events())) >= pages, "everything came")
        truth = Truth(
            begins=(UTC0,),
            ends=UTC0 + ends - ORIGIN,
            good=lambda at: not is_bad(ORIGIN + at - UTC0),
        )
        found = check_night([folder / "state" / "journal.sqlite"], listener.events(), "bed1", truth)
        assert found.whole, found
        assert found.terminal == found.expected == pages > PAGES_AFTER
        assert found.final >= pages * 3 // 4
        return found


def _left(folder: Path) -> int:
    with sqlite3.connect(folder / "state" / "journal.sqlite") as db:
        count = int(db.execute("SELECT count(*) FROM outbox").fetchone()[0])
    db.close()
    return count


async def cut_before_publish(scene: BrokerScene) -> None:
    await _cut(scene, "cut_before_publish", 3)


async def cut_before_puback(scene: BrokerScene) -> None:
    await _cut(scene, "cut_before_puback", 4)


async def cut_after_puback(scene: BrokerScene) -> None:
    await _cut(scene, "cut_after_puback", 4)


async def _cut(scene: BrokerScene, where: str, packets: int) -> None:
    """Let the connection be cut in some place after so many packets, again and again."""
    for _ in range(3):
        setattr(scene.proxy, where, packets)
        await until(lambda: getattr(scene.proxy, where) is None)
        await scene.connected()
        await scene.more(3)


async def refused(scene: BrokerScene) -> None:
    scene.proxy.refuse = True
    scene.proxy.cut()
    await until(lambda: not isinstance(scene.alive.ward.link.state, Connected))
    scene.proxy.refuse = False


async def silent(scene: BrokerScene) -> None:
    connections = scene.alive.ward.link.connections
    scene.proxy.silent = True
    await until(lambda: not isinstance(scene.alive.ward.link.state, Connected), "given up")
    scene.proxy.silent = False
    await until(lambda: scene.alive.ward.link.connections > connections, "connected anew")


async def slow(scene: BrokerScene) -> None:
    scene.proxy.slow_s = 0.05
    await scene.more(10)
    scene.proxy.slow_s = 0.0


@pytest.mark.promise(1)
@pytest.mark.promise(2)
@pytest.mark.parametrize(
    "fault", [cut_before_publish, cut_before_puback, cut_after_puback, refused, silent, slow]
)
async def test_every_event_arrives_in_order_and_once_by_its_id(
    tmp_path: Path, pack: Path, fault: Callable[[BrokerScene], object]
) -> None:
    await the_night(tmp_path, pack, fault)


async def knows_311_only(scene: BrokerScene) -> None:
    assert scene.proxy.protocols == [5, 4]
    await cut_before_puback(scene)
    assert scene.proxy.protocols.count(4) >= 4


@pytest.mark.promise(1)
@pytest.mark.promise(2)
async def test_a_broker_of_mqtt_3_1_1_gets_every_event_too(tmp_path: Path, pack: Path) -> None:
    await the_night(tmp_path, pack, knows_311_only, old=True)


@pytest.mark.promise(2)
@pytest.mark.promise(7)
async def test_after_an_hour_without_a_broker_the_backlog_comes_in_order_beside_live_events(
    tmp_path: Path, pack: Path
) -> None:
    """An hour of pages of four beds, then the broker: how fast is written in docs/faults.md."""
    beds = ("bed1", "bed2", "bed3", "bed4")
    with running_mosquitto(tmp_path) as broker, fault_proxy(broker.port) as proxy:
        proxy.refuse = True
        orders = Orders(
            state=str(tmp_path / "state"),
            pack=str(pack),
            port=proxy.port,
            begins=ORIGIN,
            beds=beds,
        )
        async with a_ward(orders) as alive:
            ward = asyncio.create_task(alive.ward.run())
            ledger = alive.ward
            await until(
                lambda: (
                    sum(publisher.counts["pages"] for publisher in ledger.publishers.values())
                    >= 480
                ),
                "an hour of pages",
                90.0,
            )
            assert alive.journal.sent == 0
            with witness(broker.port) as listener:
                # Slowly from here: the link may wait half a minute before it tries again.
                alive.source.orders = replace(orders, pace_s=0.2)
                proxy.refuse = False
                back = time.monotonic()
                await until(lambda: isinstance(alive.ward.link.state, Connected), "connected", 60.0)
                alive.source.orders = replace(orders, until=alive.source.now() + 600.0)
                await ward
                assert sum((await alive.journal.waiting()).values()) == 0
                found = sum(publisher.counts["pages"] for publisher in ledger.publishers.values())
                await until(
                    lambda: sum(len(listener.events(bed)) for bed in beds) >= found,
                    "all came",
                    60.0,
                )
                came = [at for topic, _, at in listener.messages if topic.endswith("/events")]
                for bed in beds:
                    numbers = [json.loads(one)["sequence"] for one in listener.events(bed)]
                    assert numbers == sorted(set(numbers)) == list(range(1, len(numbers) + 1))
    assert came[0] >= back


async def test_a_broker_that_forgot_everything_gets_all_states_again(
    tmp_path: Path, pack: Path
) -> None:
    async def restarted(scene: BrokerScene) -> None:
        await scene.more(5)
        # Keeps nothing on disk: a restart is the loss of every retained topic and session.
        await asyncio.to_thread(scene.broker.restart)
        await scene.connected()
        with witness(scene.broker.port, "late") as late:
            await until(lambda: late.of("/bed/bed1/stage") and late.of("/bed/bed1/status"))
            assert late.of("/available")[-1] == b"online"

    with running_mosquitto(tmp_path) as broker, fault_proxy(broker.port) as proxy:
        orders = Orders(
            state=str(tmp_path / "state"),
            pack=str(pack),
            port=proxy.port,
            begins=ORIGIN,
            pace_s=0.02,
        )
        async with a_ward(orders) as alive:
            ward = asyncio.create_task(alive.ward.run())
            with witness(broker.port) as listener:
                scene = BrokerScene(alive, proxy, broker, listener)
                await scene.connected()
                await restarted(scene)
            alive.ward.stop()
            await ward
