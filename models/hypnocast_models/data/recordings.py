"""Scored EEG recordings as ``.npz`` files, and the pages that the daemon would cut from them.

A file holds ``x`` (epochs, samples) in counts, ``scale_uV`` (µV per count), ``y`` (0 W, 1 N1,
2 N2, 3 N3, 4 R), ``fs``, ``channel`` and, where rows are not consecutive, ``epoch_index``. A row
shorter than 30 s is the beginning of its page: the rest of that page never came, and is NaN.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from hypnocast.core.montage.choice import choose_montage
from hypnocast.core.types import (
    EEG_ROLES,
    PAGE_S,
    STEPS_PER_MICROVOLT,
    ChannelInfo,
    Derivation,
    FloatArray,
    Page,
    Role,
    Signal,
    StreamHeader,
)
from hypnocast.errors import TapeError

MOST_PAGES = 7 * 2880
"""A week: more is a wrong number, and not a night."""
_NAME = re.compile(r"^(?P<subject>subject\d+)(?:-night(?P<night>\d+))?$")


@lru_cache
def role_of(channel: str, rate: float) -> Role:
    """Return the role in which a single EEG is drawn: the one that the daemon would give it live.

    Training, judging, staging and drawing all ask here. An EEG with a meaningless label is
    drawn where a channel called ``EEG`` is.
    """
    for label in (channel, "EEG"):
        info = ChannelInfo(label, "uV")
        header = StreamHeader("array", "array", "EEG", "array", "array", "", rate, (info,))
        chosen = choose_montage([header]).derivations
        for role in EEG_ROLES:
            if role in chosen:
                return role
    return Role.C4


@dataclass(frozen=True, eq=False)
class ScoredRecording:
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

    @property
    def own_role(self) -> Role:
        """The role that its EEG fills."""
        return role_of(self.channel, self.rate)

    @cached_property
    def row_of_epoch(self) -> dict[int, int]:
        """Where each epoch of the night lies in ``rows``."""
        return {int(epoch): row for row, epoch in enumerate(self.epochs)}

    def page(
        self,
        row: int,
        context_s: float,
        tail_s: float,
        role: Role | None = None,
        gain: float = 1.0,
    ) -> Page:
        """Cut the page of one row as the daemon would, with what is known before and after it.

        ``role`` draws the EEG in another role than its own.
        """
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
        drawn_as = self.own_role if role is None else role
        return page_of(
            {drawn_as: (samples * gain, self.rate, self.channel)}, epoch, context_s, tail_s
        )


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


def open_recording(path: Path) -> ScoredRecording:
    """Read one recording."""
    named = _NAME.match(path.stem)
    if named is None:
        raise TapeError(
            "the file's name is not subjectNN or subjectNN-nightN",
            where=str(path),
            remedy="Name recordings by subject, so that they can be split by subject.",
        )
    with _arrays(path) as file:
        return ScoredRecording(
            database=path.parent.name,
            subject=named["subject"],
            night=int(named["night"] or 1),
            **_checked(file, path),
        )


def open_recordings(folder: Path, without: frozenset[str] = frozenset()) -> list[ScoredRecording]:
    """Read a database, without the subjects named."""
    recordings = [open_recording(path) for path in database_files(folder)]
    return [r for r in recordings if r.subject not in without]


# --- what a file may hold ---------------------------------------------------------------------

_NEEDED = ("x", "y", "fs", "scale_uV", "channel")
_MOST_RATE = 20_000.0
_MOST_BYTES = 4 << 30
"""What a file may hold when it is unpacked: a week of one EEG at 1 kHz in 32 bit."""


@contextmanager
def _arrays(path: Path) -> Iterator[NpzFile]:
    """Open a file of arrays; whatever is wrong with it is one clear line."""
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(item.file_size for item in archive.infolist()) > _MOST_BYTES:
                raise TapeError(f"holds more than {_MOST_BYTES >> 30} GiB", where=str(path))
        with np.load(path, allow_pickle=False) as file:
            yield file
    except zipfile.BadZipFile as error:
        raise TapeError("is no .npz archive, or a broken one", where=str(path)) from error
    except (ValueError, TypeError, KeyError, EOFError, OverflowError, zlib.error) as error:
        raise TapeError(f"cannot be read ({error})", where=str(path)) from error


def _checked(file: NpzFile, path: Path) -> dict[str, Any]:
    """Give what a recording is made of; refuse what would train on nonsense or never end."""
    missing = [name for name in _NEEDED if name not in file.files]
    if missing:
        raise TapeError(
            f"lacks {', '.join(missing)}", where=str(path), remedy="docs/training.md has the form."
        )
    counts, given = file["x"], file["y"]
    rate, scale = float(file["fs"]), float(file["scale_uV"])
    for fault in _faults(counts, given, rate, scale):
        raise TapeError(fault, where=str(path), remedy="docs/training.md has the form.")
    epochs = file["epoch_index"] if "epoch_index" in file.files else np.arange(len(given))
    if epochs.shape != given.shape or epochs.dtype.kind not in "iu":
        raise TapeError("epoch_index: not one whole number a row", where=str(path))
    if epochs.min() < 0 or epochs.max() > MOST_PAGES or len(np.unique(epochs)) < len(epochs):
        raise TapeError(f"epoch_index: not between 0 and {MOST_PAGES}, each once", where=str(path))
    return {
        "rate": rate,
        "channel": str(file["channel"]),
        "rows": counts.astype(np.float64) * scale,
        "stages": given.astype(np.uint8),
        "epochs": epochs.astype(np.int64),
    }


def _faults(counts: NDArray[Any], given: NDArray[Any], rate: float, scale: float) -> Iterator[str]:
    if counts.ndim != 2 or counts.dtype.kind not in "iuf" or not counts.size:
        yield f"x: needs numbers as (epochs, samples), has {counts.dtype} {counts.shape}"
    elif counts.dtype.kind == "f" and (np.isinf(counts).any() or np.isnan(counts).all()):
        yield "x: holds infinite samples, or none at all"
    elif given.ndim != 1 or given.dtype.kind not in "iu" or len(given) != len(counts):
        yield f"y: needs one whole number for each of {len(counts)} rows, has {given.shape}"
    elif (given < 0).any() or (given > 4).any():
        yield "y: holds other stages than 0 W, 1 N1, 2 N2, 3 N3, 4 R"
    elif not 1.0 <= rate <= _MOST_RATE:
        yield f"fs: {rate:g} is no sampling rate"
    elif not np.isfinite(scale) or scale <= 0:
        yield f"scale_uV: {scale:g} is no scale"
    elif counts.shape[1] > round(PAGE_S * rate):
        yield f"x: a row of {counts.shape[1]} samples at {rate:g} Hz is longer than a page"
