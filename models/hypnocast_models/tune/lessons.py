"""Lessons: pages drawn by the daemon's code, with the answer the model should give.

Pages of recordings are drawn when they are asked for, each at a gain of its own. Pages that a
scorer corrected are shown as the model saw them that night.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hypnocast.core.condition import condition
from hypnocast.core.recipe import Recipe
from hypnocast.core.render import render
from hypnocast.core.types import PAGE_S, FloatArray, Pixels, Role
from hypnocast_models.data.corrected import CorrectedNight
from hypnocast_models.data.recordings import Recording

MAINS_HZ = 50
PERCEIVED_HZ = ((0.5, 4.0), (4.0, 8.0), (8.0, 12.0), (12.0, 16.0), (16.0, 35.0))


@dataclass(frozen=True, eq=False)
class Lesson:
    """A batch of pages."""

    pictures: list[Pixels]
    stages: NDArray[np.int64]
    perceived: FloatArray | None
    """(pages, 30 × 6): what is to be seen in each second, for perception pre-training; None where
    a page has no samples."""


class Lessons:
    """All pages of some nights."""

    def __init__(
        self,
        nights: Sequence[Recording | CorrectedNight],
        recipe: Recipe,
        role: Role = Role.C4,
    ) -> None:
        """Take the nights and how a page is drawn."""
        self._recipe, self._role = recipe, role
        self._index = [(night, row) for night in nights for row in range(len(night.stages))]
        self.perceivable = all(isinstance(night, Recording) for night in nights)
        """Whether every page has samples to pre-train perception on."""

    def __len__(self) -> int:
        return len(self._index)

    def draw(self, places: NDArray[np.int64], rng: np.random.Generator, jitter: float) -> Lesson:
        """Draw some pages, each at a gain jittered log-uniformly by up to ``jitter``."""
        pictures, stages, perceived = [], [], []
        for place in places:
            night, row = self._index[int(place)]
            gain = float(np.exp(rng.uniform(-1, 1) * np.log(jitter)))
            stages.append(int(night.stages[row]))
            if isinstance(night, CorrectedNight):
                pictures.append(night.picture(row))
                continue
            pictures.append(self._drawn(night, row, gain))
            perceived.append(_perceive(night.rows[row] * gain, night.rate))
        seen = np.stack(perceived) if len(perceived) == len(pictures) else None
        return Lesson(pictures, np.asarray(stages, np.int64), seen)

    def _drawn(self, night: Recording, row: int, gain: float) -> Pixels:
        recipe = self._recipe
        page = night.page(row, recipe.context_s, recipe.tail_s, self._role, gain)
        return render(condition(page, recipe, MAINS_HZ), recipe)


def _perceive(samples: FloatArray, rate: float) -> FloatArray:
    """Log band powers and amplitude of each second; 0 where nothing came."""
    second = round(rate)
    out = np.zeros((round(PAGE_S), len(PERCEIVED_HZ) + 1))
    whole = min(len(samples) // second, len(out))
    pieces = samples[: whole * second].reshape(whole, second)
    density = np.abs(np.fft.rfft(pieces * np.hanning(second), axis=1)) ** 2 / second
    hertz = np.fft.rfftfreq(second, 1 / rate)
    for place, (low, high) in enumerate(PERCEIVED_HZ):
        band = (hertz >= low) & (hertz < high)
        out[:whole, place] = np.log10(density[:, band].mean(axis=1) + 1.0)
    out[:whole, -1] = np.log10(np.ptp(pieces, axis=1) + 1.0)
    return out.ravel()
