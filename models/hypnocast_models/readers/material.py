"""What a folder holds to learn from or to judge on, whatever form it has.

The nights of any archive that a reader knows, nights that ``draw`` drew, nights that a scorer
corrected, or several of these together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from hypnocast.core.pictures.recipe import Recipe
from hypnocast.errors import CommandError
from hypnocast_models.compare.hypnogram import night_name
from hypnocast_models.data.pictures import (
    LESSON,
    PictureNight,
    holds_pictures,
    open_corrected,
    open_drawn,
)
from hypnocast_models.readers.datasets import FoundRecording, find_nights, open_night
from hypnocast_models.readers.night import ScoredNight

Material = ScoredNight | PictureNight


class _OfSubject(Protocol):
    @property
    def subject(self) -> str: ...


_Night = TypeVar("_Night", bound=_OfSubject)


def open_material(
    folder: Path, recipe: Recipe, kind: str = "", hypnograms: Path | None = None
) -> list[Material]:
    """Open every scored night of a folder; ``kind`` names the reader where it is not plain.

    ``hypnograms`` is a folder of files with the stages, found by the names of the nights.
    """
    if not folder.is_dir():
        raise CommandError("is no folder", where=str(folder))
    corrected = sorted([*folder.glob(LESSON), *folder.glob(f"*/{LESSON}")])
    drawn = sorted(p for p in folder.glob("*.npz") if p.name != LESSON and holds_pictures(p))
    pictures: list[Material] = [
        *(open_drawn(path, recipe) for path in drawn),
        *(open_corrected(path, recipe) for path in corrected),
    ]
    try:
        found = find_nights(folder, kind)
    except CommandError:
        if not pictures or kind:
            raise
        found = []
    scored = _by_night(hypnograms, found) if hypnograms is not None else {}
    return [*(open_night(one, scoring=scored.get(one.name)) for one in found), *pictures]


def _by_night(folder: Path, found: Sequence[FoundRecording]) -> dict[str, Path]:
    """Find the file with the stages of each night."""
    if not folder.is_dir():
        raise CommandError("is no folder", where=f"--hypnograms {folder}")
    there = {night_name(path): path for path in sorted(folder.rglob("*")) if path.is_file()}
    missing = [one.name for one in found if one.name not in there]
    if missing:
        raise CommandError(
            f"has no hypnogram of {', '.join(missing[:_SHOWN])}",
            where=f"--hypnograms {folder}",
            remedy="Name each file as its night, with -Hypnogram or nothing behind.",
        )
    return {one.name: there[one.name] for one in found}


def only_subjects(nights: Sequence[_Night], wanted: Sequence[str] | None) -> list[_Night]:
    """Choose the nights of some subjects; without any named, all. A name nobody has is refused."""
    if not wanted:
        return list(nights)
    _refuse_strangers(nights, wanted, "--subject")
    return [night for night in nights if night.subject in wanted]


def without_subjects(nights: Sequence[_Night], held_out: Iterable[str]) -> list[_Night]:
    """Leave some subjects out. A name nobody has is refused: it would hold nobody out."""
    names = frozenset(held_out)
    _refuse_strangers(nights, names, "--without")
    left = [night for night in nights if night.subject not in names]
    if not left:
        raise CommandError("every subject is held out", where="--without")
    return left


def _refuse_strangers(nights: Sequence[_Night], names: Iterable[str], where: str) -> None:
    there = sorted({night.subject for night in nights})
    missing = sorted(set(names) - set(there))
    if missing:
        shown = there if len(there) <= _SHOWN else [*there[:_SHOWN], f"{len(there) - _SHOWN} more"]
        raise CommandError(
            f"there is no subject {', '.join(missing)}",
            where=where,
            remedy=f"There are {', '.join(shown)}.",
        )


_SHOWN = 12
