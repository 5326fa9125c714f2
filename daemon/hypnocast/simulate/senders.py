"""What each stream of a simulated bed hands over as time goes on."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hypnocast.core.types import (
    PAGE_S,
    Arrival,
    ChannelInfo,
    Chunk,
    ClockReading,
    FloatArray,
    Mark,
    StreamHeader,
    StreamLost,
    StreamOpened,
)
from hypnocast.simulate.amplifier import Amplifier, uid
from hypnocast.simulate.faults import FaultKind
from hypnocast.simulate.night import SimulatedNight

_READING_EVERY_S = 5.0
_FLOOD = 20
_CLOSED = "closed by its sender"

Window = tuple[float, float]


class Sender(Protocol):
    """One stream; times are seconds since the source began."""

    @property
    def header(self) -> StreamHeader:
        """The stream's description when it first opens."""
        ...

    def begin(self) -> Iterator[Arrival]:
        """Open the stream."""
        ...

    def advance(self, since: float, until: float) -> Iterator[Arrival]:
        """Hand over what comes from ``since`` up to, not including, ``until``."""
        ...

    def end(self, at: float) -> Iterator[Arrival]:
        """Close the stream."""
        ...


class SignalSender:
    """Sends one outlet's samples, through whatever happens to them on the way."""

    def __init__(self, amplifier: Amplifier, clock_start: float) -> None:
        """Keep the outlet and the local clock's time in the beginning."""
        self._amplifier = amplifier
        self._key = amplifier.header.key
        self._clock_start = clock_start
        self._late = amplifier.windows(FaultKind.LATE)
        self._gone = amplifier.windows(FaultKind.SILENT, FaultKind.RESTART)
        self._lost = sorted([*amplifier.windows(FaultKind.DROPOUT), *self._gone])
        self._away = sorted([*self._lost, *self._late])
        self._floods = amplifier.windows(FaultKind.FLOOD)
        self._silent = amplifier.windows(FaultKind.SILENT)
        self._closed = amplifier.windows(FaultKind.RESTART)
        self._restarts = amplifier.restarts()
        self._new_lives = 0
        self._is_open = False

    @property
    def header(self) -> StreamHeader:
        """The stream's description when it first opens."""
        return self._amplifier.header

    def begin(self) -> Iterator[Arrival]:
        """Open the stream and read its clock once."""
        self._is_open = True
        yield StreamOpened(self.header, self._clock_start)
        yield self._reading(0.0)

    def advance(self, since: float, until: float) -> Iterator[Arrival]:
        """Hand over samples, clock readings and restarts in the order of their times."""
        rate = self._amplifier.rate
        first, last = _first_at(since, rate), _first_at(until, rate)
        coming = [*self._life(since, until), *self._readings(since, until)]
        for start, end in self._late:
            begin, stop = _first_at(start, rate), _first_at(end, rate) if end < math.inf else 0
            if first < stop <= last:
                coming.extend(
                    (end, chunk) for _, chunk in self._chunks(begin, stop, self._lost, end)
                )
        coming.extend(self._chunks(first, last, self._away, until))
        for _, arrival in sorted(coming, key=lambda pair: pair[0]):
            yield arrival

    def end(self, at: float) -> Iterator[Arrival]:
        """Close the stream, unless it is gone already."""
        if self._is_open and not _within(at, self._silent):
            yield StreamLost(self._key, self._clock_start + at, _CLOSED)

    def _life(self, since: float, until: float) -> Iterator[tuple[float, Arrival]]:
        for restart in self._restarts:
            if since <= restart.start < until and self._is_open:
                self._is_open = False
                at = self._clock_start + restart.start
                yield restart.start, StreamLost(self._key, at, _CLOSED)
            if since <= restart.end < until and not _within(restart.end, self._closed):
                self._is_open = True
                self._new_lives += restart.argument == "new"
                at = self._clock_start + restart.end
                header = self._amplifier.reopened(self._new_lives, at)
                yield restart.end, StreamOpened(header, at)
                yield restart.end, self._reading(restart.end)

    def _readings(self, since: float, until: float) -> Iterator[tuple[float, Arrival]]:
        opened = {0.0, *(end for _, end in self._closed)}
        number = math.ceil(since / _READING_EVERY_S)
        while (at := number * _READING_EVERY_S) < until:
            if at not in opened and not _within(at, self._gone):
                yield at, self._reading(at)
            number += 1

    def _reading(self, t: float) -> ClockReading:
        local = self._clock_start + t
        return ClockReading(self._key, local, local - self._amplifier.sender_clock(t))

    def _chunks(
        self, first: int, last: int, away: list[Window], until: float
    ) -> Iterator[tuple[float, Arrival]]:
        """Yield the samples of a range that are not away, each run of them as a chunk."""
        rate = self._amplifier.rate
        for low, high in _outside(first, last, away, rate):
            at = until if high == last else high / rate
            samples, stamps = self._flooded(low, high) if self._floods else self._sent(low, high)
            yield at, Chunk(self._key, samples, stamps, self._clock_start + at)

    def _sent(self, first: int, last: int) -> tuple[NDArray[np.float32], FloatArray]:
        return self._amplifier.samples(first, last), self._amplifier.stamps(first, last)

    def _flooded(self, first: int, last: int) -> tuple[NDArray[np.float32], FloatArray]:
        """Repeat what falls into a flood, with timestamps in between."""
        rate = self._amplifier.rate
        samples, stamps = self._sent(first, last)
        at = np.arange(first, last) / rate
        flood = np.any([(at >= start) & (at < end) for start, end in self._floods], axis=0)
        times = np.where(flood, _FLOOD, 1)
        turn = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times)
        between = turn / (_FLOOD * rate)
        return np.repeat(samples, times, axis=0), np.repeat(stamps, times) + between


