"""Detectors of what a scorer looks for in a page's signals, each by a rule that can be read.

Each reads a :class:`Stretch` of one or two channels in µV and gives times in seconds after the
page's start. Nothing here knows the stage, the model or the night. The rules are those of the
AASM manual where it gives numbers; thresholds it leaves open are named constants.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hypnocast.core.types import PAGE_S, FloatArray, Signal

MARGIN_S = 4.0
"""What a detector sees before and after the page, as far as the page carries it."""
LEAST_S = 5.0
"""With less of the page than this nothing is detected."""
LEAST_RATE = 40.0
"""With fewer samples a second nothing is detected: the fastest band would be lost."""

SLOW_HZ = (0.4, 4.0)
SLOW_WAVE_UV = 75.0
SLOW_WAVE_S = (0.5, 2.0)
"""AASM: slow waves are 0.5–2 Hz and above 75 µV from peak to peak, over the front."""

SIGMA_HZ = (11.0, 16.0)
SPINDLE_S = (0.5, 3.0)
"""AASM: spindles are trains of 11–16 Hz of half a second or more."""
SPINDLE_UV = 5.0
SPINDLE_EDGE = 0.45
SPINDLE_OVER_MEDIAN = 2.5
SPINDLE_SHARE = 0.2
"""Amplitude of sigma at the peak, its share at the edges, how far it must stand out from the
page's median, and its share in the power of 1–30 Hz."""

K_UV = 85.0
K_S = (0.5, 1.8)
K_OVER_AROUND = 1.6
"""A K complex lasts half a second or more (AASM) and stands out: so many times the largest wave
within three seconds on either side."""
K_AROUND_S = 3.0
K_FAST_HZ = (16.0, 30.0)
K_FAST_UV = 12.0
"""Faster activity above this around a slow wave is a movement's, not a K complex's."""

ALPHA_HZ = (8.0, 13.0)
ALPHA_SHARE = 0.45
ALPHA_UV = 3.0
"""Alpha counts where it holds so much of the power of 2–30 Hz and has so much RMS."""

EYE_HZ = (0.3, 8.0)
ROLL_HZ = (0.1, 1.2)
RAPID_UV = 50.0
SLOW_UV = 60.0
RAPID_S = 0.5
SLOW_S = (0.6, 4.0)
"""AASM: the first deflection of a rapid eye movement takes less than half a second, that of a
slow one more. Sizes are of E1 minus E2, in which an eye movement shows twice."""
OPPOSITE = -0.3
"""Eye movements go in opposite directions in E1 and E2; brain waves and movements do not."""


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """One channel over the page and a little around it, without holes."""

    samples: FloatArray
    """Holes are bridged by straight lines."""
    known: NDArray[np.bool_]
    rate: float
    before_s: float
    """How long before the page it begins."""

    @property
    def page_known(self) -> NDArray[np.bool_]:
        """Which samples of the page itself came."""
        first = round(self.before_s * self.rate)
        return self.known[first : first + round(PAGE_S * self.rate)]

    def at(self, sample: float) -> float:
        """Time of a sample in seconds after the page's start."""
        return sample / self.rate - self.before_s


def stretch_of(signal: Signal, context_s: float, tail_s: float) -> Stretch | None:
    """Cut what detectors see of a channel, or None where too little of the page came."""
    if signal.rate < LEAST_RATE:
        return None
    before, after = min(MARGIN_S, context_s), min(MARGIN_S, tail_s)
    first = round((context_s - before) * signal.rate)
    count = round((before + PAGE_S + after) * signal.rate)
    samples = signal.samples[first : first + count]
    known = np.isfinite(samples)
    places = np.arange(samples.size)
    if known.any():
        samples = np.interp(places, places[known], samples[known])
    made = Stretch(samples, known, signal.rate, before)
    return made if made.page_known.sum() >= LEAST_S * signal.rate else None


def slow_wave_share(eeg: Stretch) -> float:
    """Share of the page's samples that lie in slow waves."""
    inside = np.zeros(eeg.samples.size, dtype=np.bool_)
    for start, end, _ in _waves(eeg, SLOW_WAVE_S, SLOW_WAVE_UV):
        inside[start:end] = True
    first = round(eeg.before_s * eeg.rate)
    known = eeg.page_known
    page = inside[first : first + known.size] & known
    return float(page.sum() / known.sum())


