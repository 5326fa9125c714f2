"""Verdicts: what calibration, the pages before and the provisional protocol promise."""

from __future__ import annotations

import itertools
from typing import Literal

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hypnocast.core.types import FloatArray, Opinion, Staged
from hypnocast.core.verdicts.calibration import (
    Calibration,
    Corrected,
    HiddenMarkov,
    Logistic,
    SequenceModel,
)
from hypnocast.core.verdicts.decider import Decider, NightState
from hypnocast.core.verdicts.sequence_filter import (
    EMPTY,
    FORGET_AFTER,
    calibrate,
    log_normalise,
    logistic_features,
    run_filter,
)

Kind = Literal["none", "hmm", "logistic", "corrected"]
PRIOR = (0.3, 0.1, 0.3, 0.1, 0.2)


def _distribution(rng: np.random.Generator) -> list[float]:
    shares = rng.dirichlet(np.ones(5))
    rounded: list[float] = (shares / shares.sum()).tolist()
    return rounded


def _sequence(kind: Kind, seed: int = 1) -> SequenceModel | None:
    rng = np.random.default_rng(seed)
    if kind == "none":
        return None
    if kind == "hmm":
        table: dict[str, object] = {
            "kind": "hmm",
            "transitions": [_distribution(rng) for _ in range(5)],
            "initial": _distribution(rng),
        }
    elif kind == "corrected":
        forward, correction = _sequence("hmm", seed), _sequence("logistic", seed)
        table = {
            "kind": "corrected",
            "filter": {**msgspec.to_builtins(forward), "sparse_power": 0.4},
            "logistic": {
                **msgspec.to_builtins(correction),
                "whole_weights": rng.normal(0, 0.3, (5, 30)).tolist(),
                "whole_bias": rng.normal(0, 0.3, 5).tolist(),
            },
            "belief_power": 0.8,
            "sparse_belief_power": 0.2,
        }
    else:
        table = {
            "kind": "logistic",
            "lags": 3,
            "averages": [5.0, 20.0],
            "neutral": np.log(PRIOR).tolist(),
            "weights": rng.normal(0, 0.3, (5, 30)).tolist(),
            "bias": rng.normal(0, 0.3, 5).tolist(),
        }
    return msgspec.convert(table, HiddenMarkov | Logistic | Corrected)


def _calibration(kind: Kind, temperature: float = 1.3) -> Calibration:
    return Calibration(temperature=temperature, prior=PRIOR, sequence=_sequence(kind))


def _opinion(epoch: int, row: FloatArray) -> Opinion:
    return Opinion(epoch, row, provider="cpu", coverage=_coverage(row))


def _coverage(row: FloatArray) -> float:
    """Pages of every fullness, so that each test here holds for all of them."""
    return 0.15 + 0.85 * abs(float(np.sin(row[0])))


def _past(night: list[FloatArray | None]) -> list[tuple[int, Opinion | None]]:
    return [(e, None if row is None else _opinion(e, row)) for e, row in enumerate(night)]


rows = st.integers(0, 2**31).map(
    lambda seed: log_normalise(np.random.default_rng(seed).normal(0, 4, 5))
)
nights = st.lists(st.none() | rows, min_size=1, max_size=30)
kinds = st.sampled_from(["none", "hmm", "logistic", "corrected"])


def _follow(
    decider: Decider,
    night: list[FloatArray | None],
    state: NightState | None = None,
    first: int = 0,
) -> tuple[NightState, list[Staged | None]]:
    state = state or NightState()
    staged: list[Staged | None] = []
    for epoch, row in enumerate(night, start=first):
        if row is None:
            state, _ = decider.withhold(state, epoch)
            staged.append(None)
        else:
            state, verdict = decider.step(state, _opinion(epoch, row))
            staged.append(verdict)
    return state, staged


@given(night=nights, kind=kinds)
def test_probabilities_are_a_distribution_and_the_stage_is_the_likeliest(
    night: list[FloatArray | None], kind: Kind
) -> None:
    _, verdicts = _follow(Decider(_calibration(kind)), night)
    for verdict, row in zip(verdicts, night, strict=True):
        assert (verdict is None) == (row is None)
        if verdict is not None and row is not None:
            assert verdict.probabilities.sum() == pytest.approx(1.0, abs=1e-12)
            assert (verdict.probabilities >= 0).all()
            assert verdict.stage == list(type(verdict.stage))[verdict.probabilities.argmax()]
            np.testing.assert_array_equal(verdict.raw_probabilities, np.exp(row))
            assert not verdict.provisional


