"""Figures count what their names promise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypnocast.core.verdicts.calibration import Calibration, Logistic
from hypnocast.core.verdicts.sequence_filter import run_filter
from hypnocast_models.compare import figures
from hypnocast_models.compare.figures import ScoredPages
from hypnocast_models.export.sequence import (
    HeldOutNight,
    fit_logistic,
    fit_temperature,
    fit_transitions,
    pooled,
    real_filter,
)
from support.needs import need_module

need_module("sklearn")


def scored(expert: list[int], ours: list[int], subject: str = "a") -> ScoredPages:
    found = np.asarray(ours)
    chances = np.full((len(ours), 5), 0.05)
    chances[np.arange(len(ours)), np.maximum(found, 0)] = 0.8
    chances[found < 0] = np.nan
    return ScoredPages("night", subject, np.asarray(expert), found, chances)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=60))
def test_kappa_and_f1_are_those_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    from sklearn.metrics import cohen_kappa_score, f1_score

    expert, ours = (np.array(side) for side in zip(*pairs, strict=True))
    table = figures.confusion(expert, ours)
    if len(set(expert) | set(ours)) > 1:
        assert figures.kappa(table) == pytest.approx(cohen_kappa_score(expert, ours))
    labels = sorted(set(expert) | set(ours))
    wanted = f1_score(expert, ours, labels=labels, average="macro", zero_division=0)
    assert figures.macro_f1(table) == pytest.approx(wanted)


def test_a_withheld_page_counts_as_wrong_and_not_as_covered() -> None:
    whole = scored([0, 1, 2, 3], [0, 1, 2, 3])
    holed = scored([0, 1, 2, 3], [0, -1, 2, 3])
    assert figures.accuracy(figures.pooled([whole])) == 1.0
    assert figures.accuracy(figures.pooled([holed])) == 0.75
    assert figures.kappa(figures.pooled([holed])) < 1.0
    assert figures.coverage([holed]) == 0.75


def test_the_interval_is_over_subjects_and_pairs_them() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = [], []
    for subject in range(8):
        expert = rng.integers(0, 5, 100)
        wrong = rng.random(100) < 0.1 + 0.05 * subject
        mine = np.where(wrong, (expert + 1) % 5, expert)
        also = np.where(rng.random(100) < 0.1, (mine + 1) % 5, mine)
        ours.append(scored(expert.tolist(), mine.tolist(), str(subject)))
        theirs.append(scored(expert.tolist(), also.tolist(), str(subject)))
    one = figures.bootstrap(ours)
    ahead = figures.bootstrap_difference(ours, theirs)
    assert one.low < one.value < one.high
    assert 0 < ahead.low < ahead.value < ahead.high
    # Pairing removes the differences between people from the interval.
    assert ahead.high - ahead.low < one.high - one.low
    with pytest.raises(ValueError, match="same subjects"):
        figures.bootstrap_difference(ours, theirs[:-1])


def test_a_fitted_calibration_follows_a_night_better_than_the_page_alone() -> None:
    rng = np.random.default_rng(1)
    nights = []
    for subject in range(6):
        stages = np.repeat(rng.integers(0, 5, 60), 8)
        logits = rng.normal(0, 1.0, (stages.size, 5))
        logits[np.arange(stages.size), stages] += 1.0
        rows = 3.0 * (logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
        rows -= np.logaddexp.reduce(rows, axis=1, keepdims=True)
        nights.append(HeldOutNight(str(subject), rows, stages))
    train, test = nights[:5], nights[5]
    temperature = fit_temperature(train)
    assert 2.0 < temperature < 4.0
    logistic, _ = fit_logistic(train, temperature, np.full(5, 0.2))
    alone = float((test.log_probabilities.argmax(axis=1) == test.stages).mean())
    for sequence in (logistic, fit_transitions(train)):
        calibration = Calibration(temperature=temperature, prior=(0.2,) * 5, sequence=sequence)
        staged = run_filter(calibration, test.log_probabilities, np.ones(len(test.stages)))
        assert float((staged.argmax(axis=1) == test.stages).mean()) > alone + 0.15


def test_real_transitions_are_counted_from_what_every_expert_scored(tmp_path: Path) -> None:
    experts = np.array([[-1, 0, 0, 1, 2, 2], [0, 0, 1, -1, 2, 2]], dtype=np.int8)
    np.savez(tmp_path / "scorers.npz", night=experts)
    real = real_filter(tmp_path, 0.5)
    # One added everywhere: W was followed twice by W and twice by N1.
    np.testing.assert_allclose(real.transitions[0], np.array([3, 3, 1, 1, 1]) / 9, atol=1e-6)
    np.testing.assert_allclose(real.transitions[1], np.array([1, 1, 2, 1, 1]) / 6, atol=1e-6)
    assert sum(real.initial) == pytest.approx(1.0, abs=1e-5)
    assert real.emission_power == 0.5


def test_a_pool_leaves_sparse_pages_to_the_logistic_and_shares_whole_ones(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    np.savez(tmp_path / "scorers.npz", night=rng.integers(0, 5, (2, 200)).astype(np.int8))
    real = real_filter(tmp_path, 1.0)
    prior = (0.2,) * 5
    logistic = Logistic(
        lags=1,
        averages=(5.0,),
        neutral=(-1.6,) * 5,
        weights=tuple(tuple(row) for row in rng.normal(0, 0.5, (5, 15)).tolist()),
        bias=(0.1, 0.0, -0.1, 0.2, 0.0),
    )
    alone = Calibration(prior=prior, sequence=logistic)
    forward = Calibration(prior=prior, sequence=real)
    pool = pooled(alone, real, 0.4)
    scores = rng.normal(0, 2, (20, 5))
    night = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
    whole, nothing = np.ones(20), np.zeros(20)

    np.testing.assert_allclose(
        run_filter(pool, night, nothing), run_filter(alone, night, nothing), atol=1e-5
    )
    both = 0.4 * np.log(run_filter(forward, night, whole))
    both += 0.6 * np.log(run_filter(alone, night, whole))
    shares = np.exp(both) / np.exp(both).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(run_filter(pool, night, whole), shares, atol=1e-5)
    thirds = pooled(alone, real, 1 / 3, 1 / 3)
    three = np.log(run_filter(forward, night, whole)) + np.log(run_filter(alone, night, whole))
    three = (three + night) / 3
    shares = np.exp(three) / np.exp(three).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(run_filter(thirds, night, whole), shares, atol=1e-5)
    with pytest.raises(TypeError, match="logistic"):
        pooled(forward, real, 0.4)
