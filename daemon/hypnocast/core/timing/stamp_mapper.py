"""Which clock segment holds from which sample on, decided once and in the order of samples.

A :class:`StampMapper` follows one stream. It waits for the first clock reading, switches to a
new segment at the first sample stamped for it, and notices on the samples themselves that their
sender's clock was set: stamps that fall back, or lie ahead of the time at which they arrived.
Such samples wait for the next reading, which shows where they belong.

No sample is later than the local clock allows. One that would be is refused: it has no time, it
moves nothing, and the tape records so by a segment of its own (:data:`.clock.REFUSED`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hypnocast.core.timing.clock import REFUSED, ClockSegment, OffsetTracker
from hypnocast.core.types import ClockReading, FloatArray

PATIENCE_S = 12.0
"""How many seconds of samples wait for a clock reading; then the best guess is used."""

FIRST_PATIENCE_S = 5.0
"""Likewise for a stream's first reading."""

SET_BACK_S = 1.0
"""Stamps that fall back by more than this were not held up on their way: the clock was set."""

SET_AHEAD_S = 0.1
"""The most by which stamps can lead their arrival."""

MAX_AHEAD_S = 1.0
"""What two clocks may err: a sample further ahead of its arrival than this is refused."""

FOREIGN_S = 3600.0
"""A clock this far from the time of arrival is no LSL clock (Unix time, for one)."""

FOREIGN_AFTER_S = 1.0
"""And one is called so only after samples of so long."""

ABSURD_S = 43200.0
"""No outage is this long: stamps that leap so far ahead were set, too."""

_NOTHING: FloatArray = np.empty(0)


class _Ahead(NamedTuple):
    """A segment that no sample has reached yet."""

    segment: ClockSegment
    read_at: float
    """Local time of the reading that decided it."""


