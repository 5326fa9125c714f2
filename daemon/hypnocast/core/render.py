"""Rendering: from a conditioned page to pixels, by a recipe and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from hypnocast.core.condition import Conditioned, condition
from hypnocast.core.draw import Ink, draw_grid, draw_trace, rgb
from hypnocast.core.recipe import Band, Recipe
from hypnocast.core.spectrogram import spectrogram
from hypnocast.core.types import PAGE_S, FloatArray, Page, Picture, Pixels, Quality, Role


def draw(
    page: Page,
    recipe: Recipe,
    mains_hz: int,
    quality: Quality,
    channels: Mapping[Role, str],
) -> Picture:
    """Condition and draw a page: the one way from samples to a picture."""
    pixels = render(condition(page, recipe, mains_hz), recipe)
    return Picture(
        epoch=page.epoch,
        rgb=pixels,
        digest=picture_digest(pixels),
        recipe=recipe.digest,
        quality=quality,
        channels=channels,
    )


def render(page: Conditioned, recipe: Recipe) -> Pixels:
    """Draw a conditioned page. A channel that is not there leaves its band empty."""
    picture = np.empty((recipe.height, recipe.width, 3), np.uint8)
    picture[...] = rgb(recipe.ground)
    canvas = np.empty((3, recipe.trace.height, recipe.width), np.float32)
    canvas[...] = np.reshape(rgb(recipe.ground), (3, 1, 1))
    _draw_traces(canvas, page, recipe)
    # Fractions of a level are cut off, as the Agg renderer does; the 1/64 is for float noise.
    levels = (canvas + np.float32(1 / 64)).astype(np.uint8)
    for plane in range(3):
        picture[: recipe.trace.height, :, plane] = levels[plane]
    _draw_spectrograms(picture, page, recipe)
    return picture


def picture_digest(pixels: Pixels) -> str:
    """``sha256:`` and 64 hex digits over the RGB bytes, row by row."""
    return "sha256:" + hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()


def _draw_traces(canvas: Ink, page: Conditioned, recipe: Recipe) -> None:
    px_per_s = recipe.width / PAGE_S
    for place, band in enumerate(recipe.bands):
        trace = page.traces.get(band.role)
        if trace is not None:
            heights = _heights(trace, band, place, recipe)
            draw_trace(canvas, heights, px_per_s / recipe.rate, recipe.trace.width_px, band.colour)
    if recipe.grid is not None:
        draw_grid(canvas, recipe.grid, px_per_s, len(recipe.bands))


def _heights(trace: FloatArray, band: Band, place: int, recipe: Recipe) -> FloatArray:
    """Rows from the top at which the samples of a band lie."""
    room = recipe.trace.height / len(recipe.bands)
    if band.half_span_uv is not None and recipe.trace.scaling == "fixed":
        return (place + 0.5) * room - trace * (room / 2 / band.half_span_uv)
    known = trace[np.isfinite(trace)]
    if known.size == 0:
        return trace
    low, high = float(known.min()), float(known.max())
    if low == high:
        return np.where(np.isfinite(trace), (place + 0.5) * room, np.nan)
    return (place + 1) * room - (trace - low) * (room / (high - low))


def _draw_spectrograms(picture: Pixels, page: Conditioned, recipe: Recipe) -> None:
    if recipe.spectrogram is None:
        return
    room = (recipe.height - recipe.trace.height) / len(recipe.bands)
    for place, band in enumerate(recipe.bands):
        signal = page.filtered.get(band.role)
        if signal is not None and band.spectrum is not None:
            top = spectrogram_top(recipe, place)
            grey = spectrogram(signal, recipe.spectrogram, band.spectrum, recipe.width)
            picture[top : top + recipe.spectrogram.rows] = grey[:, :, None]


def spectrogram_top(recipe: Recipe, place: int) -> int:
    """First row of the spectrogram of a band."""
    room = (recipe.height - recipe.trace.height) / len(recipe.bands)
    return recipe.trace.height + round(place * room)