@given(night=nights, kind=kinds, cut=st.integers(0, 30), other=nights)
def test_nothing_that_comes_later_changes_a_verdict(
    night: list[FloatArray | None], kind: Kind, cut: int, other: list[FloatArray | None]
) -> None:
    decider = Decider(_calibration(kind))
    _, one = _follow(decider, night)
    _, two = _follow(decider, night[:cut] + other)
    for left, right in zip(one[:cut], two, strict=False):
        if left is not None and right is not None:
            np.testing.assert_array_equal(left.probabilities, right.probabilities)


@given(night=nights, kind=kinds, cut=st.integers(0, 30))
def test_a_rebuilt_state_goes_on_as_if_nothing_had_happened(
    night: list[FloatArray | None], kind: Kind, cut: int
) -> None:
    decider = Decider(_calibration(kind))
    whole, verdicts = _follow(decider, night)
    rebuilt = decider.rebuild(_past(night[:cut]))
    resumed, rest = _follow(decider, night[cut:], rebuilt, first=min(cut, len(night)))
    assert resumed == whole
    for left, right in zip(verdicts[cut:], rest, strict=True):
        if left is not None and right is not None:
            np.testing.assert_array_equal(left.probabilities, right.probabilities)


@given(night=nights, kind=kinds)
def test_pages_nobody_mentioned_count_as_pages_without_evidence(
    night: list[FloatArray | None], kind: Kind
) -> None:
    decider = Decider(_calibration(kind))
    found, verdicts = _follow(decider, night)
    silent = NightState()
    for epoch, row in enumerate(night):
        if row is not None:
            silent, verdict = decider.step(silent, _opinion(epoch, row))
            expected = verdicts[epoch]
            assert expected is not None
            np.testing.assert_array_equal(verdict.probabilities, expected.probabilities)
    if night[-1] is not None:
        assert silent == found


@settings(deadline=None, max_examples=25)
@given(night=st.lists(st.none() | rows, min_size=1, max_size=4), seed=st.integers(0, 1000))
def test_the_forward_filter_agrees_with_summing_over_every_hypnogram(
    night: list[FloatArray | None], seed: int
) -> None:
    model = _sequence("hmm", seed)
    assert isinstance(model, HiddenMarkov)
    calibration = Calibration(prior=PRIOR, sequence=model)
    first = next((at for at, row in enumerate(night) if row is not None), None)
    assume(first is not None and night[-1] is not None)
    seen = night[first:]
    transitions, initial = np.asarray(model.transitions), np.asarray(model.initial)
    emissions = [np.ones(5) if row is None else np.exp(row) / np.asarray(PRIOR) for row in seen]
    total = np.zeros(5)
    for hypnogram in itertools.product(range(5), repeat=len(seen)):
        weight = initial[hypnogram[0]] * emissions[0][hypnogram[0]]
        for at in range(1, len(seen)):
            weight *= transitions[hypnogram[at - 1], hypnogram[at]]
            weight *= emissions[at][hypnogram[at]]
        total[hypnogram[-1]] += weight
    expected = total / total.sum() if total.sum() else total
    _, verdicts = _follow(Decider(calibration), night)
    assert verdicts[-1] is not None
    # Rows of a transition matrix sum to one within rounding, and are used as they are.
    np.testing.assert_allclose(verdicts[-1].probabilities, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["hmm", "logistic", "corrected"])
def test_ten_withheld_pages_in_a_row_clear_the_memory_and_nine_do_not(kind: Kind) -> None:
    decider = Decider(_calibration(kind))
    sure = log_normalise(np.array([-9.0, -9.0, -9.0, 0.0, -9.0]))
    unsure = log_normalise(np.array([-1.0, -1.1, -1.2, -1.3, -1.4]))
    _, (fresh,) = _follow(decider, [unsure])
    _, after_nine = _follow(decider, [sure, *[None] * (FORGET_AFTER - 1), unsure])
    state, after_ten = _follow(decider, [sure, *[None] * FORGET_AFTER, unsure])
    assert fresh is not None
    assert after_nine[-1] is not None
    assert after_ten[-1] is not None
    np.testing.assert_array_equal(after_ten[-1].probabilities, fresh.probabilities)
    assert np.abs(after_nine[-1].probabilities - fresh.probabilities).max() > 1e-6
    assert decider.rebuild([(0, _opinion(0, sure)), (FORGET_AFTER, None)]).memory == EMPTY
    assert state.next_epoch == FORGET_AFTER + 2


