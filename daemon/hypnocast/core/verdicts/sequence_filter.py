"""What the pages before imply for a page: small causal filters over a night's log-probabilities.

A filter is a pure function with a frozen memory: ``follow`` gets the memory and one page's
calibrated log-probabilities and gives the stage probabilities and the next memory; ``skip``
does the same for a page without evidence. Ten pages in a row without evidence clear the
memory: after five minutes the sleeper may be in any stage.

Everything is float64 and in log-space, and the same numbers in give the same numbers out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from hypnocast.core.types import STAGES, FloatArray
from hypnocast.core.verdicts.calibration import (
    Calibration,
    Corrected,
    HiddenMarkov,
    Logistic,
    SequenceModel,
    StageVector,
)

FORGET_AFTER = 10
"""How many pages in a row without evidence clear the memory."""

_LOG_ZERO = -700.0
"""The logarithm used for zero: exp of it is still a positive number."""


def log_normalise(log_weights: FloatArray) -> FloatArray:
    """Shift logarithms so that their exponentials sum to one, along the last axis."""
    top = log_weights.max(axis=-1, keepdims=True)
    shifted = log_weights - top
    normalised: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normalised


def calibrate(log_probabilities: FloatArray, temperature: float) -> FloatArray:
    """Apply the temperature: above 1 the model is made less sure of itself."""
    raw = np.maximum(np.asarray(log_probabilities, dtype=np.float64), _LOG_ZERO)
    return log_normalise(raw / temperature)


@dataclass(frozen=True, slots=True)
class FilterMemory:
    """All that a filter knows of the pages before. Empty at the start and after a reset."""

    belief: StageVector | None = None
    """Log-probabilities of the last page's stage (forward filter)."""
    recent: tuple[StageVector, ...] = ()
    """Log-probabilities of the last pages, newest first (logistic)."""
    averages: tuple[StageVector, ...] = ()
    """Running means, one for each time constant (logistic)."""
    blanks: int = 0
    """Pages in a row without evidence."""


EMPTY = FilterMemory()


def follow(
    model: SequenceModel | None,
    prior: StageVector,
    memory: FilterMemory,
    evidence: FloatArray,
    coverage: float = 1.0,
) -> tuple[FilterMemory, FloatArray]:
    """Add one page; return what is known now, and the page's log-probabilities.

    ``coverage`` is the share of the page that came: the less, the less it counts.
    """
    match model:
        case None:
            return EMPTY, log_normalise(evidence)
        case HiddenMarkov():
            power = _between(model.sparse_power, model.emission_power, coverage)
            log_emissions = (evidence - np.log(np.asarray(prior))) * power
            belief = log_normalise(_expect(model, memory) + log_emissions)
            return FilterMemory(belief=_freeze(belief)), belief
        case Logistic():
            memory = _remember(model, memory, np.maximum(evidence, model.log_floor))
            return memory, log_normalise(_scores(model, _features(memory), coverage))
        case Corrected():
            believing, belief = follow(model.filter, prior, memory, evidence, coverage)
            memory = _remember(
                model.logistic, memory, np.maximum(evidence, model.logistic.log_floor)
            )
            scores = _scores(model.logistic, _features(memory), coverage)
            power = _between(model.sparse_belief_power, model.belief_power, coverage)
            page = log_normalise(belief * power + scores)
            return replace(memory, belief=believing.belief), page


def skip(model: SequenceModel | None, memory: FilterMemory) -> FilterMemory:
    """Pass over one page without evidence."""
    blanks = memory.blanks + 1
    if blanks >= FORGET_AFTER or memory == EMPTY:
        return EMPTY
    match model:
        case None:
            return EMPTY
        case HiddenMarkov():
            belief = log_normalise(_expect(model, memory))
            return FilterMemory(belief=_freeze(belief), blanks=blanks)
        case Logistic():
            neutral = np.asarray(model.neutral, dtype=np.float64)
            known = _remember(model, memory, neutral)
            return FilterMemory(recent=known.recent, averages=known.averages, blanks=blanks)
        case Corrected():
            believing = skip(model.filter, memory)
            return replace(skip(model.logistic, memory), belief=believing.belief)


