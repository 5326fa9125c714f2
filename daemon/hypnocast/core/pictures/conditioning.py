"""Conditioning: from raw microvolts to what is drawn.

Each derivation is filtered at its own rate over the context before the page, the page and the
tail after it, forwards and backwards so that no wave moves, and then brought to the recipe's
rate. The result depends on the Page and the recipe alone. Where no sample ever came there is
none afterwards either.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from hypnocast.core.pictures.recipe import Recipe
from hypnocast.core.types import PAGE_S, STEPS_PER_MICROVOLT, FloatArray, Page, Role, Signal
from hypnocast.errors import RecipeError

ORDER = 4
"""Order of the Butterworth design."""

NOTCH_Q = 20.0
"""Centre frequency over width of the mains notch: 2.5 Hz wide at 50 Hz."""

PAD_S = 3.0
"""Odd reflection at both ends before filtering: about one period of the slowest wave kept."""

LEAD_S = 1.0
"""How much before the page is filtered beyond the reach of a spectrogram's first window."""

BRIDGE_S = 0.1
"""A shorter gap is bridged for the filter's sake (and empty again afterwards): cutting the
signal there would cost more at both rims than the straight line does."""

_PASSBANDS: Mapping[Role, tuple[float, float]] = MappingProxyType(
    {
        Role.F4: (0.3, 35.0),
        Role.C4: (0.3, 35.0),
        Role.O2: (0.3, 35.0),
        Role.E1: (0.3, 35.0),
        Role.E2: (0.3, 35.0),
        Role.CHIN: (10.0, 100.0),
        Role.ECG: (0.3, 35.0),
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class Filtered:
    """One derivation after the filters, at its own rate, in µV.

    NaN where nothing came, and in most of the context: that is there to settle the filters, and
    what they make of it is not drawn.
    """

    rate: float
    start_s: float
    """Time of the first sample, relative to the page's start."""
    samples: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Conditioned:
    """A page ready to be drawn."""

    epoch: int
    filtered: Mapping[Role, Filtered]
    traces: Mapping[Role, FloatArray]
    """Exactly the page, at the recipe's rate, in µV on the 1/64 µV grid; NaN where nothing came."""


def rate_limit(rate: float) -> float:
    """Return the highest frequency that may be kept at a rate."""
    return 0.45 * rate


def passband(role: Role, rate: float) -> tuple[float, float] | None:
    """Lowest and highest frequency kept, or None where the rate leaves nothing of the band."""
    low, high = _PASSBANDS[role]
    high = min(high, rate_limit(rate))
    return (low, high) if high >= 1.5 * low else None


def load_filters() -> None:
    """Load what the filters need: 0.7 s before any thread runs, up to a minute beside busy ones.

    Each of some hundred files costs the interpreter's lock several times.
    """
    import scipy.signal  # noqa: F401 - that it is loaded is all


def condition(page: Page, recipe: Recipe, mains_hz: int) -> Conditioned:
    """Filter and resample what the recipe draws of a page."""
    if page.context_s != recipe.context_s or page.tail_s != recipe.tail_s:
        raise RecipeError(
            f"the page has {page.context_s:g} s before and {page.tail_s:g} s after it, "
            f"the recipe draws from {recipe.context_s:g} s and {recipe.tail_s:g} s",
            where=f"recipe {recipe.name}",
            remedy="Cut pages for the recipe that draws them.",
        )
    bands = {
        role: band
        for role in recipe.roles
        if role in page.signals and (band := passband(role, page.signals[role].rate)) is not None
    }
    windows = (band.spectrum.window_s for band in recipe.bands if band.spectrum is not None)
    from_s = page.context_s - LEAD_S - max(windows, default=0.0) / 2
    wanted = {role: (page.signals[role], bands[role]) for role in bands}
    smooth = filter_in_bands(wanted, mains_hz, from_s)
    filtered = {
        role: Filtered(page.signals[role].rate, -page.context_s, smooth[role]) for role in bands
    }
    return Conditioned(
        epoch=page.epoch,
        filtered=MappingProxyType(filtered),
        traces=MappingProxyType(_resample_all(filtered, recipe.rate)),
    )


def filter_in_bands(
    wanted: Mapping[Role, tuple[Signal, tuple[float, float]]], mains_hz: int, from_s: float
) -> dict[Role, FloatArray]:
    """Filter every channel; whole ones of one kind together, which gives the same numbers."""
    alike: dict[tuple[float, tuple[float, float], int], list[Role]] = {}
    for role, (signal, band) in wanted.items():
        if np.isfinite(signal.samples).all():
            alike.setdefault((signal.rate, band, signal.samples.size), []).append(role)
    smooth: dict[Role, FloatArray] = {}
    for (rate, band, size), roles in alike.items():
        stacked = np.stack([wanted[role][0].samples for role in roles])
        skip = min(max(0, int(from_s * rate)), size)
        clean = np.empty(stacked.shape)
        clean[:, :skip] = np.nan
        both = _both_ways(stacked, _design(rate, band, mains_hz), rate, skip)
        on_grid(both, out=clean[:, skip:])
        smooth |= zip(roles, clean, strict=True)
    rest = ((role, of) for role, of in wanted.items() if role not in smooth)
    return smooth | {role: _filter(signal, band, mains_hz, from_s) for role, (signal, band) in rest}


def _filter(signal: Signal, band: tuple[float, float], mains_hz: int, from_s: float) -> FloatArray:
    design = _design(signal.rate, band, mains_hz)
    out = np.full(signal.samples.shape, np.nan)
    first = max(0, int(from_s * signal.rate))
    for start, stop in _stretches(signal.samples, round(BRIDGE_S * signal.rate)):
        if stop <= first:
            continue
        stretch = signal.samples[start:stop]
        known = np.isfinite(stretch)
        if not known.all():
            where = np.arange(stretch.size)
            stretch = np.interp(where, where[known], stretch[known])
        skip = max(0, first - start)
        clean = _both_ways(stretch[None], design, signal.rate, skip)[0]
        out[start + skip : stop] = np.where(known[skip:], on_grid(clean), np.nan)
    return out


@dataclass(frozen=True, slots=True, eq=False)
class _Design:
    """A filter in second-order sections, and its state after an endless run of ones."""

    sections: FloatArray
    settled: FloatArray


def _both_ways(samples: FloatArray, design: _Design, rate: float, skip: int) -> FloatArray:
    """Filter rows forwards and backwards; give what comes after the first ``skip`` samples.

    The numbers of scipy's ``sosfiltfilt``. But the way back ends where nobody looks any more,
    and the settled state is worked out once.
    """
    from scipy.signal import sosfilt  # 0.7 s, which --help need not wait for

    pad = min(round(PAD_S * rate), samples.shape[1] - 1)
    ends = 2 * samples[:, :1], 2 * samples[:, -1:]
    before = ends[0] - samples[:, pad:0:-1]
    after = ends[1] - samples[:, -2 : -(pad + 2) : -1]
    padded = np.concatenate([before, samples, after], axis=1)
    settled = design.settled[:, None, :]
    there, _ = sosfilt(design.sections, padded, zi=settled * padded[:, :1])
    back = there[:, : pad + skip - 1 : -1] if pad + skip else there[:, ::-1]
    again, _ = sosfilt(design.sections, back, zi=settled * there[:, -1:])
    clean: FloatArray = again[:, pad:][:, ::-1]
    return clean


@lru_cache(maxsize=128)
def _design(rate: float, band: tuple[float, float], mains_hz: int) -> _Design:
    from scipy.signal import butter, iirnotch, sosfilt_zi, tf2sos

    sections = butter(ORDER, band, btype="bandpass", fs=rate, output="sos")
    if 0 < mains_hz < 0.45 * rate:
        sections = np.vstack([sections, tf2sos(*iirnotch(mains_hz, NOTCH_Q, fs=rate))])
    sections = np.ascontiguousarray(sections, dtype=np.float64)
    return _Design(sections, sosfilt_zi(sections))


def _stretches(samples: FloatArray, bridge: int) -> Iterator[tuple[int, int]]:
    """Yield start and stop of each stretch without a gap longer than ``bridge`` samples."""
    known = np.flatnonzero(np.isfinite(samples))
    if known.size == 0:
        return
    cuts = np.flatnonzero(np.diff(known) > bridge + 1)
    starts = [int(known[0]), *(int(known[cut + 1]) for cut in cuts)]
    stops = [*(int(known[cut]) + 1 for cut in cuts), int(known[-1]) + 1]
    yield from zip(starts, stops, strict=True)


def _resample_all(filtered: Mapping[Role, Filtered], rate: float) -> dict[Role, FloatArray]:
    """Bring the page to another rate by straight lines between neighbours."""
    alike: dict[tuple[float, float], list[Role]] = {}
    for role, signal in filtered.items():
        alike.setdefault((signal.rate, signal.start_s), []).append(role)
    traces: dict[Role, FloatArray] = {}
    for (own_rate, start_s), roles in alike.items():
        left, part, at_once = _places(own_rate, start_s, rate)
        first, last = int(left[0]), int(left[-1]) + 2
        known = np.full((len(roles), last - first), np.nan)
        for row, role in zip(known, roles, strict=True):
            have = filtered[role].samples[first:last]
            row[: have.size] = have
        here = known.take(left - first, axis=1)
        between = known.take(left - first + 1, axis=1)
        between -= here
        between *= part
        between += here
        np.copyto(between, here, where=at_once)
        traces |= zip(roles, on_grid(between, out=between), strict=True)
    return {role: traces[role] for role in filtered}


@lru_cache(maxsize=128)
def _places(
    rate: float, start_s: float, wanted_rate: float
) -> tuple[NDArray[np.intp], FloatArray, NDArray[np.bool_]]:
    """Return the sample before each wanted time, the share of the way to the next, and if 0."""
    # Rounded so that a time that is a sample's own does not lean on that sample's neighbour.
    wanted = np.arange(round(PAGE_S * wanted_rate)) / wanted_rate - start_s
    place = np.round(wanted * rate, 6)
    left = np.floor(place).astype(np.intp)
    part = place - left
    return left, part, part == 0


def on_grid(samples: FloatArray, out: FloatArray | None = None) -> FloatArray:
    """Round to the grid on which arithmetic noise cannot show."""
    steps = np.multiply(samples, STEPS_PER_MICROVOLT, out=out)
    np.rint(steps, out=steps)
    steps /= STEPS_PER_MICROVOLT
    return steps
