"""Fitting what lies in a pack's ``[calibration]``, with the daemon's own filter code.

All of it must be fitted on nights that the model was not trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from hypnocast.core.types import STAGES, FloatArray
from hypnocast.core.verdicts.calibration import (
    Calibration,
    Corrected,
    HiddenMarkov,
    Logistic,
    StageVector,
)
from hypnocast.core.verdicts.sequence_filter import calibrate, logistic_features

LAGS = 8
AVERAGES = (5.0, 20.0, 60.0)
STRENGTHS = (0.0003, 0.001, 0.003, 0.01, 0.03)
"""Inverse regularisation tried, and chosen among by leaving subjects out."""


@dataclass(frozen=True, eq=False)
class HeldOutNight:
    """One night as a model saw it that was not trained on it."""

    subject: str
    log_probabilities: FloatArray
    """(pages, 5), NaN for pages without evidence."""
    stages: NDArray[np.int64]
    """(pages,), −1 where the expert gave none."""
    weight: float = 1.0


def fit_temperature(nights: Sequence[HeldOutNight]) -> float:
    """Find the temperature under which the model's probabilities fit the stages best."""
    from scipy.optimize import minimize_scalar

    rows, stages = _scored(nights)

    def loss(log_temperature: float) -> float:
        tempered = calibrate(rows, float(np.exp(log_temperature)))
        return float(-tempered[np.arange(len(stages)), stages].mean())

    found = minimize_scalar(loss, bounds=(-1.5, 1.5), method="bounded")
    return float(np.exp(found.x))


def fit_logistic(
    nights: Sequence[HeldOutNight],
    temperature: float,
    prior: FloatArray,
    strengths: Sequence[float] = STRENGTHS,
) -> tuple[Logistic, float]:
    """Fit the causal logistic; its regularisation is chosen by leaving subjects out."""
    neutral = np.log(prior)
    shape = Logistic(
        lags=LAGS,
        averages=AVERAGES,
        neutral=_vector(neutral),
        weights=tuple((0.0,) * (5 * (1 + LAGS + len(AVERAGES))) for _ in STAGES),
        bias=(0.0,) * 5,
    )
    features, stages, weights, subjects = [], [], [], []
    for night in nights:
        known = night.stages >= 0
        known &= ~np.isnan(night.log_probabilities).any(axis=1)
        tempered = calibrate(night.log_probabilities, temperature)
        features.append(logistic_features(shape, tempered)[known])
        stages.append(night.stages[known])
        weights.append(np.full(int(known.sum()), night.weight))
        subjects += [night.subject] * int(known.sum())
    x, y, w = np.concatenate(features), np.concatenate(stages), np.concatenate(weights)
    strength = strengths[0]
    if len(strengths) > 1:
        strength = _choose_strength(x, y, w, np.asarray(subjects), strengths)
    coefficients, bias = _fit(x, y, w, strength)
    fitted = Logistic(
        lags=LAGS,
        averages=AVERAGES,
        neutral=_vector(neutral),
        weights=tuple(tuple(round(float(c), 6) for c in row) for row in coefficients),
        bias=_vector(np.round(bias, 6)),
    )
    return fitted, strength


def fit_transitions(nights: Sequence[HeldOutNight]) -> HiddenMarkov:
    """Count which stage follows which, one page added everywhere."""
    counts = np.ones((5, 5))
    first = np.ones(5)
    for night in nights:
        before, after = night.stages[:-1], night.stages[1:]
        both = (before >= 0) & (after >= 0)
        np.add.at(counts, (before[both], after[both]), 1)
        first[night.stages[night.stages >= 0][0]] += 1
    rows = counts / counts.sum(axis=1, keepdims=True)
    return HiddenMarkov(
        transitions=(_vector(rows[0]), _vector(rows[1]), _vector(rows[2]), _vector(rows[3]),
                     _vector(rows[4])),
        initial=_vector(first / first.sum()),
    )  # fmt: skip