def test_a_withheld_page_carries_no_evidence_but_time_passes() -> None:
    calibration = _calibration("hmm")
    decider = Decider(calibration)
    model = calibration.sequence
    assert isinstance(model, HiddenMarkov)
    row = log_normalise(np.array([0.0, -2.0, -3.0, -4.0, -1.0]))
    state, (verdict,) = _follow(decider, [row])
    assert verdict is not None
    blind, _ = decider.withhold(state, 1)
    expected = verdict.probabilities @ np.asarray(model.transitions)
    assert blind.memory.belief is not None
    np.testing.assert_allclose(np.exp(blind.memory.belief), expected / expected.sum(), rtol=1e-9)


def test_the_training_prior_is_divided_out() -> None:
    even = ((0.2,) * 5,) * 5
    model = HiddenMarkov(transitions=even, initial=even[0])
    decider = Decider(Calibration(prior=PRIOR, sequence=model))
    _, (verdict,) = _follow(decider, [np.log(PRIOR)])
    assert verdict is not None
    np.testing.assert_allclose(verdict.probabilities, 0.2, rtol=1e-6)


@given(row=rows, temperature=st.floats(0.2, 5.0))
def test_temperature_keeps_the_order_and_one_changes_nothing(
    row: FloatArray, temperature: float
) -> None:
    warmed = calibrate(row, temperature)
    assert warmed.argmax() == row.argmax()
    np.testing.assert_allclose(calibrate(row, 1.0), row, atol=1e-12)
    if temperature > 1:
        assert warmed.max() <= row.max() + 1e-12


@given(night=nights)
def test_features_for_fitting_are_those_the_daemon_weighs(night: list[FloatArray | None]) -> None:
    calibration = _calibration("logistic")
    model = calibration.sequence
    assert isinstance(model, Logistic)
    raw = np.array([np.full(5, np.nan) if row is None else row for row in night])
    calibrated = np.array([calibrate(row, calibration.temperature) for row in raw])
    features = logistic_features(model, calibrated)
    scores = features @ np.asarray(model.weights).T + np.asarray(model.bias)
    staged = run_filter(calibration, raw, np.array([_coverage(row) for row in raw]))
    _, verdicts = _follow(Decider(calibration), night)
    for verdict, score, row in zip(verdicts, scores, staged, strict=True):
        if verdict is None:
            assert np.isnan(row).all()
        else:
            np.testing.assert_array_equal(verdict.probabilities, row)
            np.testing.assert_allclose(np.log(row), log_normalise(score), atol=1e-9)


def test_logistic_features_stand_in_the_order_the_pack_format_says() -> None:
    model = Logistic(
        lags=2,
        averages=(4.0,),
        neutral=(-1.0,) * 5,
        weights=((0.0,) * 20,) * 5,
        bias=(0.0,) * 5,
        log_floor=-3.0,
    )
    night = np.array([[-0.1] * 5, [np.nan] * 5, [-9.0] * 5])
    features = logistic_features(model, night)
    assert features[0].tolist() == [-0.1] * 5 + [-1.0] * 10 + [pytest.approx(-0.775)] * 5
    assert np.isnan(features[1]).all()
    average = -1 + (-0.775 + 1) * 0.75
    average += (-3.0 - average) / 4
    assert (
        features[2].tolist() == [-3.0] * 5 + [-1.0] * 5 + [-0.1] * 5 + [pytest.approx(average)] * 5
    )


# --- provisional and terminal -----------------------------------------------------------------

ONE = log_normalise(np.array([0.0, -1.0, -2.0, -3.0, -4.0]))
TWO = log_normalise(np.array([-4.0, -3.0, 0.0, -2.0, -1.0]))
SIX = log_normalise(np.array([-3.0, -3.0, -1.0, 0.0, -3.0]))


def test_a_second_opinion_makes_the_page_terminal_and_moves_the_memory_once() -> None:
    decider = Decider(_calibration("hmm"), context_after=True)
    alone = Decider(_calibration("hmm"))
    state, first = decider.step(NightState(), _opinion(0, ONE))
    assert first.provisional
    assert state.memory == EMPTY
    state, second = decider.step(state, _opinion(0, TWO))
    assert not second.provisional
    expected, terminal = alone.step(NightState(), _opinion(0, TWO))
    assert state == expected
    np.testing.assert_array_equal(second.probabilities, terminal.probabilities)


