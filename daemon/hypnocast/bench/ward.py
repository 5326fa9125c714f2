"""Group *ward*: beds in real time, over the network, with any pack.

Everything is as in a hospital: ``hypnocast run`` in one process, real LSL outlets in another,
mosquitto in a third, and a subscriber that notes when events come in. The beds begin once the
model is warm, and their pages close together.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from hypnocast.bench.figures import Figure, Target
from hypnocast.bench.machine import cpu_s, resident_mb
from hypnocast.bench.watched_ward import PATIENCE_S, any_broker
from hypnocast.core.timing.utc import seconds_of
from hypnocast.core.types import PAGE_S
from hypnocast.core.wire import payloads
from hypnocast.core.wire.topics import Topics
from hypnocast.errors import HypnocastError
from hypnocast.ports.lsl.library import LslNetwork
from hypnocast.ports.mqtt.settings import BrokerSettings
from hypnocast.stagers.onnx.engine import usable_cores
from hypnocast.stagers.packs.pack import Pack

BEDS, FEW = 64, 10
IN_TIME = (Target("at most", 3.0, "worst"),)
NOTHING = (Target("at most", 0.0, "worst"),)
SERVICE = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": "131072",
    "MALLOC_TRIM_THRESHOLD_": "131072",
}
"""What the unit in ``systemd`` sets: the daemon is measured as it is shipped."""
SITE = "bench"
_SETTLED_S = 40.0
"""The processor is watched from so long after the first bed was seen."""
_FULL_S = 330.0
"""By then a bed keeps all the pages that a pack looks back at."""
_WARM_S = 900.0
"""A model may need so long to open and warm up."""


@dataclass(slots=True)
class Received:
    """What a subscriber received."""

    first: dict[tuple[str, int], float] = field(default_factory=dict)
    """Seconds from each page's end until its first verdict came in."""
    terminal: dict[tuple[str, int], float] = field(default_factory=dict)
    reasons: dict[tuple[str, int], float] = field(default_factory=dict)
    """Seconds from each page's end until the model's reasons for its stage came in."""
    withheld: int = 0
    late: int = 0
    staged: Counter[str] = field(default_factory=Counter)
    """Pages with a stage, of each bed."""
    _ends: dict[tuple[str, int], float] = field(default_factory=dict)
    state: payloads.DaemonState | None = None
    """The newest of the daemon, once its model is warm."""

    def explain(self, explained: payloads.Explained) -> None:
        """Handle reasons that follow their stage."""
        key = (explained.bed, explained.epoch)
        if explained.rationale is not None and key in self._ends:
            self.reasons.setdefault(key, time.time() - self._ends[key])

    def add(self, event: payloads.StageEvent) -> None:
        """Handle an event."""
        key, end = (event.bed, event.epoch), seconds_of(event.end)
        late = time.time() - end
        self._ends[key] = end
        if event.stage is not None:
            self.first.setdefault(key, late)
            if event.rationale is not None:
                self.reasons.setdefault(key, late)
        if event.status == "provisional":
            return
        self.terminal[key] = late
        self.staged[event.bed] += event.stage is not None
        self.withheld += event.status == "withheld" and event.reason != "session_end"
        self.late += event.reason == "too_late"

    @property
    def lost(self) -> int:
        """Count pages that are missing before a bed's newest one."""
        newest: dict[str, int] = defaultdict(lambda: -1)
        for bed, epoch in self.terminal:
            newest[bed] = max(newest[bed], epoch)
        return sum(newest.values()) + len(newest) - len(self.terminal)


@dataclass(frozen=True, slots=True)
class Used:
    """What a daemon used."""

    cpu: float
    """In % of a core."""
    resident_mb: list[float]
    """Over the last page: pictures are drawn in it, and folded ten seconds later."""
    warm_mb: float
    """With a warm model and no bed."""
    warm_s: float = 0.0
    """From the start of the process until its model was warm."""


def measure(
    pack: Pack, folder: Path, *, long: bool, beds: int | None = None, minutes: float | None = None
) -> Iterator[Figure]:
    """Measure 64 beds over LSL; with ``long`` for 20 minutes, and what a further bed costs.

    With a number of beds or minutes of one's own, that and nothing else.
    """
    folder.mkdir()
    own = beds is not None or minutes is not None
    seconds = 60 * minutes if minutes is not None else 1200.0 if long else 100.0
    in_time = () if own else IN_TIME
    memory = yield from over_lsl(pack, folder / "many", beds or BEDS, seconds, in_time)
    if not long or own:
        return
    less = yield from over_lsl(pack, folder / "few", FEW, _FULL_S, IN_TIME)
    each = (memory - less) / (BEDS - FEW)
    small = (Target("at most", 2.0),)
    yield Figure("ward", "memory of a further bed over LSL", "MB", [each], small)


