"""``doctor`` shows the numbers of the daemon that runs, by what it keeps on the broker."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import aiomqtt

from hypnocast.config.file import parse_config
from hypnocast.config.tables import Config
from hypnocast.live.service.check import installation
from hypnocast.live.service.running_daemon import running_daemon
from hypnocast.simulate import SimulatedSource
from support.brokers import Mosquitto, free_port
from support.mqtt_lab import listening, until
from support.ward_lab import HandDriven, night, running_ward

BED = "bed-01"


def config_of(port: int, pack: Path | None = None) -> Config:
    text = f'[site]\nid = "lab"\n[daemon]\nnode = "node1"\n[broker]\nport = {port}\n'
    return parse_config(text + (f'[pack]\nname = "{pack}"\n' if pack else ""))


async def test_doctor_shows_a_running_daemons_numbers_and_that_it_is_gone(
    tmp_path: Path, pack: Path, broker: Mosquitto
) -> None:
    config = config_of(broker.port)
    coming = night(SimulatedSource([BED], seed=7, pages=3, skip_pages=60, truth=False))
    state = "hypnocast/lab/daemon/node1/state"
    async with (
        listening(broker.port) as listener,
        running_ward(tmp_path, pack, HandDriven(coming), broker.port) as running,
    ):
        await running.go_to(1000.0 + 2.5 * 30.0, BED, 2)
        now = running.ward.state()
        running.ward.link.retain(state, now)
        await until(lambda: listener.json_of(state)[-1]["at"] == now.at, "its state")
        facts = await asyncio.to_thread(running_daemon, config)
        assert facts["daemon"].startswith("online, version ")
        assert facts["daemon beds"] == BED
        assert facts["degraded"] == ("; ".join(now.degraded) or "nothing")
        assert "final 2" in facts["counters"]
        assert "judge 0 of 512" in facts["queues"]
        assert "events wait" in facts["outbox"]
        assert facts["limits"] == "none met"
    gone = await asyncio.to_thread(running_daemon, config)
    assert gone["daemon"].startswith("OFFLINE, ")


async def test_doctor_names_the_limits_that_were_met(
    tmp_path: Path, pack: Path, broker: Mosquitto
) -> None:
    coming = night(SimulatedSource([BED], seed=7, pages=2, skip_pages=60, truth=False))
    state, status = "hypnocast/lab/daemon/node1/state", f"hypnocast/lab/bed/{BED}/status"
    async with (
        listening(broker.port) as listener,
        running_ward(tmp_path, pack, HandDriven(coming), broker.port) as running,
    ):
        await running.go_to(1000.0 + 1.5 * 30.0, BED, 1)
        async with aiomqtt.Client("127.0.0.1", broker.port) as rude:
            for _ in range(130):
                await rude.publish(f"hypnocast/lab/bed/{BED}/command", b"{", qos=1)
        await until(lambda: running.ward.link.commands_ignored, "they are left unread")
        now = running.ward.state()
        running.ward.link.retain(state, now)
        await until(lambda: listener.json_of(state)[-1]["at"] == now.at, "its state")
        message = listener.json_of(status)[-1] | {"problems": ["a stream is too costly"]}
    async with aiomqtt.Client("127.0.0.1", broker.port) as after:
        await after.publish(status, json.dumps(message), qos=1, retain=True)
    facts = await asyncio.to_thread(running_daemon, config_of(broker.port))
    shown = re.search(r"messages not looked at (\d+)", facts["limits"])
    assert shown is not None
    assert int(shown[1]) >= now.counters["ignored"]  # the daemon may have published a later count
    assert facts[f"bed {BED}"] == "a stream is too costly"


def test_without_a_broker_doctor_says_so_and_all_else(pack: Path) -> None:
    facts = installation(config_of(free_port(), pack))
    assert facts["daemon"].startswith("not seen: ")
    assert facts["hypnocast"]
    assert "FAULT" not in facts["pack"]
