"""The power spectrum of a page, small enough to keep a whole night of them.

Welch's method over the page as it was conditioned for the picture: Hann windows of 4 s, half of
each shared with the next. Nothing is filtered a second time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from hypnocast.core.pictures.conditioning import Conditioned, Filtered, passband
from hypnocast.core.pictures.spectrogram import hann
from hypnocast.core.types import EEG_ROLES, PAGE_S, FloatArray, PageSpectrum, Role
from hypnocast.core.wire.spectra import BandName

WINDOW_S: Final = 4.0
"""Long enough for a slow wave of half a hertz."""

LINES: Final = 122
"""Lines of a window from 0 to 30.25 Hz, a quarter of a hertz apart."""

FEWEST: Final = 5
"""Whole windows (of 14) without which there is no spectrum of a page."""

STEP_HZ: Final = 0.5
BINS: Final = 60
"""Bins of half a hertz, in the middle of which lie 0.5, 1 … 30 Hz."""

BANDS: Final[dict[BandName, tuple[float, float]]] = {
    "delta": (0.5, 4.0),
    "theta": (4.0, 8.0),
    "alpha": (8.0, 12.0),
    "sigma": (12.0, 16.0),
    "beta": (16.0, 30.0),
}
"""Band → from and to which frequency, in Hz."""

FLOOR_DB: Final = -40.0
STEP_DB: Final = 0.4
"""A level of 1 is the floor, each further one a step more; 0 is no value."""


def page_spectrum(page: Conditioned, channels: Mapping[Role, str]) -> PageSpectrum | None:
    """Return the spectrum of the page's first EEG; None where too little of it came.

    ``channels``: role → the derivation's name.
    """
    role = next((role for role in EEG_ROLES if role in page.filtered), None)
    if role is None:
        return None
    signal = page.filtered[role]
    density = power_density(_own(signal), signal.rate)
    kept = passband(role, signal.rate)
    if density is None or kept is None:
        return None
    density[np.arange(LINES) / WINDOW_S > kept[1]] = np.nan
    return PageSpectrum(
        derivation=channels.get(role, role.value),
        levels=levels_of(_power_between(_BIN_EDGES, density) / STEP_HZ),
        bands=levels_of(_power_between(_BAND_EDGES, density)),
    )


def power_density(samples: FloatArray, rate: float) -> FloatArray | None:
    """Return µV²/Hz at 0, 0.25 … 30.25 Hz, the mean over whole windows; None where few are.

    NaN above half the rate.
    """
    window = round(WINDOW_S * rate)
    if samples.size < window:
        return None
    pieces = sliding_window_view(samples, window)[:: window // 2]
    if not np.isfinite(samples).all():
        pieces = pieces[np.isfinite(pieces).all(axis=1)]
    if len(pieces) < FEWEST:
        return None
    taper = hann(window)
    lines = np.abs(np.fft.rfft(pieces * taper, axis=1)[:, :LINES]) ** 2
    density = np.full(LINES, np.nan)
    density[: lines.shape[1]] = 2.0 * lines.mean(axis=0) / (rate * np.sum(taper**2))
    return density


def levels_of(power: FloatArray) -> bytes:
    """Write powers as bytes in steps of :data:`STEP_DB`; 0 where there is none."""
    known = np.isfinite(power)
    decibel = 10.0 * np.log10(np.where(known, np.maximum(power, 1e-12), 1.0))
    steps = np.clip(np.rint((decibel - FLOOR_DB) / STEP_DB) + 1, 1, 255)
    return np.where(known, steps, 0).astype(np.uint8).tobytes()


def decibels(levels: bytes) -> FloatArray:
    """Read levels as dB against 1 µV²/Hz (of bands: 1 µV²); NaN where there is none."""
    steps = np.frombuffer(levels, np.uint8).astype(np.float64)
    return np.where(steps == 0, np.nan, FLOOR_DB + STEP_DB * (steps - 1))


def _own(signal: Filtered) -> FloatArray:
    """Return the page itself, without what lies before and after it."""
    first = round(-signal.start_s * signal.rate)
    return signal.samples[first : first + round(PAGE_S * signal.rate)]


def _power_between(edges: FloatArray, density: FloatArray) -> FloatArray:
    """Integrate the density between pairs of edges, which lie on lines; NaN beyond the data."""
    first, last = np.rint(edges.T * WINDOW_S).astype(np.intp)
    areas = (density[1:] + density[:-1]) / (2.0 * WINDOW_S)
    below = np.concatenate([[0.0], np.cumsum(np.nan_to_num(areas))])
    return np.where(np.isfinite(density[last]), below[last] - below[first], np.nan)


_MIDDLES = STEP_HZ * np.arange(1, BINS + 1)
_BIN_EDGES = np.stack([_MIDDLES - STEP_HZ / 2, _MIDDLES + STEP_HZ / 2], axis=1)
_BAND_EDGES = np.array(list(BANDS.values()))
