"""Quality: sleeping people pass, loose electrodes and wrong units do not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypnocast.core.pictures.recipe import builtin
from hypnocast.core.quality import (
    assess,
    coverage_of,
    health,
    reason_against,
    verdict_on,
)
from hypnocast.core.types import (
    ChannelQuality,
    Flag,
    FloatArray,
    Page,
    Reason,
    Role,
    Signal,
)
from support.needs import need_data
from support.synthetic_pages import (
    SIX,
    derivation,
    noise_like_eeg,
    on_grid,
    page_of,
    synthetic_page,
)

CLINICAL = builtin("clinical-448x224")
RATE = 256.0
GAINS = (0.4, 1.0, 2.5)
ANY_EEG = ((Role.F4, Role.C4, Role.O2),)


def eeg(rms: float, seconds: float = 30.0, seed: int = 1) -> FloatArray:
    return noise_like_eeg(np.random.default_rng(seed), round(seconds * RATE), RATE, rms)


def hum(amplitude: float, samples: int, hertz: int = 50) -> FloatArray:
    wave: FloatArray = amplitude * np.sin(2 * np.pi * hertz * np.arange(samples) / RATE)
    return wave


def flags_of(samples: FloatArray, role: Role = Role.F4) -> frozenset[Flag]:
    return health(on_grid(samples), RATE, 50, role)


@pytest.mark.parametrize("rms", [4.0, 15.0, 70.0])
@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize("seconds", [5.0, 30.0])
def test_quiet_and_deep_eeg_pass_at_any_usual_gain(rms: float, gain: float, seconds: float) -> None:
    assert flags_of(gain * eeg(rms, seconds)) == frozenset()


@pytest.mark.parametrize("rms", [6.0, 15.0, 70.0])
@pytest.mark.parametrize("factor", [1e-3, 1e3, 1e6])
def test_a_unit_error_is_out_of_scale(rms: float, factor: float) -> None:
    flags = flags_of(factor * eeg(rms))
    assert flags & {Flag.OUT_OF_SCALE, Flag.FLAT}
    assert Flag.OUT_OF_SCALE in flags or factor < 1


@pytest.mark.parametrize(
    ("name", "samples", "expected"),
    [
        ("dead input", np.zeros(1280), {Flag.FLAT}),
        ("stuck far away", np.full(1280, 4711.0), {Flag.FLAT}),
        ("some hum", eeg(15, 5) + hum(60, 1280), {Flag.LINE_NOISE}),
        ("open input", 0.05 * eeg(15, 5) + hum(200, 1280), {Flag.LINE_NOISE, Flag.DETACHED}),
        ("on the rails", np.clip(40 * eeg(15, 5), -300, 300), {Flag.CLIPPED}),
        ("railed", np.clip(2000 * eeg(15, 5), -300, 300), {Flag.CLIPPED, Flag.DETACHED}),
        ("nothing", np.full(1280, np.nan), {Flag.MISSING}),
    ],
)
def test_each_fault_has_its_flag(name: str, samples: FloatArray, expected: set[Flag]) -> None:
    assert expected <= flags_of(samples), name


@pytest.mark.parametrize(("rate", "mains"), [(100.0, 50), (100.0, 60), (99.98, 50), (128.0, 60)])
def test_an_open_input_is_seen_where_mains_folds_over_half_the_rate(
    rate: float, mains: int
) -> None:
    rng = np.random.default_rng(5)
    time = np.arange(round(5 * rate)) / rate
    good = noise_like_eeg(rng, time.size, rate, 15.0)
    assert health(on_grid(good), rate, mains) == frozenset()
    found = [
        Flag.DETACHED
        in health(
            on_grid(0.05 * good + 150 * np.sin(2 * np.pi * mains * time + phase)), rate, mains
        )
        for phase in rng.uniform(0, 2 * np.pi, 200)
    ]
    # At half the rate a phase near zero samples the hum where it is zero: nothing can see it.
    at_half = mains == 50 and rate < 101
    assert np.mean(found) == pytest.approx(0.75, abs=0.08) if at_half else all(found)


def test_mains_folded_into_the_eeg_is_not_looked_for() -> None:
    rate = 64.0
    spindle = 90 * np.sin(2 * np.pi * 14 * np.arange(round(5 * rate)) / rate)
    assert health(on_grid(spindle), rate, 50) == frozenset()


def test_offset_drift_and_one_movement_do_not_condemn_a_page() -> None:
    samples = eeg(15) + 50_000.0
    samples += np.linspace(0, 3000, samples.size)
    samples[2000:3000] += 40 * eeg(100, seed=3)[2000:3000]
    assert flags_of(samples) == frozenset()


def test_chin_at_rest_and_an_ecg_pass() -> None:
    rng = np.random.default_rng(2)
    assert flags_of(rng.normal(0, 0.3, 7680), Role.CHIN) == frozenset()
    page = synthetic_page(CLINICAL, 1, roles=[Role.ECG])
    assert assess(page, [Role.ECG], 50)[Role.ECG].flags == frozenset()


@given(lost=st.sets(st.integers(0, 7679), max_size=3000), seed=st.integers(0, 100))
def test_lost_samples_lower_coverage_and_nothing_else(lost: set[int], seed: int) -> None:
    samples = np.concatenate([eeg(15, 30, seed + 1), eeg(15, 30, seed), eeg(15, 1, seed)])
    samples[[7680 + at for at in lost]] = np.nan
    quality = assess(page_of(CLINICAL, {Role.F4: samples}), [Role.F4], 50)[Role.F4]
    assert quality.coverage == pytest.approx(1 - len(lost) / 7680)
    assert quality.flags == frozenset()


def test_only_the_page_is_judged_not_its_surroundings() -> None:
    samples = np.concatenate([np.zeros(7680), eeg(15), np.full(256, np.nan)])
    quality = assess(page_of(CLINICAL, {Role.C4: samples}), [Role.C4], 50)[Role.C4]
    assert quality == ChannelQuality(1.0)


def test_missing_and_unknown_unit_are_distinguished() -> None:
    signal = Signal(derivation(Role.F4, RATE, None), RATE, np.full(61 * 256, np.nan))
    page = Page(0, {Role.F4: signal}, 30.0, 1.0)
    quality = assess(page, [Role.F4, Role.C4], 50)
    assert quality[Role.F4].flags == {Flag.UNKNOWN_UNIT}
    assert quality[Role.C4].flags == {Flag.MISSING}


def test_a_page_is_staged_if_each_group_has_one_usable_channel() -> None:
    good, lost = ChannelQuality(1.0), ChannelQuality(1.0, frozenset({Flag.DETACHED}))
    assert verdict_on({Role.F4: lost, Role.C4: good}, ANY_EEG, 0.8) is None
    assert verdict_on({Role.F4: lost}, ANY_EEG, 0.8) is Reason.DETACHED
    assert verdict_on({Role.C4: good}, (*ANY_EEG, (Role.CHIN,)), 0.8) is Reason.MISSING_CHANNEL
    assert verdict_on({}, (), 0.8) is None


@pytest.mark.parametrize(
    ("quality", "reason"),
    [
        (ChannelQuality(0.0, frozenset({Flag.MISSING})), Reason.MISSING_CHANNEL),
        (ChannelQuality(0.0, frozenset({Flag.UNKNOWN_UNIT})), Reason.UNKNOWN_UNIT),
        (ChannelQuality(1.0, frozenset({Flag.OUT_OF_SCALE, Flag.DETACHED})), Reason.OUT_OF_SCALE),
        (ChannelQuality(1.0, frozenset({Flag.FLAT})), Reason.DETACHED),
        (ChannelQuality(0.5), Reason.LOW_COVERAGE),
        (ChannelQuality(0.8), None),
        (ChannelQuality(1.0, frozenset({Flag.LINE_NOISE, Flag.CLIPPED})), None),
    ],
)
def test_each_reason_has_its_cause(quality: ChannelQuality, reason: Reason | None) -> None:
    assert reason_against(quality, 0.8) is reason
    assert verdict_on({Role.F4: quality}, ((Role.F4,),), 0.8) is reason


@pytest.mark.promise(3)
def test_at_least_99_percent_of_clean_pages_pass() -> None:
    passed = [
        verdict_on(assess(synthetic_page(CLINICAL, seed, rms=rms), SIX, 50), ANY_EEG, 0.8) is None
        for seed in range(20)
        for rms in (3.0, 15.0, 120.0)
    ]
    assert np.mean(passed) >= 0.99


def test_at_least_99_percent_of_real_eeg_passes() -> None:
    passed = []
    for path in sorted(need_data("sleepedf20-5s").glob("*.npz")):
        with np.load(path, allow_pickle=False) as night:
            for row in night["x"][::40] * float(night["scale_uV"]):
                for gain in GAINS:
                    flags = health(on_grid(gain * row), 100.0, 50)
                    passed.append(reason_against(ChannelQuality(1.0, flags), 0.8) is None)
    assert np.mean(passed) >= 0.99


def test_coverage_of_a_page_is_that_of_the_needed_channel_that_came_most() -> None:
    quality = {
        Role.F4: ChannelQuality(0.41239),
        Role.C4: ChannelQuality(0.81239),
        Role.CHIN: ChannelQuality(1.0),
    }
    eeg, chin = (Role.F4, Role.C4, Role.O2), (Role.CHIN,)
    assert coverage_of(quality, [eeg]) == 0.8124
    assert coverage_of(quality, [eeg, chin]) == 0.8124
    assert coverage_of({}, [eeg]) == 1.0
    assert coverage_of(quality, []) == 1.0


@given(coverages=st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3))
def test_what_came_is_the_same_number_when_it_is_read_back_from_an_event(
    coverages: list[float],
) -> None:
    live = {
        role: ChannelQuality(share)
        for role, share in zip((Role.F4, Role.C4, Role.CHIN), coverages, strict=True)
    }
    written = {role: ChannelQuality(round(quality.coverage, 4)) for role, quality in live.items()}
    for needed in ([(Role.F4, Role.C4)], [(Role.F4, Role.C4), (Role.CHIN,)]):
        assert coverage_of(live, needed) == coverage_of(written, needed)