class StampMapper:
    """Maps the stamps of one stream to the local LSL clock.

    ``feed`` answers for the oldest samples it has not answered for yet, in order.
    """

    def __init__(self, stream: str, *, count: int = 0, script: Iterable[ClockSegment] = ()) -> None:
        """Follow a stream of which ``count`` samples have gone by; obey a script if given."""
        self._stream = stream
        self._script = deque(script)
        self._obeys = bool(self._script)
        self._count = count
        self._decided: list[ClockSegment] = []
        self._segment: ClockSegment | None = None
        self._waiting: FloatArray = _NOTHING
        self._arrived = 0.0
        self._waits_since = 0.0
        """When the first waiting sample came, by the local clock."""
        self.refused = 0
        """Samples of a time that cannot be, over all openings of the stream."""
        self._begin()

    def _begin(self) -> None:
        self._tracker = OffsetTracker(self._stream)
        self._ahead: deque[_Ahead] = deque()
        self._last: float | None = None
        """The stamp of the last sample mapped."""
        self._cleared = False
        """Whether the first waiting sample may be mapped although it looks set."""
        self._looks_set = False
        """Whether the first waiting sample was found to look set; time does not heal it."""

    @property
    def segment(self) -> ClockSegment | None:
        """The segment in force."""
        return self._segment

    @property
    def count(self) -> int:
        """How many samples have been mapped, over all openings of the stream."""
        return self._count

    @property
    def waiting(self) -> int:
        """How many samples wait for a clock reading: measure soon where this is not 0."""
        return len(self._waiting)

    def pop_decided(self) -> list[ClockSegment]:
        """Return the segments decided since the last call, for the tape."""
        decided, self._decided = self._decided, []
        return decided

    def read(self, reading: ClockReading) -> FloatArray:
        """Add a clock reading; return the local times of samples that waited for it."""
        if self._obeys or (self._segment is not None and self._segment.why == "foreign"):
            return _NOTHING
        held_as_set = self._segment is not None and len(self._waiting) > 0
        segment = self._tracker.read(reading, expect_step=held_as_set)
        if segment is not None:
            self._ahead.append(_Ahead(segment, reading.at))
        elif held_as_set:
            self._clear()
        return self._advance()

    def feed(self, stamps: FloatArray, arrived: float = 0.0) -> FloatArray:
        """Add stamps; return the local times of the samples that can be mapped now.

        The time of a sample that was refused is NaN.
        """
        if not len(self._waiting):
            self._waits_since = arrived
        self._waiting = np.concatenate((self._waiting, stamps)) if len(self._waiting) else stamps
        self._arrived = arrived
        return self._advance()

    def cut(self) -> FloatArray:
        """Map what waits as well as can be: the stream was lost."""
        return self._advance(patient=False)

    def restart(self) -> FloatArray:
        """Map what waits and trust the old clock no more: the outlet is a new one."""
        rest = self.cut()
        if not self._obeys:
            self._segment = None
        self._begin()
        return rest

    # --- the segments, one after the other --------------------------------------------------

    def _advance(self, *, patient: bool = True) -> FloatArray:
        parts: list[FloatArray] = []
        while len(self._waiting):
            if self._segment is None and not self._choose_first(patient=patient):
                break
            taken = self._map_segment(patient=patient)
            if not len(taken):
                break
            parts.append(taken)
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else _NOTHING

    def _map_segment(self, *, patient: bool) -> FloatArray:
        """Map the samples before the next change of segment, then change."""
        segment = self._segment
        assert segment is not None  # noqa: S101 - chosen by the caller
        stamps = self._waiting
        following, at = self._next(stamps)
        stop = at if self._obeys else min(at, self._set_at(segment, stamps[:at]))
        if stop < at and stop == 0:
            if refuted := self._refuted_by_later(segment, stamps):
                return self._refuse(refuted)
            self._looks_set = True
            if self._resolve(patient=patient):
                return self._map_segment(patient=patient)
        if stop == 0 and following is not None and at == 0:
            self._decide(following)
            return self._map_segment(patient=patient)
        return self._map(segment, stamps, stop) if stop else _NOTHING

    def _map(self, segment: ClockSegment, stamps: FloatArray, stop: int) -> FloatArray:
        """Give the first ``stop`` samples their times, none of them later than can be."""
        taken = stamps[:stop]
        local: FloatArray = taken + (segment.offset + segment.drift * (taken - segment.from_stamp))
        if self._arrived and not self._obeys:
            room = FOREIGN_S if segment.why == "foreign" else MAX_AHEAD_S
            ahead = local > self._arrived + room
            if ahead[0]:
                return self._refuse(int(ahead.argmin()) or stop)
            stop = int(ahead.argmax()) or stop
            taken, local = taken[:stop], local[:stop]
        self._waiting = stamps[stop:]
        self._waits_since = self._arrived
        self._count += stop
        if segment.why == REFUSED:
            self.refused += stop
            return np.full(stop, np.nan)
        self._last = float(taken[-1])
        self._cleared = False
        return local

    def _refuse(self, samples: int) -> FloatArray:
        """Give the first waiting samples no time at all; the line stays what it was."""
        line = self._segment
        assert line is not None  # noqa: S101 - who refuses has a line
        self._decide(ClockSegment(self._stream, 0, float(self._waiting[0]), 0.0, 0.0, REFUSED))
        self._waiting = self._waiting[samples:]
        self._waits_since = self._arrived
        self._count += samples
        self.refused += samples
        self._decide(line)
        self._cleared = self._looks_set = False
        return np.full(samples, np.nan)

    def _refuted_by_later(self, segment: ClockSegment, stamps: FloatArray) -> int:
        """Count the first waiting samples that look set while later ones are on the old line.

        A clock that was set stays so. One that is back at once was never set: the stamps are
        wrong. They lie apart from the later ones by a jump, as they do from those before.
        """
        jumps = np.diff(stamps)
        back = jumps < -SET_BACK_S
        if self._last is not None and stamps[0] < self._last:
            back = jumps > SET_BACK_S
        if not back.any():
            return 0
        local = stamps[1:] + (segment.offset + segment.drift * (stamps[1:] - segment.from_stamp))
        fits = back
        if self._last is not None:
            fits = fits & (stamps[1:] > self._last) & (stamps[1:] <= self._last + ABSURD_S)
        if self._arrived and segment.why != "foreign":
            fits = fits & (np.abs(local - self._arrived) <= PATIENCE_S)
            fits = fits & (local <= self._arrived + SET_AHEAD_S)
        first = int(fits.argmax())
        return first + 1 if fits[first] else 0

    def _choose_first(self, *, patient: bool) -> bool:
        if self._obeys:
            if self._script and self._script[0].from_sample <= self._count:
                self._segment = self._script.popleft()
            return self._segment is not None
        stamps = self._waiting
        offset: float | None = None
        why = "assumed"
        if self._ahead:
            offset = self._ahead[0].segment.at(float(stamps[-1]))
        elif (
            not patient
            or stamps[-1] - stamps[0] > FIRST_PATIENCE_S
            or self._arrived - self._waits_since > PATIENCE_S
        ):
            offset = 0.0
        if offset is None:
            return False
        # Most of a second's stamps show whether a clock is foreign; one may be wrong.
        near = np.abs(stamps - np.median(stamps)) < FOREIGN_S
        typical = float(stamps[near][-1]) if near.any() else float(stamps[-1])
        if self._arrived and abs(typical + offset - self._arrived) > FOREIGN_S:
            if patient and self._arrived - self._waits_since < FOREIGN_AFTER_S:
                return False
            offset, why = self._arrived - typical, "foreign"
            self._ahead.clear()
        elif self._ahead:
            self._decide(self._ahead[0].segment)
            return True
        self._decide(ClockSegment(self._stream, 0, float(stamps[0]), offset, 0.0, why))
        return True

    def _decide(self, segment: ClockSegment) -> None:
        if self._obeys:
            self._segment = self._script.popleft()
            return
        if self._ahead and self._ahead[0].segment is segment:
            self._ahead.popleft()
        self._segment = ClockSegment(
            segment.stream,
            self._count,
            segment.from_stamp,
            segment.offset,
            segment.drift,
            segment.why,
        )
        self._decided.append(self._segment)

    def _next(self, stamps: FloatArray) -> tuple[ClockSegment | None, int]:
        """Return the segment to come and the place of its first sample among those waiting."""
        if self._obeys:
            if not self._script:
                return None, len(stamps)
            return self._script[0], min(self._script[0].from_sample - self._count, len(stamps))
        if not self._ahead:
            return None, len(stamps)
        segment, read_at = self._ahead[0]
        if segment.why == "step" and self._arrived >= read_at > 0.0:
            return segment, 0
        reached = stamps >= segment.from_stamp
        if segment.why == "step":
            reached |= self._jumps_by(stamps, segment)
        first = int(reached.argmax())
        return segment, first if reached[first] else len(stamps)

    def _jumps_by(self, stamps: FloatArray, segment: ClockSegment) -> NDArray[np.bool_]:
        """Return at which samples the stamps jump by just what the clock was set."""
        assert self._segment is not None  # noqa: S101
        stepped = self._segment.at(segment.from_stamp) - segment.offset
        before = self._last if self._last is not None else float(stamps[0])
        jumps: NDArray[np.bool_] = (
            np.abs(np.diff(stamps, prepend=before) - stepped) < SET_AHEAD_S / 2
        )
        return jumps

    # --- clocks that were set ----------------------------------------------------------------

    def _set_at(self, segment: ClockSegment, stamps: FloatArray) -> int:
        """Return the place of the first sample whose clock seems to have been set."""
        n = len(stamps)
        if self._looks_set:
            return 0
        if not n or (segment.why == "foreign" and self._last is None):
            return n
        looks_set = np.empty(n, dtype=bool)
        np.less(stamps[1:], stamps[:-1] - SET_BACK_S, out=looks_set[1:])
        looks_set[0] = (
            not self._cleared and self._last is not None and stamps[0] < self._last - SET_BACK_S
        )
        if not self._cleared:
            limit = (float(stamps[0]) if self._last is None else self._last) + ABSURD_S
            if self._arrived and segment.why != "foreign":
                ahead = self._arrived - segment.at(self._arrived - segment.offset) + SET_AHEAD_S
                limit = min(limit, ahead)
            if stamps.max() > limit:
                looks_set |= stamps > limit
        first = int(looks_set.argmax())
        return first if looks_set[first] else n

    def _resolve(self, *, patient: bool) -> bool:
        """Decide about samples that look set, if enough is known or patience is over."""
        segment = self._segment
        assert segment is not None  # noqa: S101
        stamps = self._waiting
        if self._ahead and self._ahead[0].segment.why == "step":
            self._decide(self._ahead[0].segment)
            self._clear()
            return True
        waited = max(float(stamps[-1] - stamps[0]), self._arrived - self._waits_since)
        if patient and waited <= PATIENCE_S:
            return False
        offset = segment.at(float(stamps[0]))
        if self._arrived:
            offset = self._arrived - float(stamps[-1])
        elif self._last is not None:
            offset += self._last - float(stamps[0])
        why = "foreign" if segment.why == "foreign" else "assumed"
        self._decide(ClockSegment(self._stream, 0, float(stamps[0]), offset, 0.0, why))
        self._clear()
        return True

    def _clear(self) -> None:
        self._cleared, self._looks_set = True, False
