"""A daemon's life under test: a real ward on streams made up as fast as it can read them.

``live`` in everything but the network: the source has its own time, runs on over a restart,
and never waits for the broker. It waits only where pages pile up faster than a slow machine can
draw them, so that a run gives the same on any machine.
"""

from __future__ import annotations

import contextlib
import dataclasses
import mmap
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hypnocast.config.tables import Config, PackTable
from hypnocast.core.timing.decisions import Decision, decision_to_json
from hypnocast.core.types import (
    Arrival,
    ChannelInfo,
    Chunk,
    ClockReading,
    StreamHeader,
    StreamLost,
    StreamOpened,
)
from hypnocast.core.wire.payloads import SourceName, StageEvent
from hypnocast.core.wire.topics import Topics
from hypnocast.live.publishing.bed_worker import BedParts
from hypnocast.live.service.build import JOURNAL, make_parts, open_pack, pipeline_maker
from hypnocast.live.service.ward import Ward, WardParts
from hypnocast.live.staging.judging import Judge
from hypnocast.ports.journal.journal import Journal
from hypnocast.ports.mqtt.settings import BrokerSettings
from hypnocast.ports.recordings.tape_recorder import TapeRecorder
from hypnocast.ports.supervision import Supervisor
from hypnocast.stagers.base import Stager

RATE = 100.0
LABELS = ("F4-M1", "C4-M1", "O2-M1", "E1-M2", "E2-M2", "Chin")
ORIGIN = 3_000.0
"""The local LSL clock when the night begins; every night of the tests begins at this time."""

UTC0 = 1_800_000_000.0
"""The UTC of that moment."""

BAD_EVERY, BAD_AT = 7, 3
"""Of 7 stretches of 30 s the fourth carries no numbers at all."""

CHUNK_S = 5.0
AHEAD = 16
"""Pages that may be under way before the source waits for a slow machine."""


@dataclass(frozen=True)
class Orders:
    """How a daemon is to live."""

    state: str
    """Its state directory."""
    pack: str
    port: int
    """Of the broker."""
    begins: float
    """Local time at its start."""
    beds: tuple[str, ...] = ("bed1",)
    until: float = float("inf")
    """Local time at which its source ends."""
    clock: str = ""
    """A file of 8 bytes in which it writes its local time."""
    tape: bool = False
    boot: str = "boot-1"
    pace_s: float = 0.0
    """Real seconds between two chunks."""
    kill_at: str = ""
    """A write point; empty: not killed by itself."""
    kill_hit: int = 1
    answer_s: float = 10.0
    stuck_after_s: float = 25.0
    site: str = "lab"
    flaky: float = 0.0
    """The share of batches on which the model fails."""
    silences: tuple[tuple[float, float], ...] = ()
    """From when to when, by the local clock, the streams are gone."""
    state_every_s: float = 30.0
    """How often the daemon publishes how it does."""
    notify: str = ""
    """Socket of a stand-in for the service manager; empty: there is no watchdog."""
    watchdog_s: float = 2.0
    hang: str = ""
    """A part that hangs from the first page on: judge, journal, drawing or loop."""
    deadline_s: float = 1.0
    """Of every part, where there is a watchdog."""
    patience_s: float = 30.0
    held_bytes: int = 0
    """What the journal may hold in memory while the disk refuses; 0: the default."""


