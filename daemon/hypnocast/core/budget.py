"""A token bucket: a burst at once, then so many a second. Reads no clock."""

from __future__ import annotations


class Budget:
    """What one sender may spend; full at first."""

    __slots__ = ("_at", "_burst", "_left", "_per_second")

    def __init__(self, burst: float, per_second: float) -> None:
        """Set how many may come at once, and how many come back each second."""
        self._burst = burst
        self._per_second = per_second
        self._left = burst
        self._at: float | None = None

    def spend(self, now: float) -> bool:
        """Spend one, at a time on any steady clock; False where none was left."""
        self._left = self._at_time(now)
        self._at = now if self._at is None else max(self._at, now)
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True

    def full(self, now: float) -> bool:
        """Return whether nothing is spent any more."""
        return self._at_time(now) >= self._burst

    def _at_time(self, now: float) -> float:
        if self._at is None or now <= self._at:
            return self._left
        return min(self._burst, self._left + (now - self._at) * self._per_second)
