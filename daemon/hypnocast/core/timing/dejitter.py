"""Sample times from jittery stamps: causal, and blind to how the samples were chunked.

Samples are counted since the segment began and handled in blocks of about a quarter of a second.
The times of a block are predicted from a line learnt over the blocks before it, so they are known
as soon as a sample comes. Where stamps leave that line for good, samples are missing (or the
sender's clock moved): a new segment begins there. Counting never bridges a gap; time decides.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hypnocast.core.timing.clock import CRYSTAL_SD, DriftLine
from hypnocast.core.types import FloatArray

HALF_LIFE_S = 90.0
"""A block this old counts half."""

JUMP_S = 0.006
JUMP_INTERVALS = 1.5
JUMP_JITTERS = 8.0
"""A stamp further off than the largest of these three leaves the line."""

_BLOCK_S = 0.25
_FIRST_JITTER_S = 0.005
_FIRST_WANDER_S = 0.001
_MEMORY = 1.0 / 16.0
_LYING_RATE_SD = 0.05
_NOTHING: FloatArray = np.empty(0)


def block_length(rate: float) -> int:
    """Return how many samples make a block: the power of two nearest below a quarter second."""
    return int(2 ** np.clip(np.floor(np.log2(max(rate * _BLOCK_S, 1.0))), 3, 9))


def _fold(rows: FloatArray) -> FloatArray:
    """Sum each row (its length a power of two) in one fixed order, whatever the row count."""
    while rows.shape[1] > 1:
        half = rows.shape[1] // 2
        rows = rows[:, :half] + rows[:, half:]
    return rows[:, 0]


class _State(NamedTuple):
    """What is known when a block begins."""

    line: DriftLine
    jitter: float
    wander: float
    """Usual distance of a block's mean from what was foretold."""
    slips: int
    """How many blocks in a row had to begin the line anew."""
    limit: float
    """A stamp further off than this leaves the line."""


