"""The clock of one stream in an XDF file, which may have been set while the file was written.

A sender that was restarted in the night, or whose clock was set, goes on in the same stream with
stamps of another clock. The clock readings show it: they fall back, or their offset leaps. Each
stretch between two such leaps is a segment with an offset of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from hypnocast.core.types import FloatArray

SET_BACK_S = 1.0
"""Stamps of one stream that fall back by more than this come from a clock that was set."""

GAP_S = 5.0
"""Stamps that lie further apart than this may belong to different segments."""

_LEAP_S = 1.0
_DRIFT = 1e-3
"""An offset moves by no more than this share of the time that has passed."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch in which the sender's clock ran on."""

    readings: tuple[tuple[float, float], ...]
    """(time on the sender's clock, offset to the recorder's), in order."""

    @property
    def offset(self) -> float:
        """The first reading's offset."""
        return self.readings[0][1] if self.readings else 0.0

    def distance(self, stamp: float) -> float:
        """Return how far a stamp lies from the times at which this clock was read."""
        if not self.readings:
            return 0.0
        return max(self.readings[0][0] - stamp, stamp - self.readings[-1][0], 0.0)


def segments_of(readings: Sequence[tuple[float, float]]) -> tuple[Segment, ...]:
    """Cut the clock readings of a stream, in the order of the file, where the clock was set."""
    parts: list[list[tuple[float, float]]] = [list(readings[:1])]
    for before, reading in pairwise(readings):
        if _was_set(before, reading):
            parts.append([])
        parts[-1].append(reading)
    kept = parts[:1]
    for place, part in enumerate(parts[1:], start=1):
        after = parts[place + 1] if place + 1 < len(parts) else None
        if len(part) == 1 and after is not None and not _was_set(kept[-1][-1], after[0]):
            continue  # One reading that was wrong, between others that agree.
        if _was_set(kept[-1][-1], part[0]):
            kept.append(part)
        else:
            kept[-1].extend(part)
    return tuple(Segment(tuple(sorted(part))) for part in kept)


def place(segments: Sequence[Segment], at: int, stamp: float, before: float | None) -> int:
    """Return which segment a sample belongs to; ``before`` is the stamp of the one before it."""
    while at + 1 < len(segments):
        fell_back = before is not None and stamp < before - SET_BACK_S
        nearer = segments[at + 1].distance(stamp) < segments[at].distance(stamp)
        if not (fell_back or nearer):
            break
        at, before = at + 1, None
    return at


def runs(stamps: FloatArray) -> Iterator[slice]:
    """Split stamps where they fall back or leap ahead: within a run the clock was not set."""
    steps = np.diff(stamps)
    cuts = np.flatnonzero((steps < -SET_BACK_S) | (steps > GAP_S)) + 1
    for first, last in pairwise((0, *cuts.tolist(), len(stamps))):
        yield slice(first, last)


def _was_set(before: tuple[float, float], after: tuple[float, float]) -> bool:
    passed = after[0] - before[0]
    return passed < -SET_BACK_S or abs(after[1] - before[1]) > _LEAP_S + _DRIFT * abs(passed)