def test_without_a_second_opinion_the_first_becomes_terminal() -> None:
    decider = Decider(_calibration("hmm"), context_after=True)
    state, first = decider.step(NightState(), _opinion(0, ONE))
    state, settled = decider.settle(state)
    np.testing.assert_array_equal(settled.probabilities, first.probabilities)
    assert not settled.provisional
    assert not state.pending
    with pytest.raises(ValueError, match="provisional"):
        decider.settle(state)


def test_a_withheld_page_settles_the_one_before_it() -> None:
    decider = Decider(_calibration("hmm"), context_after=True)
    state, _ = decider.step(NightState(), _opinion(0, ONE))
    state, settled = decider.withhold(state, 1)
    assert [(verdict.epoch, verdict.provisional) for verdict in settled] == [(0, False)]
    assert state == decider.rebuild(_past([ONE, None]))


def test_two_pages_may_wait_and_become_terminal_in_their_order() -> None:
    decider = Decider(_calibration("hmm"), context_after=True)
    state, _ = decider.step(NightState(), _opinion(0, ONE))
    state, waiting = decider.step(state, _opinion(1, SIX))
    assert waiting.provisional
    with pytest.raises(ValueError, match="provisional"):
        decider.step(state, _opinion(1, TWO))
    state, oldest = decider.step(state, _opinion(0, TWO))
    state, newest = decider.step(state, _opinion(1, ONE))
    assert (oldest.epoch, newest.epoch) == (0, 1)
    assert state == decider.rebuild(_past([TWO, ONE]))
    _, (_, alone) = _follow(Decider(_calibration("hmm")), [TWO, ONE])
    assert alone is not None
    np.testing.assert_array_equal(newest.probabilities, alone.probabilities)


def test_a_terminal_page_accepts_no_opinion_any_more() -> None:
    decider = Decider(_calibration("none"))
    state, _ = decider.step(NightState(), _opinion(3, ONE))
    with pytest.raises(ValueError, match="terminal"):
        decider.step(state, _opinion(3, TWO))
    with pytest.raises(ValueError, match="terminal"):
        decider.withhold(state, 2)
    with pytest.raises(ValueError, match="out of order"):
        decider.rebuild([(1, _opinion(1, ONE)), (0, _opinion(0, TWO))])


def test_the_less_of_a_page_came_the_more_its_neighbours_say() -> None:
    decider = Decider(_calibration("corrected"))
    calibration = decider.calibration
    model = calibration.sequence
    assert isinstance(model, Corrected)
    night = [ONE, TWO, SIX]

    def seen(coverage: float) -> FloatArray:
        state = NightState()
        for epoch, row in enumerate(night):
            opinion = Opinion(epoch, row, provider="cpu", coverage=coverage)
            state, staged = decider.step(state, opinion)
        return np.log(staged.probabilities)

    def reckoned(coverage: float) -> FloatArray:
        calibrated = np.array([calibrate(row, calibration.temperature) for row in night])
        power = 0.4 + 0.6 * coverage
        belief = np.log(model.filter.initial)
        for epoch, row in enumerate(calibrated):
            if epoch:
                belief = np.log(np.exp(belief) @ np.asarray(model.filter.transitions))
            belief = log_normalise(belief + power * (row - np.log(PRIOR)))
        features = logistic_features(model.logistic, calibrated)[-1]
        sparse = np.asarray(model.logistic.weights) @ features + np.asarray(model.logistic.bias)
        assert model.logistic.whole_weights is not None
        assert model.logistic.whole_bias is not None
        whole = np.asarray(model.logistic.whole_weights) @ features
        whole += np.asarray(model.logistic.whole_bias)
        believed = 0.2 + 0.6 * coverage
        return log_normalise(believed * belief + sparse + (whole - sparse) * coverage)

    for coverage in (0.17, 0.5, 1.0):
        np.testing.assert_allclose(seen(coverage), reckoned(coverage), atol=1e-9)


def test_a_logistic_for_whole_pages_has_weights_and_a_bias_or_neither() -> None:
    table = msgspec.to_builtins(_sequence("logistic"))
    with pytest.raises(msgspec.ValidationError, match="only one of the two"):
        msgspec.convert({**table, "whole_bias": [0.0] * 5}, Logistic)
    with pytest.raises(msgspec.ValidationError, match="whole_weights"):
        msgspec.convert(
            {**table, "whole_bias": [0.0] * 5, "whole_weights": [[0.0] * 3] * 5}, Logistic
        )
