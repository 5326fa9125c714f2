"""Corrected nights: pages as the model saw them, with the stages a scorer gave them.

``hypnocast corrections NIGHT --scorer ID --pages FOLDER`` writes one folder a night, with
``lesson.npz`` in it; docs/reports.md tells its format. A night of pictures is half a gigabyte,
nearly all of it black: they are kept folded and unfolded one by one.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from hypnocast.core.recipe import Recipe
from hypnocast.core.types import STAGES, Pixels
from hypnocast.errors import RecipeError, TapeError
from hypnocast_models.data.recordings import Recording, open_recording

FILE = "lesson.npz"
FORMAT = "hypnocast.lesson/1"


@dataclass(frozen=True, eq=False)
class CorrectedNight:
    """The pages of one night that one scorer staged."""

    subject: str
    """The session's id, where the night has no subject code."""
    session: str
    scorer: str
    stages: NDArray[np.uint8]
    epochs: NDArray[np.int64]
    shape: tuple[int, int, int]
    folded: tuple[bytes, ...]

    def picture(self, row: int) -> Pixels:
        """Return the pixels of a page."""
        pixels = np.frombuffer(zlib.decompress(self.folded[row]), np.uint8)
        return pixels.reshape(self.shape)


def open_corrected(path: Path, recipe: Recipe) -> CorrectedNight:
    """Read one corrected night; pages of another recipe are refused."""
    try:
        with zipfile.ZipFile(path) as archive:
            facts = json.loads(_small(archive, "facts").tobytes())
            _check(facts, recipe, path)
            stages = _small(archive, "stage").astype(np.uint8)
            epochs = _small(archive, "epoch").astype(np.int64)
            with archive.open("pictures.npy") as file:
                shape = _shape(file)
                wanted = (len(stages), recipe.height, recipe.width, 3)
                if shape != wanted or len(epochs) != len(stages) or (stages >= len(STAGES)).any():
                    raise TapeError("pictures and stages do not fit together", where=str(path))
                folded = tuple(_fold(file, shape[1] * shape[2] * 3) for _ in stages)
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError, zlib.error) as error:
        raise TapeError(
            f"is no corrected night: {error}",
            where=str(path),
            remedy="Write it anew with hypnocast corrections NIGHT --scorer ID --pages FOLDER.",
        ) from error
    return CorrectedNight(
        subject=facts["subject"] or facts["session"],
        session=facts["session"],
        scorer=facts["scorer"],
        stages=stages,
        epochs=epochs,
        shape=(recipe.height, recipe.width, 3),
        folded=folded,
    )


def open_material(
    folder: Path, recipe: Recipe, without: frozenset[str] = frozenset()
) -> list[Recording | CorrectedNight]:
    """Read a folder to train on: scored recordings, corrected nights in folders, or both.

    Subjects in ``without`` are left out.
    """
    recordings: list[Recording | CorrectedNight] = [
        open_recording(path) for path in sorted(folder.glob("*.npz")) if path.name != FILE
    ]
    lessons = sorted([*folder.glob(FILE), *folder.glob(f"*/{FILE}")])
    corrected = [open_corrected(path, recipe) for path in lessons]
    if not recordings and not corrected:
        raise TapeError(
            f"there is nothing to learn from: no recordings (*.npz), no corrected nights ({FILE})",
            where=str(folder),
            remedy="Give the folder of a database, or one that holds folders of corrected pages.",
        )
    material = [night for night in [*recordings, *corrected] if night.subject not in without]
    if not material:
        raise TapeError("every subject is held out", where=str(folder))
    return material


def _check(facts: dict[str, str | None], recipe: Recipe, path: Path) -> None:
    if facts["format"] != FORMAT:
        raise TapeError(f"its format is {facts['format']}, not {FORMAT}", where=str(path))
    if facts["recipe"] != recipe.digest:
        raise RecipeError(
            f"its pages were drawn by another recipe than {recipe.name}",
            where=str(path),
            remedy="Name with --recipe the one of the pack that ran that night.",
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
