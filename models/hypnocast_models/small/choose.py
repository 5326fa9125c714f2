"""What each fold chooses for itself: how far a gain is trusted, when to stop, what calibrates it.

The rule was fixed before it was run: of all ways that bear a wrong gain, the one that scores
best at the right gain. "Bears it" is the gain test of the pack's own promises: κ at every gain
within 0.05 of the best. Both are measured on the fold's own training folds, each judged by a
model that saw neither it nor the fold, after a sequence model that was fitted on the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from hypnocast_models.compare import figures
from hypnocast_models.small.crossval import GAINS, WEIGHTS, apply, calibration_from, unseen, weighed
from hypnocast_models.small.drawn_nights import DrawnNights
from hypnocast_models.small.regimen import WAYS, Way, prior_without
from hypnocast_models.small.sources import FOLDS

WITHIN = 0.05
_STRENGTHS = (0.003,)
"""One regularisation while choosing: it is fitted for what was chosen, and there are many."""


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """One way with one weighting, and its κ at each gain on folds it has not seen."""

    way: str
    weights: str
    kappa: tuple[float, ...]
    """At each of :data:`GAINS`."""


class FoldChoice(msgspec.Struct, frozen=True, kw_only=True):
    """What was chosen, and among what."""

    way: str
    weights: str
    tried: tuple[Tried, ...]

    @property
    def trained(self) -> Way:
        """The way that was chosen."""
        return next(way for way in WAYS if way.name == self.way)


def choose(runs: Path, fold: int | None, material: DrawnNights) -> FoldChoice:
    """Choose for a fold by its training folds; for the pack that ships, by all four choices.

    A choice is kept, and read back when it is there.
    """
    kept = runs / "choices" / f"{'final' if fold is None else f'fold{fold}'}.json"
    if kept.exists():
        return msgspec.json.decode(kept.read_bytes(), type=FoldChoice)
    if fold is None:
        tables = [choose(runs, each, material).tried for each in range(FOLDS)]
        tried = tuple(_mean(same) for same in zip(*tables, strict=True))
    else:
        tried = tuple(
            _try(runs, way, fold, material, weights) for way in WAYS for weights in WEIGHTS
        )
    best = pick(tried)
    choice = FoldChoice(way=best.way, weights=best.weights, tried=tried)
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(msgspec.json.format(msgspec.json.encode(choice), indent=1))
    return choice


def pick(tried: Sequence[Tried]) -> Tried:
    """Choose the best at the nominal gain of those that bear every gain; if none, the steadiest."""
    nominal = GAINS.index(1.0)
    steady = [one for one in tried if _spread(one.kappa) <= WITHIN]
    if steady:
        return max(steady, key=lambda one: one.kappa[nominal])
    return min(tried, key=lambda one: _spread(one.kappa))


def _spread(kappa: Sequence[float]) -> float:
    return max(kappa) - min(kappa)


def _try(runs: Path, way: Way, fold: int, material: DrawnNights, weights: str) -> Tried:
    opinions = unseen(runs, way, fold, material)
    prior = prior_without(material, (fold,))
    judged: Mapping[float, list[figures.ScoredPages]] = {gain: [] for gain in GAINS}
    for held in opinions:
        nights = [
            n for other in opinions if other != held for n in weighed(opinions[other], weights)
        ]
        calibration = calibration_from(nights, prior, _STRENGTHS)
        for gain in GAINS:
            judged[gain].extend(apply(calibration, night, "") for night in opinions[held][gain])
    kappa = (round(float(figures.kappa(figures.pooled(judged[gain]))), 4) for gain in GAINS)
    return Tried(way=way.name, weights=weights, kappa=tuple(kappa))


def _mean(same: Sequence[Tried]) -> Tried:
    kappa = np.mean([one.kappa for one in same], axis=0).round(4)
    return Tried(way=same[0].way, weights=same[0].weights, kappa=tuple(float(k) for k in kappa))
