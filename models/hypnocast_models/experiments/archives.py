"""Which nights an experiment is about, and to which fold each person is dealt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hypnocast_models.experiments.plan import Data
from hypnocast_models.experiments.simulated import SIMULATED, simulated_nights
from hypnocast_models.readers.datasets import FoundRecording, find_nights
from hypnocast_models.readers.material import without_subjects


@dataclass(frozen=True, slots=True)
class ChosenNight:
    """A night and the archive of the plan that it is from."""

    data: Data
    found: FoundRecording
    subject: str
    """Whose it is: where there are several archives, with the archive's name before the code."""


def nights_of(archives: Sequence[Data], root: Path) -> list[ChosenNight]:
    """Find the nights of some archives."""
    return [
        ChosenNight(
            data, found, f"{data.name}/{found.subject}" if len(archives) > 1 else found.subject
        )
        for data in archives
        for found in chosen_nights(data, root)
    ]


def chosen_nights(data: Data, root: Path) -> list[FoundRecording]:
    """Find the nights of an archive that an experiment is about."""
    if data.kind == SIMULATED:
        return simulated_nights(data.subjects)
    found = without_subjects(find_nights(root / data.folder, data.kind), data.without)
    subjects = list(dict.fromkeys(night.subject for night in found))
    kept = set(subjects[: data.subjects] if data.subjects else subjects)
    nights: list[FoundRecording] = []
    for night in found:
        of_subject = sum(one.subject == night.subject for one in nights)
        if night.subject in kept and of_subject < data.nights:
            nights.append(night)
    return nights


def fold_of_each(subjects: Sequence[str], folds: int) -> dict[str, int]:
    """Deal subjects to folds: by the number in their name, as the small pack's trial does.

    Where a name has no number, or a fold would stay empty, by their order.
    """
    numbers = [re.search(r"(\d+)$", subject) for subject in subjects]
    dealt = {s: int(n[1]) % folds for s, n in zip(subjects, numbers, strict=True) if n is not None}
    if len(dealt) == len(subjects) and len(set(dealt.values())) == folds:
        return dealt
    return {subject: place % folds for place, subject in enumerate(subjects)}
