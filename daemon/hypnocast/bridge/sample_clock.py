"""Times for samples of gear that gives none: counted, and held to the time at which they came."""

from __future__ import annotations

from typing import Final

import numpy as np

from hypnocast.core.types import FloatArray

WINDOW_S: Final = 2.0
"""What lags behind for so long was not held up on its way: samples are missing before it."""


class SampleClock:
    """Stamps the samples of one connection on the local clock.

    Samples lie evenly at the nominal rate. The one that came quickest says where: none is later
    than its arrival, and a block that was held up on its way (by a network, by a busy machine)
    moves nothing. Where every block of two seconds lags, the stamps move on by the smallest lag:
    by microseconds where the gear's crystal is slow, by more where samples were lost.
    """

    def __init__(self, rate: float) -> None:
        """Begin with a nominal rate in Hz."""
        self._interval = 1.0 / rate
        self._next: float | None = None
        self._window_ends = 0.0
        self._least_lag = float("inf")

    def stamps(self, count: int, arrived: float) -> FloatArray:
        """Return the times of the next ``count`` samples, read at a local time."""
        length = (count - 1) * self._interval
        if self._next is None:
            self._next = arrived - length
            self._window_ends = arrived + WINDOW_S
        lag = arrived - (self._next + length)
        if lag < 0.0:
            self._next += lag
            lag = 0.0
        self._least_lag = min(self._least_lag, lag)
        if arrived >= self._window_ends:
            self._next += self._least_lag
            self._window_ends, self._least_lag = arrived + WINDOW_S, float("inf")
        times = self._next + np.arange(count, dtype=np.float64) * self._interval
        self._next += count * self._interval
        return times

    def skip(self, count: int) -> None:
        """Leave room for samples that are known to be lost."""
        if self._next is not None:
            self._next += count * self._interval