def run_filter(
    calibration: Calibration, log_probabilities: FloatArray, coverage: FloatArray
) -> FloatArray:
    """Filter a whole night at once: (pages, 5) raw log-probabilities in, probabilities out.

    ``coverage`` (pages,) is the share of each page that came.

    Rows of NaN are pages without evidence and come out as NaN. It is the daemon's own step,
    page by page, so that what is evaluated is what is published.
    """
    staged = np.full(log_probabilities.shape, np.nan)
    memory = EMPTY
    for index, row in enumerate(log_probabilities):
        if np.isnan(row).any():
            memory = skip(calibration.sequence, memory)
            continue
        evidence = calibrate(row, calibration.temperature)
        memory, page = follow(
            calibration.sequence, calibration.prior, memory, evidence, float(coverage[index])
        )
        staged[index] = np.exp(page)
    return staged


def logistic_features(model: Logistic, calibrated: FloatArray) -> FloatArray:
    """Give the features of every page of a night, to fit the weights on.

    ``calibrated`` is (pages, 5) with rows of NaN for pages without evidence; the rows that
    come out for those are NaN too.
    """
    features = np.full((len(calibrated), 5 * (1 + model.lags + len(model.averages))), np.nan)
    memory = EMPTY
    for index, row in enumerate(calibrated):
        if np.isnan(row).any():
            memory = skip(model, memory)
            continue
        memory = _remember(model, memory, np.maximum(row, model.log_floor))
        features[index] = _features(memory)
    return features


def _expect(model: HiddenMarkov, memory: FilterMemory) -> FloatArray:
    """Predict the stage of the next page before looking at it."""
    if memory.belief is None:
        return _log(model.initial)
    joint = np.asarray(memory.belief)[:, None] + _log(model.transitions)
    top = joint.max(axis=0)
    expected: FloatArray = top + np.log(np.exp(joint - top).sum(axis=0))
    return expected


def _remember(model: Logistic, memory: FilterMemory, page: FloatArray) -> FilterMemory:
    neutral = model.neutral
    recent = memory.recent or (neutral,) * (model.lags + 1)
    means = memory.averages or (neutral,) * len(model.averages)
    moved = tuple(
        _freeze(np.asarray(mean) + (page - np.asarray(mean)) / constant)
        for mean, constant in zip(means, model.averages, strict=True)
    )
    return FilterMemory(recent=(_freeze(page), *recent[:-1]), averages=moved)


def _features(memory: FilterMemory) -> FloatArray:
    return np.asarray((*memory.recent, *memory.averages), dtype=np.float64).ravel()


def _scores(model: Logistic, features: FloatArray, coverage: float) -> FloatArray:
    # Sums of products in a fixed order: a BLAS may add differently on another machine.
    scores: FloatArray = (np.asarray(model.weights) * features).sum(axis=1) + np.asarray(model.bias)
    if model.whole_weights is None or model.whole_bias is None:
        return scores
    whole = (np.asarray(model.whole_weights) * features).sum(axis=1) + np.asarray(model.whole_bias)
    between: FloatArray = scores + (whole - scores) * coverage
    return between


def _between(sparse: float | None, whole: float, coverage: float) -> float:
    return whole if sparse is None else sparse + (whole - sparse) * coverage


def _log(shares: Sequence[float] | Sequence[StageVector]) -> FloatArray:
    positive = np.maximum(np.asarray(shares, dtype=np.float64), np.exp(_LOG_ZERO))
    logarithms: FloatArray = np.log(positive)
    return logarithms


def _freeze(row: FloatArray) -> StageVector:
    assert row.shape == (len(STAGES),)  # noqa: S101 - states what the cast below relies on
    return cast("StageVector", tuple(row.tolist()))
