"""One stream of a bed, on its way from raw chunks to samples with times."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from hypnocast.core.pages.sample_store import SampleStore, derive, place
from hypnocast.core.timing.clock import ClockSegment
from hypnocast.core.timing.decisions import StreamCut
from hypnocast.core.timing.dejitter import Dejitter
from hypnocast.core.timing.stamp_mapper import StampMapper
from hypnocast.core.types import (
    Chunk,
    ClockReading,
    Derivation,
    FloatArray,
    Role,
    Signal,
    StreamHeader,
)

_NOTHING: FloatArray = np.empty(0)
_D = TypeVar("_D", ClockSegment, StreamCut)


def _of(kind: type[_D], script: Iterable[ClockSegment | StreamCut]) -> Iterator[_D]:
    return (decision for decision in script if isinstance(decision, kind))


@dataclass(frozen=True, slots=True)
class AlignedStreamState:
    """How a stream fares, for people and metrics."""

    stream: str
    open: bool
    latest: float | None
    """Local time of its newest sample."""
    samples: int
    offset: float | None
    clock: str
    """Why its clock is mapped as it is: see :class:`.clock.ClockSegment`; ``waiting`` for the
    first reading."""
    drift_ppm: float
    jitter_ms: float
    overlapping: int
    """Samples dropped because others had been there before, at the same time."""
    unusable: int
    """Samples dropped because their stamp is no time at all."""
    refused: int = 0
    """Samples dropped because they claimed to be later than the local clock allows."""


class AlignedStream:
    """Keeps one stream's newest samples as derivations in µV.

    It waits twice: for the clock to be known, and for the first block of a segment. Values wait
    along with their stamps, in order.
    """

    def __init__(
        self,
        header: StreamHeader,
        derivations: Sequence[Derivation],
        *,
        count: int = 0,
        obey: Iterable[ClockSegment | StreamCut] | None = None,
    ) -> None:
        """Follow a stream of which ``count`` samples went by unheeded; obey a tape if given."""
        script = tuple(obey or ())
        self.header = header
        self.derivations = tuple(derivations)
        self.open = True
        self.store = SampleStore(len(self.derivations), base=count)
        self._mapper = StampMapper(header.key, count=count, script=_of(ClockSegment, script))
        self._obeys = obey is not None
        self._cuts = deque(cut.after_sample for cut in _of(StreamCut, script))
        self._dejitter = Dejitter(header.rate)
        self._values: deque[FloatArray] = deque()
        self._overlapping = 0
        self._unusable = 0
        self._discarded = 0
        """Samples whose values were let go of because they were refused."""
        self.latest: float | None = None
        """Local time of the newest sample stored."""

    @property
    def seen(self) -> int:
        """How many samples came, over all openings."""
        return self._mapper.count + self._mapper.waiting

    @property
    def mapped(self) -> int:
        """How many of them have a place on the local clock."""
        return self._mapper.count

    @property
    def wants_reading(self) -> bool:
        """Whether samples wait for a clock reading."""
        return self._mapper.waiting > 0

    def state(self) -> AlignedStreamState:
        """Return how the stream fares."""
        segment = self._mapper.segment
        return AlignedStreamState(
            stream=self.header.key,
            open=self.open,
            latest=self.latest,
            samples=self.seen,
            offset=segment.offset if segment is not None else None,
            clock=segment.why if segment is not None else "waiting",
            drift_ppm=self._dejitter.drift * 1e6,
            jitter_ms=self._dejitter.jitter * 1e3,
            overlapping=self._overlapping,
            unusable=self._unusable,
            refused=self._mapper.refused,
        )

    def pop_decided(self) -> list[ClockSegment]:
        """Return the clock segments decided since the last call."""
        return self._mapper.pop_decided()

    def feed(self, chunk: Chunk) -> FloatArray:
        """Add a chunk; return the times of the samples stored."""
        samples, stamps = chunk.samples, chunk.stamps
        usable = np.isfinite(stamps)
        if not usable.all():
            self._unusable += int(len(stamps) - usable.sum())
            samples, stamps = samples[usable], stamps[usable]
        if not len(stamps):
            return _NOTHING
        self._values.append(derive(samples, self.derivations))
        return self._store(self._mapper.feed(stamps, chunk.arrived))

    def read(self, reading: ClockReading) -> FloatArray:
        """Add a clock reading; return the times of samples that waited for it."""
        return self._store(self._mapper.read(reading))

    def cut(self, *, new_clock: bool = False) -> FloatArray:
        """End the segment: what waited is stored as well as can be.

        With ``new_clock`` nothing that was known of the sender's clock holds any longer. A
        replay cuts where the tape does, not here.
        """
        if self._obeys:
            return _NOTHING
        times = self._store(self._mapper.restart() if new_clock else self._mapper.cut())
        rest = self._keep(self._dejitter.cut())
        return np.concatenate((times, rest)) if len(rest) else times

    def rearrange(self, derivations: Sequence[Derivation]) -> None:
        """Change the derivations made of this stream; those that stay keep their samples."""
        places = {d: row for row, d in enumerate(self.derivations)}
        sources = [places.get(d) for d in derivations]
        self.store = self.store.with_rows(sources)
        waiting = [np.full((len(sources), part.shape[1]), np.nan) for part in self._values]
        for fresh, part in zip(waiting, self._values, strict=True):
            for row, source in enumerate(sources):
                if source is not None:
                    fresh[row] = part[source]
        self._values = deque(waiting)
        self.derivations = tuple(derivations)

    def signals(
        self, *, anchor: float, start: float, seconds: float, stored: int | None = None
    ) -> dict[Role, Signal]:
        """Lay what is kept on the grid, from ``anchor + start`` on."""
        rate = self.header.rate
        first, slots = round(start * rate), round(seconds * rate)
        times, values = self.store.around(
            anchor + (first - 1) / rate, anchor + (first + slots) / rate, stored=stored
        )
        rows = place(times, values, anchor=anchor, rate=rate, first=first, slots=slots)
        return {d.role: Signal(d, rate, row) for d, row in zip(self.derivations, rows, strict=True)}

    def _store(self, local: FloatArray) -> FloatArray:
        """Give mapped stamps their times; obey recorded cuts on the way."""
        done = self._mapper.count - len(local)
        parts: list[FloatArray] = []
        while self._cuts and self._cuts[0] <= done + len(local):
            at = self._cuts.popleft() - done
            if at > 0:
                parts.append(self._place(local[:at]))
                local, done = local[at:], done + at
            parts.append(self._keep(self._dejitter.cut()))
        kept = self._place(local) if len(local) else local
        return np.concatenate((*parts, kept)) if parts else kept

    def _place(self, local: FloatArray) -> FloatArray:
        """Give mapped stamps their times, and let go of what was refused."""
        if self._mapper.refused == self._discarded:
            return self._keep(self._dejitter.feed(local))
        refused = np.isnan(local)
        parts: list[FloatArray] = []
        for run in np.split(local, np.flatnonzero(np.diff(refused)) + 1):
            if np.isnan(run[0]):
                self._discard(len(run))
            else:
                parts.append(self._keep(self._dejitter.feed(run)))
        return np.concatenate(parts) if parts else _NOTHING

    def _discard(self, n: int) -> None:
        """Let go of ``n`` values, those after the ones that the dejitter holds."""
        self._discarded += n
        before = [self._pull(held)] if (held := self._dejitter.held) else []
        self._pull(n)
        self._values.extendleft(before)

    def _keep(self, times: FloatArray) -> FloatArray:
        """Store the oldest waiting values under their times; never go back in time."""
        n = len(times)
        if not n:
            return times
        values = self._pull(n)
        before = np.empty(n)
        before[0] = -np.inf if self.latest is None else self.latest
        before[1:] = times[:-1]
        if (times <= before).any():
            ahead = times > np.maximum.accumulate(before)
            self._overlapping += n - int(ahead.sum())
            times, values = times[ahead], values[:, ahead]
            if not len(times):
                return times
        self.store.append(times, values)
        self.latest = float(times[-1])
        return times

    def _pull(self, n: int) -> FloatArray:
        parts: list[FloatArray] = []
        while n:
            part = self._values.popleft()
            if part.shape[1] > n:
                self._values.appendleft(part[:, n:])
                part = part[:, :n]
            parts.append(part)
            n -= part.shape[1]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
