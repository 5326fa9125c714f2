"""From a sender's clock to the local LSL clock: measured now and then, smoothed, decided once.

Every few seconds, off the reading path, a port measures how far a sender's clock is from ours.
:class:`OffsetTracker` makes a smooth line of these readings and reports, as a list of
:class:`ClockSegment`, which line holds from which sample on. It never withdraws a segment,
so that the mapping of a sample cannot depend on how the samples were chunked, can be
written to the tape, and can be obeyed in replay.

Only steady clocks appear here. A step of the host's wall clock moves nothing.
"""

from __future__ import annotations

import math

import msgspec

from hypnocast.core.types import ClockReading

LEAD_S = 1.0
"""A reading counts for samples stamped this long after it: by then it has surely been read."""

STEP_S = 0.010
"""A reading further than this from the line is an outlier, or the first after a step."""

BIG_STEP_S = 0.25
"""Beyond this, two readings that agree are a step; below it three must, for a busy network can
hold up two readings in a row alike."""

SMALLEST_CHANGE_S = 1e-4
"""A new segment is decided when the line has moved by more than this."""

REFUSED = "refused"
"""Why of a segment whose samples have no time: they claimed to be later than the local clock."""

_READING_NOISE_S = 5e-4
_HALF_LIFE_S = 120.0

CRYSTAL_SD = 2e-4
"""How far two crystals usually run apart, as a share."""


class ClockSegment(msgspec.Struct, frozen=True, tag="clock"):
    """Which line maps a stream's stamps from one sample on.

    ``local = stamp + offset + drift * (stamp - from_stamp)`` for the sample number
    ``from_sample`` (counted since the bed's streams were first read) and all after it.
    """

    stream: str
    from_sample: int
    from_stamp: float
    offset: float
    drift: float = 0.0
    why: str = "reading"
    """``reading``, ``step`` (the sender's clock jumped), ``assumed`` (no reading ever came) or
    ``foreign`` (stamps of no LSL clock at all, tied to the time of arrival), ``refused`` (stamps
    of a time that cannot be: the samples have no place)."""

    def at(self, stamp: float) -> float:
        """Return the offset this line gives at a stamp."""
        return self.offset + self.drift * (stamp - self.from_stamp)


class DriftLine:
    """A level and its slope, learnt from noisy values with exponential forgetting.

    A Bayesian regression carried along in closed form: two numbers and their covariance. The
    slope starts at 0 with the spread that crystals have, the level at its first value.
    """

    __slots__ = ("_half_life", "_noise", "_paa", "_pab", "_pbb", "level", "slope")

    def __init__(
        self,
        level: float,
        *,
        noise: float,
        half_life: float,
        slope: float = 0.0,
        slope_sd: float = CRYSTAL_SD,
    ) -> None:
        """Begin at a first value; ``noise`` is the variance of one value."""
        self.level = level
        self.slope = slope
        self._noise = noise
        self._half_life = half_life
        self._paa = noise
        self._pab = 0.0
        self._pbb = slope_sd * slope_sd

    @property
    def slope_sd(self) -> float:
        """How uncertain the slope is."""
        return math.sqrt(self._pbb)

    def copy(self) -> DriftLine:
        """Return a line that goes its own way from here."""
        twin = DriftLine.__new__(DriftLine)
        twin.level, twin.slope = self.level, self.slope
        twin._noise, twin._half_life = self._noise, self._half_life  # noqa: SLF001 - a twin of itself
        twin._paa, twin._pab, twin._pbb = self._paa, self._pab, self._pbb  # noqa: SLF001
        return twin

    def ahead(self, dt: float) -> float:
        """Return the level expected ``dt`` seconds from now."""
        return self.level + self.slope * dt

    def advance(self, dt: float, value: float | None) -> None:
        """Go on by ``dt`` seconds and add the value seen there (None: nothing usable)."""
        forget = 2.0 ** (dt / self._half_life)
        pab = self._pab + dt * self._pbb
        paa = (self._paa + dt * (self._pab + pab)) * forget
        pab *= forget
        pbb = self._pbb * forget
        level = self.level + self.slope * dt
        if value is None:
            self.level, self._paa, self._pab, self._pbb = level, paa, pab, pbb
            return
        gain = 1.0 / (paa + self._noise)
        surprise = value - level
        self.level = level + paa * gain * surprise
        self.slope += pab * gain * surprise
        self._paa = paa - paa * gain * paa
        self._pbb = pbb - pab * gain * pab
        self._pab = pab - paa * gain * pab


class OffsetTracker:
    """Smooths one stream's clock readings into segments; rejects outliers, notices steps."""

    def __init__(self, stream: str) -> None:
        """Begin without any reading."""
        self._stream = stream
        self._line: DriftLine | None = None
        self._last = 0.0
        self._reported: ClockSegment | None = None
        self._suspects: list[tuple[float, float]] = []

    def read(self, reading: ClockReading, *, expect_step: bool = False) -> ClockSegment | None:
        """Add a reading; return the segment it decides, if it decides one.

        With ``expect_step`` the samples themselves show that the clock was set, and one reading
        off the line is enough.

        ``from_sample`` of the result is still 0: whoever holds the samples knows which is the
        first one stamped at or after ``from_stamp``.
        """
        stamp, offset = reading.at - reading.offset, reading.offset
        if self._line is None:
            return self._restart(stamp, offset, "reading")
        dt = stamp - self._last
        expected = self._line.ahead(dt)
        if abs(offset - expected) > STEP_S:
            return self._suspect(stamp, offset, expected, expect_step=expect_step)
        self._suspects.clear()
        if dt <= 0.0:
            return None
        self._line.advance(dt, offset)
        self._last = stamp
        return self._report(stamp + LEAD_S, "reading")

    def local(self, stamp: float) -> float:
        """Return a stamp on the local clock, by what is known now."""
        return stamp + (self._line.ahead(stamp - self._last) if self._line is not None else 0.0)

    def _suspect(
        self, stamp: float, offset: float, expected: float, *, expect_step: bool
    ) -> ClockSegment | None:
        agreeing = [s for s in self._suspects if abs(s[1] - offset) <= STEP_S]
        self._suspects = [*agreeing, (stamp, offset)]
        enough = 2 if abs(offset - expected) > BIG_STEP_S else 3
        if len(self._suspects) < enough and not expect_step:
            return None
        # On the old clock, the step came before the first reading that showed it.
        first_stamp, first_offset = self._suspects[0]
        return self._restart(stamp, offset, "step", first_stamp + first_offset - expected)

    def _restart(
        self, stamp: float, offset: float, why: str, from_stamp: float | None = None
    ) -> ClockSegment | None:
        slope = self._line.slope if self._line is not None else 0.0
        self._line = DriftLine(
            offset, noise=_READING_NOISE_S**2, half_life=_HALF_LIFE_S, slope=slope
        )
        self._last = stamp
        self._suspects.clear()
        self._reported = None
        return self._report(stamp if from_stamp is None else from_stamp, why)

    def _report(self, from_stamp: float, why: str) -> ClockSegment | None:
        line = self._line
        if line is None:
            return None
        offset = line.ahead(from_stamp - self._last)
        if (
            self._reported is not None
            and abs(self._reported.at(from_stamp) - offset) <= SMALLEST_CHANGE_S
        ):
            return None
        self._reported = ClockSegment(self._stream, 0, from_stamp, offset, line.slope, why)
        return self._reported
