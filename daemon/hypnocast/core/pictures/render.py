"""Rendering: from a conditioned page to pixels, by a recipe and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

import numpy as np

from hypnocast.core.pictures.conditioning import Conditioned, Filtered, condition
from hypnocast.core.pictures.lines import draw_grid, draw_traces, rgb
from hypnocast.core.pictures.page_spectrum import page_spectrum
from hypnocast.core.pictures.recipe import Band, Recipe, Spectrum
from hypnocast.core.pictures.spectrogram import spectrograms
from hypnocast.core.quality import assess, reason_against
from hypnocast.core.types import (
    EEG_ROLES,
    PAGE_S,
    FloatArray,
    Page,
    Picture,
    Pixels,
    Quality,
    Role,
)


def draw_page(
    page: Page,
    recipe: Recipe,
    mains_hz: int,
    quality: Quality | None = None,
    channels: Mapping[Role, str] | None = None,
    *,
    spectrum: bool = False,
) -> Picture:
    """Condition and draw a page: the one way from samples to a picture.

    Without ``quality`` the page is judged here; without ``channels`` its derivations name them.
    ``spectrum``: the power spectrum of what was drawn is worked out too.
    """
    if quality is None:
        quality = assess(page, recipe.roles, mains_hz)
    if channels is None:
        channels = page.channels
    if recipe.channels == "one EEG":
        only = best_eeg(page, recipe, quality)
        page = replace(page, signals={r: s for r, s in page.signals.items() if r == only})
        channels = {role: name for role, name in channels.items() if role == only}
    conditioned = condition(page, recipe, mains_hz)
    pixels = render(conditioned, recipe)
    return Picture(
        epoch=page.epoch,
        rgb=pixels,
        digest=picture_digest(pixels),
        recipe=recipe.digest,
        quality=quality,
        channels=channels,
        spectrum=page_spectrum(conditioned, channels) if spectrum else None,
    )


def best_eeg(page: Page, recipe: Recipe, quality: Quality) -> Role | None:
    """Return the EEG without a fault that has most of the page, by the order of the bands.

    Where every EEG has a fault it is the one with most of the page; None without any EEG.
    """
    there = [role for role in recipe.roles if role in EEG_ROLES and role in page.signals]

    def rank(role: Role) -> tuple[bool, float]:
        found = quality.get(role)
        if found is None:
            return True, 0.0
        return reason_against(found, 0.0) is not None, -round(found.coverage, 3)

    return min(there, key=rank, default=None)


def render(page: Conditioned, recipe: Recipe) -> Pixels:
    """Draw a conditioned page. A channel that is not there leaves its band empty."""
    picture = _blank(recipe.height, recipe.width, recipe.ground).copy()
    _draw_traces(picture[: recipe.trace.height], page, recipe)
    _draw_spectrograms(picture, page, recipe)
    return picture


def picture_digest(pixels: Pixels) -> str:
    """``sha256:`` and 64 hex digits over the RGB bytes, row by row."""
    return "sha256:" + hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()


@lru_cache(maxsize=16)
def _blank(height: int, width: int, ground: str) -> Pixels:
    return np.broadcast_to(np.array(rgb(ground), np.uint8), (height, width, 3)).copy()


def _draw_traces(picture: Pixels, page: Conditioned, recipe: Recipe) -> None:
    px_per_s = recipe.width / PAGE_S
    bands = [(place, band) for place, band in enumerate(recipe.bands) if band.role in page.traces]
    if bands:
        draw_traces(
            picture,
            np.stack([_heights(page.traces[b.role], b, place, recipe) for place, b in bands]),
            px_per_s / recipe.rate,
            recipe.trace.width_px,
            [band.colour for _, band in bands],
        )
    if recipe.grid is not None:
        draw_grid(picture, recipe.grid, px_per_s, len(recipe.bands))


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
    look = recipe.spectrogram
    if look is None:
        return
    columns = recipe.width // look.column_px
    alike: dict[tuple[Spectrum, float, float], list[tuple[int, Filtered]]] = {}
    for place, band in enumerate(recipe.bands):
        signal = page.filtered.get(band.role)
        if signal is not None and band.spectrum is not None:
            kind = (band.spectrum, signal.rate, signal.start_s)
            alike.setdefault(kind, []).append((place, signal))
    for (spectrum, *_), bands in alike.items():
        greys = spectrograms([signal for _, signal in bands], look, spectrum, columns)
        for (place, _), grey in zip(bands, greys, strict=True):
            top = spectrogram_top(recipe, place)
            lines = picture[top : top + look.rows].reshape(look.rows, -1)
            lines[...] = np.repeat(grey, 3 * look.column_px, axis=1)


def spectrogram_top(recipe: Recipe, place: int) -> int:
    """First row of the spectrogram of a band."""
    room = (recipe.height - recipe.trace.height) / len(recipe.bands)
    return recipe.trace.height + round(place * room)
