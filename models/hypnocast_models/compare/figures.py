"""Figures of agreement, and how sure one may be of them.

A withheld page counts as wrong: it is stage −1 and agrees with nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hypnocast.core.types import STAGES, FloatArray

Stages = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ScoredPages:
    """One night: the expert's stages, ours (−1 withheld), and our probabilities."""

    night: str
    subject: str
    expert: Stages
    ours: Stages
    probabilities: FloatArray
    """(pages, 5); NaN where withheld."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its 95 % bootstrap interval over subjects."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if np.isnan(self.low):
            return f"{self.value:.3f}"  # one subject: there is no interval
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def confusion(expert: Stages, ours: Stages) -> NDArray[np.int64]:
    """Count pages: rows the expert, columns ours, the last column withheld."""
    table = np.zeros((len(STAGES), len(STAGES) + 1), dtype=np.int64)
    np.add.at(table, (expert, np.where(ours < 0, len(STAGES), ours)), 1)
    return table


def kappa(table: NDArray[np.int64]) -> float:
    """Cohen's κ of a confusion table; withheld pages agree with nothing."""
    total = table.sum()
    agreed = np.trace(table[:, : len(STAGES)]) / total
    by_chance = float((table.sum(axis=1) / total) @ (table[:, : len(STAGES)].sum(axis=0) / total))
    return float((agreed - by_chance) / (1 - by_chance)) if by_chance < 1 else 1.0


def accuracy(table: NDArray[np.int64]) -> float:
    """Share of pages that agree."""
    return float(np.trace(table[:, : len(STAGES)]) / table.sum())


def stage_f1(table: NDArray[np.int64]) -> FloatArray:
    """F1 of every stage; NaN for a stage that neither the expert nor we ever gave."""
    hits = np.diag(table[:, : len(STAGES)]).astype(np.float64)
    named = table.sum(axis=1) + table[:, : len(STAGES)].sum(axis=0)
    return np.where(named > 0, 2 * hits / np.maximum(named, 1), np.nan)


def macro_f1(table: NDArray[np.int64]) -> float:
    """Mean F1 of the stages that occur."""
    return float(np.nanmean(stage_f1(table)))


def pooled(nights: Sequence[ScoredPages]) -> NDArray[np.int64]:
    """Add up the confusion tables of some nights."""
    table: NDArray[np.int64] = np.sum(
        [confusion(n.expert, n.ours) for n in nights], axis=0, dtype=np.int64
    )
    return table


def coverage(nights: Sequence[ScoredPages]) -> float:
    """Share of pages that were given a stage."""
    ours = np.concatenate([n.ours for n in nights])
    return float((ours >= 0).mean())


def calibration_error(nights: Sequence[ScoredPages], bins: int = 15) -> float:
    """Give the expected calibration error of the confidence, over equally wide bins."""
    probabilities = np.concatenate([n.probabilities[n.ours >= 0] for n in nights])
    right = np.concatenate([(n.expert == n.ours)[n.ours >= 0] for n in nights])
    sure = probabilities.max(axis=1)
    place = np.minimum((sure * bins).astype(int), bins - 1)
    counts = np.bincount(place, minlength=bins)
    gap = np.bincount(place, sure - right, minlength=bins)
    return float(np.abs(gap).sum() / max(counts.sum(), 1))


def risk_coverage(nights: Sequence[ScoredPages]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Give thresholds of confidence, the share of pages above each, and their error rate."""
    probabilities = np.concatenate([n.probabilities[n.ours >= 0] for n in nights])
    wrong = np.concatenate([(n.expert != n.ours)[n.ours >= 0] for n in nights])
    sure = probabilities.max(axis=1)
    order = np.argsort(-sure, kind="stable")
    kept = np.arange(1, order.size + 1)
    total = sum(n.expert.size for n in nights)
    return sure[order], kept / total, np.cumsum(wrong[order]) / kept


def review_threshold(nights: Sequence[ScoredPages], share: float = 0.1) -> float:
    """Give the confidence under which the least sure ``share`` of pages lie."""
    sure = np.concatenate([n.probabilities[n.ours >= 0].max(axis=1) for n in nights])
    return float(np.quantile(sure, share))


def bootstrap(
    nights: Sequence[ScoredPages],
    figure: Callable[[NDArray[np.int64]], float] = kappa,
    rounds: int = 2000,
    seed: int = 0,
) -> Interval:
    """Resample subjects, not pages: pages of one person are not independent."""
    tables = _tables(nights)
    value = figure(np.sum(list(tables.values()), axis=0))
    if len(tables) < 2:
        return Interval(value, float("nan"), float("nan"))  # one subject shows nothing of others
    drawn = [figure(t) for t in _resampled([list(tables.values())], rounds, seed)[0]]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(value, float(low), float(high))


def bootstrap_difference(
    ours: Sequence[ScoredPages], theirs: Sequence[ScoredPages], rounds: int = 2000, seed: int = 0
) -> Interval:
    """κ of ours minus κ of theirs, the same subjects drawn for both."""
    mine, other = _tables(ours), _tables(theirs)
    if mine.keys() != other.keys():
        msg = "a paired difference needs the same subjects on both sides"
        raise ValueError(msg)
    pairs = [[mine[s] for s in mine], [other[s] for s in mine]]
    value = kappa(np.sum(pairs[0], axis=0)) - kappa(np.sum(pairs[1], axis=0))
    if len(mine) < 2:
        return Interval(value, float("nan"), float("nan"))
    first, second = _resampled(pairs, rounds, seed)
    drawn = [kappa(a) - kappa(b) for a, b in zip(first, second, strict=True)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(value, float(low), float(high))


def _tables(nights: Sequence[ScoredPages]) -> dict[str, NDArray[np.int64]]:
    subjects = dict.fromkeys(n.subject for n in nights)
    return {s: pooled([n for n in nights if n.subject == s]) for s in subjects}


def _resampled(
    sides: Sequence[Sequence[NDArray[np.int64]]], rounds: int, seed: int
) -> list[list[NDArray[np.int64]]]:
    rng = np.random.default_rng(seed)
    stacked = [np.stack(side) for side in sides]
    out: list[list[NDArray[np.int64]]] = [[] for _ in sides]
    for _ in range(rounds):
        chosen = rng.integers(0, len(stacked[0]), len(stacked[0]))
        for drawn, side in zip(out, stacked, strict=True):
            drawn.append(side[chosen].sum(axis=0))
    return out
