"""The recipes drawn by matplotlib, to compare with: slow, independent, and what was trained on.

matplotlib is no dependency of the daemon: it is imported where it is used, and only the
benchmark and the tests use it.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from hypnocast.core.pictures.conditioning import Conditioned
from hypnocast.core.pictures.recipe import Recipe
from hypnocast.core.types import Pixels

POINT = 72 / 100
"""Points in a pixel at 100 dpi."""


def draw_with_matplotlib(page: Conditioned, recipe: Recipe) -> Pixels:
    """Draw the traces and the grid (no spectrogram), and read the pixels from the canvas."""
    plt = _pyplot()
    figure = _figure(plt, page, recipe)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
    plt.close(figure)
    return pixels


def save_with_matplotlib(page: Conditioned, recipe: Recipe) -> bytes:
    """Draw the same into a PNG, as plotting scripts do."""
    plt = _pyplot()
    figure = _figure(plt, page, recipe)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=100, facecolor=recipe.ground)
    plt.close(figure)
    return png.getvalue()


def _pyplot() -> Any:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    return plt


def _figure(plt: Any, page: Conditioned, recipe: Recipe) -> Any:
    height = recipe.trace.height
    figure = plt.figure(figsize=(recipe.width / 100, height / 100), dpi=100)
    figure.patch.set_facecolor(recipe.ground)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    axes.set_xlim(0, 30)
    axes.set_ylim(len(recipe.bands), 0)
    for place, band in enumerate(recipe.bands):
        trace = page.traces.get(band.role)
        if trace is None:
            continue
        if recipe.trace.scaling == "fixed" and band.half_span_uv is not None:
            heights = place + 0.5 - trace / (2 * band.half_span_uv)
        else:
            low, high = np.nanmin(trace), np.nanmax(trace)
            scaled = (trace - low) / (high - low) if high > low else trace * 0 + 0.5
            heights = place + 1 - scaled
        times = np.arange(trace.size) / recipe.rate
        axes.plot(times, heights, color=band.colour, linewidth=recipe.trace.width_px * POINT)
    if recipe.grid is not None:
        _rule(axes, recipe)
    return figure


def _rule(axes: Any, recipe: Recipe) -> None:
    grid = recipe.grid
    if grid is None:
        return
    for second in range(1, 30):
        line = grid.heavy if second % grid.heavy_every == 0 else grid.light
        width = line.width_px * POINT
        axes.axvline(second, color=grid.colour, linewidth=width, alpha=line.opacity, zorder=5)
    for border in range(1, len(recipe.bands)):
        width = grid.heavy.width_px * POINT
        axes.axhline(border, color=grid.colour, linewidth=width, alpha=grid.heavy.opacity, zorder=5)
