"""Scored EEG recordings as ``.npz`` files, and the pages that the daemon would cut from them.

A file holds ``x`` (epochs, samples) in counts, ``scale_uV`` (µV per count), ``y`` (0 W, 1 N1,
2 N2, 3 N3, 4 R), ``fs``, ``channel`` and, where rows are not consecutive, ``epoch_index``. A row
shorter than 30 s is the beginning of its page: the rest of that page never came, and is NaN.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from hypnocast.core.types import (
    PAGE_S,
    STEPS_PER_MICROVOLT,
    Derivation,
    FloatArray,
    Page,
    Role,
    Signal,
)
from hypnocast.errors import CommandError, TapeError

_NAME = re.compile(r"^(?P<subject>subject\d+)(?:-night(?P<night>\d+))?$")


@dataclass(frozen=True, eq=False)
class Recording:
    """One night of one person, one EEG, scored in 30-s epochs."""

    database: str
    subject: str
    night: int
    rate: float
    channel: str
    rows: FloatArray
    """(epochs, samples) in µV."""
    stages: NDArray[np.uint8]
    epochs: NDArray[np.int64]
    """Place of each row in the night."""

    @property
    def name(self) -> str:
        """``database/subject-night``: what this night is called in logs and figures."""
        return f"{self.database}/{self.subject}-night{self.night}"

    @cached_property
    def row_of_epoch(self) -> dict[int, int]:
        """Where each epoch of the night lies in ``rows``."""
        return {int(epoch): row for row, epoch in enumerate(self.epochs)}

    def page(self, row: int, context_s: float, tail_s: float, role: Role, gain: float) -> Page:
        """Cut the page of one row as the daemon would, with what is known before and after it."""
        epoch = int(self.epochs[row])
        page = round(PAGE_S * self.rate)
        before, after = round(context_s * self.rate), round(tail_s * self.rate)
        samples = np.full(before + page + after, np.nan)
        reach = range(-int(np.ceil(context_s / PAGE_S)), int(np.ceil(tail_s / PAGE_S)) + 1)
        for step in reach:
            place = self.row_of_epoch.get(epoch + step)
            if place is None:
                continue
            start = before + step * page
            row_samples = self.rows[place]
            first, last = max(0, -start), min(row_samples.size, samples.size - start)
            if first < last:
                samples[start + first : start + last] = row_samples[first:last]
        return page_of({role: (samples * gain, self.rate, self.channel)}, epoch, context_s, tail_s)


def page_of(
    channels: dict[Role, tuple[FloatArray, float, str]],
    epoch: int,
    context_s: float,
    tail_s: float,
) -> Page:
    """Make a page of channels given as role → (µV with context and tail, rate, name)."""
    signals = {}
    for place, (role, (microvolts, rate, name)) in enumerate(channels.items()):
        rounded = np.rint(microvolts * STEPS_PER_MICROVOLT) / STEPS_PER_MICROVOLT
        derivation = Derivation(
            role=role,
            name=name,
            stream="recording",
            positive=place,
            negative=None,
            microvolts_per_unit=1.0,
            kind="substitute",
            rate=rate,
        )
        signals[role] = Signal(derivation=derivation, rate=rate, samples=rounded)
    return Page(epoch=epoch, signals=MappingProxyType(signals), context_s=context_s, tail_s=tail_s)


def of_subjects(nights: Sequence[Recording], wanted: Sequence[str] | None) -> list[Recording]:
    """Choose the nights of some subjects; without any named, all. A name nobody has is refused."""
    if wanted is None:
        return list(nights)
    there = {night.subject for night in nights}
    if missing := set(wanted) - there:
        raise CommandError(
            f"there is no subject {', '.join(sorted(missing))}",
            where="--subject",
            remedy=f"There are {', '.join(sorted(there))}.",
        )
    return [night for night in nights if night.subject in wanted]


def database_files(folder: Path) -> list[Path]:
    """List the recordings of a database folder, in their order of names."""
    files = sorted(folder.glob("*.npz"))
    if not files:
        raise TapeError(
            "there are no recordings (*.npz)",
            where=str(folder),
            remedy="Give the folder of the database.",
        )
    return files


def open_recording(path: Path) -> Recording:
    """Read one recording."""
    named = _NAME.match(path.stem)
    if named is None:
        raise TapeError(
            "the file's name is not subjectNN or subjectNN-nightN",
            where=str(path),
            remedy="Name recordings by subject, so that they can be split by subject.",
        )
    with np.load(path, allow_pickle=False) as file:
        missing = {"x", "y", "fs", "scale_uV", "channel"} - set(file.files)
        if missing:
            raise TapeError(
                f"it lacks {', '.join(sorted(missing))}",
                where=str(path),
                remedy="See the docstring of hypnocast_models.data.recordings for the format.",
            )
        stages = file["y"].astype(np.uint8)
        rows = file["x"].astype(np.float64) * float(file["scale_uV"])
        known = "epoch_index" in file.files
        epochs = file["epoch_index"].astype(np.int64) if known else np.arange(len(stages))
        if len(rows) != len(stages) or (stages > 4).any():
            raise TapeError("rows and stages do not fit together", where=str(path))
        return Recording(
            database=path.parent.name,
            subject=named["subject"],
            night=int(named["night"] or 1),
            rate=float(file["fs"]),
            channel=str(file["channel"]),
            rows=rows,
            stages=stages,
            epochs=epochs,
        )


def open_recordings(folder: Path, without: frozenset[str] = frozenset()) -> list[Recording]:
    """Read a database, without the subjects named."""
    recordings = [open_recording(path) for path in database_files(folder)]
    return [r for r in recordings if r.subject not in without]
