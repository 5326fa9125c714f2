"""A stream while it is being read: from its samples to arrivals, and what is wrong with them.

``StreamOpened`` comes first, a measured ``ClockReading`` before the first samples, ``StreamLost``
after every end and every silence; then the stream opens again. So whoever consumes arrivals
never has to guess whether a stream is there.

A stream whose clock is foreign, or cannot be asked, gets readings all the same: the least
distance between its stamps and their arrival, renewed every few seconds. Its samples stay as
they came; only the readings place them. One wrong stamp makes no clock foreign: all
samples of a second must be on another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Protocol

import numpy as np

from hypnocast.core.budget import Budget
from hypnocast.core.timing.stamp_mapper import MAX_AHEAD_S
from hypnocast.core.types import (
    Arrival,
    Chunk,
    ClockReading,
    FloatArray,
    Mark,
    OutletChange,
    StreamHeader,
    StreamLost,
    StreamOpened,
)
from hypnocast.ports.lsl.inlet import Clock, LostStream
from hypnocast.ports.lsl.limits import MARK_BURST, MARKS_PER_S
from hypnocast.ports.lsl.problems import ProblemKind

FOREIGN_AFTER_S = 10.0
"""Samples whose corrected stamps lie further from their arrival are on a foreign clock."""
FOREIGN_MARK_AFTER_S = 86_400.0
"""Marks may be back-dated, so only a day's distance makes their clock foreign."""
FIRST_WINDOW_S = 1.0
"""How long arrivals are watched before a clock is called foreign and they place the samples."""
SHOWN_S = 60.0
"""How long after it was seen last a passing problem is shown."""
JUDGE_S = 1.0
"""Stamps are compared with the nominal rate over this many seconds of samples."""


class StreamState(Enum):
    """How a stream that was opened is doing."""

    OPEN = "open"
    SILENT = "silent"
    LOST = "lost"
    REFUSED = "refused"


class Readable(Protocol):
    """What :class:`LiveStream` needs of an inlet."""

    uid: str
    clock: Clock

    def pull(self, header: StreamHeader) -> list[Chunk | Mark]:
        """Return what lies ready; raise :class:`LostStream` at the end."""