def k_complexes(eeg: Stretch) -> tuple[float, ...]:
    """Give the times of K complexes: single large slow waves, the negative half first."""
    slow = _band(eeg, SLOW_HZ)
    fast = _envelope(eeg, K_FAST_HZ)
    found = []
    around = round(K_AROUND_S * eeg.rate)
    for start, end, size in _waves(eeg, K_S, K_UV):
        if slow[start:end].argmin() > slow[start:end].argmax():
            continue
        beside = [
            np.ptp(part)
            for part in (slow[max(0, start - around) : start], slow[end : end + around])
            if part.size > around // 2
        ]
        if beside and size < K_OVER_AROUND * max(beside):
            continue
        if np.median(fast[start:end]) > K_FAST_UV:
            continue
        found.append((start, end))
    return _times(eeg, found)


def spindles(eeg: Stretch, back: Stretch | None = None) -> tuple[float, ...]:
    """Give the times at which spindles begin.

    What is larger at the back of the head (same reference, where there is one) is fast alpha.
    """
    sigma = _envelope(eeg, SIGMA_HZ)
    behind = None if back is None or back.rate != eeg.rate else _envelope(back, SIGMA_HZ)
    first = round(eeg.before_s * eeg.rate)
    typical = float(np.median(sigma[first : first + eeg.page_known.size][eeg.page_known]))
    least = max(SPINDLE_UV, SPINDLE_OVER_MEDIAN * typical)
    found = []
    for start, end in _runs(sigma > SPINDLE_EDGE * least):
        length = (end - start) / eeg.rate
        if (
            SPINDLE_S[0] <= length <= SPINDLE_S[1]
            and sigma[start:end].max() >= least
            and (behind is None or behind[start:end].mean() < sigma[start:end].mean())
            and _is_sigma(eeg.samples[start:end], eeg.rate)
        ):
            found.append((start, end))
    return _times(eeg, found)


