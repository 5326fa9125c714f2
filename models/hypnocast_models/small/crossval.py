"""Nested cross-validation of the small pack's regimen, and the calibration that ships.

Four folds of subjects. For each fold a model trained on the other three judges it. All that is
chosen or fitted for a fold is so on nights that the models judging them were not trained on, and
in which the fold has no part: for that, one model is trained without each pair of folds, and its
opinions of the one serve the other. The pack that ships is calibrated on the four fold
models' opinions of the folds they have not seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from hypnocast.core.types import FloatArray
from hypnocast.core.verdicts.calibration import Calibration
from hypnocast.core.verdicts.sequence_filter import run_filter
from hypnocast_models.compare.figures import ScoredPages, review_threshold
from hypnocast_models.export.sequence import STRENGTHS, fit_logistic, fit_temperature
from hypnocast_models.export.sequence import HeldOutNight as Evidence
from hypnocast_models.small.drawn_nights import DrawnNights
from hypnocast_models.small.regimen import Way, nights_in, open_drawn_nights, prior_without, recall
from hypnocast_models.small.sources import FOLDS
from hypnocast_models.small.train import judge

GAINS = (0.4, 1.0, 2.5)
"""The sequence model must bear other gains than the nominal: it is fitted on these."""
WEIGHTS: Mapping[str, tuple[float, float, float]] = {
    "even": (1 / 3, 1 / 3, 1 / 3),
    "nominal most": (1 / 4, 1 / 2, 1 / 4),
    "nominal alone": (0.0, 1.0, 0.0),
}
"""How much each of :data:`GAINS` counts: one more thing that every fold chooses for itself."""
FULL_PAGES_WEIGHT = 0.5
"""Weight of stitched whole pages beside 5-s rows when the calibration that ships is fitted."""

ByGain = Mapping[float, Sequence[Evidence]]


def fold_folder(runs: Path, way: Way, fold: int) -> Path:
    """Where the model lies that was trained without one fold."""
    return runs / way.name / f"fold{fold}"


def pair_folder(runs: Path, way: Way, one: int, other: int) -> Path:
    """Where the model lies that was trained without two folds."""
    return runs / way.name / f"pair{min(one, other)}{max(one, other)}"


def evidence(
    folder: Path,
    without: Sequence[int],
    judged: int,
    material: DrawnNights,
    gains: Sequence[float] = GAINS,
) -> ByGain:
    """Return a model's opinions, at some gains, of a fold that it was not trained on.

    It is kept beside the model, and read back when it is there.
    """
    if judged not in without:
        msg = f"a model may only be calibrated on folds it has not seen, not on fold {judged}"
        raise ValueError(msg)
    kept = folder / f"said-of-{material.name}-{judged}.npz"
    nights = [int(night) for night in nights_in(material, (judged,))]
    if not kept.exists():
        model = recall(folder)
        opinions = {
            f"{gain:g} {night}": judge(model, material, night, gain, band=0)
            for gain in gains
            for night in nights
        }
        np.savez(kept.with_suffix(".part.npz"), **opinions)  # type: ignore[arg-type]  # numpy's stub takes every keyword for its own
        kept.with_suffix(".part.npz").rename(kept)
    with np.load(kept) as opinions:
        return {
            gain: [_evidence(material, night, opinions[f"{gain:g} {night}"]) for night in nights]
            for gain in gains
        }


def unseen(runs: Path, way: Way, fold: int, material: DrawnNights) -> dict[int, ByGain]:
    """Return, for each other fold, the opinions of a model that saw neither it nor this fold."""
    return {
        other: evidence(pair_folder(runs, way, fold, other), (fold, other), other, material)
        for other in range(FOLDS)
        if other != fold
    }


def weighed(opinions: ByGain, weights: str) -> list[Evidence]:
    """Give the nights with the weights of their gains; those that do not count are left out."""
    return [
        replace(night, weight=weight)
        for gain, weight in zip(GAINS, WEIGHTS[weights], strict=True)
        if weight
        for night in opinions[gain]
    ]


def calibrate_fold(
    runs: Path, way: Way, weights: str, fold: int, material: DrawnNights
) -> Calibration:
    """Fit temperature and sequence model for a fold without any use of its subjects."""
    nights = [
        night
        for opinions in unseen(runs, way, fold, material).values()
        for night in weighed(opinions, weights)
    ]
    return calibration_from(nights, prior_without(material, (fold,)))


def calibrate_final(cache: Path, runs: Path, way: Way, weights: str) -> Calibration:
    """Fit the calibration that ships: 5-s rows, and stitched whole pages beside them.

    It is kept beside the model, and read back when it is there.
    """
    kept = runs / way.name / "final" / "calibration.json"
    if kept.exists():
        return msgspec.json.decode(kept.read_bytes(), type=Calibration)
    rows, stitched = open_drawn_nights(cache, "rows"), open_drawn_nights(cache, "stitched")
    nights: list[Evidence] = []
    for fold in range(FOLDS):
        folder = fold_folder(runs, way, fold)
        nights += weighed(evidence(folder, (fold,), fold, rows), weights)
        whole = evidence(folder, (fold,), fold, stitched, gains=(1.0,))
        nights += [replace(night, weight=FULL_PAGES_WEIGHT) for night in whole[1.0]]
    calibration = calibration_from(nights, prior_without(rows, ()))
    kept.write_bytes(msgspec.json.encode(calibration))
    return calibration


def calibration_from(
    nights: Sequence[Evidence], prior: FloatArray, strengths: Sequence[float] = STRENGTHS
) -> Calibration:
    """Fit temperature, sequence model and the default threshold for review."""
    temperature = round(fit_temperature(nights), 4)
    shares = tuple(round(float(share), 6) for share in prior)
    prior_vector = (shares[0], shares[1], shares[2], shares[3], shares[4])
    logistic, _ = fit_logistic(nights, temperature, np.asarray(prior_vector), strengths)
    calibration = Calibration(temperature=temperature, prior=prior_vector, sequence=logistic)
    scored = [apply(calibration, night, "") for night in nights]
    below = round(review_threshold(scored), 3)
    return Calibration(
        temperature=temperature, prior=prior_vector, sequence=logistic, review_below=below
    )


def apply(calibration: Calibration, night: Evidence, name: str) -> ScoredPages:
    """Run the daemon's filter over a night."""
    probabilities = run_filter(calibration, night.log_probabilities, np.ones(len(night.stages)))
    known = night.stages >= 0
    there = ~np.isnan(probabilities).any(axis=1)
    ours = np.full(len(probabilities), -1)
    ours[there] = probabilities[there].argmax(axis=1)
    return ScoredPages(name, night.subject, night.stages[known], ours[known], probabilities[known])


def _evidence(material: DrawnNights, night: int, opinions: FloatArray) -> Evidence:
    places = material.places(night)
    stages = np.where(places >= 0, material.pages.stage[places], -1).astype(np.int64)
    return Evidence(material.pages.nights[night].rsplit("-", 1)[0], opinions, stages)
