"""Spectrogram bands: what the traces' 15 pixels a second hide.

Power is that of a Hann window, brought to the scale of 100 samples a second whatever the
channel's own rate: a sine of amplitude ``a`` µV shows as (25 a)² in its row.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from hypnocast.core.condition import Filtered
from hypnocast.core.recipe import Spectrogram, Spectrum
from hypnocast.core.types import PAGE_S, FloatArray, Pixels

SINE_GAIN = 25.0
"""Square root of the power that a sine of 1 µV shows: a quarter of 100 samples."""


def spectrogram(signal: Filtered, look: Spectrogram, spectrum: Spectrum, width: int) -> Pixels:
    """Draw one band (``look.rows``, ``width``): 0 where data are missing, at least 1 elsewhere."""
    columns = width // look.column_px
    hop = PAGE_S / columns * signal.rate
    window = max(2, round(spectrum.window_s * signal.rate))
    starts = np.floor((np.arange(columns) + 0.5) * hop - signal.start_s * signal.rate - window / 2)
    first, last = int(starts[0]), int(starts[-1]) + window
    cut = np.full(last - first, np.nan)
    have = signal.samples[max(first, 0) : last]
    cut[max(-first, 0) : max(-first, 0) + have.size] = have
    known = np.isfinite(cut)
    frames = np.lib.stride_tricks.sliding_window_view(np.where(known, cut, 0.0), window)
    at = (starts - first).astype(np.intp)
    taper = _hann(window)
    lowest = round(spectrum.lowest_hz * window / signal.rate)
    # Cut before the power is taken: most frequencies are above what is shown.
    waves = np.fft.rfft(frames[at] * taper, axis=1)[:, lowest : lowest + look.rows]
    power = np.abs(waves) ** 2 * (2 * SINE_GAIN / taper.sum()) ** 2
    seen = np.ones(columns, dtype=bool)
    if not known.all():
        known_frames = np.lib.stride_tricks.sliding_window_view(known, window)[at]
        weight = known_frames @ taper**2 / np.sum(taper**2)
        middle = slice(int(window / 2 - hop / 2), int(np.ceil(window / 2 + hop / 2)))
        seen = known_frames[:, middle].mean(axis=1) >= 0.5
        power /= np.where(seen, weight, 1.0)[:, None]
    rows = np.zeros((columns, look.rows))
    rows[:, : power.shape[1]] = power
    least = 10.0**look.floor
    level = np.clip((np.log10(np.maximum(rows, least)) - look.floor) / look.span, 1 / 255, 1.0)
    grey = np.where(seen[:, None], np.rint(255 * level), 0).astype(np.uint8)
    return np.repeat(grey.T[::-1], look.column_px, axis=1)


@lru_cache(maxsize=64)
def _hann(length: int) -> FloatArray:
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
