"""A bed's streams made up sample by sample, for tests of time: what was sent, and when."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from hypnocast.core.pages.page_builder import PageBuilder, PageNeeds
from hypnocast.core.timing.decisions import Decision
from hypnocast.core.types import (
    PAGE_S,
    ChannelInfo,
    Chunk,
    ClockReading,
    Derivation,
    FloatArray,
    Page,
    Role,
    StreamHeader,
    StreamLost,
    StreamOpened,
)

EEG = (Role.F4, Role.C4)
FACE = (Role.E1, Role.CHIN)
NEEDS = PageNeeds(roles=(*EEG, *FACE), context_s=5.0, tail_s=1.0)

Event = Chunk | ClockReading | StreamOpened | StreamLost


@dataclass(frozen=True)
class Bipolar:
    """A montage that reads each label as the role it names."""

    derivations: dict[Role, Derivation]


def choose(headers: Sequence[StreamHeader]) -> Bipolar:
    found: dict[Role, Derivation] = {}
    for header in headers:
        for index, channel in enumerate(header.channels):
            if channel.label in set(Role):
                role = Role(channel.label)
                worth = 1.0 if channel.unit == "uV" else None
                found[role] = Derivation(
                    role, role.value, header.key, index, None, worth, rate=header.rate
                )
    return Bipolar(found)


def header(key: str, roles: Sequence[str], rate: float, *, uid: str = "first") -> StreamHeader:
    channels = tuple(ChannelInfo(label, "uV") for label in roles)
    return StreamHeader(key, key, "EEG", key, uid, "amp", rate, channels)


@dataclass(frozen=True)
class Sent:
    """What one outlet sent: its samples, their stamps, and when each was truly sampled."""

    header: StreamHeader
    samples: NDArray[np.float32]
    stamps: FloatArray
    taken: FloatArray
    """On the local clock."""
    offset: float = 0.0
    """Local clock = sender's clock + offset."""

    def without(self, start: float, end: float) -> Sent:
        return self.only((self.taken < start) | (self.taken >= end))

    def only(self, kept: NDArray[np.bool_]) -> Sent:
        return replace(
            self, samples=self.samples[kept], stamps=self.stamps[kept], taken=self.taken[kept]
        )

    def chunk(self, start: int, end: int, arrived: float = 0.0) -> Chunk:
        key = self.header.key
        return Chunk(key, self.samples[start:end], self.stamps[start:end], arrived)

    def readings(self, every: float = 5.0) -> list[ClockReading]:
        times = np.arange(self.taken[0], self.taken[-1], every)
        return [ClockReading(self.header.key, float(at), self.offset) for at in times]


def send(
    head: StreamHeader,
    *,
    start: float,
    seconds: float,
    seed: int = 0,
    drift_ppm: float = 0.0,
    jitter: float = 0.0,
    offset: float = 0.0,
) -> Sent:
    """Send noise: an amplifier whose crystal is off and whose stamps are jittered."""
    rng = np.random.default_rng(seed)
    n = int(seconds * head.rate)
    taken = start + np.arange(n) / head.rate * (1.0 + drift_ppm * 1e-6)
    samples = rng.normal(0.0, 30.0, (n, len(head.channels))).astype(np.float32)
    stamps = taken - offset + rng.normal(0.0, 1.0, n) * jitter
    return Sent(head, samples, stamps, taken, offset)


def timed(sent: Sent, sizes: Iterator[int]) -> Iterator[tuple[float, Event]]:
    """Give one outlet's events with the local time of each, in order.

    Readings come before the samples stamped after them.
    """
    yield float(sent.taken[0]), StreamOpened(sent.header, float(sent.taken[0]))
    readings = sent.readings()
    start = 0
    while start < len(sent.stamps):
        end = min(start + next(sizes), len(sent.stamps))
        latest = sent.stamps[start:end].max()
        now = float(sent.taken[end - 1])
        while readings and readings[0].at - readings[0].offset <= latest:
            yield now, readings.pop(0)
        yield now, sent.chunk(start, end)
        start = end


def in_chunks(sent: Sent, sizes: Iterator[int]) -> Iterator[Event]:
    """Give one outlet's events in order."""
    return (event for _, event in timed(sent, sizes))


def side_by_side(*streams: Iterable[tuple[float, Event]]) -> list[Event]:
    """Mix streams as they would arrive: by time."""
    return [event for _, event in sorted(chain(*streams), key=lambda pair: pair[0])]


def always(size: int) -> Iterator[int]:
    while True:
        yield size


def any_size(rng: np.random.Generator) -> Iterator[int]:
    while True:
        yield int(rng.choice([1, 2, 7, 13, 64, 100, 500, 5000]))


def in_any_order(streams: Sequence[Iterable[Event]], rng: np.random.Generator) -> Iterator[Event]:
    """Mix streams at random; each keeps its own order. All are opened first."""
    waiting = [list(stream) for stream in streams]
    for stream in waiting:
        yield stream.pop(0)
    while any(waiting):
        stream = waiting[int(rng.integers(len(waiting)))]
        if stream:
            yield stream.pop(0)


def pages_of(
    events: Iterable[Event],
    *,
    anchor: float,
    end: float,
    needs: PageNeeds = NEEDS,
    obey: Sequence[Decision] | None = None,
    watch: Callable[[PageBuilder], None] | None = None,
) -> list[Page]:
    """Run a bed in its data's own time, as simulation and replay do."""
    builder = PageBuilder(needs, choose=choose, obey=obey)
    builder.begin(anchor)
    pages: list[Page] = []
    for event in events:
        builder.add(event)
        now = builder.watermark
        if now is not None:
            pages += builder.close_due(now)
    pages += builder.end(end)
    if watch is not None:
        watch(builder)
    return pages


def same(a: Page, b: Page) -> bool:
    """Return whether two pages are the same, byte for byte, NaN for NaN."""
    return (
        a.epoch == b.epoch
        and list(a.signals) == list(b.signals)
        and all(
            a.signals[role].derivation == b.signals[role].derivation
            and a.signals[role].samples.tobytes() == b.signals[role].samples.tobytes()
            for role in a.signals
        )
    )


def all_same(a: Sequence[Page], b: Sequence[Page]) -> bool:
    return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))


def proper(page: Page, role: Role) -> FloatArray:
    """Return the 30 s of a page alone."""
    signal = page.signals[role]
    first = round(page.context_s * signal.rate)
    return signal.samples[first : first + round(PAGE_S * signal.rate)]


def missing(page: Page, role: Role) -> float:
    return float(np.isnan(proper(page, role)).mean())
