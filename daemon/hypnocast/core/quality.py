"""Quality: whether what came from a channel can be what it is said to be.

Judged on the raw samples, before any filter could make a bad electrode look good. Each second is
looked at alone and the typical second (the median) decides, so that a body movement or a sweat
drift does not condemn a page. What is flagged here for a needed channel is withheld; so the limits
are wide: they catch loose electrodes and wrong units, not unusual people.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hypnocast.core.types import (
    PAGE_S,
    STEPS_PER_MICROVOLT,
    ChannelQuality,
    Flag,
    FloatArray,
    Page,
    Quality,
    Reason,
    Role,
)

HEALTH_S = 5.0
"""How much of the newest signal electrode health is judged on."""


@dataclass(frozen=True, slots=True)
class _Range:
    """Standard deviation within a typical second that the body can produce, in µV."""

    least: float
    most: float


# Quiet wakeful EEG of ±10 µV has about 4 µV, deep sleep of ±150 µV about 70 µV. Amplifiers and
# derivations differ by up to 2.5 either way, and a factor 1000 between units lies far outside.
# Amplifier noise alone has 0.2 µV. Chin tone sinks to the noise in REM sleep, an R wave is 2 mV.
_EEG = _Range(0.3, 500.0)
_RANGES: Mapping[Role, _Range] = MappingProxyType(
    {
        Role.F4: _EEG,
        Role.C4: _EEG,
        Role.O2: _EEG,
        Role.E1: _Range(0.3, 800.0),
        Role.E2: _Range(0.3, 800.0),
        Role.CHIN: _Range(0.03, 1000.0),
        Role.ECG: _Range(3.0, 5000.0),
    }
)

_STILL_UV = 1 / STEPS_PER_MICROVOLT
"""A second that spans no more is one value and its rounding: nothing is connected at all."""

_HUM_UV = 20.0
"""Mains amplitude that spoils the look of an EEG; a good electrode picks up less than 5 µV."""

_OPEN_HUM_UV = 80.0
"""Mains amplitude of an open input: nothing on the skin any more."""

_EEG_ENDS_HZ = 35.0
"""Mains folded to below this cannot be distinguished from the EEG, and is not looked for."""

_BIN_HZ = 1.0
"""Frequencies that a second cannot separate."""

_RAIL_RUN = 3
_RAIL_LEAST_UV = 50.0
"""Equal extreme values in a row are a rail only if they lie far apart, else coarse resolution."""
_RAIL_SHARE = 0.02
_RAILED_SHARE = 0.3
"""Share of samples on a rail that is flagged, and that can only be a lost electrode."""

_USELESS = (
    (Flag.MISSING, Reason.MISSING_CHANNEL),
    (Flag.UNKNOWN_UNIT, Reason.UNKNOWN_UNIT),
    (Flag.OUT_OF_SCALE, Reason.OUT_OF_SCALE),
    (Flag.DETACHED, Reason.DETACHED),
    (Flag.FLAT, Reason.DETACHED),
)
"""Flags under which a channel is not judged, and the reason each gives; the first one counts."""


def assess(page: Page, roles: Sequence[Role], mains_hz: int) -> Quality:
    """Judge each role over the page itself; a role without a signal is missing."""
    found = {role: ChannelQuality(0.0, frozenset({Flag.MISSING})) for role in roles}
    whole: dict[float, dict[Role, FloatArray]] = {}
    for role in roles:
        signal = page.signals.get(role)
        if signal is None:
            continue
        first = round(page.context_s * signal.rate)
        wanted = round(PAGE_S * signal.rate)
        samples = signal.samples[first : first + wanted]
        coverage = float(np.count_nonzero(np.isfinite(samples))) / wanted
        flags: frozenset[Flag] = frozenset()
        if signal.derivation.microvolts_per_unit is None:
            flags = frozenset({Flag.UNKNOWN_UNIT})
        elif coverage == 1.0:
            whole.setdefault(signal.rate, {})[role] = samples
        elif coverage > 0:
            flags = health(samples, signal.rate, mains_hz, role)
        found[role] = ChannelQuality(coverage, flags)
    for rate, alike in whole.items():
        measured = _measure_whole(np.stack(list(alike.values())), rate, mains_hz)
        for role, looks in zip(alike, measured, strict=True):
            found[role] = ChannelQuality(1.0, _flags(looks, role))
    return MappingProxyType(found)


def health(
    samples: FloatArray, rate: float, mains_hz: int, role: Role = Role.F4
) -> frozenset[Flag]:
    """Judge an electrode by a stretch of raw samples in µV, about 5 s or more."""
    known = np.isfinite(samples)
    if not known.any():
        return frozenset({Flag.MISSING})
    if known.all():
        return _flags(_measure_whole(samples[None], rate, mains_hz)[0], role)
    return _flags(_measure(samples, rate, mains_hz), role)


class _Looks(NamedTuple):
    """What is measured on a channel, in µV: of a typical second, but for the last."""

    span: float
    spread: float
    hum: float
    railed: float
    """Share of the samples that stay at the highest or lowest value for some time."""


def _flags(looks: _Looks, role: Role) -> frozenset[Flag]:
    flags = set()
    limits = _RANGES[role]
    if looks.span <= _STILL_UV:
        flags.add(Flag.FLAT)
    elif not limits.least <= looks.spread <= limits.most:
        flags.add(Flag.OUT_OF_SCALE)
    if looks.hum > _HUM_UV:
        flags.add(Flag.LINE_NOISE)
    if looks.railed > _RAIL_SHARE:
        flags.add(Flag.CLIPPED)
    if looks.railed > _RAILED_SHARE or looks.hum > _OPEN_HUM_UV:
        flags.add(Flag.DETACHED)
    return frozenset(flags)


def reason_against(channel: ChannelQuality, min_coverage: float) -> Reason | None:
    """Why a channel cannot carry a stage, or None if it can."""
    for flag, reason in _USELESS:
        if flag in channel.flags:
            return reason
    return Reason.LOW_COVERAGE if channel.coverage < min_coverage else None


def verdict_on(
    quality: Quality, needed: Sequence[Sequence[Role]], min_coverage: float
) -> Reason | None:
    """Why a page may not be staged, or None if it may.

    Of each group of ``needed`` one channel must be usable. Otherwise the reason is that of the
    group's first channel that is there at all.
    """
    missing = ChannelQuality(0.0, frozenset({Flag.MISSING}))
    for group in needed:
        reasons = [reason_against(quality.get(role, missing), min_coverage) for role in group]
        if None not in reasons:
            there = [reason for reason in reasons if reason is not Reason.MISSING_CHANNEL]
            return there[0] if there else Reason.MISSING_CHANNEL
    return None


def coverage_of(quality: Quality, needed: Sequence[Sequence[Role]]) -> float:
    """Give how much of a page came: of each group the channel that came most, then the least.

    Rounded as events carry it, so that a decider rebuilt from the journal sees the same number.
    A page whose quality nobody judged counts as whole.
    """
    if not quality or not needed:
        return 1.0
    came = {role: channel.coverage for role, channel in quality.items()}
    return round(min(max(came.get(role, 0.0) for role in group) for group in needed), 4)


def _measure(samples: FloatArray, rate: float, mains_hz: int) -> _Looks:
    """Measure a channel that may have holes."""
    seconds, known = _seconds(samples, rate)
    count = known.sum(1)
    span = np.fmax.reduce(seconds, axis=1) - np.fmin.reduce(seconds, axis=1)
    level = _level(seconds, known)
    spread = np.sqrt((level**2).sum(1) / count)
    hum = _hum(level, rate, mains_hz) / count
    railed = _railed(samples[np.isfinite(samples)])
    return _Looks(_typical(span), _typical(spread), _typical(hum), railed)


def _measure_whole(rows: FloatArray, rate: float, mains_hz: int) -> list[_Looks]:
    """Measure channels (rows, samples) of whole seconds without holes: much sooner together."""
    length = max(2, round(rate))
    if rows.shape[1] % length:
        return [_measure(row, rate, mains_hz) for row in rows]
    seconds = rows.reshape(-1, length)
    low, high = seconds.min(axis=1), seconds.max(axis=1)
    time = np.arange(length) - (length - 1) / 2
    level = seconds - seconds.mean(1, keepdims=True)
    level -= np.multiply.outer(level @ time / (time @ time), time)
    spread = np.sqrt((level**2).sum(1) / length)
    hum = np.broadcast_to(_hum(level, rate, mains_hz) / length, low.shape)
    typical = [
        _middle(np.sort(values.reshape(len(rows), -1), axis=1).T)
        for values in (high - low, spread, hum)
    ]
    return [
        _Looks(float(span), float(spread), float(hum), _railed(row))
        for row, span, spread, hum in zip(rows, *typical, strict=True)
    ]


def _seconds(samples: FloatArray, rate: float) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Cut into seconds, and keep those that are at least half there (or all there are)."""
    length = max(2, round(rate))
    padded = np.append(samples, np.full(-samples.size % length, np.nan)).reshape(-1, length)
    known = np.isfinite(padded)
    share = known.mean(axis=1)
    kept = share >= min(0.5, float(share.max()))
    return padded[kept], known[kept]


