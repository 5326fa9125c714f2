"""Evidence: found where the simulator put it, silent where nothing is, honest about claims."""

from __future__ import annotations

from dataclasses import replace
from statistics import mean

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypnocast.core.evidence.measures import TONES_NEEDED, chin_tone, measure, with_claims
from hypnocast.core.types import PAGE_S, STAGES, ChannelQuality, Flag, FloatArray, Page, Role, Stage
from hypnocast.core.wire.page_facts import Evidence
from hypnocast.simulate.events import EventKind
from hypnocast_models.data.recordings import page_of
from hypnocast_models.data.simulated import ROLES
from support.detection import (
    CONTEXT_S,
    RATE,
    TAIL_S,
    DetectionTrial,
    balanced_night,
    page_with_noise,
    trial,
)

UNSEEN = range(100, 104)
"""People on whom no threshold was tried (those were 0 to 7)."""


@pytest.fixture(scope="module")
def found() -> DetectionTrial:
    return trial(UNSEEN)


@pytest.mark.parametrize(
    ("kind", "recall", "precision"),
    [
        (EventKind.SPINDLE, 0.65, 0.6),
        (EventKind.K_COMPLEX, 0.7, 0.7),
        (EventKind.RAPID_EYE_MOVEMENT, 0.7, 0.8),
        (EventKind.SLOW_EYE_MOVEMENT, 0.85, 0.8),
    ],
)
def test_what_the_simulator_lists_is_found(
    found: DetectionTrial, kind: EventKind, recall: float, precision: float
) -> None:
    tally = found.tallies[kind]
    assert tally.events > 20
    assert tally.recall >= recall
    assert tally.precision >= precision


def test_the_share_of_slow_waves_follows_the_truth(found: DetectionTrial) -> None:
    listed, measured = np.array(found.slow_wave_shares).T
    assert np.corrcoef(listed, measured)[0, 1] > 0.6
    assert abs(float(np.mean(measured - listed))) < 0.1


def test_each_sign_is_strongest_in_the_stage_it_stands_for(found: DetectionTrial) -> None:
    def of(stage: Stage, name: str) -> float:
        values = [getattr(evidence, name) for evidence, _ in found.by_stage[stage]]
        return mean(len(v) if isinstance(v, tuple) else v for v in values)

    def strongest(name: str) -> Stage:
        return max(STAGES, key=lambda stage: of(stage, name))

    assert strongest("spindles") is Stage.N2
    assert strongest("k_complexes") is Stage.N2
    assert strongest("slow_wave_share") is Stage.N3
    assert strongest("alpha_share") is Stage.W
    assert strongest("rapid_eye_movements") is Stage.R
    assert strongest("slow_eye_movements") is Stage.N1
    tone = {stage: mean(t for _, t in signs) for stage, signs in found.by_stage.items()}
    assert min(tone, key=lambda stage: tone[stage]) is Stage.R
    assert max(tone, key=lambda stage: tone[stage]) is Stage.W


def _page(samples: FloatArray, roles: tuple[Role, ...] = ROLES) -> Page:
    channels = {role: (samples, float(RATE), role.value) for role in roles}
    return page_of(channels, 0, CONTEXT_S, TAIL_S)


SAMPLES = round((CONTEXT_S + PAGE_S + TAIL_S) * RATE)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), size=st.floats(0.1, 5.0))
def test_faint_noise_is_evidence_of_nothing(seed: int, size: float) -> None:
    evidence = measure(_page(size * np.random.default_rng(seed).standard_normal(SAMPLES)))
    assert evidence.slow_wave_share == 0.0
    assert evidence.spindles == ()
    assert evidence.k_complexes == ()
    assert evidence.alpha_share == 0.0
    assert evidence.rapid_eye_movements == ()
    assert evidence.slow_eye_movements == ()


@pytest.mark.parametrize(("hertz", "slow"), [(0.8, True), (1.5, True), (3.0, False), (0.2, False)])
def test_slow_waves_are_half_to_two_hertz_and_75_microvolts(hertz: float, slow: bool) -> None:
    wave = np.sin(2 * np.pi * hertz * np.arange(SAMPLES) / RATE)
    share = measure(_page(45.0 * wave)).slow_wave_share
    assert share is not None
    assert (share > 0.9) == slow
    assert measure(_page(30.0 * wave)).slow_wave_share == 0.0


@pytest.mark.parametrize("hertz", [9.0, 13.5, 20.0])
def test_a_burst_is_a_spindle_by_its_rhythm_alone(hertz: float) -> None:
    t = np.arange(SAMPLES) / RATE
    noise = 4.0 * np.random.default_rng(1).standard_normal(SAMPLES)
    shape = np.exp(-(((t - CONTEXT_S - 12.0) / 0.45) ** 2))
    spindles = measure(
        _page(noise + 25.0 * shape * np.sin(2 * np.pi * hertz * t), (Role.C4,))
    ).spindles
    assert spindles is not None
    if hertz == 13.5:
        (time,) = spindles
        assert 11.0 < time < 12.0
    else:
        assert spindles == ()


