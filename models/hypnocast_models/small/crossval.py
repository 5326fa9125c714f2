"""Nested cross-validation of the small pack's regimen, and the calibration that ships.

Four folds of subjects. For each fold a model trained on the other three judges it. Temperature
and sequence model of a fold are fitted on nights that the models judging them were not trained
on, and in which the fold has no part: for that, one model is trained without each pair of folds,
and what it says of the one is used to calibrate the other. The pack that ships is calibrated on
what the four fold models say of the folds they have not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path

import msgspec
import numpy as np

from hypnocast.core.calibration import Calibration
from hypnocast.core.filter import run_filter
from hypnocast.core.types import FloatArray
from hypnocast_models.figures import Scored, review_threshold
from hypnocast_models.sequence import Judged as Evidence
from hypnocast_models.sequence import fit_logistic, fit_temperature
from hypnocast_models.small.regimen import (
    FOLD_STEPS,
    PAIR_STEPS,
    nights_in,
    open_shelf,
    train_without,
)
from hypnocast_models.small.shelf import Shelf
from hypnocast_models.small.sources import FOLDS
from hypnocast_models.small.train import judge

CALIBRATION_GAINS = {0.5: 0.25, 1.0: 0.5, 2.0: 0.25}
"""The sequence model must stand other gains than the nominal: it is fitted on three, which weigh
as in training, where half of the pages are near the nominal one."""
FULL_PAGES_WEIGHT = 0.5
"""Weight of stitched whole pages beside 5-s rows when the calibration that ships is fitted."""

Advance = Callable[[str, int, float], None]


def fold_folder(runs: Path, fold: int) -> Path:
    """Where the model lies that was trained without one fold."""
    return runs / f"fold{fold}"


def pair_folder(runs: Path, one: int, other: int) -> Path:
    """Where the model lies that was trained without two folds."""
    return runs / f"pair{min(one, other)}{max(one, other)}"


def train_all(cache: Path, runs: Path, advance: Advance = lambda _n, _s, _l: None) -> None:
    """Train every model of the cross-validation that is not there yet."""
    for one, other in combinations(range(FOLDS), 2):
        folder = pair_folder(runs, one, other)
        train_without(
            cache,
            folder,
            (one, other),
            PAIR_STEPS,
            kinds=["rows"],
            advance=partial(advance, folder.name),
        )
    for fold in range(FOLDS):
        folder = fold_folder(runs, fold)
        train_without(cache, folder, (fold,), FOLD_STEPS, advance=partial(advance, folder.name))


def evidence(
    cache: Path,
    folder: Path,
    without: Sequence[int],
    judged: int,
    *,
    shelf: Shelf,
    weight: float,
    gains: Mapping[float, float],
) -> list[Evidence]:
    """Give what a model says of a fold that it was not trained on."""
    if judged not in without:
        msg = f"a model may only be calibrated on folds it has not seen, not on fold {judged}"
        raise ValueError(msg)
    model, _ = train_without(cache, folder, without)
    out = []
    for night in nights_in(shelf, (judged,)):
        places = shelf.places(int(night))
        stages = np.where(places >= 0, shelf.pages.stage[places], -1).astype(np.int64)
        name = shelf.pages.nights[int(night)]
        for gain, share in gains.items():
            rows = judge(model, shelf, int(night), gain, band=0)
            out.append(Evidence(name.rsplit("-", 1)[0], rows, stages, weight * share))
    return out


def calibrate_fold(cache: Path, runs: Path, fold: int, shelf: Shelf) -> Calibration:
    """Fit temperature and sequence model for a fold without any use of its subjects."""
    nights = [
        night
        for other in range(FOLDS)
        if other != fold
        for night in evidence(
            cache,
            pair_folder(runs, fold, other),
            (fold, other),
            other,
            shelf=shelf,
            weight=1.0,
            gains=CALIBRATION_GAINS,
        )
    ]
    _, prior = train_without(cache, fold_folder(runs, fold), (fold,))
    return calibration_from(nights, prior)


def calibrate_final(cache: Path, runs: Path, final: Path) -> Calibration:
    """Fit the calibration that ships: 5-s rows, and stitched whole pages beside them.

    It is kept beside the model, and read back when it is there.
    """
    kept = final / "calibration.json"
    if kept.exists():
        return msgspec.json.decode(kept.read_bytes(), type=Calibration)
    nights: list[Evidence] = []
    for kind, weight, gains in (
        ("rows", 1.0, CALIBRATION_GAINS),
        ("stitched", FULL_PAGES_WEIGHT, {1.0: 1.0}),
    ):
        shelf = open_shelf(cache, kind)
        for fold in range(FOLDS):
            folder = fold_folder(runs, fold)
            nights += evidence(
                cache, folder, (fold,), fold, shelf=shelf, weight=weight, gains=gains
            )
    _, prior = train_without(cache, final, ())
    calibration = calibration_from(nights, prior)
    kept.write_bytes(msgspec.json.encode(calibration))
    return calibration


def calibration_from(nights: Sequence[Evidence], prior: FloatArray) -> Calibration:
    """Fit temperature, sequence model and the default threshold for review."""
    temperature = round(fit_temperature(nights), 4)
    shares = tuple(round(float(share), 6) for share in prior)
    prior_vector = (shares[0], shares[1], shares[2], shares[3], shares[4])
    logistic, _ = fit_logistic(nights, temperature, np.asarray(prior_vector))
    calibration = Calibration(temperature=temperature, prior=prior_vector, sequence=logistic)
    scored = [apply(calibration, night, "") for night in nights]
    below = round(review_threshold(scored), 3)
    return Calibration(
        temperature=temperature, prior=prior_vector, sequence=logistic, review_below=below
    )


def apply(calibration: Calibration, night: Evidence, name: str) -> Scored:
    """Run the daemon's filter over a night."""
    probabilities = run_filter(calibration, night.log_probabilities)
    known = night.stages >= 0
    there = ~np.isnan(probabilities).any(axis=1)
    ours = np.full(len(probabilities), -1)
    ours[there] = probabilities[there].argmax(axis=1)
    return Scored(name, night.subject, night.stages[known], ours[known], probabilities[known])
