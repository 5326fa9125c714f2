"""What moves on a screen: lowest and highest values, nothing hidden between two columns."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hypnocast.core.pages.moving_traces import COLUMNS, envelope

volts = st.one_of(st.floats(-5e3, 5e3), st.just(float("nan")))


@given(hnp.arrays(np.float64, st.integers(1, 600), elements=volts))
def test_no_peak_lies_outside_and_none_is_invented(samples: np.ndarray) -> None:
    shown = envelope(samples)
    assert len(shown.low) == len(shown.high) == COLUMNS
    tenths = np.rint(samples[~np.isnan(samples)] * 10)
    low = [value for value in shown.low if value is not None]
    high = [value for value in shown.high if value is not None]
    assert [value is None for value in shown.low] == [value is None for value in shown.high]
    if not len(tenths):
        assert not low
        return
    assert (min(low), max(high)) == (tenths.min(), tenths.max())
    assert all(a <= b for a, b in zip(low, high, strict=True))


def test_a_slow_channel_is_drawn_as_steps() -> None:
    shown = envelope(np.array([1.0, -2.0]))
    assert shown.low == shown.high == (10,) * (COLUMNS // 2) + (-20,) * (COLUMNS // 2)


def test_a_second_without_samples_is_empty() -> None:
    assert envelope(np.empty(0)).low == (None,) * COLUMNS