def over_lsl(
    pack: Pack, folder: Path, beds: int, seconds: float, in_time: tuple[Target, ...]
) -> Generator[Figure, None, float]:
    """Serve beds over real LSL for some time; return the daemon's memory over the last page."""
    folder.mkdir()
    received = Received()
    used = asyncio.run(_over_lsl(pack, folder, beds, seconds, received))
    name = f"{beds} {'beds' if beds > 1 else 'bed'} over LSL"
    load = f"load {os.getloadavg()[0]:.1f} on {usable_cores()} cores"
    yield Figure("ward", f"{name}: model warm", "s", [used.warm_s])
    if received.first:
        first = list(received.first.values())
        yield Figure("ward", f"{name}: first verdict", "s", first, in_time, note=load)
    yield Figure("ward", f"{name}: terminal verdict", "s", list(received.terminal.values()))
    if received.reasons:
        yield Figure("ward", f"{name}: reasons", "s", list(received.reasons.values()))
    missing = beds - len({bed for bed, _ in received.terminal})
    yield Figure("ward", f"{name}: beds without a page", "beds", [missing], NOTHING)
    yield Figure("ward", f"{name}: pages lost", "pages", [received.lost], NOTHING)
    yield Figure("ward", f"{name}: pages withheld", "pages", [received.withheld])
    yield Figure("ward", f"{name}: pages too late", "pages", [received.late])
    state = received.state
    if state is not None:
        given_up, words = state.counters.get("given_up", 0), "; ".join(state.degraded)
        yield Figure("ward", f"{name}: looks given up", "looks", [given_up], note=words)
    staged = [received.staged[bed] for bed in sorted({bed for bed, _ in received.terminal})]
    each = f"bed by bed: {', '.join(map(str, staged))}" if beds > 1 else ""
    yield Figure("ward", f"{name}: pages staged of a bed", "pages", staged, note=each)
    yield Figure("ward", f"{name}: processor", "% of a core per bed", [used.cpu / beds])
    yield Figure("ward", f"{name}: memory at the beginning", "MB", [used.warm_mb])
    memory = Figure("ward", f"{name}: memory of the daemon", "MB", used.resident_mb)
    yield memory
    return memory.statistic("median")


async def _over_lsl(
    pack: Pack, folder: Path, beds: int, seconds: float, received: Received
) -> Used:
    network = LslNetwork(
        scope="machine", port_range=4 * beds + 64, session_id=f"bench-{os.getpid()}"
    )
    lsl = folder / "lsl_api.cfg"
    lsl.write_text(network.content(), encoding="utf-8")
    environment = os.environ | {"LSLAPICFG": str(lsl)}
    async with any_broker(folder) as broker:
        config = folder / "hypnocast.toml"
        config.write_text(config_text(pack, folder, broker), encoding="utf-8")
        subscriber = asyncio.create_task(_listen(broker, received))
        run = [sys.executable, "-c", RUN, "run", "--config", str(config)]
        send = [sys.executable, "-m", "hypnocast.bench.outlets", str(beds), str(lsl)]
        with running(run, environment | SERVICE) as daemon:
            try:
                warm_s = await _until_warm(daemon, subscriber, received)
                with running(send, environment):
                    used = await _watch(daemon, subscriber, seconds, received)
                return replace(used, warm_s=warm_s)
            finally:
                subscriber.cancel()
                await asyncio.gather(subscriber, return_exceptions=True)


async def _until_warm(
    daemon: subprocess.Popen[bytes], subscriber: asyncio.Task[None], received: Received
) -> float:
    """Wait until the daemon has its model; return how many seconds that took."""
    began = time.monotonic()
    while received.state is None or received.state.provider == "none":
        await asyncio.sleep(0.1)
        if daemon.poll() is not None or subscriber.done() or time.monotonic() - began > _WARM_S:
            raise HypnocastError("the daemon came to no warm model", where="bench ward")
    return time.monotonic() - began


async def _watch(
    daemon: subprocess.Popen[bytes],
    subscriber: asyncio.Task[None],
    seconds: float,
    received: Received,
) -> Used:
    """Let it run; return what the daemon used once all beds were there."""
    began = time.monotonic()
    warm_mb = resident_mb(daemon.pid)
    cpu = since = 0.0
    resident: list[float] = []
    while time.monotonic() - began < seconds:
        await asyncio.sleep(0.5)
        if daemon.poll() is not None or subscriber.done():
            raise HypnocastError("the daemon or the subscriber ended early", where="bench ward")
        if not since and time.monotonic() - began > _SETTLED_S:
            cpu, since = cpu_s(daemon.pid), time.monotonic()
        if time.monotonic() - began > seconds - PAGE_S:
            resident.append(resident_mb(daemon.pid))
    if not received.terminal:
        raise HypnocastError("no page came", where="bench ward", remedy="Look at its log.")
    cpu_share = 100.0 * (cpu_s(daemon.pid) - cpu) / (time.monotonic() - since)
    return Used(cpu_share, resident, warm_mb)


async def _listen(broker: BrokerSettings, received: Received) -> None:
    import aiomqtt

    topics = Topics(SITE)
    events = msgspec.json.Decoder(payloads.StageEvent)
    reasons = msgspec.json.Decoder(payloads.Explained)
    states = msgspec.json.Decoder(payloads.DaemonState)
    async with aiomqtt.Client(broker.host, broker.port) as client:
        for topic in (topics.events("+"), topics.explanation("+"), topics.daemon("+")):
            await client.subscribe(topic, qos=1)
        async for message in client.messages:
            payload, kind = bytes(message.payload), message.topic.value.rpartition("/")[2]
            if kind == "events":
                received.add(events.decode(payload))
            elif kind == "explanation" and payload:
                received.explain(reasons.decode(payload))
            elif kind == "state" and payload:
                received.state = states.decode(payload)


def config_text(pack: Pack, folder: Path, broker: BrokerSettings) -> str:
    """Return the configuration of a daemon that serves whatever beds it finds."""

    def text(value: object) -> str:
        return json.dumps(str(value))

    return f"""
[site]
id = {text(SITE)}
[daemon]
state_dir = {text(folder / "state")}
[broker]
host = {text(broker.host)}
port = {broker.port}
[pack]
name = {text(pack.folder)}
"""


RUN = "from hypnocast.cli import main; main()"


@contextlib.contextmanager
def running(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process until it is left, then end it."""
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
