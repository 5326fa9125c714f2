"""The simulated night: plausible, different for each person, and a function of time alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypnocast.core.types import PAGE_S, STAGES, FloatArray, Stage
from hypnocast.errors import ConfigError
from hypnocast.simulate import (
    CLINICAL,
    Event,
    EventKind,
    SimulatedLead,
    SimulatedNight,
    lead,
    person,
)

PEOPLE = range(6)
RATE = 256
F4, C4, O2, E1, E2, CHIN = range(6)


def spectrum(samples: FloatArray, rate: int = RATE) -> tuple[FloatArray, FloatArray]:
    """Welch's spectrum of the last axis, 4-s Hann windows, in µV²/Hz."""
    n = 4 * rate
    pieces = samples[..., : samples.shape[-1] // n * n].reshape(*samples.shape[:-1], -1, n)
    window = np.hanning(n)
    power = np.abs(np.fft.rfft((pieces - pieces.mean(-1, keepdims=True)) * window)) ** 2
    density: FloatArray = 2.0 * power.mean(-2) / (rate * np.sum(window**2))
    frequencies = np.arange(n // 2 + 1, dtype=np.float64) * np.float64(rate / n)
    return frequencies.astype(np.float64), density


def power(samples: FloatArray, low: float, high: float, rate: int = RATE) -> FloatArray:
    f, density = spectrum(samples, rate)
    band: FloatArray = density[..., (f >= low) & (f < high)].sum(-1) * (f[1] - f[0])
    return band


def stretch(seed: int, stage: Stage, pages: int = 12) -> FloatArray:
    """Some pages of one stage, (leads, samples)."""
    night = SimulatedNight(seed, stages=(stage,) * pages)
    return night.samples(0.0, pages * PAGE_S).T.astype(np.float64)


@pytest.fixture(scope="module")
def by_stage() -> dict[Stage, FloatArray]:
    """(people, leads, samples) for each stage."""
    return {stage: np.stack([stretch(seed, stage) for seed in PEOPLE]) for stage in STAGES}


# --- a function of (seed, person, time) --------------------------------------------------------


@pytest.mark.parametrize(("rate", "leads"), [(256, CLINICAL), (512, CLINICAL[:2]), (100, CLINICAL)])
def test_no_way_of_cutting_changes_a_bit(rate: int, leads: tuple[SimulatedLead, ...]) -> None:
    stages = (Stage.W, Stage.N2, Stage.N3, Stage.R)
    whole = SimulatedNight(11, stages=stages).samples(0.0, 120.0, leads=leads, rate=rate)
    assert whole.shape == (120 * rate, len(leads))

    @settings(max_examples=25, deadline=None)
    @given(st.lists(st.integers(0, 120 * rate), max_size=6), st.randoms(use_true_random=False))
    def check(cuts: list[int], order: object) -> None:
        assert hasattr(order, "shuffle")
        edges = sorted({0, *cuts, 120 * rate})
        pieces = list(pairwise(edges))
        order.shuffle(pieces)
        night = SimulatedNight(11, stages=stages)
        for first, last in pieces:
            piece = night.at(first, last, leads=leads, rate=rate)
            assert piece.tobytes() == whole[first:last].tobytes()

    check()


def test_the_same_seed_is_the_same_night_and_another_seed_another() -> None:
    first, again, other = (
        SimulatedNight(1, pages=60),
        SimulatedNight(1, pages=60),
        SimulatedNight(2, pages=60),
    )
    assert first.samples(600.0, 700.0).tobytes() == again.samples(600.0, 700.0).tobytes()
    assert first.events(0.0, 1800.0) == again.events(0.0, 1800.0)
    assert first.stages == again.stages
    assert first.person != other.person
    assert first.stages != other.stages
    same_stage = SimulatedNight(1, stages=(Stage.N2,)), SimulatedNight(2, stages=(Stage.N2,))
    x, y = (night.samples(0.0, 30.0)[:, F4] for night in same_stage)
    assert abs(np.corrcoef(x, y)[0, 1]) < 0.3


def test_what_a_lead_shows_does_not_depend_on_the_other_leads() -> None:
    night = SimulatedNight(4, stages=(Stage.N2, Stage.R))
    alone = night.samples(0.0, 60.0, leads=(CLINICAL[E1],))[:, 0]
    assert np.array_equal(alone, night.samples(0.0, 60.0)[:, E1])


def test_a_derivation_is_the_difference_of_its_electrodes() -> None:
    night = SimulatedNight(5, stages=(Stage.N3,))
    x = night.samples(0.0, 30.0, leads=(lead("F4-M1"), lead("F4"), lead("M1"))).astype(np.float64)
    assert np.abs(x[:, 0] - (x[:, 1] - x[:, 2])).max() < 1e-3


def test_another_rate_shows_the_same_waves() -> None:
    night = SimulatedNight(5, stages=(Stage.N2, Stage.N2, Stage.N2))
    slow, fast = (night.samples(30.0, 60.0, rate=rate)[:, C4] for rate in (128, 512))
    assert np.corrcoef(slow, fast[::4])[0, 1] > 0.97


@pytest.mark.parametrize("wrong", [{"pages": 0}, {"stages": ()}, {"pages": 3, "hours": 1.0}])
def test_a_night_without_one_length_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        SimulatedNight(1, **wrong)  # type: ignore[arg-type] # one test for arguments of three types


# --- the course of the night -------------------------------------------------------------------


def test_a_night_has_the_architecture_of_sleep() -> None:
    nights = [SimulatedNight(seed, hours=8.0) for seed in range(40)]
    first, second = ([n.stages[part] for n in nights] for part in (slice(480), slice(480, None)))
    deep = [[half.count(Stage.N3) for half in halves] for halves in (first, second)]
    dream = [[half.count(Stage.R) for half in halves] for halves in (first, second)]
    assert np.mean(deep[0]) > 3 * np.mean(deep[1]), "N3 comes early"
    assert np.mean(dream[1]) > 1.5 * np.mean(dream[0]), "R comes late"
    asleep = [[s for s in n.stages if s is not Stage.W] for n in nights]
    share = {
        stage: np.mean([sum(s is stage for s in a) / len(a) for a in asleep])
        for stage in STAGES[1:]
    }
    assert 0.04 < share[Stage.N1] < 0.12
    assert 0.42 < share[Stage.N2] < 0.60
    assert 0.10 < share[Stage.N3] < 0.25
    assert 0.17 < share[Stage.R] < 0.28
    for night, stages in zip(nights, asleep, strict=True):
        assert stages[0] is Stage.N1
        onset = next(i for i, stage in enumerate(night.stages) if stage is not Stage.W)
        latency = (night.stages.index(Stage.R) - onset) / 2
        assert 30 < latency < 170, "minutes to the first R"
        assert night.hypnogram.lights_off < onset * PAGE_S
        assert night.hypnogram.lights_on < night.duration_s
        assert night.stages[-1] is Stage.W


def test_older_people_have_less_deep_sleep() -> None:
    nights = [SimulatedNight(seed, hours=8.0) for seed in range(60)]
    young = [n.stages.count(Stage.N3) for n in nights if n.person.age < 35]
    old = [n.stages.count(Stage.N3) for n in nights if n.person.age > 60]
    assert np.mean(old) < 0.7 * np.mean(young)


# --- the signals of each stage -----------------------------------------------------------------

ORDERS: list[tuple[str, int, tuple[float, float], list[Stage], float]] = [
    ("delta is highest in N3, then N2", F4, (0.5, 4), [Stage.N3, Stage.N2, Stage.R], 2.0),
    ("sigma is a matter of N2 and N3", C4, (12, 15), [Stage.N2, Stage.R], 1.8),
    ("alpha is a matter of quiet wakefulness", O2, (8, 12), [Stage.W, Stage.N1], 2.5),
    ("beta falls from W over R to N3", F4, (16, 30), [Stage.W, Stage.R, Stage.N3], 1.15),
    ("chin tone falls from W over N2 to R", CHIN, (15, 100), [Stage.W, Stage.N2, Stage.R], 3.0),
]


@pytest.mark.parametrize("law", ORDERS, ids=lambda law: law[0])
def test_bands_are_ordered_by_stage(
    by_stage: dict[Stage, FloatArray],
    law: tuple[str, int, tuple[float, float], list[Stage], float],
) -> None:
    why, place, band, order, factor = law
    levels = [np.median(power(by_stage[stage][:, place], *band)) for stage in order]
    for more, less in pairwise(levels):
        assert more > factor * less, why


REAL = {
    # Median over 31 recordings of Sleep-EDF's median over epochs; Fpz-Cz, µV².
    Stage.W: (196.5, 15.1, 5.9, 1.6, 4.9),
    Stage.N1: (39.1, 8.7, 3.3, 1.0, 2.3),
    Stage.N2: (95.5, 14.6, 4.9, 3.4, 1.7),
    Stage.N3: (520.2, 28.4, 6.6, 3.1, 1.5),
    Stage.R: (41.4, 10.1, 2.7, 0.8, 1.9),
}
BANDS = ((0.5, 4), (4, 8), (8, 12), (12, 15), (16, 30))


@pytest.mark.parametrize("stage", STAGES)
def test_fpz_cz_has_the_band_powers_of_real_nights(stage: Stage) -> None:
    found = []
    for seed in range(12):
        night = SimulatedNight(seed, stages=(stage,) * 8)
        x = night.samples(0.0, 8 * PAGE_S, leads=(lead("Fpz-Cz"),), rate=100)[:, 0]
        epochs = x.astype(np.float64).reshape(8, -1)
        found.append([np.median(power(epochs, low, high, 100)) for low, high in BANDS])
    ratio = np.median(found, axis=0) / REAL[stage]
    assert np.all((ratio > 1 / 3) & (ratio < 3)), ratio


def test_slow_waves_of_n3_reach_75_uv_and_are_frontal(by_stage: dict[Stage, FloatArray]) -> None:
    n3 = by_stage[Stage.N3]
    seconds = n3[:, F4].reshape(len(n3), -1, 2 * RATE)
    assert (np.median(np.ptp(seconds, axis=-1), axis=1) > 75.0).all()
    assert (power(n3[:, F4], 0.5, 4) > 1.5 * power(n3[:, O2], 0.5, 4)).all()


def test_alpha_is_occipital(by_stage: dict[Stage, FloatArray]) -> None:
    awake = by_stage[Stage.W]
    assert np.median(power(awake[:, O2], 8, 12)) > 2 * np.median(power(awake[:, F4], 8, 12))


def test_what_a_person_has_is_in_the_signals() -> None:
    plain = replace(person(3), hum_uv=0.1, ecg_leak=0.0, sweat_uv=0.0)
    odd = replace(plain, hum_uv=4.0, ecg_leak=0.025, sweat_uv=70.0)
    leads = (*CLINICAL, lead("ECG"))
    nights = [
        SimulatedNight(3, stages=(Stage.N2,) * 140, sleeper=each, mains_hz=60)
        for each in (plain, odd)
    ]
    warm = max(range(130), key=nights[0].warmth) * PAGE_S
    clean, dirty = (
        night.samples(warm, warm + 120.0, leads=leads).T.astype(np.float64) for night in nights
    )
    assert power(dirty[F4], 59, 61) > 10 * power(clean[F4], 59, 61)
    leak = [abs(_alike(np.diff(x[F4]), np.diff(x[-1]))) for x in (clean, dirty)]
    assert leak[1] > 3 * leak[0]
    drift = [np.abs(x[E1].reshape(-1, 4 * RATE).mean(-1)).max() for x in (clean, dirty)]
    assert drift[1] > drift[0] + 40.0


# --- the truth is in the signal ----------------------------------------------------------------

Measure = Callable[[FloatArray], float]


def _rms(x: FloatArray, low: float, high: float) -> float:
    f = np.fft.rfftfreq(x.size, 1 / RATE)
    coefficients = np.fft.rfft(x - x.mean())
    kept = np.where((f >= low) & (f <= high), coefficients, 0)
    return float(np.sqrt(2 * np.sum(np.abs(kept) ** 2)) / x.size)


SEEN: list[tuple[EventKind, Stage, Measure, float]] = [
    (EventKind.SPINDLE, Stage.N2, lambda x: _rms(x[C4], 11.5, 16), 2.0),
    (EventKind.K_COMPLEX, Stage.N2, lambda x: float(np.ptp(x[F4])), 1.6),
    (EventKind.SLOW_WAVES, Stage.N3, lambda x: _rms(x[F4], 0.3, 2.5), 1.3),
    (EventKind.VERTEX_WAVE, Stage.N1, lambda x: float(-x[C4].min()), 1.6),
    (EventKind.BLINK, Stage.W, lambda x: float(x[E2].max() - x[E1].min()), 1.5),
    (EventKind.RAPID_EYE_MOVEMENT, Stage.R, lambda x: float(np.abs(x[E1] - x[E2]).max()), 2.0),
    (EventKind.SLOW_EYE_MOVEMENT, Stage.N1, lambda x: float(np.abs(x[E1] - x[E2]).max()), 1.8),
    (EventKind.SAWTOOTH, Stage.R, lambda x: _rms(x[C4], 2, 5), 1.2),
    (EventKind.AROUSAL, Stage.N2, lambda x: _rms(x[C4], 7, 30), 1.5),
    (EventKind.BODY_MOVEMENT, Stage.W, lambda x: float(np.ptp(x[E1])), 2.0),
    (EventKind.TWITCH, Stage.R, lambda x: _rms(x[CHIN], 15, 100), 1.5),
]


@pytest.mark.parametrize("seen", SEEN, ids=lambda seen: seen[0])
def test_what_is_listed_is_in_the_signal(seen: tuple[EventKind, Stage, Measure, float]) -> None:
    kind, stage, measure, times = seen
    ratios: list[float] = []
    for seed in PEOPLE:
        night = SimulatedNight(seed, stages=(stage,) * 60)
        events = night.events(0.0, 60 * PAGE_S)
        quiet = [measure(_at(night, start, 2.0)) for start in _quiet(events)]
        listed = [e for e in events if e.kind is kind and e.end < 60 * PAGE_S - 1][:8]
        usual = np.median(quiet)
        ratios += [measure(_at(night, e.start, e.duration)) / float(usual) for e in listed]
    assert len(ratios) >= 8, "the night has such events"
    assert np.median(ratios) > times
    assert np.mean(np.array(ratios) > 1.0) > 0.85


def _at(night: SimulatedNight, start: float, duration: float) -> FloatArray:
    return night.samples(start, start + duration).T.astype(np.float64)


def _alike(x: FloatArray, y: FloatArray) -> float:
    return float(np.mean((x - x.mean()) * (y - y.mean())) / (x.std() * y.std()))


def _quiet(events: list[Event]) -> list[float]:
    """When stretches of 2 s begin in which nothing happens."""
    ends = np.maximum.accumulate([0.0, *(event.end for event in events)])
    starts = [event.start for event in events]
    gaps = [end + 0.5 for end, start in zip(ends, starts, strict=False) if start - end > 3.5]
    return gaps[:60]


def test_eyes_move_opposite_and_k_complexes_alike() -> None:
    for kind, stage, sign in (
        (EventKind.RAPID_EYE_MOVEMENT, Stage.R, -1),
        (EventKind.SLOW_EYE_MOVEMENT, Stage.N1, -1),
        (EventKind.K_COMPLEX, Stage.N2, 1),
    ):
        night = SimulatedNight(8, stages=(stage,) * 40)
        events = [e for e in night.events(0.0, 1100.0) if e.kind is kind]
        found = [_alike(*_at(night, e.start, max(1.0, e.duration))[[E1, E2]]) for e in events]
        assert sign * np.median(found) > 0.5, kind
