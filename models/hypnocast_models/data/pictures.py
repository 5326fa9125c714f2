"""Nights that are kept as pictures: pages that a scorer corrected, and pages that ``draw`` drew.

``hypnocast corrections NIGHT --scorer ID --pages FOLDER`` writes one folder a night, with
``lesson.npz`` in it; docs/reports.md describes its format. ``hypnocast-models draw`` writes one
``.npz`` a night. A night of pictures is half a gigabyte, nearly all of it black: they are kept
folded and unfolded one by one.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import IO, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from hypnocast.core.pictures.recipe import Recipe
from hypnocast.core.types import STAGES, Pixels, Stage
from hypnocast.errors import RecipeError, TapeError
from hypnocast_models.data.recordings import MOST_PAGES

LESSON = "lesson.npz"
FORMAT = "hypnocast.lesson/1"
UNSCORED = 255
"""The number in ``draw``'s files for a page that nobody staged."""


@dataclass(frozen=True, eq=False)
class PictureNight:
    """The pages of one night as they were drawn, with the stages somebody gave them."""

    name: str
    subject: str
    """The session's id, where the night has no subject code."""
    scorer: str
    """Who gave the stages; empty for an archive's own experts."""
    stages: tuple[Stage | None, ...]
    """Of every page of the night; None where nobody staged it."""
    shape: tuple[int, int, int]
    folded: Mapping[int, bytes]
    weights: Mapping[int, float] = field(default_factory=dict)
    """How much a page counts in training; 1 where nothing is said."""
    weak: bool = False
    """Whether a model gave the stages, not a person."""

    @property
    def epochs(self) -> tuple[int, ...]:
        """The pages that there is a picture of."""
        return tuple(self.folded)

    def picture(self, epoch: int) -> Pixels:
        """Return the pixels of a page."""
        pixels = np.frombuffer(zlib.decompress(self.folded[epoch]), np.uint8)
        return pixels.reshape(self.shape)


class _Whose(NamedTuple):
    night: str
    subject: str
    scorer: str = ""


def open_corrected(path: Path, recipe: Recipe) -> PictureNight:
    """Read one corrected night; pages of another recipe are refused."""
    with _archive(path, "Write it anew with hypnocast corrections NIGHT --pages FOLDER.") as file:
        facts = json.loads(_small(file, "facts").tobytes())
        _check(facts, recipe, path)
        session = facts["session"]
        whose = _Whose(session, facts["subject"] or session, facts["scorer"])
        night = _night(file, path, recipe, "pictures", whose)
        if "weight.npy" not in file.namelist():  # written before weights were
            return night
        return replace(night, weights=_weights(file, night, path), weak=bool(facts.get("weak")))


def open_drawn(path: Path, recipe: Recipe) -> PictureNight:
    """Read one night that ``draw`` drew; pages of another recipe are refused."""
    with _archive(path, "Draw it anew with hypnocast-models draw.") as file:
        _same_recipe(str(_small(file, "recipe")), recipe, path)
        subject = str(_small(file, "subject"))
        if "weight.npy" not in file.namelist():
            return _night(file, path, recipe, "rgb", _Whose(path.stem, subject))
        whose = _Whose(path.stem, subject, str(_small(file, "scorer")))
        night = _night(file, path, recipe, "rgb", whose)
        return replace(night, weights=_weights(file, night, path), weak=True)


def holds_pictures(path: Path) -> bool:
    """Return whether a file of arrays is of ``draw``'s or ``corrections``' making."""
    try:
        with zipfile.ZipFile(path) as archive:
            return not {"rgb.npy", "pictures.npy"}.isdisjoint(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


@contextmanager
def _archive(path: Path, remedy: str) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError, zlib.error) as error:
        raise TapeError(
            f"is no night of pictures: {error}", where=str(path), remedy=remedy
        ) from error


def _night(
    file: zipfile.ZipFile, path: Path, recipe: Recipe, pictures: str, whose: _Whose
) -> PictureNight:
    codes = _small(file, "stage").astype(np.int64)
    epochs = _small(file, "epoch").astype(np.int64)
    shape = (recipe.height, recipe.width, 3)
    known = (codes < len(STAGES)) | (codes == UNSCORED)
    fits = len(epochs) == len(codes) == len(set(epochs.tolist())) and known.all()
    with file.open(f"{pictures}.npy") as stream:
        if not fits or _shape(stream) != (len(codes), *shape) or _beyond(epochs):
            raise TapeError("pictures and stages do not fit together", where=str(path))
        folded = {epoch: _fold(stream, int(np.prod(shape))) for epoch in epochs.tolist()}
    stages: list[Stage | None] = [None] * (max(folded, default=-1) + 1)
    for epoch, code in zip(epochs.tolist(), codes.tolist(), strict=True):
        stages[epoch] = None if code == UNSCORED else STAGES[code]
    return PictureNight(
        whose.night, whose.subject, whose.scorer, tuple(stages), shape, MappingProxyType(folded)
    )


def _weights(file: zipfile.ZipFile, night: PictureNight, path: Path) -> dict[int, float]:
    """Read how much each page counts; what nobody staged counts nothing and may have 0."""
    weights = _small(file, "weight").astype(np.float64)
    staged = np.array([night.stages[epoch] is not None for epoch in night.epochs], bool)
    if len(weights) != len(staged) or not ((weights[staged] > 0) & (weights[staged] <= 1)).all():
        raise TapeError("its weights are not one a page, above 0 and up to 1", where=str(path))
    return dict(zip(night.epochs, weights.tolist(), strict=True))


def _beyond(epochs: NDArray[np.int64]) -> bool:
    return bool(epochs.size) and not 0 <= epochs.min() <= epochs.max() < MOST_PAGES


def _check(facts: dict[str, str | None], recipe: Recipe, path: Path) -> None:
    if facts["format"] != FORMAT:
        raise TapeError(f"its format is {facts['format']}, not {FORMAT}", where=str(path))
    _same_recipe(str(facts["recipe"]), recipe, path)


def _same_recipe(digest: str, recipe: Recipe, path: Path) -> None:
    if digest != recipe.digest:
        raise RecipeError(
            f"its pages were drawn by another recipe than {recipe.name}",
            where=str(path),
            remedy="Name with --recipe the one by which they were drawn.",
        )


def _small(archive: zipfile.ZipFile, name: str) -> NDArray[np.generic]:
    with archive.open(f"{name}.npy") as file:
        array: NDArray[np.generic] = npy.read_array(file, allow_pickle=False)
    return array


def _shape(file: IO[bytes]) -> tuple[int, ...]:
    npy.read_magic(file)
    shape, fortran, dtype = npy.read_array_header_1_0(file)
    if fortran or dtype != np.uint8:
        msg = f"its pictures are {dtype}, and should be uint8 in C order"
        raise ValueError(msg)
    return tuple(shape)


def _fold(file: IO[bytes], size: int) -> bytes:
    raw = file.read(size)
    if len(raw) != size:
        msg = "a picture breaks off"
        raise EOFError(msg)
    return zlib.compress(raw, 1)