class Marks:
    """Sends texts at given times, from a host whose clock is ours."""

    def __init__(
        self,
        header: StreamHeader,
        clock_start: float,
        marks: Iterable[tuple[float, str]],
    ) -> None:
        """Keep the texts with their times, in order."""
        self._header = header
        self._clock_start = clock_start
        self._marks = iter(marks)
        self._next = next(self._marks, None)

    @property
    def header(self) -> StreamHeader:
        """The stream's description."""
        return self._header

    def begin(self) -> Iterator[Arrival]:
        """Open the stream and read its clock once."""
        yield StreamOpened(self._header, self._clock_start)
        yield ClockReading(self._header.key, self._clock_start, 0.0)

    def advance(self, since: float, until: float) -> Iterator[Arrival]:
        """Hand over the marks that are due."""
        while self._next is not None and self._next[0] < until:
            at, text = self._next
            self._next = next(self._marks, None)
            if at >= since:
                stamp = self._clock_start + at
                yield Mark(self._header.key, stamp, text, self._clock_start + until)

    def end(self, at: float) -> Iterator[Arrival]:
        """Close the stream."""
        yield StreamLost(self._header.key, self._clock_start + at, _CLOSED)


def marker_header(
    night: SimulatedNight, bed: str, suffix: str, kind: str, at: float
) -> StreamHeader:
    """Describe a stream of texts."""
    source_id = f"simulated-{night.seed}-{bed}-{suffix}"
    return StreamHeader(
        key=source_id,
        name=f"{bed}-{suffix}",
        type=kind,
        source_id=source_id,
        uid=uid(source_id, 0),
        host="simulator",
        rate=0.0,
        channels=(ChannelInfo(suffix),),
        format="string",
        created_at=at,
    )


def truth_marks(night: SimulatedNight, skip_pages: int) -> Iterator[tuple[float, str]]:
    """Yield the truth of a night page by page, as JSON: its stage, then each event that begins."""
    for page in range(skip_pages, len(night.stages)):
        epoch = page - skip_pages
        yield epoch * PAGE_S, json.dumps({"stage": str(night.stage(page)), "epoch": epoch})
        for event in night.page_events(page):
            at = event.start - skip_pages * PAGE_S
            yield (
                at,
                json.dumps(
                    {
                        "event": str(event.kind),
                        "start": round(at, 3),
                        "duration": round(event.duration, 3),
                        "microvolts": round(event.microvolts, 1),
                    }
                ),
            )


def light_marks(night: SimulatedNight, skip_pages: int) -> Iterator[tuple[float, str]]:
    """Yield when the lights go off and on."""
    yield night.hypnogram.lights_off - skip_pages * PAGE_S, "lights_off"
    yield night.hypnogram.lights_on - skip_pages * PAGE_S, "lights_on"


def _first_at(t: float, rate: int) -> int:
    """Return the number of the first sample at or after a time."""
    return math.ceil(t * rate - 1e-6)


def _within(t: float, windows: Iterable[Window]) -> bool:
    return any(start <= t < end for start, end in windows)


def _outside(
    first: int, last: int, windows: Iterable[Window], rate: int
) -> Iterator[tuple[int, int]]:
    """Cut windows of time out of a range of samples."""
    for start, end in windows:
        begin = max(first, _first_at(start, rate))
        stop = last if end == math.inf else min(last, _first_at(end, rate))
        if begin < stop:
            if first < begin:
                yield first, begin
            first = stop
    if first < last:
        yield first, last