class TimeFile:
    """The local time of a daemon, readable while it lives and after it was killed."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(struct.pack("<d", ORIGIN))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 8)

    @property
    def now(self) -> float:
        return float(struct.unpack("<d", self._map[:8])[0])

    @now.setter
    def now(self, value: float) -> None:
        self._map[:8] = struct.pack("<d", value)


def _nothing() -> None:
    return


def is_bad(local: float) -> bool:
    """Whether the samples of that time are no numbers."""
    return int((local - ORIGIN) // 30.0) % BAD_EVERY == BAD_AT


def a_header(bed: str) -> StreamHeader:
    channels = tuple(ChannelInfo(label, "uV") for label in LABELS)
    return StreamHeader("eeg", "eeg", "EEG", f"{bed}-eeg", f"{bed}-uid", "amp", RATE, channels)


def some_samples(first: int, count: int, seed: int) -> NDArray[np.float32]:
    """Noise with a rhythm in it; the same samples at the same place whatever the chunks."""
    rng = np.random.default_rng([seed, first])
    t = (first + np.arange(count)) / RATE
    rhythm = 25.0 * np.sin(2 * np.pi * (2.0 + 0.3 * np.arange(len(LABELS))) * t[:, None])
    return (rhythm + rng.normal(0.0, 12.0, (count, len(LABELS)))).astype(np.float32)


def made_up(first: int, count: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return what a bed's stream carries, and its stamps: bad stretches are no numbers."""
    samples = some_samples(first, count, seed)
    stamps = ORIGIN + (first + np.arange(count)) / RATE
    samples[(((stamps - ORIGIN) // 30.0) % BAD_EVERY).astype(int) == BAD_AT] = np.nan
    return samples, stamps


@dataclass
class FastBeds:
    """The source: every bed's samples, as fast as they are read."""

    orders: Orders
    record: Callable[[str, Arrival], None] | None = None
    kind: SourceName = "live"
    under_way: int = 0
    stopped: bool = False
    lost: dict[str, bool] = field(default_factory=dict)
    after_first_page: Callable[[], None] = _nothing
    hang: Callable[[], None] = _nothing
    """Called at every turn, on the signal thread's thread."""
    _news: list[tuple[str, Arrival]] = field(default_factory=list)
    _room: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        self._now = self.orders.begins
        self._clock = TimeFile(Path(self.orders.clock)) if self.orders.clock else None

    def utc_of(self, local: float) -> float:
        return UTC0 + (local - ORIGIN)

    def now(self) -> float:
        return self._now

    def measure_soon(self) -> None: ...

    def stop(self) -> None:
        with self._room:
            self.stopped = True
            self._room.notify_all()

    def event(self, event: StageEvent) -> None:
        """Note that a page is done (a :class:`~hypnocast.live.service.ward.Watcher`)."""
        then, self.after_first_page = self.after_first_page, _nothing
        then()
        if event.status != "provisional":
            with self._room:
                self.under_way -= 1
                self._room.notify_all()

    def arrivals(self) -> Iterator[tuple[str, Arrival] | None]:
        for bed in self.orders.beds:
            yield self._give(bed, StreamOpened(a_header(bed), self._now))
            yield self._give(bed, ClockReading("eeg", self._now, 0.0))
        page = int((self._now - ORIGIN) // 30.0)
        while not self.stopped and self._now < self.orders.until:
            first = round((self._now - ORIGIN) * RATE)
            count = round(CHUNK_S * RATE)
            ends = ORIGIN + (first + count) / RATE
            for number, bed in enumerate(self.orders.beds):
                there = self._is_there(bed)
                while self._news:
                    yield self._give(*self._news.pop())
                if there:
                    yield self._give(bed, self._chunk(first, count, number, ends))
            self._now = ends
            if self._clock is not None:
                self._clock.now = ends
            yield None
            self.hang()
            if int((ends - ORIGIN) // 30.0) != page:
                page = int((ends - ORIGIN) // 30.0)
                with self._room:
                    self.under_way += len(self.orders.beds)
                    self._room.wait_for(self._has_room, 1.0)
            if self.orders.pace_s:
                time.sleep(self.orders.pace_s)

    def _has_room(self) -> bool:
        return self.stopped or self.under_way < AHEAD * len(self.orders.beds)

    def _chunk(self, first: int, count: int, seed: int, ends: float) -> Chunk:
        samples, stamps = made_up(first, count, seed)
        return Chunk("eeg", samples, stamps, ends)

    def _give(self, bed: str, arrival: Arrival) -> tuple[str, Arrival]:
        if self.record is not None:
            self.record(bed, arrival)
        return bed, arrival

    def _is_there(self, bed: str) -> bool:
        """Whether the bed's stream is there; report its going and coming."""
        gone = any(begin <= self._now < end for begin, end in self.orders.silences)
        if gone != self.lost.get(bed, False):
            self.lost[bed] = gone
            self._news.append(
                (
                    bed,
                    StreamLost("eeg", self._now)
                    if gone
                    else StreamOpened(a_header(bed), self._now),
                )
            )
        return not gone


@dataclass(frozen=True)
class Alive:
    """A ward under test and its parts."""

    ward: Ward
    source: FastBeds
    journal: Journal
    parts: BedParts


@contextlib.asynccontextmanager
async def a_ward(
    orders: Orders,
    *,
    build: Callable[[], Stager] | None = None,
    version: Literal["auto", "5", "3.1.1"] = "5",
) -> AsyncIterator[Alive]:
    """Put a ward together as ``hypnocast run`` does, on made-up streams."""
    state = Path(orders.state)
    state.mkdir(parents=True, exist_ok=True, mode=0o700)  # noqa: ASYNC240 - once, at the start
    config = Config(pack=PackTable(name=orders.pack))
    pack = open_pack(config)
    async with contextlib.AsyncExitStack() as stack:
        supervisor = Supervisor()
        journal = await stack.enter_async_context(Journal.open(state / JOURNAL, supervisor))
        source = FastBeds(orders)
        recorder = None
        if orders.tape:
            recorder = TapeRecorder(state / "tapes", clock=source.now, supervisor=supervisor)
            stack.callback(recorder.close)
            source.record = recorder.write
        parts = make_parts(config, pack, journal, live=True, on_step=lambda _: None)
        if build is not None or orders.stuck_after_s != 25.0:
            judge = Judge(build or parts.judge._build, stuck_after_s=orders.stuck_after_s)
            parts = dataclasses.replace(parts, judge=judge)

        def decided(bed: str, decisions: Sequence[Decision]) -> None:
            if recorder is not None:
                for decision in decisions:
                    recorder.note(bed, decision_to_json(decision), source.now())

        ward = Ward(
            WardParts(
                source=source,
                pack=pack,
                parts=parts,
                topics=Topics(orders.site),
                node="node1",
                broker=BrokerSettings(
                    port=orders.port, version=version, answer_s=orders.answer_s, login_s=2.0
                ),
                make_pipeline=pipeline_maker(
                    config,
                    pack,
                    source,
                    boot_id=orders.boot,
                    auto=True,
                    decided=decided,
                    site=orders.site,
                ),
                boot_id=orders.boot,
                watchers=(source,),
                supervisor=supervisor,
            )
        )
        yield Alive(ward, source, journal, parts)
