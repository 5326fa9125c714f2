"""Nights that are the same up to some moment and differ from then on, as they arrive.

What differs is everything: samples, delays, chunks, and which stretches come at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from hypnocast.core.types import PAGE_S, Chunk, Role, StreamHeader, StreamOpened
from support import bed_lab as bed

START = 1000.0
RATES: Mapping[str, float] = MappingProxyType({"eeg": 4.0, "eog": 2.0})
ROLES: Mapping[str, tuple[Role, ...]] = MappingProxyType(
    {"eeg": (Role.F4, Role.C4), "eog": (Role.E1,)}
)
LONGEST_CHUNK_S = 15

Timed = tuple[float, bed.Event]


def arrivals(
    seed: int,
    pages: int,
    until: float,
    future: int,
    *,
    start: float = START,
    rates: Mapping[str, float] = RATES,
) -> list[Timed]:
    """Give a night's events by their time of arrival, the same before ``until`` in any future."""
    night = _Night(seed, pages, until, future, start)
    streams = [
        _stream(night, key, rate, number) for number, (key, rate) in enumerate(rates.items())
    ]
    return sorted((one for stream in streams for one in stream), key=lambda pair: pair[0])


@dataclass(frozen=True)
class _Night:
    seed: int
    pages: int
    until: float
    future: int
    start: float


def _stream(night: _Night, key: str, rate: float, number: int) -> Iterator[Timed]:
    seed, pages, until, future = night.seed, night.pages, night.until, night.future
    head: StreamHeader = bed.header(key, [role.value for role in ROLES[key]], rate)
    rng = np.random.default_rng([seed, number])
    seconds = pages * PAGE_S + 20.0
    sent = bed.send(
        head, start=night.start - 8.0, seconds=seconds, seed=seed * 7 + number,
        jitter=0.002, drift_ppm=float(rng.uniform(-100, 100)), offset=float(rng.uniform(-50, 50)),
    )  # fmt: skip
    for hole in night.start + rng.uniform(0, pages * PAGE_S, 3):
        sent = sent.without(float(hole), float(hole + rng.exponential(20.0)))
    readings = sent.readings()
    other = np.random.default_rng([seed, number, future])
    yield float(sent.taken[0]), StreamOpened(head, float(sent.taken[0]))
    first, clock = 0, 0.0
    while first < len(sent.stamps):
        draw = rng if sent.taken[first] < until else other
        last = min(first + int(draw.integers(1, round(LONGEST_CHUNK_S * rate))), len(sent.stamps))
        if sent.taken[first] < until < sent.taken[last - 1]:
            last = max(first + 1, int(sent.taken.searchsorted(until)))
        chunk = sent.chunk(first, last)
        late = float(draw.exponential(0.2) + (draw.random() < 0.03) * draw.uniform(0.0, 8.0))
        clock = max(clock, float(sent.taken[last - 1]) + late)
        while readings and readings[0].at - readings[0].offset <= chunk.stamps.max():
            yield clock, readings.pop(0)
        if sent.taken[first] < until or not future:
            yield clock, chunk
        elif other.random() > 0.1:
            changed = other.normal(0.0, 30.0, chunk.samples.shape).astype(np.float32)
            yield clock, Chunk(chunk.stream, changed, chunk.stamps, clock)
        first = last
