"""Samples with their times, and how they come to lie on the session's grid.

Slot *k* of a channel lies at ``anchor + k / rate``, with the channel's own nominal rate. A slot
holds the sample nearest to it in time if one is within three quarters of an interval, else it
stays NaN: nothing is interpolated, and a clock that runs 200 ppm slow or fast leaves no hole.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypnocast.core.types import STEPS_PER_MICROVOLT, Derivation, FloatArray

REACH = 0.75
"""How far from a slot, in intervals, its sample may lie."""

BLOCK = 1024
"""Samples that are kept, and let go of, together: 4 s at 256 Hz."""

_UNKNOWN = np.iinfo(np.int32).min
"""The whole step that means NaN."""


class _Block:
    """Some samples: their times, and their values in steps of 1/64 µV."""

    __slots__ = ("_steps", "_whole", "times")

    def __init__(self, rows: int) -> None:
        """Begin with room for so many rows."""
        self.times: FloatArray = np.empty(BLOCK)
        self._steps: NDArray[np.int32] | FloatArray = np.empty((rows, BLOCK), np.int32)
        """Whole numbers, in half the memory; floats where a value lies beyond ±33 V."""
        self._whole = True
        """Whether every value is known."""

    def put(self, at: slice, times: FloatArray, values: FloatArray) -> None:
        """Add samples, to the last bit."""
        self.times[at] = times
        steps = values * STEPS_PER_MICROVOLT
        if not np.abs(steps).max(initial=0.0) < -_UNKNOWN:  # nor is NaN less than anything
            unknown = np.isnan(steps)
            if self._whole and unknown.any():
                self._whole = False
            if np.fmax.reduce(np.abs(steps), axis=None) >= -_UNKNOWN:
                self._steps = self.known(slice(None))
            if self._steps.dtype == np.int32:
                steps[unknown] = _UNKNOWN
        self._steps[:, at] = steps

    def known(self, part: slice) -> FloatArray:
        """Return steps, NaN where a value is unknown."""
        steps = self._steps[:, part].astype(np.float64)
        if not self._whole and self._steps.dtype == np.int32:
            steps[steps == _UNKNOWN] = np.nan
        return steps


class SampleStore:
    """The newest samples of one stream: their times, and one row of values per derivation.

    Values lie on the 1/64 µV grid of :func:`derive` and are kept as whole steps, in blocks that
    are let go of as soon as no page needs them: a ward pays this memory for every bed.
    """

    def __init__(self, rows: int, *, base: int = 0) -> None:
        """Begin empty, with so many rows of values, after ``base`` samples gone by."""
        self._rows = rows
        self._blocks: deque[_Block] = deque()
        self._from = 0
        """Samples dropped of the first block."""
        self._room = 0
        """Places left in the last block."""
        self._dropped = base

    def __len__(self) -> int:
        """How many samples are kept."""
        return len(self._blocks) * BLOCK - self._from - self._room

    @property
    def stored(self) -> int:
        """How many samples were ever stored, dropped ones included."""
        return self._dropped + len(self)

    @property
    def first(self) -> float | None:
        """The time of the first sample kept."""
        return float(self._blocks[0].times[self._from]) if len(self) else None

    def append(self, times: FloatArray, values: FloatArray) -> None:
        """Add samples; their times must go on from the last ones."""
        while n := len(times):
            if not self._room:
                self._blocks.append(_Block(self._rows))
                self._room = BLOCK
            n = min(n, self._room)
            at = BLOCK - self._room
            self._blocks[-1].put(slice(at, at + n), times[:n], values[:, :n])
            self._room -= n
            times, values = times[n:], values[:, n:]

    def drop_before(self, time: float) -> None:
        """Let go of samples older than a time."""
        while self._blocks:
            end = self._end(0)
            n = int(self._blocks[0].times[self._from : end].searchsorted(time))
            self._from += n
            self._dropped += n
            if self._from < end:
                return
            self._blocks.popleft()
            self._from = 0
            self._room = self._room if self._blocks else 0

    def kept_of(self, stored: int) -> int:
        """Return how many of the first ``stored`` samples are still kept."""
        return max(0, min(stored - self._dropped, len(self)))

    def count_after(self, stored: int, start: float, end: float) -> int:
        """Count samples of ``start <= time < end`` that came after the first ``stored``."""
        skip, count = self.kept_of(stored), 0
        for block, kept in self._parts():
            rest = block.times[kept][skip:]
            skip = max(0, skip - (kept.stop - kept.start))
            count += int(rest.searchsorted(end) - rest.searchsorted(start))
        return count

    def around(
        self, start: float, end: float, *, stored: int | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """Return times and values, (rows, samples), of all samples between two times.

        And of some before and after them, because whole blocks are read. With ``stored``, of the
        first so many samples only.
        """
        left = len(self) if stored is None else self.kept_of(stored)
        times: list[FloatArray] = []
        steps: list[FloatArray] = []
        for block, kept in self._parts():
            part = slice(kept.start, min(kept.stop, kept.start + left))
            left -= part.stop - part.start
            here = block.times[part]
            if len(here) and here[-1] >= start and here[0] <= end:
                times.append(here)
                steps.append(block.known(part))
        if not times:
            return np.empty(0), np.empty((self._rows, 0))
        return np.concatenate(times), np.concatenate(steps, axis=1) / STEPS_PER_MICROVOLT

    def with_rows(self, sources: Sequence[int | None]) -> SampleStore:
        """Return a store of the same samples with rows rearranged; None is a row of NaN."""
        fresh = SampleStore(len(sources), base=self._dropped)
        for block, kept in self._parts():
            before = block.known(kept) / STEPS_PER_MICROVOLT
            values = np.full((len(sources), before.shape[1]), np.nan)
            for row, source in enumerate(sources):
                if source is not None:
                    values[row] = before[source]
            fresh.append(block.times[kept], values)
        return fresh

    def _end(self, place: int) -> int:
        return BLOCK - self._room if place == len(self._blocks) - 1 else BLOCK

    def _parts(self) -> Iterator[tuple[_Block, slice]]:
        """Give the blocks, and what is kept of each."""
        for place, block in enumerate(self._blocks):
            yield block, slice(self._from if place == 0 else 0, self._end(place))


def place(
    times: FloatArray, values: FloatArray, *, anchor: float, rate: float, first: int, slots: int
) -> FloatArray:
    """Lay samples on slots ``first … first + slots - 1`` of a grid; (rows, slots), NaN elsewhere.

    Of two samples equally near to a slot the earlier is used. The result depends on the samples
    only, however they came.
    """
    grid = np.full((len(values), slots), np.nan)
    low = int(np.searchsorted(times, anchor + (first - 1) / rate))
    high = int(np.searchsorted(times, anchor + (first + slots) / rate, side="right"))
    if low == high:
        return grid
    at = (times[low:high] - anchor) * rate - first
    places = np.arange(slots, dtype=np.float64)
    begin, end = at.searchsorted([-0.5, slots - 0.5]).tolist()
    if end - begin == slots and (np.abs(at[begin:end] - places) < 0.5).all():
        return values[:, low + begin : low + end]  # each slot's sample is its own, and the nearest
    after = np.searchsorted(at, places)
    before = np.maximum(after - 1, 0)
    np.minimum(after, len(at) - 1, out=after)
    to_before = np.abs(places - at[before])
    to_after = np.abs(at[after] - places)
    nearest = np.where(to_after < to_before, after, before)
    near = np.minimum(to_after, to_before) <= REACH
    if near.all():
        return np.take(values[:, low:high], nearest, axis=1)
    grid[:, near] = values[:, low:high][:, nearest[near]]
    return grid


def derive(samples: NDArray[Any], derivations: Sequence[Derivation]) -> FloatArray:
    """Turn raw samples (n, channels) into derivations (rows, n) in µV on the 1/64 µV grid.

    What is not finite becomes NaN, and so does everything of unknown unit and every channel that
    the samples, against their header, do not have.
    """
    channels = samples.shape[1]
    out = np.empty((len(derivations), len(samples)))
    with np.errstate(invalid="ignore", over="ignore"):
        for row, derivation in enumerate(derivations):
            worth = derivation.microvolts_per_unit
            if worth is None or max(derivation.positive, derivation.negative or 0) >= channels:
                out[row] = np.nan
                continue
            out[row] = samples[:, derivation.positive]
            if derivation.negative is not None:
                out[row] -= samples[:, derivation.negative]
            out[row] *= worth * STEPS_PER_MICROVOLT
        np.rint(out, out=out)
        out /= STEPS_PER_MICROVOLT
    out[~np.isfinite(out)] = np.nan
    return out
