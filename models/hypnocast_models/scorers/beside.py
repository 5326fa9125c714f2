"""What a pack's figures must be read against: other scorers on the same nights."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hypnocast.core.types import EEG_ROLES, STAGES, Stage
from hypnocast_models.compare.figures import ScoredPages
from hypnocast_models.data import PictureNight, ScoredRecording
from hypnocast_models.readers.material import Material
from hypnocast_models.readers.night import ArrayNight
from hypnocast_models.scorers.gradient_boosting import fit_and_judge
from hypnocast_models.scorers.yasa import stage_in_environment, stage_with_yasa

FOLDS = 4
MAJORITY = STAGES.index(Stage.N2)


def scored(
    night: ScoredRecording, ours: NDArray[np.int64], probabilities: NDArray[np.float64]
) -> ScoredPages:
    """Put a scorer's stages beside the expert's."""
    return ScoredPages(
        night=f"{night.subject}-night{night.night}",
        subject=night.subject,
        expert=night.stages.astype(np.int64),
        ours=ours,
        probabilities=probabilities,
    )


def single_eeg(night: Material) -> ScoredRecording | None:
    """Give the one EEG that scorers of signals look at; nothing where only pictures are kept."""
    if isinstance(night, PictureNight):
        return None
    if isinstance(night, ArrayNight):
        return night.recording
    role = next((role for role in EEG_ROLES if role in night.channels), None)
    pages = [epoch for epoch, stage in enumerate(night.stages) if stage is not None]
    if role is None or not pages:
        return None
    signals = [night.page(epoch, 0.0, 0.0).signals[role] for epoch in pages]
    return ScoredRecording(
        database="",
        subject=night.subject,
        night=1,
        rate=signals[0].rate,
        channel=night.channels[role],
        rows=np.nan_to_num(np.stack([signal.samples for signal in signals])),
        stages=np.array([STAGES.index(night.stages[k]) for k in pages], np.uint8),
        epochs=np.array(pages, np.int64),
    )


def majority(nights: Sequence[ScoredRecording]) -> list[ScoredPages]:
    """Stage every page N2."""
    chances = np.full(len(STAGES), 0.1)
    chances[MAJORITY] = 1 - chances[0] * (len(STAGES) - 1)
    return [
        scored(n, np.full(len(n.stages), MAJORITY), np.tile(chances, (len(n.stages), 1)))
        for n in nights
    ]


def by_number(subjects: Sequence[str]) -> Callable[[str], int]:
    """Deal subjects into :data:`FOLDS` folds, in the order of their names."""
    place = {subject: at % FOLDS for at, subject in enumerate(sorted(set(subjects)))}
    return place.__getitem__


def gradient_boosting(
    database: Sequence[ScoredRecording],
    judged: Sequence[ScoredRecording],
    seed: int,
    fold_of: Callable[[str], int] | None = None,
) -> list[ScoredPages]:
    """Fit on signal features of subjects that are not judged, and judge; nothing if there are none.

    Where every subject of the database is judged, each is judged by a model that was fitted
    without its fold.
    """
    mine = {n.subject for n in judged}
    others = [n for n in database if n.subject not in mine]
    fold = fold_of or (by_number(sorted(mine)) if not others else lambda _subject: 0)
    out: dict[str, ScoredPages] = {}
    for each in sorted({fold(subject) for subject in mine}):
        train = others or [n for n in database if fold(n.subject) != each]
        test = [n for n in judged if fold(n.subject) == each]
        if not train:
            return []
        for night, rows in zip(test, fit_and_judge(train, test, seed), strict=True):
            out[night.name] = scored(night, rows.argmax(axis=1), np.exp(rows))
    return [out[night.name] for night in judged]


def yasa(
    nights: Sequence[ScoredRecording], gain: float, python: Path | None = None
) -> list[ScoredPages]:
    """Let YASA stage the nights, each in full view; nothing where it is not installed.

    ``python`` is that of another environment which has it.
    """
    if python is not None:
        staged = stage_in_environment(python, nights, gain)
    elif importlib.util.find_spec("yasa") is not None:
        staged = [stage_with_yasa(night, gain) for night in nights]
    else:
        return []
    return [
        scored(night, ours, np.eye(len(STAGES))[ours])
        for night, ours in zip(nights, staged, strict=True)
    ]