class Dejitter:
    """Turns the stamps of one stream, on the local clock, into sample times.

    ``feed`` answers for the oldest samples it has not answered for yet, in order. Only the first
    block of a segment is held back until it is whole (a quarter of a second), because only then
    is it known where the segment lies, and whether it is one: stamps that come back to the old
    line within a block were held up on their way, and lie on the old line.
    """

    def __init__(self, rate: float) -> None:
        """Begin a stream of a nominal rate."""
        self._interval = 1.0 / rate
        self._length = block_length(rate)
        self._counts = np.arange(self._length, dtype=np.float64)
        self._ramp = (self._counts + (self._length + 1) / 2) * self._interval
        self._noise = _FIRST_JITTER_S**2 / self._length
        self._begin()

    def cut(self) -> FloatArray:
        """End the segment and forget the line; return the times of the samples held back."""
        rest = self._alone(self._held)
        self._begin()
        return rest

    def _begin(self) -> None:
        self._line: DriftLine | None = None
        """Where the stamps lie, off the nominal times; None until a segment is known."""
        self._slope, self._slope_sd = 0.0, CRYSTAL_SD
        self._origin = 0.0
        """The time from which the segment's samples are counted."""
        self._start = 0
        """Number of the first sample of the block at hand, in the segment."""
        self._block: FloatArray = _NOTHING
        """The block at hand, not whole yet: stamps whose times are known already."""
        self._held: FloatArray = _NOTHING
        """Stamps off the line (or before there is one), whose times are not known yet."""
        self._holding = True
        self._jitter = _FIRST_JITTER_S
        self._wander = _FIRST_WANDER_S
        self._slips = 0

    @property
    def held(self) -> int:
        """How many samples wait for their segment to be known."""
        return len(self._held)

    @property
    def jitter(self) -> float:
        """Spread of the stamps around the line, in seconds."""
        return self._jitter

    @property
    def drift(self) -> float:
        """How much longer than nominal the true interval is, as a share."""
        return self._line.slope if self._line is not None else self._slope

    @property
    def _threshold(self) -> float:
        return self._limit(self._jitter)

    def _limit(self, jitter: float) -> float:
        return max(JUMP_S, JUMP_INTERVALS * self._interval, JUMP_JITTERS * jitter)

    def feed(self, stamps: FloatArray) -> FloatArray:
        """Add stamps; return the times of the samples that are now known."""
        times: list[FloatArray] = []
        while len(stamps):
            if self._holding or self._line is None:
                stamps = self._hold(stamps, times)
            else:
                stamps = self._run(self._line, stamps, times)
        if len(times) == 1:
            return times[0]
        return np.concatenate(times) if times else _NOTHING

    # --- on the line ---------------------------------------------------------------------------

    def _run(self, line: DriftLine, stamps: FloatArray, times: list[FloatArray]) -> FloatArray:
        """Give the times of stamps on the line; return those from the first one off it."""
        known, length = len(self._block), self._length
        data = np.concatenate((self._block, stamps)) if known else stamps
        count = self._start + np.arange(len(data), dtype=np.float64)
        nominal = self._origin + count * self._interval
        off_nominal = data - nominal
        states = self._learn(line, off_nominal, len(data) // length)
        end = min(len(states) * length, len(data))
        if end <= length:
            fit = states[0].line.level + states[0].line.slope * self._ramp[:end]
            limit: FloatArray | float = states[0].limit
        else:
            levels = np.array([s.line.level for s in states])
            slopes = np.array([s.line.slope for s in states])
            fit = (levels[:, None] + slopes[:, None] * self._ramp).reshape(-1)[:end]
            limit = np.repeat([s.limit for s in states], length)[:end]
        off = np.abs(off_nominal[:end] - fit) > limit
        off[:known] = False
        stop = int(off.argmax())
        if off[stop]:
            self._holding = True
        else:
            stop = end
        times.append(nominal[known:stop] + fit[known:stop])
        done = min(stop // length, len(states) - 1)
        state = states[done]
        self._line, self._jitter = state.line, state.jitter
        self._wander, self._slips = state.wander, state.slips
        self._start += done * length
        self._block = data[done * length : stop].copy()
        return stamps[stop - known :]

    def _learn(self, line: DriftLine, off_nominal: FloatArray, whole: int) -> list[_State]:
        """Carry the line over the whole blocks; give what holds for each block, and the next."""
        state = _State(line, self._jitter, self._wander, self._slips, self._threshold)
        states = [state]
        if not whole:
            return states
        rows = off_nominal[: whole * self._length].reshape(whole, self._length)
        means = _fold(rows) / self._length
        spreads = np.sqrt(_fold((rows - means[:, None]) ** 2) / self._length)
        dt = self._length * self._interval
        for row, mean, spread in zip(rows, means.tolist(), spreads.tolist(), strict=True):
            if abs(mean - state.line.ahead(dt)) > state.limit:
                fit = state.line.level + state.line.slope * self._ramp
                if (np.abs(row - fit) > state.limit).any():
                    break
            state = self._follow_block(state, row, mean, spread)
            states.append(state)
        return states

    def _follow_block(self, state: _State, row: FloatArray, mean: float, spread: float) -> _State:
        """Learn from one whole block: follow it, or, where it slipped for good, begin anew."""
        dt = self._length * self._interval
        line, wander, slips = state.line, state.wander, 0
        slip, tolerated = mean - line.ahead(dt), max(self._interval / 2, 8.0 * wander)
        if abs(slip) > tolerated:
            # The median is not moved by a few stamps held up on their way.
            mean = float(np.median(row))
            slip = mean - line.ahead(dt)
        if abs(slip) > tolerated:
            slips = state.slips + 1
            line = DriftLine(
                mean,
                noise=self._noise,
                half_life=HALF_LIFE_S,
                slope=line.slope,
                slope_sd=_LYING_RATE_SD if slips > 1 else line.slope_sd,
            )
        else:
            wander += _MEMORY * (abs(slip) - wander)
            line = line.copy()
            line.advance(dt, mean)
        jitter = state.jitter + _MEMORY * (min(spread, state.limit) - state.jitter)
        return _State(line, jitter, wander, slips, self._limit(jitter))

    # --- off the line --------------------------------------------------------------------------

    def _hold(self, stamps: FloatArray, times: list[FloatArray]) -> FloatArray:
        """Hold stamps back until they are a segment, or turn out to be on the old line."""
        new = self._length - len(self._held)
        held = np.concatenate((self._held, stamps[:new]))
        rest = stamps[new:]
        limit = self._threshold
        even = held[0] + self._counts[: len(held)] * self._interval
        apart = np.abs(held - even) > limit
        jump = int(apart.argmax()) if apart.any() else len(held)
        if self._line is not None:
            expected = self._foretell(self._line, len(held))
            near = np.abs(held - expected) <= limit
            near[0] = False
            back = int(near.argmax())
            if near[back] and back <= jump:
                self._held, self._holding = _NOTHING, False
                held[:back] = expected[:back]
                return self._run(self._line, np.concatenate((held, rest)), times)
        if jump < len(held):
            times.append(self._alone(held[:jump]))
            self._forget_line()
            self._held = _NOTHING
            return np.concatenate((held[jump:], rest))
        self._held = held
        if len(held) == self._length:
            times.append(self._settle(held))
        return rest

    def _foretell(self, line: DriftLine, count: int) -> FloatArray:
        """Give the times of the next samples, were they on the line."""
        ahead = len(self._block) + np.arange(count, dtype=np.float64)
        nominal = self._origin + (self._start + ahead) * self._interval
        drift = line.slope * (ahead + (self._length + 1) / 2) * self._interval
        foretold: FloatArray = nominal + line.level + drift
        return foretold

    def _forget_line(self) -> None:
        """Give up the line, but for what it taught of the sender's rate."""
        if self._line is not None:
            self._slope, self._slope_sd = self._line.slope, self._line.slope_sd
        self._line = None
        self._block = _NOTHING

    def _settle(self, held: FloatArray) -> FloatArray:
        """Begin a segment with its first block."""
        self._forget_line()
        times = self._alone(held)
        self._origin = float(times[0])
        half = (self._length - 1) / 2 * self._interval
        self._line = DriftLine(
            self._slope * half,
            noise=self._noise,
            half_life=HALF_LIFE_S,
            slope=self._slope,
            slope_sd=self._slope_sd,
        )
        self._start = self._length
        self._held, self._holding = _NOTHING, False
        return times

    def _alone(self, stamps: FloatArray) -> FloatArray:
        """Return the times of samples known only by themselves: evenly spaced, best fit."""
        if not len(stamps):
            return _NOTHING
        even = np.arange(len(stamps), dtype=np.float64) * (self._interval * (1.0 + self.drift))
        times: FloatArray = even + float(np.mean(stamps - even))
        return times
