"""Samples with their times, and how they come to lie on the session's grid.

Slot *k* of a channel lies at ``anchor + k / rate``, with the channel's own nominal rate. A slot
takes the sample nearest to it in time if one is within three quarters of an interval, else it
stays NaN: nothing is interpolated, and a clock that runs 200 ppm slow or fast leaves no hole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypnocast.core.types import STEPS_PER_MICROVOLT, Derivation, FloatArray

REACH = 0.75
"""How far from a slot, in intervals, its sample may lie."""

_FIRST_CAPACITY = 4096
_FULL = 0.9
"""A store that is fuller after what was dropped is reclaimed gets more room."""


class SampleStore:
    """The newest samples of one stream: their times, and one row of values per derivation.

    Appending copies only what is new; what was dropped is reclaimed by moving the rest to the
    front when the room is used up. A fifth of it is spare, so that happens some times a page:
    more room would be memory that a ward pays for every bed.
    """

    def __init__(self, rows: int, *, base: int = 0) -> None:
        """Begin empty, with so many rows of values, after ``base`` samples gone by."""
        self._times: FloatArray = np.empty(_FIRST_CAPACITY)
        self._values: FloatArray = np.empty((rows, _FIRST_CAPACITY))
        self._from = 0
        self._to = 0
        self._dropped = base

    @property
    def stored(self) -> int:
        """How many samples were ever stored, dropped ones included."""
        return self._dropped + self._to - self._from

    @property
    def times(self) -> FloatArray:
        """The times kept, strictly increasing; a view."""
        return self._times[self._from : self._to]

    @property
    def values(self) -> FloatArray:
        """The values kept, (rows, samples); a view."""
        return self._values[:, self._from : self._to]

    def append(self, times: FloatArray, values: FloatArray) -> None:
        """Add samples; their times must go on from the last ones."""
        n = len(times)
        if self._to + n > len(self._times):
            self._make_room(n)
        self._times[self._to : self._to + n] = times
        self._values[:, self._to : self._to + n] = values
        self._to += n

    def drop_before(self, time: float) -> None:
        """Let go of samples older than a time."""
        n = int(np.searchsorted(self.times, time))
        self._from += n
        self._dropped += n

    def kept_of(self, stored: int) -> int:
        """Return how many of the first ``stored`` samples are still kept."""
        return max(0, min(stored - self._dropped, self._to - self._from))

    def count_after(self, stored: int, start: float, end: float) -> int:
        """Count samples of ``start <= time < end`` that came after the first ``stored``."""
        rest = self.times[self.kept_of(stored) :]
        return int(np.searchsorted(rest, end) - np.searchsorted(rest, start))

    def with_rows(self, sources: Sequence[int | None]) -> SampleStore:
        """Return a store of the same samples with rows rearranged; None is a row of NaN."""
        fresh = SampleStore(len(sources), base=self._dropped)
        values = np.full((len(sources), len(self.times)), np.nan)
        for row, source in enumerate(sources):
            if source is not None:
                values[row] = self.values[source]
        fresh.append(self.times, values)
        return fresh

    def _make_room(self, n: int) -> None:
        kept = self._to - self._from
        times, values = self._times, self._values
        if kept + n > _FULL * len(times):
            capacity = round((kept + n) / (_FULL * _FULL))
            times, values = np.empty(capacity), np.empty((len(self._values), capacity))
        times[:kept] = self.times
        values[:, :kept] = self.values
        self._times, self._values = times, values
        self._from, self._to = 0, kept


def place(
    times: FloatArray, values: FloatArray, *, anchor: float, rate: float, first: int, slots: int
) -> FloatArray:
    """Lay samples on slots ``first … first + slots - 1`` of a grid; (rows, slots), NaN elsewhere.

    Of two samples equally near to a slot the earlier is taken. The result depends on the samples
    only, however they came.
    """
    grid = np.full((len(values), slots), np.nan)
    low = int(np.searchsorted(times, anchor + (first - 1) / rate))
    high = int(np.searchsorted(times, anchor + (first + slots) / rate, side="right"))
    if low == high:
        return grid
    at = (times[low:high] - anchor) * rate - first
    places = np.arange(slots, dtype=np.float64)
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
