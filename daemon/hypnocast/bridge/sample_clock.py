"""Times for samples that come without: counted, and held to the time at which they came."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from hypnocast.core.types import FloatArray

WINDOW_S: Final = 2.0
"""What lags behind for so long was not held up on its way: samples are missing before it."""

MARGIN_S: Final = 0.25
"""So much later than on time a record of a file may be written without anybody noticing."""

MOST_LATE_S: Final = 0.75
"""What comes later than this would be missed by the page it belongs to: all is sent later then."""

_LOOK_S = 60.0
_DRIFT_S = 0.3
_SLEW = 2e-4


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


class RecordClock:
    """Says when the records of a growing file are to be sent, by when they come to disk.

    A record comes whole, after it was taken. So everything is sent later, by ``hold_back`` seconds
    from the beginning, and evenly. Where the recorder's crystal runs off, the times follow it more
    slowly than any page notices.
    """

    def __init__(self, record_s: float, hold_back: float | None = None) -> None:
        """Take the length of a record; by itself it is held back by that and a margin."""
        self._record_s = record_s
        self.hold_back = record_s + MARGIN_S if hold_back is None else hold_back
        """How long after it came to disk the end of a record is sent, at first."""
        self.origin: float | None = None
        """The local time at which the file's first sample is said to have been taken."""
        self._least_slack = float("inf")
        self._slew = 0.0
        self._looked = 0.0

    def place(self, onset: float, records: int, now: float) -> float:
        """Take note of records from an onset in the file on, which are on disk now.

        Returns by how much they and all later ones are sent later than those before: 0 unless
        they came too late for their pages.
        """
        last = (records - 1) * self._record_s
        if self.origin is None:
            self.origin = now - onset - last - self._record_s + self.hold_back
            self._looked = now
            return 0.0
        slack = self.origin + onset - now
        if slack < -MOST_LATE_S:
            later = MARGIN_S - slack
            self.origin += later
            self.hold_back += later
            self._least_slack, self._looked = float("inf"), now
            return later
        self.origin += self._slew * self._record_s * records
        self._least_slack = min(self._least_slack, slack)
        if now - self._looked > _LOOK_S:
            off = self.hold_back - self._record_s - self._least_slack
            self._slew = math.copysign(_SLEW, off) if abs(off) > _DRIFT_S else 0.0
            self._least_slack, self._looked = float("inf"), now
        return 0.0
