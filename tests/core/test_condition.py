"""Conditioning: what is filtered, what stays empty, and that nothing but the page decides."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypnocast.core.pictures.conditioning import LEAD_S, condition, passband
from hypnocast.core.pictures.recipe import builtin
from hypnocast.core.types import STEPS_PER_MICROVOLT, Role
from hypnocast.errors import RecipeError
from support.synthetic_pages import length, on_grid, page_of, synthetic_page

CLINICAL = builtin("clinical-448x224")


def amplitude(role: Role, hertz: float, rate: float = 512.0) -> float:
    """What is left of a sine of 100 µV, away from the ends of the recording."""
    time = np.arange(length(CLINICAL, rate)) / rate
    page = page_of(CLINICAL, {role: on_grid(100 * np.sin(2 * np.pi * hertz * time))}, rate)
    return float(np.sqrt(2) * condition(page, CLINICAL, 50).traces[role][500:2500].std())


@pytest.mark.parametrize("role", [Role.F4, Role.E1])
def test_eeg_and_eog_keep_0_3_to_35_hz(role: Role) -> None:
    assert amplitude(role, 1.0) == pytest.approx(100, rel=0.01)
    assert amplitude(role, 13.0) == pytest.approx(100, rel=0.03)
    assert amplitude(role, 35.0) == pytest.approx(50, rel=0.1)  # 3 dB, forwards and backwards
    assert amplitude(role, 0.1) < 3
    assert amplitude(role, 50.0) < 1
    assert amplitude(role, 80.0) < 3


def test_chin_keeps_10_to_100_hz_and_loses_the_mains() -> None:
    assert amplitude(Role.CHIN, 23.0) == pytest.approx(100, rel=0.03)
    assert amplitude(Role.CHIN, 2.0) < 1
    assert amplitude(Role.CHIN, 50.0) < 1
    assert amplitude(Role.CHIN, 78.0) > 80  # folded to 22 Hz, as the public weights saw it
    assert amplitude(Role.CHIN, 180.0) < 3


def test_filters_move_no_wave() -> None:
    rate = 256.0
    samples = np.zeros(length(CLINICAL, rate))
    samples[round((30 + 12.5) * rate)] = 1000.0
    trace = condition(page_of(CLINICAL, {Role.F4: samples}, rate), CLINICAL, 50).traces[Role.F4]
    assert int(np.argmax(trace)) == 1250


def test_chin_is_filtered_as_far_as_its_rate_allows() -> None:
    assert passband(Role.CHIN, 512) == (10, 100)
    assert passband(Role.CHIN, 200) == (10, 90)
    assert passband(Role.CHIN, 32) is None


def test_a_tail_of_one_second_is_worth_having() -> None:
    rate = 256.0
    page = synthetic_page(CLINICAL, 3, rate=rate, roles=[Role.F4])
    whole = page.signals[Role.F4].samples
    cut = whole.copy()
    cut[round(60 * rate) :] = np.nan
    full = condition(page, CLINICAL, 50).traces[Role.F4]
    bare = condition(page_of(CLINICAL, {Role.F4: cut}, rate), CLINICAL, 50).traces[Role.F4]
    assert np.array_equal(full[:1000], bare[:1000])
    assert not np.array_equal(full[-100:], bare[-100:])


@settings(max_examples=40, deadline=None)
@given(data=st.data(), rate=st.sampled_from([100.0, 128.0, 200.0, 250.0, 256.0]))
def test_what_never_came_is_never_invented(data: st.DataObject, rate: float) -> None:
    page = synthetic_page(CLINICAL, 5, rate=rate, roles=[Role.C4])
    samples = page.signals[Role.C4].samples.copy()
    gaps = data.draw(
        st.lists(st.tuples(st.integers(0, samples.size - 1), st.integers(1, 4000)), max_size=6)
    )
    for start, count in gaps:
        samples[start : start + count] = np.nan
    out = condition(page_of(CLINICAL, {Role.C4: samples}, rate), CLINICAL, 50)
    filtered, trace = out.filtered[Role.C4].samples, out.traces[Role.C4]
    drawn = np.s_[round((page.context_s - LEAD_S) * rate) :]
    assert np.array_equal(np.isnan(filtered[drawn]), np.isnan(samples[drawn]))
    place = np.round((30 + np.arange(3000) / 100) * rate, 6)
    left, right = np.floor(place).astype(int), np.ceil(place).astype(int)
    assert np.array_equal(np.isnan(trace), np.isnan(samples[left]) | np.isnan(samples[right]))
    assert np.nanmax(np.abs(trace), initial=0) < 1000


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(list(Role)), seed=st.integers(0, 99))
def test_only_the_samples_decide_not_the_company_they_come_in(order: list[Role], seed: int) -> None:
    paper = builtin("paper-336")
    page = synthetic_page(paper, seed)
    shuffled = page_of(paper, {role: page.signals[role].samples.copy() for role in order})
    alone = page_of(paper, {order[0]: page.signals[order[0]].samples})
    first = condition(page, paper, 50).traces
    assert all(np.array_equal(first[r], condition(shuffled, paper, 50).traces[r]) for r in order)
    assert np.array_equal(first[order[0]], condition(alone, paper, 50).traces[order[0]])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), power=st.integers(-3, 5))
def test_twice_the_signal_gives_twice_the_trace(seed: int, power: int) -> None:
    gain = 2.0**power
    page = synthetic_page(CLINICAL, seed, roles=[Role.F4, Role.CHIN])
    louder = page_of(CLINICAL, {r: s.samples * gain for r, s in page.signals.items()})
    for role, trace in condition(page, CLINICAL, 50).traces.items():
        other = condition(louder, CLINICAL, 50).traces[role]
        assert np.allclose(other, trace * gain, atol=(1 + gain) / STEPS_PER_MICROVOLT)


def test_traces_lie_on_the_grid_that_noise_cannot_leave() -> None:
    page = synthetic_page(CLINICAL, 11)
    noisy = page_of(CLINICAL, {r: s.samples * (1 + 1e-13) for r, s in page.signals.items()})
    for role, trace in condition(page, CLINICAL, 50).traces.items():
        assert np.array_equal(trace * 64, np.rint(trace * 64))
        assert np.array_equal(trace, condition(noisy, CLINICAL, 50).traces[role])


def test_a_short_loss_does_not_disturb_what_is_around_it() -> None:
    page = synthetic_page(CLINICAL, 2, roles=[Role.F4])
    samples = page.signals[Role.F4].samples.copy()
    samples[12_000:12_010] = np.nan
    whole = condition(page, CLINICAL, 50).traces[Role.F4]
    holed = condition(page_of(CLINICAL, {Role.F4: samples}), CLINICAL, 50).traces[Role.F4]
    assert np.nanmax(np.abs(whole - holed)) < 10
    assert np.isnan(holed).sum() == pytest.approx(5, abs=2)


def test_a_page_cut_for_another_recipe_is_refused() -> None:
    page = synthetic_page(CLINICAL, 1)
    short = type(page)(0, page.signals, page.context_s, 0.5)
    with pytest.raises(RecipeError, match=r"0\.5 s after it"):
        condition(short, CLINICAL, 50)
