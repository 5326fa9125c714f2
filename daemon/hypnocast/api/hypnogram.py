"""A hypnogram as the programs of the field read it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypnocast.core.types import PAGE_S, STAGES, FloatArray
from hypnocast.errors import InstallError

_MNE: dict[str | None, str] = {"W": "Sleep stage W", "N1": "Sleep stage 1", "N2": "Sleep stage 2"}
_MNE |= {"N3": "Sleep stage 3", "R": "Sleep stage R", None: "Sleep stage ?"}
_YASA: dict[str | None, str] = {
    "W": "WAKE",
    "N1": "N1",
    "N2": "N2",
    "N3": "N3",
    "R": "REM",
    None: "UNS",
}


@dataclass(frozen=True, slots=True, eq=False)
class StagedHypnogram:
    """One stage for each 30-s page; None where the page was withheld."""

    stages: tuple[str | None, ...]
    """``W``, ``N1``, ``N2``, ``N3``, ``R``."""
    probabilities: FloatArray
    """(pages, 5) in the order W, N1, N2, N3, R; NaN where withheld."""
    reasons: tuple[str | None, ...]
    """Why a page was withheld."""
    onset_s: float
    """Where the first page begins, in seconds from the beginning of the recording."""
    start: datetime | None
    """UTC of the first page, where the recording gives it."""
    pack: str

    def __len__(self) -> int:
        return len(self.stages)

    def __str__(self) -> str:
        counted = Counter(self.stages)
        counts = ", ".join(f"{s.value} {counted[s.value]}" for s in STAGES if counted[s.value])
        withheld = f", withheld {counted[None]}" if counted[None] else ""
        return f"{len(self)} pages by {self.pack}: {counts or 'no stage'}{withheld}"

    def to_numpy(self) -> NDArray[np.int64]:
        """Give 0 W, 1 N1, 2 N2, 3 N3, 4 R, and −1 where a page was withheld."""
        places = {stage.value: place for place, stage in enumerate(STAGES)}
        return np.array([-1 if s is None else places[s] for s in self.stages], np.int64)

    def to_pandas(self) -> Any:
        """Give a ``pandas.DataFrame``: onset, stage, reason, and the five probabilities."""
        pandas = _program("pandas")
        columns: dict[str, Any] = {
            "onset": self.onset_s + PAGE_S * np.arange(len(self)),
            "stage": self.stages,
            "reason": self.reasons,
        }
        columns |= {s.value: self.probabilities[:, place] for place, s in enumerate(STAGES)}
        table = pandas.DataFrame(columns)
        if self.start is not None:
            pages = range(len(self))
            table["start"] = [self.start + timedelta(seconds=PAGE_S * page) for page in pages]
        table.index.name = "epoch"
        return table

    def to_yasa(self) -> Any:
        """Give a ``yasa.Hypnogram``; withheld pages are unscored."""
        yasa = _program("yasa")
        words = [_YASA[stage] for stage in self.stages]
        return yasa.Hypnogram(words, freq="30s", start=self.start, scorer=self.pack)

    def to_annotations(self) -> Any:
        """Give ``mne.Annotations`` as Sleep-EDF writes them; ready for ``raw.set_annotations``."""
        mne = _program("mne")
        onsets = self.onset_s + PAGE_S * np.arange(len(self))
        return mne.Annotations(onsets, PAGE_S, [_MNE[stage] for stage in self.stages])


def _program(name: str) -> Any:
    """Load a program that the caller works with and that Hypnocast does without."""
    try:
        return import_module(name)
    except ImportError as error:
        raise InstallError(
            f"{name} is not installed", where=name, remedy=f"Run `pip install {name}`."
        ) from error
