"""Several experts: what most of them chose, and how the model's doubt agrees with theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hypnocast.core.types import STAGES, FloatArray, Stage
from hypnocast.errors import CommandError
from hypnocast_models.compare.hypnogram import ScoredHypnogram, cut, pages_behind


def hypnodensity(experts: Sequence[ScoredHypnogram]) -> FloatArray:
    """Give (pages, 5): the share of experts for each stage; NaN where none scored the page."""
    numbers = np.stack([expert.numbers for expert in experts])
    counts = np.stack([(numbers == place).sum(axis=0) for place in range(len(STAGES))], axis=1)
    total = counts.sum(axis=1, keepdims=True)
    return np.where(total > 0, counts / np.maximum(total, 1), np.nan)


def consensus(experts: Sequence[ScoredHypnogram]) -> ScoredHypnogram:
    """Give the stage that most experts gave each page.

    A tie goes to the expert who agrees best with the density of all the others over the night:
    of equal experts the first. The density goes along as probabilities. Pages keep the numbers
    and the time of the first expert's; those that not all of them have are without a stage.
    """
    if len(experts) < 2:
        raise CommandError("a consensus needs two experts or more", where="--consensus")
    first, common = _common(experts)
    density = hypnodensity(common)
    order = sorted(range(len(common)), key=lambda k: -_agreement_with_rest(common, k))
    numbers = np.stack([common[k].numbers for k in order])
    stages: list[Stage | None] = []
    for page, shares in enumerate(density):
        if np.isnan(shares).any():
            stages.append(None)
            continue
        best = np.flatnonzero(shares == shares.max())
        votes = [int(n) for n in numbers[:, page] if n in best]
        stages.append(STAGES[votes[0]])
    return replace(
        experts[0],
        scorer="consensus",
        stages=(*(None,) * first, *stages),
        probabilities=np.vstack([np.full((first, len(STAGES)), np.nan), density]),
    )


def density_agreement(ours: FloatArray, theirs: FloatArray) -> float:
    """Give the mean cosine of two hypnodensities over the pages that both have; 1 is alike."""
    known = np.isfinite(ours).all(axis=1) & np.isfinite(theirs).all(axis=1)
    if not known.any():
        return float("nan")
    a, b = ours[known], theirs[known]
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / np.maximum(lengths, 1e-12)).mean())


def _common(experts: Sequence[ScoredHypnogram]) -> tuple[int, list[ScoredHypnogram]]:
    """Cut all to the pages that every one has; the first of them, as the first expert counts."""
    behind = [pages_behind(experts[0], each) for each in experts]
    first = max(behind)
    last = min(b + len(each.stages) for b, each in zip(behind, experts, strict=True))
    if last <= first:
        raise CommandError(
            "the experts have no page in common",
            where=experts[0].night,
            remedy="Are all of the same night? --timezone names the zone of an EDF's clock.",
        )
    return first, [cut(e, first - b, last - b) for b, e in zip(behind, experts, strict=True)]


def _agreement_with_rest(experts: Sequence[ScoredHypnogram], place: int) -> float:
    rest = hypnodensity([e for k, e in enumerate(experts) if k != place])
    numbers = experts[place].numbers
    known = (numbers >= 0) & np.isfinite(rest).all(axis=1)
    return float(rest[known, numbers[known]].mean()) if known.any() else 0.0
