"""The people who sleep in the simulator: each one different, each one a function of a number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Person:
    """What makes one sleeper's signals differ from another's. Amplitudes are in µV."""

    code: str
    """Pseudonymous subject code."""
    age: int
    gain: float
    """Overall size of the EEG; skull and skin differ."""
    alpha_hz: float
    alpha_uv: float
    """RMS of the alpha rhythm at the occiput, eyes closed. Some people have next to none."""
    theta: float
    """Strength of theta, around 1."""
    slow_wave_uv: float
    """Mean peak-to-peak size of frontal slow waves in N3."""
    deep_sleep: float
    """How much N3 there is, around 1; falls with age."""
    restlessness: float
    """How often sleep is interrupted, around 1; rises with age."""
    spindle_hz: float
    spindle_uv: float
    """Peak-to-peak size of spindles over the vertex."""
    spindles_per_min: float
    k_complex_uv: float
    k_complexes_per_min: float
    eye_uv: float
    """Size of a wide eye movement in one EOG channel."""
    emg_uv: float
    """RMS of the chin EMG, awake and at rest."""
    atonia: float
    """Share of that tone which is left in R."""
    heart_bpm: float
    ecg_leak: float
    """Share of the ECG that the mastoids pick up."""
    hum_uv: float
    """Amplitude of the mains hum on an average electrode."""
    sweat_uv: float
    """Size of sweat drift in a warm stretch of the night; 0 for most."""


def person(seed: int) -> Person:
    """Return the sleeper who belongs to a number; the same number is always the same sleeper."""
    rng = np.random.default_rng([seed, 0x5EED])
    age = int(rng.integers(20, 76))
    years = (age - 20) / 55

    def around(centre: float, spread: float) -> float:
        return float(centre * np.exp(spread * rng.standard_normal()))

    return Person(
        code=f"S{seed % 10000:04d}",
        age=age,
        gain=float(np.clip(around(1.0, 0.15), 0.7, 1.4)),
        alpha_hz=float(np.clip(10.4 - 1.0 * years + 0.6 * rng.standard_normal(), 8.25, 12.0)),
        alpha_uv=float(np.clip(around(11.0, 0.4), 3.0, 20.0)),
        theta=float(np.clip(around(1.0, 0.15), 0.7, 1.4)),
        slow_wave_uv=float(np.clip(around(102.0 - 18.0 * years, 0.12), 78.0, 140.0)),
        deep_sleep=float(np.clip(around(1.25 - 0.75 * years, 0.15), 0.3, 1.6)),
        restlessness=float(np.clip(around(0.7 + 0.9 * years, 0.25), 0.4, 2.5)),
        spindle_hz=float(np.clip(13.4 + 0.5 * rng.standard_normal(), 12.2, 14.6)),
        spindle_uv=float(np.clip(around(38.0 - 8.0 * years, 0.2), 22.0, 60.0)),
        spindles_per_min=float(np.clip(around(5.0 - 1.5 * years, 0.25), 2.0, 8.0)),
        k_complex_uv=float(np.clip(around(150.0 - 20.0 * years, 0.12), 100.0, 220.0)),
        k_complexes_per_min=float(np.clip(around(1.6 - 0.5 * years, 0.3), 0.6, 3.0)),
        eye_uv=float(np.clip(around(110.0, 0.2), 65.0, 180.0)),
        emg_uv=float(np.clip(around(14.0, 0.3), 7.0, 26.0)),
        atonia=float(np.clip(around(0.13, 0.25), 0.07, 0.22)),
        heart_bpm=float(np.clip(58.0 + 7.0 * rng.standard_normal(), 44.0, 78.0)),
        ecg_leak=float(np.clip(around(0.006, 0.7), 0.001, 0.025)),
        hum_uv=float(np.clip(around(0.6, 0.7), 0.1, 4.0)),
        sweat_uv=float(rng.uniform(25.0, 70.0)) if rng.random() < 0.25 else 0.0,
    )