def alpha_share(eeg: Stretch) -> float:
    """Share of the page in which alpha is the leading rhythm, in seconds of it."""
    window = round(eeg.rate)
    first = round(eeg.before_s * eeg.rate)
    led = total = 0
    shape = np.hanning(window)
    for start in range(first, first + eeg.page_known.size - window + 1, max(1, window // 2)):
        if not eeg.known[start : start + window].all():
            continue
        total += 1
        power, hertz = _power(eeg.samples[start : start + window] * shape, eeg.rate)
        alpha = power[(hertz >= ALPHA_HZ[0]) & (hertz <= ALPHA_HZ[1])].sum()
        all_of_it = power[(hertz >= 2.0) & (hertz <= 30.0)].sum()
        rms = np.sqrt(2.0 * alpha / (window * (shape**2).sum()))
        led += bool(alpha >= ALPHA_SHARE * all_of_it and rms >= ALPHA_UV)
    return led / total if total else 0.0


def eye_movements(left: Stretch, right: Stretch) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Give the times of rapid and of slow eye movements, from the two EOG channels together."""
    rapid = _deflections(left, right, EYE_HZ, RAPID_UV, (0.0, RAPID_S))
    slow = _deflections(left, right, ROLL_HZ, SLOW_UV, SLOW_S)
    # What the slow band makes of a jump is no roll.
    jumps = [left.at(start) for start, _ in rapid]
    rolls = [
        (start, end)
        for start, end in slow
        if not any(left.at(start) - 1.0 < jump < left.at(end) + 1.0 for jump in jumps)
    ]
    return _apart(left, rapid, 0.6), _apart(left, rolls, 2.0)


def muscle_tone(emg: Stretch) -> float:
    """Typical RMS over half-second windows, in µV."""
    high = min(100.0, 0.45 * emg.rate)
    clean = np.where(emg.known, _band(emg, (10.0, high)), np.nan)
    first, window = round(emg.before_s * emg.rate), round(0.5 * emg.rate)
    page = clean[first : first + emg.page_known.size]
    windows = page[: page.size // window * window].reshape(-1, window)
    whole = windows[np.isfinite(windows).all(axis=1)]
    return float(np.median(np.sqrt((whole**2).mean(axis=1)))) if len(whole) else float("nan")


# --- tools ----------------------------------------------------------------------------------------


def _band(stretch: Stretch, hertz: tuple[float, float]) -> FloatArray:
    """Filter forwards and backwards, so that no wave moves."""
    from scipy.signal import sosfiltfilt  # 0.7 s, which --help need not wait for

    pad = min(round(3.0 * stretch.rate), stretch.samples.size - 1)
    out: FloatArray = sosfiltfilt(_design(stretch.rate, hertz), stretch.samples, padlen=pad)
    return out


@lru_cache(maxsize=64)
def _design(rate: float, hertz: tuple[float, float]) -> FloatArray:
    from scipy.signal import butter

    high = min(hertz[1], 0.45 * rate)
    return np.asarray(butter(2, (hertz[0], high), "bandpass", fs=rate, output="sos"))


def _envelope(stretch: Stretch, hertz: tuple[float, float]) -> FloatArray:
    """Amplitude of a band, smoothed over a fifth of a second."""
    from scipy.signal import hilbert

    amplitude = np.abs(hilbert(_band(stretch, hertz)))
    width = max(1, round(0.2 * stretch.rate))
    return np.asarray(np.convolve(amplitude, np.full(width, 1 / width), "same"))


def _power(samples: FloatArray, rate: float) -> tuple[FloatArray, FloatArray]:
    power = np.asarray(np.abs(np.fft.rfft(samples)) ** 2, dtype=np.float64)
    return power, np.arange(power.size, dtype=np.float64) * (rate / samples.size)


def _is_sigma(samples: FloatArray, rate: float) -> bool:
    """Whether a stretch's rhythm lies in sigma, and not in alpha's or a movement's noise."""
    size = max(samples.size, round(2.0 * rate))
    power, hertz = _power(
        np.pad((samples - samples.mean()) * np.hanning(samples.size), (0, size - samples.size)),
        rate,
    )
    rhythm = (hertz >= 7.0) & (hertz <= 20.0)
    peak = hertz[rhythm][power[rhythm].argmax()]
    sigma = power[(hertz >= SIGMA_HZ[0]) & (hertz <= SIGMA_HZ[1])].sum()
    whole = power[(hertz >= 1.0) & (hertz <= 30.0)].sum()
    return bool(SIGMA_HZ[0] <= peak <= SIGMA_HZ[1] and sigma >= SPINDLE_SHARE * whole)


def _runs(mask: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def _waves(
    eeg: Stretch, seconds: tuple[float, float], microvolts: float
) -> Iterator[tuple[int, int, float]]:
    """Yield start, end and size of the slow band's waves: two halves between zero crossings."""
    slow = _band(eeg, SLOW_HZ)
    crossings = np.flatnonzero(np.diff(np.signbit(slow))) + 1
    for (start, middle), (_, end) in pairwise(pairwise(crossings.tolist())):
        size = float(np.ptp(slow[start:end]))
        length = (end - start) / eeg.rate
        halves = (middle - start, end - middle)
        if (
            size >= microvolts
            and seconds[0] <= length <= seconds[1]
            and min(halves) >= 0.125 * eeg.rate
            and eeg.known[start:end].all()
        ):
            yield start, end, size


def _deflections(
    left: Stretch,
    right: Stretch,
    hertz: tuple[float, float],
    microvolts: float,
    seconds: tuple[float, float],
) -> list[tuple[int, int]]:
    """Find ramps of E1 − E2, from turn to turn, that both channels share in opposite directions."""
    from scipy.signal import find_peaks

    one, two = _band(left, hertz), _band(right, hertz)
    apart = one - two
    least = microvolts / 2
    turns = np.sort(
        np.concatenate(
            [find_peaks(apart, prominence=least)[0], find_peaks(-apart, prominence=least)[0]]
        )
    )
    around = round(max(0.25, seconds[0]) * left.rate)
    found = []
    for start, end in pairwise(turns.tolist()):
        size = abs(apart[end] - apart[start])
        # From a tenth to nine tenths of the way: where the eyes rest is no part of the ramp.
        way = np.abs(apart[start : end + 1] - apart[start]) / max(size, 1e-9)
        begun, done = int(np.argmax(way >= 0.1)), int(np.argmax(way >= 0.9))
        length = (done - begun) / 0.8 / left.rate
        low, high = max(0, start - around), end + around
        if (
            size >= microvolts
            and seconds[0] <= length < seconds[1]
            and left.known[start:end].all()
            and right.known[start:end].all()
            and _correlation(one[low:high], two[low:high]) <= OPPOSITE
        ):
            found.append((start + begun, start + done))
    return found


def _correlation(one: FloatArray, two: FloatArray) -> float:
    a, b = one - one.mean(), two - two.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else 0.0


def _times(stretch: Stretch, found: list[tuple[int, int]]) -> tuple[float, ...]:
    """Give the beginnings that lie on the page."""
    times = [round(stretch.at(start), 2) for start, _ in found]
    return tuple(t for t in times if 0.0 <= t < PAGE_S)


def _apart(stretch: Stretch, found: list[tuple[int, int]], seconds: float) -> tuple[float, ...]:
    """Give the beginnings on the page; a return to the middle is no movement of its own."""
    kept: list[tuple[int, int]] = []
    for start, end in found:
        if not kept or (start - kept[-1][0]) / stretch.rate >= seconds:
            kept.append((start, end))
    return _times(stretch, kept)