class LiveStream:
    """One open stream of one bed. Used by the reading thread only."""

    def __init__(
        self,
        bed: str,
        header: StreamHeader,
        inlet: Readable,
        *,
        offset: float | None,
        now: float,
        silent_after_s: float,
        clock_every_s: float,
        report: Callable[[ProblemKind, str], None],
        clear: Callable[[ProblemKind], None],
        change: OutletChange | None = None,
    ) -> None:
        """Begin with an opened inlet; ``offset`` is the first clock measurement, or None.

        ``change`` is set where another outlet was read before.
        """
        self._change = change
        self.bed = bed
        self.header = header
        self.inlet = inlet
        self.state = StreamState.OPEN
        self.samples = 0
        self.chunks = 0
        self.last_arrival = now
        self._silent_after = silent_after_s
        self._clock_every = clock_every_s
        self._report = report
        self._clear = clear
        self._announced = False
        self._placed = False
        self._offset = offset
        self._measured: deque[ClockReading] = deque()
        self._window: list[float] = []
        """How far stamps lie from their arrival, of a clock that is or may be foreign."""
        self._window_began = now
        self._ahead = 0
        """Samples that claimed to be later than this host's clock."""
        self._shown_at: dict[ProblemKind, float] = {}
        """Problems that pass, and when they were seen last."""
        self._marks = Budget(MARK_BURST, MARKS_PER_S)
        self._marks_left_out = 0
        self._unjudged: list[FloatArray] | None = [] if header.rate > 0 else None
        if offset is None:
            self._place_by_arrival(
                ProblemKind.CLOCK_UNMEASURED,
                "its clock cannot be asked (is UDP closed?); samples are placed by their arrival",
            )

    def note_reading(self, reading: ClockReading) -> None:
        """Add a later measurement of the sender's clock; from any thread."""
        self._measured.append(reading)

    def poll(self, now: float) -> list[Arrival]:
        """Return all that came since the last time, with what follows from it."""
        arrivals: list[Arrival] = []
        if not self._announced:
            self._announced = True
            arrivals.append(StreamOpened(header=self.header, at=now, change=self._change))
        try:
            pulled = self.inlet.pull(self.header)
        except LostStream as lost:
            self.state = StreamState.LOST
            return [*arrivals, StreamLost(self.header.key, now, f"connection ended: {lost}")]
        if pulled and self.state is StreamState.SILENT:
            self.state = StreamState.OPEN
            self._clear(ProblemKind.SILENT)
            arrivals.append(StreamOpened(header=self.header, at=now))
        for item in pulled:
            self._count(item, now)
            if isinstance(item, Mark) and not self._may_mark(item):
                continue
            arrivals += self._readings_before(item, now)
            arrivals.append(item)
            if isinstance(item, Chunk) and self._stamps_stuck(item):
                self.state = StreamState.REFUSED
                why = "its stamps do not advance with its samples"
                self._report(ProblemKind.STAMPS_STUCK, why)
                return [*arrivals, StreamLost(self.header.key, now, why)]
        for kind in [kind for kind, at in self._shown_at.items() if now - at > SHOWN_S]:
            del self._shown_at[kind]
            self._clear(kind)
        if not pulled:
            arrivals += self._readings_between(now)
            if self._fell_silent(now):
                self.state = StreamState.SILENT
                why = f"no samples for {self._silent_after:g} s"
                self._report(ProblemKind.SILENT, why)
                arrivals.append(StreamLost(self.header.key, now, why))
        return arrivals

    def _count(self, item: Chunk | Mark, now: float) -> None:
        self.chunks += 1
        self.samples += len(item.stamps) if isinstance(item, Chunk) else 1
        self.last_arrival = now

    def _may_mark(self, mark: Mark) -> bool:
        """Return whether a marker is read; a sender of too many becomes a problem."""
        if self._marks.spend(mark.arrived):
            return True
        self._marks_left_out += 1
        self._shown_at[ProblemKind.MARKS_TOO_MANY] = mark.arrived
        if not _is_worth_logging(self._marks_left_out - 1, self._marks_left_out):
            return False
        self._report(
            ProblemKind.MARKS_TOO_MANY,
            f"{self._marks_left_out} markers came faster than {MARKS_PER_S:g} a second; "
            "they are left out",
        )
        return False

    def _fell_silent(self, now: float) -> bool:
        return (
            self.state is StreamState.OPEN
            and self.header.rate > 0
            and now - self.last_arrival > self._silent_after
        )

    # -- clock: every sample is preceded by a reading that places it -----------------------------

    def _readings_before(self, item: Chunk | Mark, now: float) -> list[Arrival]:
        stamp = float(item.stamps[-1]) if isinstance(item, Chunk) else item.stamp
        distance = item.arrived - stamp
        if self.inlet.clock is Clock.MEASURED:
            self._judge_clock(item, stamp, distance)
        elif np.isfinite(distance):
            self._watch(distance, now)
        return self._readings_between(now)

    def _judge_clock(self, item: Chunk | Mark, stamp: float, distance: float) -> None:
        """Call a clock foreign where a second of samples is far off, all by the same distance."""
        if not self._is_off(item, stamp):
            self._window.clear()
            self._note_ahead(item)
            return
        self._watch(distance, item.arrived)
        lasted = item.arrived - self._window_began >= min(FIRST_WINDOW_S, self._clock_every)
        if isinstance(item, Chunk) and not lasted:
            self._note_ahead(item)
            return
        self._placed = False
        self._clear(ProblemKind.STAMPS_AHEAD)
        self._place_by_arrival(
            ProblemKind.FOREIGN_CLOCK,
            f"its stamps ({stamp:.3f}) are on no LSL clock; samples are placed by arrival",
        )

    def _watch(self, distance: float, now: float) -> None:
        """Remember how far a stamp was from its arrival, beside those of the same clock."""
        if self._window and abs(distance - self._window[-1]) > FOREIGN_AFTER_S:
            self._window.clear()
        if not self._window:
            self._window_began = now
        self._window.append(distance)

    def _note_ahead(self, item: Chunk | Mark) -> None:
        """Report samples that claim to be later than this host's clock; they find no place."""
        if self._offset is None or not isinstance(item, Chunk):
            return
        ahead = item.stamps + (self._offset - item.arrived)
        count = int((ahead > MAX_AHEAD_S).sum())
        if not count:
            return
        self._ahead += count
        self._shown_at[ProblemKind.STAMPS_AHEAD] = item.arrived
        if not _is_worth_logging(self._ahead - count, self._ahead):
            return
        self._report(
            ProblemKind.STAMPS_AHEAD,
            f"{self._ahead} samples claim to be up to {np.nanmax(ahead):.0f} s later than this "
            "host's clock; they are not used",
        )

    def _readings_between(self, now: float) -> list[Arrival]:
        key = self.header.key
        if self.inlet.clock is Clock.MEASURED:
            due: list[Arrival] = []
            if not self._placed and self._offset is not None:
                # The first samples show whether they are on the clock that was measured.
                if self._window or not self.samples:
                    return []
                self._placed = True
                due.append(ClockReading(stream=key, at=now, offset=self._offset))
            while self._measured:
                reading = self._measured.popleft()
                self._offset = reading.offset
                due.append(reading)
            return due
        due_after = self._clock_every if self._placed else min(FIRST_WINDOW_S, self._clock_every)
        if not self._window or now - self._window_began < due_after:
            return []
        offset = min(self._window)
        self._placed = True
        self._window.clear()
        return [ClockReading(stream=key, at=now, offset=offset)]

    def _is_off(self, item: Chunk | Mark, stamp: float) -> bool:
        """Return whether a stamp is too far from its arrival to be on the measured clock."""
        if self._offset is None or not np.isfinite(stamp):
            return False
        ahead = stamp + self._offset - item.arrived
        if isinstance(item, Mark):
            return abs(ahead) > FOREIGN_MARK_AFTER_S
        # Once the stream runs, samples from the past are a backlog that is being delivered.
        return ahead > FOREIGN_AFTER_S or (not self._placed and ahead < -FOREIGN_AFTER_S)

    def _place_by_arrival(self, kind: ProblemKind, why: str) -> None:
        self.inlet.clock = Clock.ARRIVAL
        self._offset = None
        self._measured.clear()
        self._report(kind, why)

    # -- stamps against the nominal rate ---------------------------------------------------------

    def _stamps_stuck(self, chunk: Chunk) -> bool:
        if self._unjudged is None:
            return False
        self._unjudged.append(chunk.stamps)
        stamps = np.concatenate(self._unjudged)
        expected = (len(stamps) - 1) / self.header.rate
        if expected < JUDGE_S:
            return False
        self._unjudged = None
        steps = np.diff(stamps)
        # A few wrong stamps do not show the others' pace.
        pace = float(steps[np.abs(steps) < FOREIGN_AFTER_S].sum()) / expected
        return not (pace > 0.2) or float(np.median(steps)) * self.header.rate > 5.0


def _is_worth_logging(before: int, count: int) -> bool:
    """Return whether a count has passed a power of two: a flood is logged, and fills no log."""
    return before.bit_length() != count.bit_length()
