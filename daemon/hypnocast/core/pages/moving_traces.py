"""The newest second of every channel as lowest and highest values: traces that move on a screen.

What is drawn with them is for people's eyes. No page, picture or stage depends on it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hypnocast.core.pages.page_builder import PageBuilder
from hypnocast.core.types import FloatArray, Role

WINDOW_S = 1.0
COLUMNS = 32
"""Columns a second: 30 s are 960, about the pixels there are."""

LAG_S = 0.4
"""A window is cut so long after its end: chunks come a little late."""

TENTHS = 10.0
"""Values are whole tenths of a µV."""

_LARGEST = 10_000_000


@dataclass(frozen=True, slots=True)
class Envelope:
    """Lowest and highest value of each column, in tenths of a µV; None where nothing came."""

    low: tuple[int | None, ...]
    high: tuple[int | None, ...]


@dataclass(slots=True)
class MovingTraces:
    """Cuts one second after the other; of those that were missed only the newest."""

    _end: float = float("-inf")

    def cut(self, builder: PageBuilder, now: float) -> tuple[float, Mapping[Role, Envelope]] | None:
        """Return where the newest second begins and its channels, once; None where none is due."""
        end = math.floor((now - LAG_S) / WINDOW_S) * WINDOW_S
        if end <= self._end:
            return None
        self._end = end
        recent = builder.recent(end, WINDOW_S)
        return end - WINDOW_S, {role: envelope(one.samples) for role, one in recent.items()}


def envelope(samples: FloatArray, columns: int = COLUMNS) -> Envelope:
    """Return the lowest and highest value in each of some columns of equal length."""
    count = len(samples)
    if not count:
        return Envelope((None,) * columns, (None,) * columns)
    edges = np.arange(columns) * count // columns
    low = np.fmin.reduceat(samples, edges)
    high = np.fmax.reduceat(samples, edges)
    return Envelope(_tenths(low), _tenths(high))


def _tenths(values: FloatArray) -> tuple[int | None, ...]:
    whole = np.clip(np.rint(values * TENTHS), -_LARGEST, _LARGEST)
    return tuple(None if value != value else int(value) for value in whole.tolist())  # noqa: PLR0124 - NaN
