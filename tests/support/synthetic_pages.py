"""Pages for tests: noise with the spectrum of sleep EEG, muscle noise, and real EEG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from hypnocast.core.pictures.recipe import Recipe
from hypnocast.core.types import Derivation, FloatArray, Page, Role, Signal

STEPS = 64
SIX = (Role.F4, Role.C4, Role.O2, Role.E1, Role.E2, Role.CHIN)


def on_grid(samples: FloatArray) -> FloatArray:
    return np.rint(samples * STEPS) / STEPS


def derivation(role: Role, rate: float = 256.0, worth: float | None = 1.0) -> Derivation:
    return Derivation(role, role.value, "psg", 0, None, worth, rate=rate)


def length(recipe: Recipe, rate: float) -> int:
    return round((recipe.context_s + 30.0 + recipe.tail_s) * rate)


def noise_like_eeg(rng: np.random.Generator, samples: int, rate: float, rms: float) -> FloatArray:
    """Pink noise with a spindle and an alpha burst."""
    frequency = np.fft.rfftfreq(samples, 1 / rate)
    spectrum = np.fft.rfft(rng.normal(size=samples)) / np.maximum(frequency, 0.7)
    spectrum[frequency < 0.2] = 0.0
    x = np.fft.irfft(spectrum, samples)
    x *= rms / x.std()
    time = np.arange(samples) / rate
    for pitch, centre, width in ((13.0, rng.uniform(33, 57), 0.6), (10.0, rng.uniform(33, 57), 2)):
        burst = np.exp(-0.5 * ((time - centre) / width) ** 2) * np.sin(2 * np.pi * pitch * time)
        x += rms * burst
    return on_grid(np.asarray(x, np.float64))


def samples_for(
    role: Role, rng: np.random.Generator, samples: int, rate: float, rms: float
) -> FloatArray:
    if role is Role.CHIN:
        return on_grid(rng.normal(0.0, 0.4 * rms, samples))
    if role is Role.ECG:
        beat = np.mod(np.arange(samples) / rate, 0.93) - 0.4
        return on_grid(900 * np.exp(-0.5 * (beat / 0.012) ** 2) + rng.normal(0, 8, samples))
    return noise_like_eeg(rng, samples, rate, rms)


def synthetic_page(
    recipe: Recipe,
    seed: int,
    *,
    rate: float = 256.0,
    rms: float = 20.0,
    roles: Sequence[Role] = tuple(Role),
) -> Page:
    rng = np.random.default_rng(seed)
    count = length(recipe, rate)
    return page_of(recipe, {role: samples_for(role, rng, count, rate, rms) for role in roles}, rate)


def page_of(recipe: Recipe, samples: Mapping[Role, FloatArray], rate: float = 256.0) -> Page:
    signals = {
        role: Signal(derivation(role, rate), rate, values) for role, values in samples.items()
    }
    return Page(7, signals, recipe.context_s, recipe.tail_s)


def real_pages(folder: Path, recipe: Recipe, count: int) -> Iterator[Page]:
    """Pages of a central EEG over many people; each band shows another stretch."""
    files = sorted(folder.glob("*.npz"))
    rng = np.random.default_rng(20)
    for place in range(count):
        with np.load(files[place % len(files)], allow_pickle=False) as night:
            x, scale = night["x"], float(night["scale_uV"])
        rate = x.shape[1] / 30
        samples = {}
        for role in recipe.roles:
            at = int(rng.integers(1, len(x) - 1))
            tail = round(recipe.tail_s * rate)
            joined = np.concatenate([x[at - 1], x[at], x[at + 1][:tail]]) * scale
            samples[role] = on_grid(joined.astype(np.float64))
        yield page_of(recipe, samples, rate)
