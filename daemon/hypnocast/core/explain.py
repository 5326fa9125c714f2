"""What a stage rests on: how much its probability falls where a part of the page is blanked.

The occlusion analysis of arXiv 2509.22810, on our pictures. Blanked means drawn as if nothing
had been recorded there, grid and all, which is what a model has seen of missing channels.

Channels tell the same thing twice (both eyes, three EEGs), so that blanking one of them alone
may cost nothing. A channel's fall is therefore the mean of two: of blanking it on the whole
page, and of blanking it last, on a page where nothing else is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from hypnocast.core.condition import Conditioned
from hypnocast.core.draw import rgb
from hypnocast.core.recipe import Recipe
from hypnocast.core.render import picture_digest, render, spectrogram_top
from hypnocast.core.types import (
    STAGES,
    FloatArray,
    Look,
    Picture,
    Pixels,
    Role,
    Stage,
)

PATCHES = 14
"""Patches along each side of the page: on a 448-pixel page 32 × 32 pixels each."""

WORTH_NAMING = 0.05
"""A smaller fall of the probability is not called a reason."""

_INK = 3
"""A pixel that differs by less from the empty page has no trace on it."""


@dataclass(frozen=True, slots=True)
class Rests:
    """What a stage rests on."""

    stage: Stage
    channels: dict[Role, float]
    """Fall of the stage's probability, 1 = from certain to impossible."""
    patches: tuple[tuple[float, ...], ...] | None = None
    """Rows from top to bottom; None where only channels were asked for."""

    @property
    def sentence(self) -> str:
        """Say it in words: ``R rests on E1-M2 and Chin``."""
        return sentence(self.stage, self.channels)


def channel_looks(look: Look, recipe: Recipe) -> list[Look]:
    """Return the looks to judge: the page, the empty page, then each channel without and alone.

    A channel is blanked on the pages around as well: else a model that looks at those would
    read there what it no longer sees here.
    """
    roles = drawn_roles(look.page, recipe)
    variants: list[tuple[Role, ...]] = [roles]
    for role in roles:
        variants += [(role,), tuple(other for other in roles if other is not role)]
    shown = [
        None if picture is None else _blanked(picture, recipe, variants)
        for picture in look.pictures
    ]
    looks = [
        Look(tuple(None if one is None else one[k] for one in shown), look.center)
        for k in range(len(variants))
    ]
    return [look, *looks]


def channel_falls(
    stage: Stage, look: Look, recipe: Recipe, judged: Sequence[FloatArray]
) -> dict[Role, float]:
    """Return each channel's fall from the probabilities of :func:`channel_looks`."""
    at = STAGES.index(stage)
    whole, empty, *pairs = (float(probabilities[at]) for probabilities in judged)
    roles = drawn_roles(look.page, recipe)
    return {
        role: round(((whole - without) + (alone - empty)) / 2.0, 6)
        for role, without, alone in zip(roles, pairs[::2], pairs[1::2], strict=True)
    }


def patch_looks(look: Look, recipe: Recipe) -> list[Look]:
    """Return the looks to judge: each patch blanked, row by row from the top left."""
    looks = []
    for rows, columns in product(_cuts(recipe.height), _cuts(recipe.width)):
        pixels = look.page.rgb.copy()
        pixels[rows, columns] = _empty(recipe)[rows, columns]
        looks.append(_with(look, pixels))
    return looks


def patch_falls(
    stage: Stage, whole: FloatArray, judged: Sequence[FloatArray]
) -> tuple[tuple[float, ...], ...]:
    """Return the patches' falls from the probabilities of the page and :func:`patch_looks`."""
    at = STAGES.index(stage)
    falls = [round(float(whole[at] - probabilities[at]), 6) for probabilities in judged]
    return tuple(tuple(falls[row : row + PATCHES]) for row in range(0, len(falls), PATCHES))


def sentence(stage: Stage, falls: dict[Role, float]) -> str:
    """Name the channels that matter: all that cost at least half of what the dearest costs."""
    dearest = max(falls.values(), default=0.0)
    named = [
        role.value
        for role, fall in sorted(falls.items(), key=lambda item: -item[1])
        if fall >= WORTH_NAMING and fall >= dearest / 2.0
    ]
    if not named:
        return f"{stage} rests on no single channel"
    if len(named) == 1:
        return f"{stage} rests on {named[0]}"
    return f"{stage} rests on {', '.join(named[:-1])} and {named[-1]}"


