"""Spectrogram bands: what the traces' 15 pixels a second hide.

Power is that of a Hann window, brought to the scale of 100 samples a second whatever the
channel's own rate: a sine of amplitude ``a`` µV shows as (25 a)² in its row.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hypnocast.core.pictures.conditioning import Filtered
from hypnocast.core.pictures.recipe import Spectrogram, Spectrum
from hypnocast.core.types import PAGE_S, FloatArray, Pixels

SINE_GAIN = 25.0
"""Square root of the power that a sine of 1 µV shows: a quarter of 100 samples."""


def spectrograms(
    signals: Sequence[Filtered], look: Spectrogram, spectrum: Spectrum, columns: int
) -> Pixels:
    """Give bands (signals, ``look.rows``, columns): 0 where data are missing, else at least 1.

    The signals are of one rate and begin at one time.
    """
    rate = signals[0].rate
    window = max(2, round(spectrum.window_s * rate))
    first, last, frames = _frames(rate, signals[0].start_s, window, columns)
    taper = hann(window)
    gain = (2 * SINE_GAIN / taper.sum()) ** 2
    lowest = round(spectrum.lowest_hz * window / rate)
    level = np.zeros((len(signals), look.rows, columns))
    seen = np.ones((len(signals), columns), dtype=bool)
    for number, signal in enumerate(signals):
        cut = signal.samples[max(first, 0) : last]
        if cut.size < last - first:
            before = max(-first, 0)
            after = last - first - before - cut.size
            cut = np.pad(cut, (before, after), constant_values=np.nan)
        known = np.isfinite(cut)
        whole = known.all()
        pieces = (cut if whole else np.where(known, cut, 0.0)).take(frames)
        pieces *= taper
        # Cut before the power is computed: most frequencies are above what is shown.
        power = np.abs(np.fft.rfft(pieces, axis=1)[:, lowest : lowest + look.rows]) ** 2
        power *= gain
        if not whole:
            known_frames = known.take(frames)
            weight = known_frames @ taper**2 / np.sum(taper**2)
            hop = PAGE_S / columns * rate
            middle = slice(int(window / 2 - hop / 2), int(np.ceil(window / 2 + hop / 2)))
            seen[number] = known_frames[:, middle].mean(axis=1) >= 0.5
            power /= np.where(seen[number], weight, 1.0)[:, None]
        level[number, : power.shape[1]] = power.T
    np.maximum(level, 10.0**look.floor, out=level)
    np.log10(level, out=level)
    level -= look.floor
    level /= look.span
    np.clip(level, 1 / 255, 1.0, out=level)
    level *= 255
    grey = np.rint(level, out=level).astype(np.uint8)
    grey *= seen[:, None]
    return grey[:, ::-1]


@lru_cache(maxsize=16)
def _frames(
    rate: float, start_s: float, window: int, columns: int
) -> tuple[int, int, NDArray[np.intp]]:
    """Return the first sample needed, the one after the last, and each column's, from the first."""
    hop = PAGE_S / columns * rate
    starts = np.floor((np.arange(columns) + 0.5) * hop - start_s * rate - window / 2)
    first = int(starts[0])
    places = (starts - first).astype(np.intp)[:, None] + np.arange(window)
    return first, int(starts[-1]) + window, places


@lru_cache(maxsize=64)
def hann(length: int) -> FloatArray:
    """Return a periodic Hann window."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
