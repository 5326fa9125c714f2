"""What a stage rests on: how much its probability falls where a part of the page is blanked.

The occlusion analysis of arXiv 2509.22810, on our pictures. Blanked means drawn as if nothing
had been recorded there, grid and all, which is what a model has seen of missing channels.

Channels of one kind show the same thing twice (both eyes, three EEGs), so that blanking one of
them alone may cost nothing. A channel's fall is therefore the mean of two: of blanking it on the
whole page, and of blanking it last of its kind, with the other kinds left as they are.

Whole kinds can stand in for each other too: a model may know R by the eyes or by the EEG. Then
no channel's fall is large, and what matters is which kind would do alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from hypnocast.core.pictures.conditioning import Conditioned
from hypnocast.core.pictures.lines import rgb
from hypnocast.core.pictures.recipe import Recipe
from hypnocast.core.pictures.render import picture_digest, render, spectrogram_top
from hypnocast.core.types import (
    EEG_ROLES,
    EOG_ROLES,
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

WORTH_NAMING = 0.1
"""A smaller fall of the probability is not called a reason."""

MOST_NAMED = 3
"""An answer that names every channel explains nothing."""

NEARLY = 0.1
"""A kind would do alone that leaves the stage less improbable than by this."""

_OTHERS = {Role.CHIN: "chin", Role.ECG: "ECG"}

_INK = 3
"""A pixel that differs by less from the empty page has no trace on it."""


@dataclass(frozen=True, slots=True)
class StageBasis:
    """What a stage rests on."""

    stage: Stage
    probability: float
    """The stage's probability on the page as it is."""
    channels: dict[Role, float]
    """Fall of the stage's probability, 1 = from certain to impossible."""
    alone: dict[str, float]
    """Kind of channels → the stage's probability where nothing else is left."""
    empty: float
    """The stage's probability where nothing at all is left."""
    patches: tuple[tuple[float, ...], ...] | None = None
    """Rows from top to bottom; None where only channels were asked for."""

    @property
    def named(self) -> tuple[Role, ...]:
        """Return the channels that matter, the dearest first.

        They cost at least :data:`WORTH_NAMING` and half of what the dearest costs, and are no
        more than :data:`MOST_NAMED`.
        """
        dearest = max(self.channels.values(), default=0.0)
        least = max(WORTH_NAMING, dearest / 2.0)
        ranked = sorted(self.channels.items(), key=lambda item: -item[1])
        return tuple(role for role, fall in ranked if fall >= least)[:MOST_NAMED]

    @property
    def would_do(self) -> tuple[str, ...]:
        """Return the kinds of channels that would do alone, but for those of a named one."""
        kinds = {_kind(role) for role in self.named}
        least = max(self.probability - NEARLY, self.empty + NEARLY)
        return tuple(kind for kind, p in self.alone.items() if p >= least and kind not in kinds)

    @property
    def sentence(self) -> str:
        """Return it in words: ``R rests on E1-M2 and Chin``."""
        named = _listed([role.value for role in self.named], "and") or "no single channel"
        others = _listed([f"the {kind}" for kind in self.would_do], "or")
        return f"{self.stage} rests on {named}" + (f"; {others} alone would do" if others else "")


def channel_looks(look: Look, recipe: Recipe) -> list[Look]:
    """Return the looks to judge: the page, then with only some of its channels left.

    A channel is blanked on the pages around as well: else a model that looks at those would
    read there what it no longer sees here.
    """
    roles = drawn_roles(look.page, recipe)
    variants = [[role for role in roles if role not in left] for left in _lefts(roles)]
    shown = [
        None if picture is None else _blanked(picture, recipe, variants)
        for picture in look.pictures
    ]
    looks = [
        Look(tuple(None if one is None else one[k] for one in shown), look.center)
        for k in range(len(variants))
    ]
    return [look, *looks]


def channel_rests(
    stage: Stage, look: Look, recipe: Recipe, judged: Sequence[FloatArray]
) -> StageBasis:
    """Return what a stage rests on from the probabilities of :func:`channel_looks`."""
    at = STAGES.index(stage)
    roles = drawn_roles(look.page, recipe)
    everything = frozenset(roles)
    asked = [everything, *_lefts(roles)]
    p = {left: float(row[at]) for left, row in zip(asked, judged, strict=True)}
    falls = {}
    for role in roles:
        others = everything - _mates(role, roles)
        first = p[everything] - p[everything - {role}]
        last = p[others | {role}] - p[others]
        falls[role] = round((first + last) / 2.0, 6)
    kinds = {_kind(role): _mates(role, roles) for role in roles}
    return StageBasis(
        stage,
        round(p[everything], 6),
        falls,
        {kind: round(p[mates], 6) for kind, mates in kinds.items()},
        round(p[frozenset()], 6),
    )


def _lefts(roles: Sequence[Role]) -> list[frozenset[Role]]:
    """Return which channels are left on each look but the first."""
    everything = frozenset(roles)
    lefts = [frozenset[Role]()]
    for role in roles:
        mates = _mates(role, roles)
        others = everything - mates
        lefts += [everything - {role}, others, others | {role}, mates]
    return [left for left in dict.fromkeys(lefts) if left != everything]


def _mates(role: Role, roles: Sequence[Role]) -> frozenset[Role]:
    """Return the channels of a channel's kind, itself among them."""
    return frozenset(other for other in roles if _kind(other) == _kind(role))


def _kind(role: Role) -> str:
    return "EEG" if role in EEG_ROLES else "eyes" if role in EOG_ROLES else _OTHERS[role]


def _listed(words: Sequence[str], last: str) -> str:
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"


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

    A trace may run far into its neighbours' bands; its colour shows whose it is. Where bands
    share a colour the nearest is chosen.
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
