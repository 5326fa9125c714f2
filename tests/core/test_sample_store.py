"""The grid: each slot holds the sample nearest to it, and nothing is ever made up."""

from __future__ import annotations

import tracemalloc

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hypnocast.core.pages.sample_store import REACH, SampleStore, derive, place
from hypnocast.core.types import Derivation, Role


@settings(max_examples=200, deadline=None)
@given(
    times=st.lists(st.floats(-3.0, 13.0), max_size=60, unique=True).map(sorted),
    rate=st.sampled_from([1.0, 4.0, 7.0]),
    first=st.integers(-5, 5),
)
def test_a_slot_holds_its_nearest_sample_or_none(
    times: list[float], rate: float, first: int
) -> None:
    at = np.array(times)
    placed = place(at, at[None, :], anchor=0.5, rate=rate, first=first, slots=30)[0]
    for slot, value in enumerate(placed):
        away = np.abs((at - 0.5) * rate - (first + slot))
        if len(away) == 0 or away.min() > REACH + 1e-9:
            assert np.isnan(value)
        elif away.min() < REACH - 1e-9:
            assert abs((value - 0.5) * rate - (first + slot)) <= away.min() + 1e-9


def test_a_clock_off_by_200_ppm_leaves_no_slot_empty() -> None:
    for drift in (-2e-4, 2e-4):
        times = np.arange(60000) / 256.0 * (1.0 + drift) + 1e-3
        placed = place(times, times[None, :], anchor=0.0, rate=256.0, first=0, slots=59900)
        assert not np.isnan(placed).any()


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.integers(1, 3000), min_size=1, max_size=30), keep=st.floats(0.0, 90.0))
def test_the_store_keeps_what_is_needed_in_order_and_counts_the_rest(
    sizes: list[int], keep: float
) -> None:
    store = SampleStore(1, base=7)
    everything = np.arange(sum(sizes)) / 64.0
    first = 0
    for size in sizes:
        part = everything[first : first + size]
        store.append(part, part[None, :])
        first += size
        store.drop_before(part[-1] - keep)
    kept = everything[everything >= everything[-1] - keep]
    times, values = store.around(-np.inf, np.inf)
    assert np.array_equal(times, kept)
    assert np.array_equal(values[0], kept)
    assert (store.first, len(store)) == (kept[0], len(kept))
    assert store.stored == 7 + len(everything)
    assert store.kept_of(store.stored) == len(kept)
    assert store.kept_of(0) == 0
    half = store.stored - len(kept) // 2
    assert store.count_after(half, 0.0, np.inf) == len(kept) // 2
    assert np.array_equal(
        store.around(-np.inf, np.inf, stored=half)[0], kept[: half - store.stored or None]
    )
    middle = kept[len(kept) // 2]
    times, values = store.around(middle - 1.0, middle + 1.0)
    assert set(kept[np.abs(kept - middle) <= 1.0]) <= set(times)
    assert np.array_equal(values[0], times)
    store.drop_before(np.inf)
    assert (store.first, len(store), store.stored) == (None, 0, 7 + len(everything))


@settings(max_examples=50, deadline=None)
@given(
    parts=st.lists(
        st.lists(
            st.floats(width=32) | st.sampled_from([-(2.0**25), 2.0**25, 2.0**25 - 1 / 64]),
            min_size=1,
            max_size=40,
        ),
        min_size=1,
        max_size=60,
    )
)
def test_the_store_gives_back_every_value_that_there_can_be(parts: list[list[float]]) -> None:
    both = (
        Derivation(Role.F4, "F4-M1", "eeg", 0, None, 1.0),
        Derivation(Role.C4, "C4-M1", "eeg", 1, None, 1e3),
    )
    store = SampleStore(2)
    given_to_it = []
    for part in parts:
        values = derive(np.array([part, part[::-1]]).T, both)
        store.append(store.stored + np.arange(float(len(part))), values)
        given_to_it.append(values)
    wanted = np.concatenate(given_to_it, axis=1)
    np.testing.assert_array_equal(store.around(-np.inf, np.inf)[1], wanted)
    turned = store.with_rows([1, None, 0]).around(-np.inf, np.inf)[1]
    np.testing.assert_array_equal(turned[[2, 0]], wanted)
    assert np.isnan(turned[1]).all()


def test_memory_is_bounded_over_a_night() -> None:
    tracemalloc.start()
    store = SampleStore(6)
    for second in range(3600):
        times = second + np.arange(256) / 256.0
        store.append(times, np.zeros((6, 256)))
        store.drop_before(second - 60.0)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 600_000


def test_values_lie_on_the_64th_microvolt_whatever_the_unit() -> None:
    rng = np.random.default_rng(0)
    raw = rng.normal(0.0, 5e-5, (1000, 3)).astype(np.float32)
    volts = Derivation(Role.F4, "F4-M1", "eeg", 0, 2, 1e6)
    plain = Derivation(Role.C4, "C4-M1", "eeg", 1, None, 1e6)
    unknown = Derivation(Role.O2, "O2-M1", "eeg", 1, None, None)
    absent = Derivation(Role.E1, "E1-M2", "eeg", 3, None, 1.0)
    rows = derive(raw, [volts, plain, unknown, absent])
    exact = (raw[:, 0].astype(np.float64) - raw[:, 2]) * 1e6
    assert np.abs(rows[0] - exact).max() <= 0.5 / 64 + 1e-9
    assert np.array_equal(rows[:2] * 64, np.rint(rows[:2] * 64))
    assert np.isnan(rows[2:]).all()
    counts = derive(np.array([[3, 1]], dtype=np.int16), [Derivation(Role.F4, "", "", 0, 1, 0.5)])
    assert counts.tolist() == [[1.0]]
