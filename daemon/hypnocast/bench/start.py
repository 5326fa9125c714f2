"""Group *start*: how long until there is something to see."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from hypnocast.bench.figures import Figure, Target
from hypnocast.bench.ward import RUN, config_text
from hypnocast.bench.watched_ward import PATIENCE_S, any_broker
from hypnocast.errors import HypnocastError
from hypnocast.ports.mqtt.settings import BrokerSettings
from hypnocast.stagers.packs.pack import Pack

_ADDS = (Target("at most", 150.0),)
_READY = (Target("at most", 3.0, "worst"),)


def measure(pack: Pack, folder: Path, *, rounds: int = 5) -> Iterator[Figure]:
    """Measure the import, the command line's help, and the daemon until it is READY."""
    empty = [_seconds("pass") for _ in range(2 * rounds)]
    imported = [_seconds("import hypnocast") for _ in range(2 * rounds)]
    more = [1e3 * (b - a) for a, b in zip(sorted(empty), sorted(imported), strict=True)]
    yield Figure("start", "import hypnocast, more than an empty interpreter", "ms", more, _ADDS)
    helping = "import sys; sys.argv[1:] = ['--help']; from hypnocast.cli import main; main()"
    yield Figure(
        "start", "hypnocast --help", "ms", [1e3 * _seconds(helping) for _ in range(rounds)]
    )
    folder.mkdir()
    ready = asyncio.run(_until_ready(pack, folder, rounds))
    yield Figure("start", "hypnocast run until READY", "s", ready, _READY)


def _seconds(code: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


async def _until_ready(pack: Pack, folder: Path, rounds: int) -> list[float]:
    async with any_broker(folder) as broker:
        return [
            await asyncio.to_thread(_ready_after, pack, folder / str(turn), broker)
            for turn in range(rounds)
        ]


def _ready_after(pack: Pack, folder: Path, broker: BrokerSettings) -> float:
    """Start the daemon as the service manager does, and wait until it reports that it is ready."""
    folder.mkdir()
    config = folder / "hypnocast.toml"
    config.write_text(config_text(pack, folder, broker), encoding="utf-8")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(folder / "notify"))
        manager.settimeout(PATIENCE_S)
        began = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, "-c", RUN, "run", "--config", str(config)],
            env=os.environ | {"NOTIFY_SOCKET": str(folder / "notify")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as daemon:
            try:
                while b"READY=1" not in manager.recv(4096):
                    pass
                return time.perf_counter() - began
            except TimeoutError:
                raise HypnocastError("the daemon never was ready", where="bench start") from None
            finally:
                daemon.terminate()
