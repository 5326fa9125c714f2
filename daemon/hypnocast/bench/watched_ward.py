"""A ward in this process, watched from outside: when samples came, and when events left.

Nothing of what is measured is replaced. The stager is the pack's own behind a stop-watch, the
journal is the journal and notes when the broker has acknowledged, the source is a source that
notes when it handed samples over. The broker is mosquitto where it is installed, in a process of
its own; otherwise the embedded one, which then shares this process's time.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hypnocast.config.tables import Config
from hypnocast.core.timing.utc import UtcAnchor
from hypnocast.core.types import Arrival, Look, Opinion
from hypnocast.core.wire import payloads
from hypnocast.core.wire.topics import Topics
from hypnocast.errors import BrokerError
from hypnocast.live.bed.bed_updates import ClosedPage, Item
from hypnocast.live.bed.sources import RecordedSource
from hypnocast.live.service.build import JOURNAL, make_parts, pipeline_maker, stager_builder
from hypnocast.live.service.ward import Ward, WardParts
from hypnocast.live.staging.judging import Judge
from hypnocast.ports.journal.journal import Journal
from hypnocast.ports.mqtt.embedded_broker import embedded_broker
from hypnocast.ports.mqtt.settings import BrokerSettings
from hypnocast.stagers.base import Stager
from hypnocast.stagers.pace import Pace
from hypnocast.stagers.packs.pack import Pack

PATIENCE_S = 60.0
"""A benchmark that waits longer than this for something has failed."""

PageKey = tuple[str, int]


@dataclass(slots=True)
class WardWatch:
    """What happened when, on the monotonic clock in seconds."""

    closed: dict[PageKey, float] = field(default_factory=dict)
    """The samples that close a page were there."""
    drawn: dict[PageKey, float] = field(default_factory=dict)
    """The page was drawn."""
    durable: dict[PageKey, float] = field(default_factory=dict)
    """Its last event was in the journal, synced."""
    acknowledged: dict[PageKey, float] = field(default_factory=dict)
    """The broker had acknowledged its last event."""
    providers: dict[PageKey, str | None] = field(default_factory=dict)
    """What computed the page's last event; None where it was withheld."""
    inference: list[tuple[float, float]] = field(default_factory=list)
    """Beginning and end of each batch."""
    _events: dict[tuple[str, int], PageKey] = field(default_factory=dict)
    _moved: threading.Condition = field(default_factory=threading.Condition)

    def event(self, event: payloads.StageEvent) -> None:
        """Note an event that is durable."""
        key = (event.bed, event.epoch)
        with self._moved:
            self.durable[key] = time.monotonic()
            self._events[event.bed, event.sequence] = key
            self.providers[key] = event.provider

    def puback(self, bed: str, sequence: int) -> None:
        """Note an acknowledgement."""
        with self._moved:
            key = self._events.pop((bed, sequence), None)
            if key is not None:
                self.acknowledged[key] = time.monotonic()
                self._moved.notify_all()

    def wait_for(self, keys: Sequence[PageKey]) -> None:
        """Wait until the broker has acknowledged the events of all these pages."""
        with self._moved:
            done = self._moved.wait_for(
                lambda: all(key in self.acknowledged for key in keys), PATIENCE_S
            )
        if not done:
            raise BrokerError(
                f"events of {len(keys)} pages were not acknowledged in {PATIENCE_S:g} s",
                where="bench",
                remedy="Look whether the broker runs.",
            )

    def inferring(self, since: float, until: float) -> float:
        """Return for how much of a span of time the model was at work."""
        return sum(max(0.0, min(end, until) - max(begin, since)) for begin, end in self.inference)


class TimedStager:
    """A stager with a stop-watch."""

    def __init__(self, stager: Stager, watch: WardWatch) -> None:
        """Keep the stager to time."""
        self._stager = stager
        self._watch = watch

    @property
    def provider(self) -> str:
        """What computes."""
        return self._stager.provider

    @property
    def pace(self) -> Pace:
        """How fast it works."""
        return self._stager.pace

    def judge(self, looks: Sequence[Look]) -> list[Opinion]:
        """Judge, and note from when to when."""
        began = time.monotonic()
        try:
            return self._stager.judge(looks)
        finally:
            self._watch.inference.append((began, time.monotonic()))

    def close(self) -> None:
        """Close it."""
        self._stager.close()


class WatchedJournal(Journal):
    """The journal; it notes when the broker has acknowledged."""

    watch: WardWatch

    def acknowledge(self, bed: str, sequence: int) -> None:
        """Note an acknowledgement, as the journal does."""
        super().acknowledge(bed, sequence)
        self.watch.puback(bed, sequence)


def run_room(
    pack: Pack,
    arrivals: Callable[[WardWatch], Iterator[tuple[str, Arrival]]],
    config: Config | None = None,
) -> WardWatch:
    """Run a ward over arrivals until they end, and return what happened when."""
    watch = WardWatch()
    asyncio.run(_run(pack, arrivals(watch), config or Config(), watch))
    return watch


async def _run(
    pack: Pack, arrivals: Iterator[tuple[str, Arrival]], config: Config, watch: WardWatch
) -> None:
    source = RecordedSource(arrivals, UtcAnchor(1000.0, time.time()), "simulated")
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hypnocast-bench-")))
        broker = await stack.enter_async_context(any_broker(folder))
        journal = await stack.enter_async_context(WatchedJournal.open(folder / JOURNAL))
        journal.watch = watch
        parts = make_parts(config, pack, journal, live=False, on_step=lambda _: None)
        build = stager_builder(config, pack, lambda _: None)
        parts = replace(parts, judge=Judge(lambda: TimedStager(build(), watch)))
        make = pipeline_maker(config, pack, source, boot_id="bench", auto=True)
        ward = Ward(
            WardParts(
                source=source,
                pack=pack,
                parts=parts,
                topics=Topics("bench"),
                node="bench",
                broker=broker,
                make_pipeline=lambda bed, send: make(bed, _noting(bed, send, watch)),
                watchers=(watch,),
            )
        )
        await ward.run()


def _noting(bed: str, send: Callable[[Item], None], watch: WardWatch) -> Callable[[Item], None]:
    def noted(item: Item) -> None:
        if isinstance(item, ClosedPage):
            watch.drawn[bed, item.epoch] = time.monotonic()
        send(item)

    return noted


@contextlib.asynccontextmanager
async def any_broker(folder: Path) -> AsyncIterator[BrokerSettings]:
    """Serve with mosquitto where there is one, else with the embedded broker."""
    program = mosquitto()
    if program is None:
        async with embedded_broker() as settings:
            yield settings
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n", encoding="utf-8")
    with subprocess.Popen(  # noqa: ASYNC220 - nothing else runs yet
        [program, "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as broker:
        try:
            await _listening(port)
            yield BrokerSettings(port=port)
        finally:
            broker.terminate()


def mosquitto() -> str | None:
    """Return where mosquitto lies, if it is installed."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


async def _listening(port: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return
