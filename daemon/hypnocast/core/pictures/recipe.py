"""Recipes: how a page is drawn, as data.

A recipe is a TOML text. Everything that decides a pixel is in it or in the renderer, so its
digest, computed over the data and not over the text, shows whether two pictures are comparable.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache, lru_cache
from importlib.resources import files
from typing import Annotated, Literal

import msgspec

from hypnocast.core.types import PAGE_S, Role
from hypnocast.errors import RecipeError

Colour = Annotated[str, msgspec.Meta(pattern="^#[0-9A-Fa-f]{6}$")]
Positive = Annotated[float, msgspec.Meta(gt=0)]
Share = Annotated[float, msgspec.Meta(gt=0, le=1)]
Pixel = Annotated[int, msgspec.Meta(ge=1, le=8192)]


class Trace(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the lines are drawn."""

    height: Pixel
    """Rows from the top of the picture that the traces share."""
    width_px: Positive
    scaling: Literal["fixed", "page"]
    """``fixed``: a band spans ± its half span; ``page``: from the page's minimum to its maximum."""


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A grid line."""

    width_px: Positive
    opacity: Share


class Grid(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Lines over the traces: one each ``every_s``; each ``heavy_every``-th is heavy.

    So are the borders between the bands.
    """

    colour: Colour
    light: Line
    heavy: Line
    every_s: Positive
    heavy_every: Annotated[int, msgspec.Meta(ge=1)]


class Spectrogram(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Grey bands below the traces, one per channel, highest frequency on top."""

    rows: Pixel
    column_px: Pixel
    """Width of one column; each shows the spectrum around its middle."""
    floor: float
    """log10 of the power that is black."""
    span: Positive
    """Decades from black to white."""


class Spectrum(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the spectrogram of one band shows: rows are 1 / ``window_s`` Hz apart."""

    window_s: Positive
    lowest_hz: Annotated[float, msgspec.Meta(ge=0)]


class Band(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The place of one channel."""

    role: Role
    colour: Colour
    half_span_uv: Positive | None = None
    spectrum: Spectrum | None = None


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a page is conditioned and drawn."""

    name: Annotated[str, msgspec.Meta(pattern="^[a-z0-9][a-z0-9._-]{0,63}$")]
    width: Pixel
    height: Pixel
    rate: Positive
    """Samples a second after resampling."""
    context_s: Annotated[float, msgspec.Meta(ge=0, le=300)]
    """Signal before the page that the filters see."""
    tail_s: Annotated[float, msgspec.Meta(ge=0, le=30)]
    """Signal after the page that the filters see."""
    ground: Colour
    trace: Trace
    bands: Annotated[tuple[Band, ...], msgspec.Meta(min_length=1)]
    """Top to bottom, and in the order of drawing."""
    grid: Grid | None = None
    spectrogram: Spectrogram | None = None
    channels: Literal["all", "one EEG"] = "all"
    """``one EEG``: of all channels only the EEG that is best on the page is drawn, in its own
    band; for models that were judged on nothing else."""

    def __post_init__(self) -> None:
        """Refuse what the types allow but nobody can draw."""
        for fault in _faults(self):
            raise ValueError(fault)

    @classmethod
    def parse(cls, text: str, where: str) -> Recipe:
        """Read a recipe from TOML; ``where`` is what an error calls it."""
        try:
            return msgspec.toml.decode(text, type=cls)
        except msgspec.ValidationError as error:
            what, key = _explain(str(error))
            raise RecipeError(
                what, where=f"{where}: {key}" if key else where, remedy="Correct the recipe."
            ) from error
        except msgspec.DecodeError as error:
            raise RecipeError(
                f"not TOML: {error}", where=where, remedy="Correct the recipe."
            ) from error

    @property
    def roles(self) -> tuple[Role, ...]:
        """The roles that have a place in the picture, top to bottom."""
        return tuple(band.role for band in self.bands)

    @property
    def digest(self) -> str:
        """``sha256:`` and 64 hex digits over the data in a canonical form."""
        return _digest(self)


def builtin_names() -> tuple[str, ...]:
    """Names of the recipes that come with Hypnocast."""
    folder = files("hypnocast.core.pictures") / "recipes"
    return tuple(
        sorted(entry.name[: -len(".toml")] for entry in folder.iterdir() if _is_recipe(entry.name))
    )


@cache
def builtin(name: str) -> Recipe:
    """Return a recipe that comes with Hypnocast."""
    if name not in builtin_names():
        raise RecipeError(
            f"there is no recipe called {name!r}",
            where="recipe",
            remedy=f"The built-in ones are {', '.join(builtin_names())}.",
        )
    text = (files("hypnocast.core.pictures") / "recipes" / f"{name}.toml").read_text(
        encoding="utf-8"
    )
    return Recipe.parse(text, f"recipe {name}")


def _is_recipe(file_name: str) -> bool:
    return file_name.endswith(".toml")


@lru_cache(maxsize=64)
def _digest(recipe: Recipe) -> str:
    facts = msgspec.to_builtins(recipe)
    if facts["channels"] == "all":
        del facts["channels"]  # recipes had their digests before there was a choice
    canonical = msgspec.json.encode(facts)  # keys in the order of the fields
    return "sha256:" + hashlib.sha256(canonical).hexdigest()


def _faults(recipe: Recipe) -> list[str]:
    faults = []
    if len(set(recipe.roles)) < len(recipe.bands):
        faults.append("a role has two bands; give each role one")
    if recipe.trace.height > recipe.height:
        faults.append("trace.height is greater than height")
    if recipe.rate * PAGE_S < 2 * recipe.width:
        faults.append("rate gives fewer than two samples for each column of the picture")
    if recipe.trace.scaling == "fixed":
        faults += [
            f"the band of {band.role} lacks half_span_uv, which fixed scaling needs"
            for band in recipe.bands
            if band.half_span_uv is None
        ]
    if recipe.spectrogram is None:
        if recipe.trace.height != recipe.height:
            faults.append("without a spectrogram trace.height must equal height")
    else:
        room = recipe.height - recipe.trace.height
        if recipe.spectrogram.rows * len(recipe.bands) > room:
            faults.append(f"the spectrograms need more than the {room} rows below the traces")
        if recipe.width % recipe.spectrogram.column_px:
            faults.append("width is not a multiple of spectrogram.column_px")
        if recipe.tail_s < max(
            (b.spectrum.window_s for b in recipe.bands if b.spectrum), default=0
        ):
            faults.append("tail_s is shorter than a spectrum's window")
    return faults


def _explain(message: str) -> tuple[str, str]:
    """Split msgspec's message into what is wrong and the key path where."""
    found = re.fullmatch(r"(?s)(.*?) - at `\$\.?(.*)`", message)
    if found is None:
        return message, ""
    return found[1], found[2]