def real_filter(hypnograms: Path, power: float) -> HiddenMarkov:
    """Give a forward filter over the transitions that experts saw in whole nights.

    ``hypnograms`` is a folder of ``.npz`` with one array (experts, epochs) a night; ``power`` is
    that of the emissions. What is believed at the start lies midway between a night's first page
    and any of its pages, for a recording may begin anywhere.
    """
    counts, first, shares = np.ones((5, 5)), np.ones(5), np.ones(5)
    for path in sorted(hypnograms.glob("*.npz")):
        with np.load(path, allow_pickle=False) as nights:
            for one in (expert for night in nights.values() for expert in night):
                before, after = one[:-1], one[1:]
                both = (before >= 0) & (after >= 0)
                np.add.at(counts, (before[both], after[both]), 1)
                known = one[one >= 0]
                first[known[0]] += 1
                shares += np.bincount(known, minlength=5)
    rows = (counts / counts.sum(axis=1, keepdims=True)).round(6)
    start = ((first / first.sum() + shares / shares.sum()) / 2).round(6)
    return HiddenMarkov(
        transitions=(_vector(rows[0]), _vector(rows[1]), _vector(rows[2]), _vector(rows[3]),
                     _vector(rows[4])),
        initial=_vector(start),
        emission_power=power,
    )  # fmt: skip


def pooled(
    calibration: Calibration, real: HiddenMarkov, share: float, own_share: float = 0.0
) -> Calibration:
    """Pool a logistic that was fitted on sparse pages with others, the more so the fuller a page.

    On a whole page the filter weighs ``share``, what the model says of the page itself
    ``own_share``, and the logistic the rest, log-linearly; on a page of which next to nothing came
    only the logistic counts.
    """
    logistic = calibration.sequence
    if not isinstance(logistic, Logistic):
        msg = "only a pack with a logistic can be pooled"
        raise TypeError(msg)
    rest = 1.0 - share - own_share
    weights = np.asarray(logistic.weights)
    weights = (rest * weights + own_share * np.eye(*weights.shape)).round(6)
    whole = msgspec.structs.replace(
        logistic,
        whole_weights=tuple(tuple(float(w) for w in row) for row in weights),
        whole_bias=_vector(np.round(rest * np.asarray(logistic.bias), 6)),
    )
    corrected = Corrected(filter=real, logistic=whole, belief_power=share, sparse_belief_power=0.0)
    return msgspec.structs.replace(calibration, sequence=corrected)


def _choose_strength(
    x: FloatArray,
    y: NDArray[np.int64],
    w: FloatArray,
    subjects: NDArray[np.str_],
    strengths: Sequence[float],
) -> float:
    names = np.unique(subjects)
    folds = [names[k::4] for k in range(4)]
    losses = []
    for strength in strengths:
        total = 0.0
        for fold in folds:
            held = np.isin(subjects, fold)
            coefficients, bias = _fit(x[~held], y[~held], w[~held], strength)
            scores = x[held] @ coefficients.T + bias
            scores -= np.logaddexp.reduce(scores, axis=1, keepdims=True)
            total -= float(w[held] @ scores[np.arange(held.sum()), y[held]])
        losses.append(total)
    return strengths[int(np.argmin(losses))]


def _fit(
    x: FloatArray, y: NDArray[np.int64], w: FloatArray, strength: float
) -> tuple[FloatArray, FloatArray]:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, max_iter=400, tol=1e-3)
    model.fit(x, y, sample_weight=w)
    if len(model.classes_) != len(STAGES):
        msg = "a stage is missing from the nights that the sequence model is fitted on"
        raise ValueError(msg)
    return np.asarray(model.coef_), np.asarray(model.intercept_)


def _scored(nights: Sequence[HeldOutNight]) -> tuple[FloatArray, NDArray[np.int64]]:
    rows = np.concatenate([n.log_probabilities for n in nights])
    stages = np.concatenate([n.stages for n in nights])
    known = (stages >= 0) & ~np.isnan(rows).any(axis=1)
    return rows[known], stages[known]


def _vector(row: FloatArray) -> StageVector:
    w, n1, n2, n3, r = (float(value) for value in row)
    return (w, n1, n2, n3, r)