def _typical(values: FloatArray) -> float:
    """Return the median."""
    return float(_middle(np.sort(values)))


def _middle(ordered: FloatArray) -> FloatArray:
    """Return the median of what is in order: for some dozen values sooner than numpy's own."""
    middle: FloatArray = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    return middle


def _level(seconds: FloatArray, known: NDArray[np.bool_]) -> FloatArray:
    """Each second without its mean and its slope, so that offset and drift do not count."""
    count = known.sum(1, keepdims=True)
    filled = np.where(known, seconds, 0.0)
    time = np.where(known, np.arange(seconds.shape[1], dtype=np.float64), 0.0)
    time = np.where(known, time - time.sum(1, keepdims=True) / count, 0.0)
    flat = np.where(known, filled - filled.sum(1, keepdims=True) / count, 0.0)
    square = (time**2).sum(1, keepdims=True)
    slope = (flat * time).sum(1, keepdims=True) / np.where(square > 0, square, 1.0)
    level: FloatArray = flat - slope * time
    return level


def _hum(level: FloatArray, rate: float, mains_hz: int) -> FloatArray:
    """Amplitude in each second, times its samples, at the frequency where mains shows at this rate.

    Hum that lies above half the rate, and that no filter removed before sampling, is folded
    down. Right at half the rate it is an alternation from sample to sample whose size is the
    hum's times the sine of a phase nobody knows: half of all phases leave 0.71 of it, which is
    what is made good here. What a phase near zero hides stays hidden.
    """
    shown = abs(mains_hz - rate * round(mains_hz / rate))
    if shown < _EEG_ENDS_HZ:
        return np.zeros(len(level))
    cosine, sine = _turns(level.shape[1], rate, shown)
    scale = math.sqrt(2) if 0.5 * rate - shown < _BIN_HZ / 2 else 2.0
    amplitude: FloatArray = scale * np.hypot(level @ cosine, level @ sine)
    return amplitude


@lru_cache(maxsize=64)
def _turns(count: int, rate: float, hertz: float) -> tuple[FloatArray, FloatArray]:
    turn = 2 * np.pi * hertz * np.arange(count) / rate
    return np.cos(turn), np.sin(turn)


def _railed(known: FloatArray) -> float:
    """Share of the samples that stay at the highest or lowest value for some time."""
    low, high = known.min(), known.max()
    if high - low < _RAIL_LEAST_UV:
        return 0.0
    share = 0.0
    for rail in (low, high):
        there = known == rail
        count = np.count_nonzero(there)
        run = min(_RAIL_RUN, known.size)
        if count < run:
            continue
        at = np.flatnonzero(there)
        if (at[run - 1 :] - at[: at.size - run + 1] == run - 1).any():
            share += count / known.size
    return share
