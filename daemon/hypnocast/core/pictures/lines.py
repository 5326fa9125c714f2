"""Anti-aliased lines in numpy: traces, and the grid over them.

A trace is the graph of a function of time, so a vertical cut through its stroke is one interval:
what a disc as wide as the pen covers while it moves along the trace near that cut. There is one
cut per sample, or per few where they lie dense. Where the trace runs up and down within the pen's
width, ink adds up until the pixel is full, as in the Agg renderer. Heights and shares are whole
numbers, so that the sums are exact and a picture is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hypnocast.core.pictures.recipe import Grid, Line
from hypnocast.core.types import FloatArray, Pixels

ROW_BITS = 8
ROW = 1 << ROW_BITS
"""Steps to which a height within a row is rounded."""

COLUMN = 4096
"""Ink that fills a pixel column in one cut through its whole width."""

LEAST_CUTS = 4
"""Cuts per pixel column that are enough: samples that come closer share one."""

FULL = ROW * COLUMN
"""Ink that fills a pixel."""

FAR = 1e5
"""Rows beyond which nobody looks: what lies there is cut so that its arithmetic stays finite."""

Reals = NDArray[np.float32]
Wholes = NDArray[np.intp]


def rgb(colour: str) -> tuple[int, int, int]:
    """Read ``#RRGGBB``."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def draw_traces(
    picture: Pixels,
    heights: FloatArray,
    px_per_sample: float,
    width_px: float,
    colours: Sequence[str],
) -> None:
    """Draw lines over each other into a picture.

    ``heights`` (lines, samples) are rows from the top, the first sample at the left border; NaN
    parts a line.
    """
    _keep_memory()
    rows, columns, _ = picture.shape
    together = max(1, int(1 / px_per_sample / LEAST_CUTS))
    cuts = _cuts((heights.shape[1] - 1) // together, together * px_per_sample, columns)
    tame = np.clip(heights, -FAR, FAR).astype(np.float32)
    low, high, often = _strokes(tame, px_per_sample, width_px / 2, together)
    edges = np.stack([low, high])
    np.clip(edges, 0.0, rows, out=edges)
    edges *= np.float32(ROW)
    height = np.rint(edges, out=edges).astype(np.intp)
    ink = np.ceil(often * cuts.share)
    ink[height[1] <= height[0]] = 0.0
    inks = np.stack([ink, -ink])
    row, within = height >> ROW_BITS, height & (ROW - 1)
    # Of each pixel column a line gets the cells from where it is highest to where it is lowest.
    top = np.minimum.reduceat(row[0], cuts.first, axis=1)
    cells = np.maximum.reduceat(row[1], cuts.first, axis=1) - top + 1
    ends = np.cumsum(cells).reshape(cells.shape)
    top_cell = ends - cells
    cell = row + np.repeat(top_cell - top, cuts.size, axis=1)
    # An edge at 3.2 fills 0.8 of row 3 and all rows under it: a sum from the top makes it so,
    # and as every cut begins and ends, the sums of one column do not reach into the next.
    whole = np.bincount(cell.reshape(-1), inks.reshape(-1))
    inks *= within
    above = np.bincount(cell.reshape(-1), inks.reshape(-1))
    filled = np.cumsum(whole.astype(np.int32), dtype=np.int32)
    filled *= ROW
    filled -= above.astype(np.int32)
    inked = np.flatnonzero(filled > 0)
    opacity = np.minimum(filled.take(inked), FULL).astype(np.float32)
    opacity *= np.float32(1 / FULL)
    opacity = np.repeat(opacity, 3)
    moved = cuts.column + (top - top_cell) * columns
    at = np.repeat(moved.reshape(-1), cells.reshape(-1)).take(inked)
    at += inked * columns
    first = 0
    for last, colour in zip(np.searchsorted(inked, ends[:, -1]), colours, strict=True):
        part = at[first:last]
        _blend(picture, part, opacity[3 * first : 3 * last], _tiled(colour, part.size))
        first = int(last)


def draw_grid(picture: Pixels, grid: Grid, px_per_s: float, bands: int) -> None:
    """Draw the seconds and the borders between the bands; the picture's own rim is no line."""
    rows, columns, _ = picture.shape
    at, opacity = _grid(grid, px_per_s, bands, rows, columns)
    _blend(picture, at, opacity, _tiled(grid.colour, at.size))


def _blend(picture: Pixels, at: Wholes, opacity: Reals, colour: Reals) -> None:
    """Lay colour over some pixels; fractions of a level are cut off, as Agg does."""
    pixels = picture.reshape(-1).view("V3")  # three bytes at once: three times as fast
    levels = pixels.take(at).view(np.uint8).astype(np.float32)
    change = colour - levels
    change *= opacity
    levels += change
    levels += np.float32(1 / 64)  # keeps a whole level whole, whatever rounding did to it
    np.put(pixels, at, levels.astype(np.uint8).view("V3"))


def _tiled(colour: str, pixels: int) -> Reals:
    """Return the three levels of a colour again and again, as often as there are pixels."""
    return _tile(colour, 1 << pixels.bit_length())[: 3 * pixels]


@lru_cache(maxsize=64)
def _tile(colour: str, pixels: int) -> Reals:
    return np.tile(np.array(rgb(colour), np.float32), pixels)


def _strokes(
    heights: Reals, px_per_sample: float, radius: float, together: int
) -> tuple[Reals, Reals, Reals]:
    """Upper and lower end of the stroke in each cut, and how often the line passes there.

    The disc reaches neither into a gap nor across one: near a gap both ends are the same.
    """
    pen = np.float32(radius)
    before, after = heights[:, :-1], heights[:, 1:]
    low, high = np.minimum(before, after), np.maximum(before, after)
    way = high - low
    if together > 1:
        cuts = way.shape[1] // together * together
        parts = [np.s_[:, part:cuts:together] for part in range(together)]
        low = np.minimum.reduce([low[part] for part in parts])
        high = np.maximum.reduce([high[part] for part in parts])
        way = np.add.reduce([way[part] for part in parts])
        px_per_sample *= together
    wide_low, wide_high, length = low - pen, high + pen, way.copy()
    for step in range(1, int(radius / px_per_sample) + 1):
        reach = np.float32(np.sqrt(radius**2 - (step * px_per_sample) ** 2))
        near_low, near_high = low - reach, high + reach
        for here, there in (
            (np.s_[:, step:], np.s_[:, :-step]),
            (np.s_[:, :-step], np.s_[:, step:]),
        ):
            np.minimum(wide_low[here], near_low[there], out=wide_low[here])
            np.maximum(wide_high[here], near_high[there], out=wide_high[here])
            length[here] += way[there]
    often = (length + pen) / (wide_high - wide_low - pen)
    lost = np.isnan(often)
    if lost.any():
        often[lost] = 0.0
        nowhere = np.nan_to_num(np.fmin.reduce(wide_low, axis=1))[:, None]
        np.copyto(wide_low, nowhere, where=lost)
        np.copyto(wide_high, nowhere, where=lost)
    return wide_low, wide_high, often


@cache
def _keep_memory() -> None:
    """Let go of 16 MB once, untouched.

    From then on glibc keeps what is freed up to that size. Before, it hands each temporary array
    back to the kernel, and fetching the pages anew for the next one costs twice the drawing.
    """
    np.empty(1 << 21)


class _Cuts(NamedTuple):
    """Where the cuts through a picture's lines lie: a run of them in each pixel column."""

    column: Wholes
    """The pixel column of each run."""
    first: Wholes
    """The first cut of each run."""
    size: Wholes
    """How many cuts each run has."""
    share: FloatArray
    """Each cut's share of the ink that fills its column."""


@lru_cache(maxsize=16)
def _cuts(count: int, px_per_cut: float, columns: int) -> _Cuts:
    column = np.minimum(((np.arange(count) + 0.5) * px_per_cut).astype(np.intp), columns - 1)
    there, first, size = np.unique(column, return_index=True, return_counts=True)
    return _Cuts(there, first, size, COLUMN / np.repeat(size, size))


@lru_cache(maxsize=16)
def _grid(grid: Grid, px_per_s: float, bands: int, rows: int, columns: int) -> tuple[Wholes, Reals]:
    """Pixels of the grid, and its opacity there for each of the three colours."""
    across, down = np.zeros(columns), np.zeros(rows)
    step = grid.every_s * px_per_s
    for line in range(1, int(np.ceil(columns / step))):
        _mark(across, line * step, grid.heavy if line % grid.heavy_every == 0 else grid.light)
    for border in range(1, bands):
        _mark(down, border * rows / bands, grid.heavy)
    opacity = (1.0 - (1.0 - across[None, :]) * (1.0 - down[:, None])).reshape(-1)
    at = np.flatnonzero(opacity)
    return at, np.repeat(opacity[at].astype(np.float32), 3)


def _mark(opacity: FloatArray, place: float, line: Line) -> None:
    """Centre a line on the nearest pixel; what is wider than that pixel spills to both sides."""
    at = int(np.floor(place + 0.5))
    spill = max(line.width_px - 1.0, 0.0) / 2
    for pixel, share in ((at, min(line.width_px, 1.0)), (at - 1, spill), (at + 1, spill)):
        if 0 <= pixel < opacity.size:
            opacity[pixel] = max(opacity[pixel], share * line.opacity)
