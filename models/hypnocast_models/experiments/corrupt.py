"""Damage to pages, of the kinds that happen at night, over a share of the time.

The damaged share lies in stretches of half a second, drawn anew for each page and the same for
all channels, as when a cable moves. What was not recorded stays unrecorded.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import numpy as np

from hypnocast.core.types import FloatArray, Page
from hypnocast_models.experiments.plan import Kind

STRETCH_S = 0.5
NOISE_UV = 60.0
DRIFT_UV = 250.0
MAINS_UV = 80.0
CLIP_UV = 15.0
OPEN_UV = 150.0
"""Sizes of the damage: RMS of the noise, amplitudes of drift and mains, rails of a saturated
input, and the hum of an open one."""


def corrupt(page: Page, kind: Kind, share: float, seed: int, mains_hz: int = 50) -> Page:
    """Damage a share of a page's time, context and tail included; a function of page and seed."""
    rng = np.random.default_rng([seed, page.epoch])
    seconds = max(
        (signal.samples.size / signal.rate for signal in page.signals.values()), default=0.0
    )
    count = int(np.ceil(seconds / STRETCH_S))
    hit = np.zeros(count, dtype=np.bool_)
    hit[rng.permutation(count)[: round(share * count)]] = True
    damaged = {}
    for role, signal in page.signals.items():
        t = np.arange(signal.samples.size) / signal.rate
        inside = hit[np.minimum((t / STRETCH_S).astype(int), count - 1)]
        changed = _damage(signal.samples, t, kind, rng, mains_hz)
        samples = np.where(inside & np.isfinite(signal.samples), changed, signal.samples)
        damaged[role] = replace(signal, samples=samples)
    return replace(page, signals=MappingProxyType(damaged))


def _damage(
    samples: FloatArray, t: FloatArray, kind: Kind, rng: np.random.Generator, mains_hz: int
) -> FloatArray:
    phase = float(rng.uniform(0, 2 * np.pi))
    hum = np.sin(2 * np.pi * mains_hz * t + phase)
    match kind:
        case "noise":
            return samples + NOISE_UV * rng.standard_normal(samples.size)
        case "dropout":
            return np.full(samples.size, np.nan)
        case "drift":
            return samples + DRIFT_UV * np.sin(2 * np.pi * 0.2 * t + phase)
        case "mains":
            return samples + MAINS_UV * hum
        case "clipping":
            return np.clip(samples, -CLIP_UV, CLIP_UV)
        case "detached":
            return OPEN_UV * hum + 10.0 * rng.standard_normal(samples.size)
