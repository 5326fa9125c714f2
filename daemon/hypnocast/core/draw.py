"""Anti-aliased lines in numpy: traces and the grid over them.

A trace is the graph of a function of time, so a vertical cut through its stroke is one interval:
from the lowest to the highest point of a disc as wide as the pen moved along the trace near that
cut. Each pixel column is cut several times and each cut's share of every pixel is summed up,
which gives the area that an exact renderer gives, at a twentieth of its price.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hypnocast.core.recipe import Grid, Line
from hypnocast.core.types import FloatArray

CUTS = 8
"""Cuts through a stroke per pixel column."""

Ink = NDArray[np.float32]
Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class _Ruler:
    """Where the samples of a page fall among the cuts of a picture."""

    left: Indices
    part: FloatArray
    """Points of the trace at which it is needed: samples and borders of cuts, by time."""
    borders: Indices
    """Of these points, the borders of cuts."""
    cuts: int


def rgb(colour: str) -> tuple[int, int, int]:
    """Read ``#RRGGBB``."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def draw_trace(
    canvas: Ink, heights: FloatArray, px_per_sample: float, width_px: float, colour: str
) -> None:
    """Draw a line over a canvas (3, rows, columns).

    ``heights`` are rows from the top, one a sample from the left border on; NaN parts the line.
    """
    _, rows, columns = canvas.shape
    low, high = _stroke(heights, px_per_sample, width_px, columns)
    np.clip(low, 0.0, rows, out=low)
    np.clip(high, 0.0, rows, out=high)
    inked = np.flatnonzero(high > low)
    if inked.size == 0:
        return
    low, high = low[inked], high[inked]
    top, bottom = int(low.min()), min(int(high.max()) + 1, rows)
    cover = _cover(low - top, high - top, inked // CUTS, (bottom - top, columns))
    part = canvas[:, top:bottom]
    for plane, level in zip(part, rgb(colour), strict=True):
        plane += (np.float32(level) - plane) * cover


def draw_grid(canvas: Ink, grid: Grid, px_per_s: float, bands: int) -> None:
    """Draw the seconds, then the borders between the bands; the picture's own rim is no line."""
    _, rows, columns = canvas.shape
    across, down = _grid(grid, px_per_s, bands, rows, columns)
    for plane, level in zip(canvas, rgb(grid.colour), strict=True):
        at = across > 0
        plane[:, at] += (np.float32(level) - plane[:, at]) * across[at]
        at = down > 0
        plane[at] += (np.float32(level) - plane[at]) * down[at, None]


def _stroke(
    heights: FloatArray, px_per_sample: float, width_px: float, columns: int
) -> tuple[FloatArray, FloatArray]:
    """Lowest and highest point of the stroke in each cut; low > high where there is none."""
    ruler = _ruler(heights.size, px_per_sample, columns)
    here, after = heights[ruler.left], heights[ruler.left + 1]
    points = here + ruler.part * (after - here)
    starts, ends = ruler.borders[:-1], ruler.borders[1:]
    low = np.minimum(np.minimum.reduceat(points, starts)[: ruler.cuts], points[ends])
    high = np.maximum(np.maximum.reduceat(points, starts)[: ruler.cuts], points[ends])
    drawn = np.isfinite(low)
    low[~drawn], high[~drawn] = np.inf, -np.inf
    return _widened(low, high, drawn, width_px / 2)


def _widened(
    low: FloatArray, high: FloatArray, drawn: NDArray[np.bool_], radius: float
) -> tuple[FloatArray, FloatArray]:
    """Move a disc along the line; it reaches neither into a gap nor across one."""
    steps = int(radius * CUTS)
    cuts = low.size
    rim = np.full(steps, np.inf)
    lows, highs = np.concatenate([rim, low, rim]), np.concatenate([-rim, high, -rim])
    known = np.pad(drawn, steps)
    whole = bool(drawn.all())
    wide_low, wide_high = low - radius, high + radius
    for side in (-1, 1):
        linked = drawn
        for step in range(1, steps + 1):
            start = steps + side * step
            near_low, near_high = lows[start : start + cuts], highs[start : start + cuts]
            if not whole:
                linked = linked & known[start : start + cuts]
                near_low = np.where(linked, near_low, np.inf)
                near_high = np.where(linked, near_high, -np.inf)
            reach = float(np.sqrt(radius**2 - (step / CUTS) ** 2))
            np.minimum(wide_low, near_low - reach, out=wide_low)
            np.maximum(wide_high, near_high + reach, out=wide_high)
    return wide_low, wide_high


def _cover(low: FloatArray, high: FloatArray, column: Indices, shape: tuple[int, int]) -> Ink:
    """Share of each pixel that lies between ``low`` and ``high`` of the cuts of its column."""
    rows, columns = shape
    place = np.concatenate([low, high])
    row = place.astype(np.intp)
    below = place - row
    sign = np.repeat([1.0 / CUTS, -1.0 / CUTS], low.size)
    cell = row * columns + np.concatenate([column, column])
    # An edge at 3.2 fills 0.8 of row 3 and all rows under it: a sum from the top makes it so.
    steps = np.bincount(
        np.concatenate([cell, cell + columns]),
        np.concatenate([(1.0 - below) * sign, below * sign]),
        minlength=(rows + 2) * columns,
    )
    filled = np.cumsum(steps.reshape(rows + 2, columns)[:rows], axis=0)
    return filled.astype(np.float32)


@lru_cache(maxsize=16)
def _ruler(samples: int, px_per_sample: float, columns: int) -> _Ruler:
    """Lay the samples of a page out among the cuts of a picture."""
    last = samples - 1
    cuts = min(columns * CUTS, int(last * px_per_sample * CUTS))
    border = np.arange(cuts + 1) / (CUTS * px_per_sample)
    place = np.union1d(np.arange(samples, dtype=np.float64), np.minimum(border, last))
    left = np.minimum(place.astype(np.intp), max(last - 1, 0))
    return _Ruler(
        left=left,
        part=place - left,
        borders=np.searchsorted(place, np.minimum(border, last)),
        cuts=cuts,
    )


@lru_cache(maxsize=16)
def _grid(grid: Grid, px_per_s: float, bands: int, rows: int, columns: int) -> tuple[Ink, Ink]:
    """Opacity of the grid in each column and in each row."""
    across, down = np.zeros(columns, np.float32), np.zeros(rows, np.float32)
    step = grid.every_s * px_per_s
    for line in range(1, int(np.ceil(columns / step))):
        _mark(across, line * step, grid.heavy if line % grid.heavy_every == 0 else grid.light)
    for border in range(1, bands):
        _mark(down, border * rows / bands, grid.heavy)
    return across, down


def _mark(opacity: Ink, place: float, line: Line) -> None:
    """Centre a line on the nearest pixel; what is wider than that pixel spills to both sides."""
    at = int(np.floor(place + 0.5))
    spill = max(line.width_px - 1.0, 0.0) / 2
    for pixel, share in ((at, min(line.width_px, 1.0)), (at - 1, spill), (at + 1, spill)):
        if 0 <= pixel < opacity.size:
            opacity[pixel] = max(opacity[pixel], share * line.opacity)