def test_waves_that_both_eyes_see_alike_are_no_eye_movements() -> None:
    night = balanced_night(3, 20)
    page = page_with_noise(night, 16, 0.0, ROLES)
    assert night.stages[16] is Stage.R
    assert measure(page).rapid_eye_movements
    alike = dict(page.signals)
    alike[Role.E2] = replace(alike[Role.E2], samples=alike[Role.E1].samples)
    assert measure(replace(page, signals=alike)).rapid_eye_movements == ()


def test_what_cannot_be_measured_is_none_and_never_zero() -> None:
    night = balanced_night(3, 12)
    eeg = measure(page_with_noise(night, 9, 0.0, (Role.C4,)))
    assert eeg.slow_wave_share is not None
    assert eeg.spindles is not None
    assert eeg.rapid_eye_movements is None
    assert eeg.slow_eye_movements is None
    assert eeg.chin_tone_quantile is None
    nothing = _page(np.full(SAMPLES, np.nan))
    result = msgspec.to_builtins(measure(nothing))
    assert all(value in (None, {}) for value in result.values())
    page = page_with_noise(night, 9, 0.0, ROLES)
    loose = {role: ChannelQuality(1.0, frozenset({Flag.DETACHED})) for role in ROLES}
    assert measure(page, quality=loose).spindles is None
    assert chin_tone(page, loose) is None


@pytest.mark.parametrize("rate", [1.0, 3.0, 16.0, 34.0, 39.0, 40.0, 50.0, 64.0])
def test_no_rate_is_too_low_to_be_measured_or_left_out(rate: float) -> None:
    samples = np.random.default_rng(2).normal(
        0.0, 20.0, round((CONTEXT_S + PAGE_S + TAIL_S) * rate)
    )
    page = page_of({r: (samples, rate, r.value) for r in ROLES}, 0, CONTEXT_S, TAIL_S)
    measured = measure(page)
    assert (measured.spindles is None) == (rate < 40.0)
    assert (chin_tone(page) is None) == (rate < 40.0)


@settings(deadline=None, max_examples=20)
@given(start=st.floats(0.0, 29.0), length=st.floats(0.1, 30.0))
def test_nothing_is_found_where_no_sample_came(start: float, length: float) -> None:
    page = page_with_noise(balanced_night(5, 12), 8, 0.0, ROLES)
    first = round((CONTEXT_S + start) * RATE)
    holed = {}
    for role, signal in page.signals.items():
        samples = signal.samples.copy()
        samples[first : first + round(length * RATE)] = np.nan
        holed[role] = replace(signal, samples=samples)
    evidence = measure(replace(page, signals=holed))
    end = start + length
    for name in ("k_complexes", "rapid_eye_movements", "slow_eye_movements"):
        for time in getattr(evidence, name) or ():
            assert not start + 0.1 < time < end - 0.1
    assert evidence.slow_wave_share is None or 0.0 <= evidence.slow_wave_share <= 1.0


@given(earlier=st.lists(st.floats(0.1, 50.0), min_size=TONES_NEEDED, max_size=60))
@settings(deadline=None, max_examples=30)
def test_chin_tone_is_ranked_among_the_pages_before(earlier: list[float]) -> None:
    page = page_with_noise(balanced_night(5, 4), 1, 0.0, (Role.CHIN,))
    tone = chin_tone(page)
    assert tone is not None
    assert measure(page, earlier).chin_tone_quantile == mean(float(t <= tone) for t in earlier)
    assert measure(page, earlier[: TONES_NEEDED - 1]).chin_tone_quantile is None


N2 = Evidence(
    slow_wave_share=0.05,
    spindles=(4.2,),
    k_complexes=(),
    alpha_share=0.1,
    rapid_eye_movements=None,
    slow_eye_movements=None,
    chin_tone_quantile=0.2,
    claims={},
)


@pytest.mark.parametrize(
    ("rationale", "claims"),
    [
        ("Sleep spindles are visible.", {"spindles": "supported"}),
        ("A K-complex at 12 s, no spindles.",
         {"k_complexes": "unsupported", "no_spindles": "unsupported"}),
        ("No slow waves, alpha absent.", {"no_slow_waves": "supported", "no_alpha": "supported"}),
        ("Neither K complexes nor slow wave activity, but spindles.",
         {"no_k_complexes": "supported", "no_slow_waves": "supported", "spindles": "supported"}),
        ("Posterior alpha rhythm dominates.", {"alpha": "unsupported"}),
        ("Rapid eye movements with low chin tone.", {"low_chin_tone": "supported"}),
        ("Delta waves fill the page; high EMG.",
         {"slow_waves": "unsupported", "high_chin_tone": "unsupported"}),
        ("The person sleeps.", {}),
        (None, {}),
    ],
)  # fmt: skip
def test_claims_are_marked_by_what_was_measured(
    rationale: str | None, claims: dict[str, str]
) -> None:
    assert with_claims(N2, rationale).claims == claims
