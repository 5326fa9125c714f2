"""Clocks: readings become a steady mapping, steps and jitter move no sample."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypnocast.core.timing.clock import ClockSegment, OffsetTracker
from hypnocast.core.timing.dejitter import Dejitter
from hypnocast.core.timing.utc import file_time
from hypnocast.core.types import ClockReading, FloatArray
from hypnocast.ports.recordings.recording import file_start


def track(offsets: FloatArray, *, every: float = 5.0) -> list[ClockSegment]:
    tracker = OffsetTracker("eeg")
    times = 1000.0 + every * np.arange(len(offsets))
    decided = [
        tracker.read(ClockReading("eeg", float(at), float(offset)))
        for at, offset in zip(times, offsets, strict=True)
    ]
    return [segment for segment in decided if segment is not None]


def in_force(segments: list[ClockSegment], stamp: float) -> ClockSegment:
    return [s for s in segments if s.from_stamp <= stamp][-1]


def test_noisy_readings_become_a_line_far_better_than_one_of_them() -> None:
    noise = np.random.default_rng(0).normal(0.0, 5e-4, 400)
    segments = track(3.0 + noise)
    for stamp in np.arange(1300.0, 2990.0, 10.0):
        assert abs(in_force(segments, stamp).at(stamp) - 3.0) < 3e-4


@pytest.mark.parametrize("drift", [-2e-4, 2e-4])
def test_a_drifting_sender_is_followed(drift: float) -> None:
    times = 5.0 * np.arange(400)
    segments = track((3.0 + drift * times).astype(np.float64))
    for stamp in np.arange(1100.0, 2990.0, 10.0):
        local = stamp + in_force(segments, stamp).at(stamp)
        assert abs(local - stamp - 3.0 - drift * (local - 1000.0)) < 3e-4


def test_a_reading_held_up_in_the_network_is_an_outlier() -> None:
    offsets = np.full(60, 3.0)
    offsets[[10, 25, 26, 40]] = [3.05, 2.9, 2.9, 9.0]
    assert [segment.offset for segment in track(offsets)] == [3.0]


@pytest.mark.parametrize(("step", "after"), [(0.08, 3), (-0.08, 3), (40.0, 2), (-4e4, 2)])
def test_a_sender_whose_clock_was_set_is_believed_once_readings_agree(
    step: float, after: int
) -> None:
    offsets = np.full(60, 3.0)
    offsets[20:] += step
    first, second = track(offsets[: 20 + after])
    assert (first.offset, first.why) == (3.0, "reading")
    assert second.offset == pytest.approx(3.0 + step)
    assert second.why == "step"
    assert len(track(offsets[: 20 + after - 1])) == 1


# --- jitter ---------------------------------------------------------------------------------------


def times_of(stamps: FloatArray, rate: float, sizes: list[int]) -> FloatArray:
    dejitter = Dejitter(rate)
    parts: list[FloatArray] = []
    first = 0
    while first < len(stamps):
        size = sizes[len(parts) % len(sizes)]
        parts.append(dejitter.feed(stamps[first : first + size]))
        first += size
    return np.concatenate((*parts, dejitter.cut()))


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rate=st.sampled_from([32.0, 100.0, 256.0]),
    jitter=st.floats(0.0, 0.05),
    jumps=st.lists(st.tuples(st.integers(1, 2999), st.floats(-0.5, 2.0)), max_size=6),
    sizes=st.lists(st.integers(1, 700), min_size=1, max_size=9),
)
def test_sample_times_do_not_depend_on_how_stamps_were_chunked(
    seed: int, rate: float, jitter: float, jumps: list[tuple[int, float]], sizes: list[int]
) -> None:
    rng = np.random.default_rng(seed)
    stamps = np.arange(3000) / rate + rng.normal(0.0, 1.0, 3000) * jitter
    for first, by in jumps:
        stamps[first : first + int(rng.integers(1, 300))] += by
    whole = times_of(stamps, rate, [3000])
    assert len(whole) == 3000
    assert np.array_equal(whole, times_of(stamps, rate, sizes))


def test_stamps_held_up_on_their_way_lie_where_they_belong() -> None:
    true = np.arange(256 * 60) / 256.0
    stamps = true.copy()
    stamps[5000:5030] += 0.2
    assert np.abs(times_of(stamps, 256.0, [33]) - true).max() < 1e-6


@pytest.mark.parametrize("lost", [2, 5, 50, 5000])
def test_lost_samples_stay_lost_and_the_rest_does_not_move(lost: int) -> None:
    rng = np.random.default_rng(1)
    true = np.delete(np.arange(256 * 60) / 256.0, slice(5000, 5000 + lost))
    stamps = true + rng.normal(0.0, 2e-4, len(true))
    off = np.abs(times_of(stamps, 256.0, [33]) - true) * 256.0
    assert off[500:].max() < 0.1


def test_a_rate_that_lies_is_survived_within_two_samples() -> None:
    true = np.arange(250 * 60) / 250.0
    off = np.abs(times_of(true, 256.0, [50]) - true) * 250.0
    assert off[250 * 10 :].max() < 2.0


# --- UTC ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("evening", "hours_on_the_wall"),
    [(datetime(2025, 10, 25, 22, 0), 9), (datetime(2026, 3, 28, 22, 0), 11)],  # noqa: DTZ001
    ids=["back in autumn", "forward in spring"],
)
def test_a_night_across_the_change_of_summer_time_has_no_page_twice(
    evening: datetime, hours_on_the_wall: int
) -> None:
    zone = ZoneInfo("Europe/Berlin")
    start = file_start(evening, "Europe/Berlin")
    starts = [start + timedelta(seconds=30 * epoch) for epoch in range(10 * 120 + 1)]
    assert len(set(starts)) == len(starts)
    assert {b - a for a, b in pairwise(starts)} == {timedelta(seconds=30)}
    assert file_time(starts[0], zone) == evening
    assert file_time(starts[-1], zone) - evening == timedelta(hours=hours_on_the_wall)


def test_file_times_that_came_twice_or_never_have_one_meaning_each() -> None:
    twice = datetime(2025, 10, 26, 2, 30)  # noqa: DTZ001 - file times are zoneless
    never = datetime(2026, 3, 29, 2, 30)  # noqa: DTZ001
    assert file_start(twice, "Europe/Berlin") == datetime(2025, 10, 26, 0, 30, tzinfo=UTC)
    assert file_start(twice.replace(fold=1), "Europe/Berlin") == datetime(
        2025, 10, 26, 1, 30, tzinfo=UTC
    )
    assert file_start(never, "Europe/Berlin") == datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