def drawn_roles(picture: Picture, recipe: Recipe) -> tuple[Role, ...]:
    """Return the roles of which there is anything to be seen, top to bottom."""
    owner = _owners(picture.rgb, recipe)
    return tuple(
        role
        for place, role in enumerate(recipe.roles)
        if bool((owner == place).any()) or _spectrum_seen(picture.rgb, recipe, place)
    )


def blank(pixels: Pixels, recipe: Recipe, roles: Sequence[Role]) -> Pixels:
    """Return the page as it would be had these channels not been recorded."""
    return _without(pixels, recipe, roles, _owners(pixels, recipe))


def _blanked(picture: Picture, recipe: Recipe, variants: Sequence[Sequence[Role]]) -> list[Picture]:
    owner = _owners(picture.rgb, recipe)
    return [_drawn(picture, _without(picture.rgb, recipe, roles, owner)) for roles in variants]


def _without(
    pixels: Pixels, recipe: Recipe, roles: Sequence[Role], owner: NDArray[np.int64]
) -> Pixels:
    empty, blanked = _empty(recipe), pixels.copy()
    traces = slice(0, recipe.trace.height)
    gone = np.isin(owner, [recipe.roles.index(role) for role in roles])
    blanked[traces][gone] = empty[traces][gone]
    for role in roles:
        if (rows := _spectrum_rows(recipe, recipe.roles.index(role))) is not None:
            blanked[rows] = empty[rows]
    return blanked


def _owners(pixels: Pixels, recipe: Recipe) -> NDArray[np.int64]:
    """Return for each pixel of the traces the band whose ink it carries, −1 for none.

    A trace may run far into its neighbours' bands; its colour tells whose it is. Where bands
    share a colour the nearest is taken.
    """
    height, bands = recipe.trace.height, recipe.bands
    empty = _empty(recipe)[:height].astype(np.float64)
    ink = pixels[:height].astype(np.float64) - empty
    colours = np.array([rgb(band.colour) for band in bands], np.float64) - empty[:1, :1].reshape(3)
    colours /= np.maximum(np.linalg.norm(colours, axis=1, keepdims=True), 1e-9)
    strength = np.abs(ink).max(axis=2)
    likeness = ink @ colours.T / np.maximum(np.linalg.norm(ink, axis=2), 1e-9)[..., None]
    room = height / len(bands)
    middles = (np.arange(len(bands)) + 0.5) * room
    away = np.abs(np.arange(height)[:, None] + 0.5 - middles[None, :]) / height
    owner: NDArray[np.int64] = (likeness - 0.05 * away[:, None, :]).argmax(axis=2)
    return np.where(strength >= _INK, owner, -1)


def _spectrum_rows(recipe: Recipe, place: int) -> slice | None:
    if recipe.spectrogram is None or recipe.bands[place].spectrum is None:
        return None
    top = spectrogram_top(recipe, place)
    return slice(top, top + recipe.spectrogram.rows)


def _spectrum_seen(pixels: Pixels, recipe: Recipe, place: int) -> bool:
    rows = _spectrum_rows(recipe, place)
    return rows is not None and bool((pixels[rows] != _empty(recipe)[rows]).any())


@lru_cache(maxsize=4)
def _empty(recipe: Recipe) -> Pixels:
    return render(Conditioned(epoch=0, filtered={}, traces={}), recipe)


def _cuts(length: int) -> list[slice]:
    edges = [round(length * part / PATCHES) for part in range(PATCHES + 1)]
    return [slice(first, last) for first, last in pairwise(edges)]


def _with(look: Look, pixels: Pixels) -> Look:
    pictures = list(look.pictures)
    pictures[look.center] = _drawn(look.page, pixels)
    return Look(tuple(pictures), look.center)


def _drawn(picture: Picture, pixels: Pixels) -> Picture:
    return replace(picture, rgb=pixels, digest=picture_digest(pixels))
