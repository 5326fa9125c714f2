"""Shapes of waves: endless noises with the spectra of rhythms, and single graphoelements.

Noises are loops: made once in the frequency domain, so that end meets beginning, then shared by
all beds and read from a different place by each. Loops of different rhythms have different
lengths, so what they add up to does not come round within a night.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from hypnocast.core.types import FloatArray

RATE = 256
"""Rate of synthesis in Hz; other rates are resampled from it."""
BLOCK = 30 * RATE
"""Samples synthesised at a time: one page."""

Wave = NDArray[np.float32]

_LOOP_S = {
    "pink": 607,
    "delta": 523,
    "theta": 431,
    "alpha": 389,
    "sigma": 367,
    "beta": 353,
    "muscle": 313,
    "slow": 499,
    "drift": 601,
    "sway": 293,
}
_SEEDS = {name: seed for seed, name in enumerate(_LOOP_S)}


def _bell(f: FloatArray, centre: float, width: float) -> FloatArray:
    return np.asarray(np.exp(-0.5 * ((f - centre) / width) ** 2), dtype=np.float64)


def _above(f: FloatArray, corner: float) -> FloatArray:
    """Return a spectrum that is cut off below a corner, as by an amplifier coupled to AC."""
    return np.asarray(1.0 / (1.0 + (corner / np.maximum(f, 0.01)) ** 4), dtype=np.float64)


_SPECTRA: Mapping[str, Callable[[FloatArray, float], FloatArray]] = MappingProxyType(
    {
        "pink": lambda f, _: (
            _above(f, 0.35) * np.maximum(f, 0.01) ** -1.6 / (1.0 + (f / 70.0) ** 6)
        ),
        "delta": lambda f, _: _above(f, 0.35) / (1.0 + (f / 2.0) ** 3.6) / (1.0 + (f / 15.0) ** 4),
        "theta": lambda f, _: _bell(f, 5.6, 1.8),
        "alpha": lambda f, hz: _bell(f, hz, 0.45),
        "sigma": lambda f, _: _bell(f, 13.0, 1.2),
        "beta": lambda f, _: _bell(f, 18.0, 5.0),
        "muscle": lambda f, _: _above(f, 22.0) / (1.0 + (f / 75.0) ** 4),
        "drift": lambda f, _: _bell(f, 0.12, 0.08),
        "sway": lambda f, _: _above(f, 0.35) / (1.0 + (f / 2.0) ** 3),
    }
)
"""Power spectra of the noises, not normalised; a rhythm may have a centre of its own in Hz."""


@lru_cache(maxsize=64)
def loop(name: str, centre: float = 0.0) -> Wave:
    """Return an endless noise with an RMS of 1, with one block of its beginning after its end."""
    n = _LOOP_S[name] * RATE
    rng = np.random.default_rng([_SEEDS[name], round(100 * centre)])
    if name == "slow":
        wave = _slow_waves(rng, n)
    else:
        f = np.fft.rfftfreq(n, 1.0 / RATE).astype(np.float64)
        amplitude = np.sqrt(_SPECTRA[name](f, centre))
        amplitude[0] = 0.0
        phases = rng.standard_normal((2, f.size))
        wave = np.fft.irfft(amplitude * (phases[0] + 1j * phases[1]), n)
        wave /= wave.std()
    ready = np.concatenate([wave, wave[:BLOCK]]).astype(np.float32)
    ready.flags.writeable = False
    return ready


def _slow_waves(rng: np.random.Generator, n: int) -> FloatArray:
    """Chain slow waves, a sharp negative and a round positive half each, 1 µV high on average."""
    wave = np.zeros(n)
    at = 0
    while at < n:
        period = float(np.clip(0.95 * np.exp(0.4 * rng.standard_normal()), 0.45, 1.9))
        m = min(round(period * RATE), n - at)
        phase = (np.arange(m) / (period * RATE)) ** 0.8
        height = float(np.clip(np.exp(0.3 * rng.standard_normal()), 0.45, 1.8))
        wave[at : at + m] = -0.5 * height * np.sin(2.0 * np.pi * phase)
        at += m
    f = np.fft.rfftfreq(n, 1.0 / RATE)
    smooth = np.fft.irfft(np.fft.rfft(wave) * np.exp(-0.5 * (f / 6.0) ** 2), n)
    return np.asarray(smooth - smooth.mean(), dtype=np.float64)


def slice_of(noise: Wave, at: int, n: int) -> Wave:
    """Return ``n`` samples (a block at most) of an endless noise from sample ``at`` on."""
    at %= noise.size - BLOCK
    return noise[at : at + n]


def _time(duration: float) -> Wave:
    return np.arange(max(1, round(duration * RATE)), dtype=np.float32) / np.float32(RATE)


@lru_cache(maxsize=256)
def _window(n: int, ramp: int) -> Wave:
    """Return a plateau of 1 with cosine flanks."""
    ramp = min(ramp, n // 2)
    flank = 0.5 - 0.5 * np.cos(np.pi * (np.arange(ramp) + 0.5) / max(1, ramp))
    window = np.ones(n, dtype=np.float32)
    window[:ramp] = flank
    window[n - ramp :] = flank[::-1]
    window.flags.writeable = False
    return window


def plateau(duration: float, ramp: float) -> Wave:
    """Return an envelope that rises, holds 1 and falls."""
    return _window(max(1, round(duration * RATE)), round(ramp * RATE))


def spindle(duration: float, hz: float) -> Wave:
    """Return a waxing and waning burst, 1 from peak to peak at its fullest."""
    t = _time(duration)
    bell = np.sin(np.float32(np.pi / duration) * t) ** np.float32(1.3)
    chirp = np.float32(hz) * t - np.float32(0.25) * t * t
    wave = np.float32(0.5) * bell * np.sin(np.float32(2.0 * np.pi) * chirp)
    return np.asarray(wave, dtype=np.float32)


def k_complex(duration: float) -> Wave:
    """Return a sharp negative wave and the slower positive one after it, 1 from peak to peak."""
    u = _time(duration) / np.float32(duration)
    down = -0.62 * np.exp(-0.5 * ((u - 0.27) / 0.065) ** 2)
    up = 0.38 * np.exp(-0.5 * ((u - 0.60) / 0.13) ** 2)
    return np.asarray(down + up, dtype=np.float32)


def vertex_wave(duration: float) -> Wave:
    """Return a sharp negative wave with a small after-swing, about 1 from peak to peak."""
    u = _time(duration) / np.float32(duration)
    down = -0.82 * np.exp(-0.5 * ((u - 0.4) / 0.09) ** 2)
    up = 0.2 * np.exp(-0.5 * ((u - 0.7) / 0.1) ** 2)
    return np.asarray(down + up, dtype=np.float32)


def blink(duration: float) -> Wave:
    """Return a fast rise, a slower fall and a small overshoot; 1 at its peak."""
    u = _time(duration) / np.float32(duration)
    up = np.exp(-0.5 * ((u - 0.3) / np.where(u < 0.3, 0.1, 0.14)) ** 2)
    after = -0.18 * np.exp(-0.5 * ((u - 0.75) / 0.09) ** 2)
    return np.asarray(up + after, dtype=np.float32)


def saccade(duration: float) -> Wave:
    """Return a jump within 60 ms that an amplifier coupled to AC lets decay; 1 at its peak."""
    t = _time(duration)
    jump = 0.5 * (1.0 + np.tanh((t - 0.05) / 0.018))
    end = np.clip((duration - t) / 0.1, 0.0, 1.0)
    return np.asarray(jump * np.exp(-np.maximum(t - 0.08, 0.0) / 0.35) * end, dtype=np.float32)


def slow_roll(duration: float) -> Wave:
    """Return one slow swing of the eyes to one side and back over to the other; 1 at its peak."""
    t = _time(duration)
    bell = np.sin(np.float32(np.pi / duration) * t) ** np.float32(0.7)
    return np.asarray(bell * np.sin(np.float32(2.0 * np.pi / duration) * t), dtype=np.float32)


def sawtooth(duration: float, hz: float) -> Wave:
    """Return a train of triangular notched waves, 1 from peak to peak."""
    t = _time(duration)
    turn = np.mod(np.float32(hz) * t, np.float32(1.0))
    teeth = np.where(turn < 0.7, turn / 0.7, (1.0 - turn) / 0.3) - 0.5
    return np.asarray(teeth * plateau(duration, 0.4)[: t.size], dtype=np.float32)


@lru_cache(maxsize=1)
def heart_beat() -> Wave:
    """Return P, Q, R, S and T in 0.6 s; R comes 0.2 s after the start and is 1 high."""
    t = np.arange(round(0.6 * RATE)) / RATE
    waves = (
        (0.10, 0.05, 0.022),
        (-0.12, 0.172, 0.009),
        (1.0, 0.2, 0.011),
        (-0.22, 0.228, 0.011),
        (0.24, 0.43, 0.045),
    )
    beat = sum(h * np.exp(-0.5 * ((t - at) / w) ** 2) for h, at, w in waves)
    ready = np.asarray(beat, dtype=np.float32)
    ready.flags.writeable = False
    return ready
