"""The session's one mapping from the LSL clock to UTC, and local file times to UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from hypnocast.core.timing.clock import DriftLine

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

STEP_S = 0.25
"""The wall clock was set, rather than steered, where it moves by more than this at once."""

_NOISE_S = 1e-3
_HALF_LIFE_S = 1800.0


class UtcAnchor:
    """One mapping from the LSL clock to UTC: fixed when the session begins.

    The wall clock is watched, not followed. How fast it runs away from the mapping (``drift``)
    and when somebody set it (``steps``) is told; page starts stay where they are.
    """

    def __init__(self, lsl: float, utc: float) -> None:
        """Fix the mapping by one moment, read on both clocks."""
        self._lsl = lsl
        self._utc = utc
        self._line = DriftLine(0.0, noise=_NOISE_S**2, half_life=_HALF_LIFE_S)
        self._seen = lsl
        self._steps: list[tuple[float, float]] = []

    def utc(self, lsl: float) -> float:
        """Return the UTC, in seconds since 1970, of a time on the LSL clock."""
        return self._utc + (lsl - self._lsl)

    def lsl(self, utc: float) -> float:
        """Return the time on the LSL clock of a UTC."""
        return self._lsl + (utc - self._utc)

    def observe(self, lsl: float, utc: float) -> None:
        """Take note of what the wall clock says; nothing is moved by it."""
        if lsl <= self._seen:
            return
        away = utc - self.utc(lsl) - sum(by for _, by in self._steps)
        dt = lsl - self._seen
        surprise = away - self._line.ahead(dt)
        self._seen = lsl
        if abs(surprise) > STEP_S:
            self._steps.append((lsl, surprise))
            self._line.advance(dt, None)
        else:
            self._line.advance(dt, away)

    @property
    def drift(self) -> float:
        """By which share the wall clock runs faster than the LSL clock."""
        return self._line.slope

    @property
    def steps(self) -> tuple[tuple[float, float], ...]:
        """When (LSL clock) the wall clock was set, and by how many seconds."""
        return tuple(self._steps)

    @property
    def deviation(self) -> float:
        """How far the wall clock is from the mapping, in seconds, steps included."""
        return self._line.level + sum(by for _, by in self._steps)


def file_start(local: datetime, zone: ZoneInfo) -> datetime:
    """Return the UTC at which a recording began whose file gives a local, zoneless time.

    Only the start is looked up; all else follows by elapsed seconds, so that a night across the
    change of summer time has no page twice and none missing. A time that came twice is taken as
    the first of the two (``fold=1`` asks for the second); a time that never was, for the clocks
    had gone forward, is taken as if they had not.
    """
    if local.tzinfo is not None:
        return local.astimezone(UTC)
    return local.replace(tzinfo=zone).astimezone(UTC)


def file_time(utc: datetime, zone: ZoneInfo) -> datetime:
    """Return the local, zoneless time that a file or a person at the bed would give."""
    return utc.astimezone(zone).replace(tzinfo=None)
