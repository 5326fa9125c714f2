"""A bed's newest arrivals: enough to go on from there, as if nothing had been before."""

from __future__ import annotations

from collections import deque

from hypnocast.core.types import Arrival, Chunk, ClockReading, Mark, StreamLost, StreamOpened


class RecentArrivals:
    """Keeps a bed's newest arrivals; of older ones only which streams were open then."""

    def __init__(self, seconds: float) -> None:
        """Keep what came in so many seconds."""
        self._seconds = seconds
        self._recent: deque[Arrival] = deque()
        self._before = _Standing()
        self.whole = True
        """Whether this is all that ever came."""

    def add(self, arrival: Arrival) -> None:
        """Add the newest, and forget what is too old."""
        self._recent.append(arrival)
        oldest = _came(arrival) - self._seconds
        while _came(self._recent[0]) < oldest:
            self._before.add(self._recent.popleft())
            self.whole = False

    def arrivals(self) -> tuple[Arrival, ...]:
        """Return everything that is remembered: enough for who begins where this begins."""
        return (*self._before.arrivals(), *self._recent)

    def after(self, arrival: Arrival | None) -> tuple[Arrival, ...]:
        """Return what is needed by who begins behind this very arrival.

        That is the streams that were open then and their clocks, and all that came since; where
        the arrival is not remembered, everything that is.
        """
        later = None if arrival is None else self.since(arrival)
        if later is None:
            return self.arrivals()
        then = self._before.copy()
        for index in range(len(self._recent) - len(later)):
            then.add(self._recent[index])
        return (*then.arrivals(), *later)

    def since(self, arrival: Arrival) -> tuple[Arrival, ...] | None:
        """Return what came after this very arrival; None where it is not remembered."""
        later: list[Arrival] = []
        for one in reversed(self._recent):
            if one is arrival:
                return tuple(reversed(later))
            later.append(one)
        return None


class _Standing:
    """The streams that are open, and the last reading of each clock."""

    def __init__(self) -> None:
        self._opened: dict[str, StreamOpened] = {}
        self._readings: dict[str, ClockReading] = {}

    def add(self, arrival: Arrival) -> None:
        match arrival:
            case StreamOpened():
                self._opened[arrival.header.key] = arrival
            case StreamLost():
                self._opened.pop(arrival.stream, None)
                self._readings.pop(arrival.stream, None)
            case ClockReading() if arrival.stream in self._opened:
                self._readings[arrival.stream] = arrival

    def arrivals(self) -> tuple[Arrival, ...]:
        return (*self._opened.values(), *self._readings.values())

    def copy(self) -> _Standing:
        other = _Standing()
        other._opened, other._readings = dict(self._opened), dict(self._readings)
        return other


def _came(arrival: Arrival) -> float:
    return arrival.arrived if isinstance(arrival, Chunk | Mark) else arrival.at
