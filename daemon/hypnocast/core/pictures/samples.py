"""Conditioned samples of a page, for models that read signals instead of pictures.

Each derivation is filtered as for a picture (forwards and backwards, over the context before the
page, the page and the tail after it) in the model's own band, then brought to the model's rate
behind an anti-aliasing filter. The result depends on the page and the recipe alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from types import MappingProxyType

import numpy as np

from hypnocast.core.pictures.conditioning import LEAD_S, filter_in_bands, on_grid, rate_limit
from hypnocast.core.types import PAGE_S, FloatArray, Page, Role

Samples = Mapping[Role, FloatArray]
"""Role → the page's samples in µV, 0 where nothing came; roles without a signal are not there."""


@dataclass(frozen=True, slots=True)
class SampleRecipe:
    """How a model wants its samples."""

    samples: int
    """Samples of a page, so that the rate is this / 30 s."""
    bands: tuple[tuple[Role, float, float], ...]
    """Role, lowest and highest frequency kept."""


def sample(page: Page, recipe: SampleRecipe, mains_hz: int) -> Samples:
    """Filter and resample what a model reads of a page."""
    wanted = {}
    for role, low, high in recipe.bands:
        signal = page.signals.get(role)
        if signal is None or signal.derivation.microvolts_per_unit is None:
            continue
        kept = min(high, rate_limit(signal.rate))
        if kept >= 1.5 * low:
            wanted[role] = signal, (low, kept)
    smooth = filter_in_bands(wanted, mains_hz, 0.0)
    return MappingProxyType(
        {
            role: _resample(smooth[role], signal.rate, page.context_s, recipe.samples)
            for role, (signal, _) in wanted.items()
        }
    )


def _resample(smooth: FloatArray, rate: float, context_s: float, samples: int) -> FloatArray:
    """Bring the page, with some of what is around it, to ``samples`` a page."""
    from scipy.signal import resample_poly  # 0.7 s, which --help need not wait for

    up, down = _ratio(rate, samples)
    page = round(context_s * rate)
    # So many whole steps of the ratio before the page that its first sample stays where it is.
    steps = min(max(1, round(LEAD_S * rate) // down), page // down)
    around = smooth[page - steps * down :]
    known = np.isfinite(around)
    brought = resample_poly(np.where(known, around, 0.0), up, down)
    own = brought[steps * up : steps * up + samples]
    if not known.all():
        at = np.minimum((np.arange(samples) * down) // up + steps * down, known.size - 1)
        own = np.where(known[at], own, 0.0)
    return on_grid(own)


@lru_cache(maxsize=64)
def _ratio(rate: float, samples: int) -> tuple[int, int]:
    ratio = Fraction(samples, round(PAGE_S * rate))
    return ratio.numerator, ratio.denominator
