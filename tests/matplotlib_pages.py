"""The recipes drawn by matplotlib, to compare with: slow, independent, and what was trained on."""

from __future__ import annotations

import io
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

from hypnocast.core.condition import Conditioned
from hypnocast.core.recipe import Recipe
from hypnocast.core.types import Pixels

mpl.use("Agg")

POINT = 72 / 100
"""Points in a pixel at 100 dpi."""


def draw_with_matplotlib(page: Conditioned, recipe: Recipe) -> Pixels:
    """Draw the traces and the grid (no spectrogram), and take the pixels from the canvas."""
    figure = _figure(page, recipe)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
    plt.close(figure)
    return pixels


def save_with_matplotlib(page: Conditioned, recipe: Recipe) -> bytes:
    """Draw the same into a PNG, as plotting scripts do."""
    figure = _figure(page, recipe)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=100, facecolor=recipe.ground)
    plt.close(figure)
    return png.getvalue()


def _figure(page: Conditioned, recipe: Recipe) -> Any:  # matplotlib has no types
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
        if recipe.trace.scaling == "fixed":
            assert band.half_span_uv is not None
            heights = place + 0.5 - trace / (2 * band.half_span_uv)
        else:
            low, high = np.nanmin(trace), np.nanmax(trace)
            scaled = (trace - low) / (high - low) if high > low else trace * 0 + 0.5
            heights = place + 1 - scaled
        times = np.arange(trace.size) / recipe.rate
        axes.plot(times, heights, color=band.colour, linewidth=recipe.trace.width_px * POINT)
    if recipe.grid is not None:
        for second in range(1, 30):
            heavy = second % 5 == 0
            line = recipe.grid.heavy if heavy else recipe.grid.light
            axes.axvline(
                second,
                color=recipe.grid.colour,
                linewidth=line.width_px * POINT,
                alpha=line.opacity,
                zorder=5,
            )
        for border in range(1, len(recipe.bands)):
            heavy_line = recipe.grid.heavy
            axes.axhline(
                border,
                color=recipe.grid.colour,
                linewidth=heavy_line.width_px * POINT,
                alpha=heavy_line.opacity,
                zorder=5,
            )
    return figure
