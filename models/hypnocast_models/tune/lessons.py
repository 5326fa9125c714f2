"""Lessons: pages drawn by the daemon's code, with the answer the model should give.

Pages of recordings are drawn when they are asked for, with all the channels that they have, each
at a gain of its own. Pages that are kept as pictures are shown as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hypnocast.core.pictures.recipe import Recipe
from hypnocast.core.pictures.render import draw_page
from hypnocast.core.types import EEG_ROLES, PAGE_S, STAGES, FloatArray, Page, Pixels
from hypnocast_models.data.pictures import PictureNight
from hypnocast_models.readers.material import Material
from hypnocast_models.readers.night import amplified

PERCEIVED_HZ = ((0.5, 4.0), (4.0, 8.0), (8.0, 12.0), (12.0, 16.0), (16.0, 35.0))


@dataclass(frozen=True, eq=False)
class TrainingPage:
    """A batch of pages."""

    pictures: list[Pixels]
    stages: NDArray[np.int64]
    perceived: FloatArray | None
    """(pages, 30 × 6): what is to be seen in each second, for perception pre-training; None where
    a page has no samples."""
    weights: FloatArray
    """(pages,): how much each counts in the loss; below 1 where a model gave the stage."""


class TrainingPages:
    """All staged pages of some nights."""

    def __init__(self, nights: Sequence[Material], recipe: Recipe, mains_hz: int = 50) -> None:
        """Keep the nights and how a page is drawn."""
        self._recipe, self._mains_hz = recipe, mains_hz
        self._index = [
            (night, epoch, STAGES.index(stage))
            for night in nights
            for epoch, stage in enumerate(night.stages)
            if stage is not None
        ]
        self.perceivable = not any(isinstance(night, PictureNight) for night in nights)
        """Whether every page has samples to pre-train perception on."""

    def __len__(self) -> int:
        return len(self._index)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Pages of each stage."""
        return np.bincount([stage for _, _, stage in self._index], minlength=len(STAGES))

    def draw(
        self, places: NDArray[np.int64], rng: np.random.Generator, jitter: float
    ) -> TrainingPage:
        """Draw some pages, each at a gain jittered log-uniformly by up to ``jitter``."""
        pictures, stages, perceived, weights = [], [], [], []
        for place in places:
            night, epoch, stage = self._index[int(place)]
            gain = float(np.exp(rng.uniform(-1, 1) * np.log(jitter)))
            stages.append(stage)
            if isinstance(night, PictureNight):
                weights.append(night.weights.get(epoch, 1.0))
                pictures.append(night.picture(epoch))
                continue
            weights.append(1.0)
            recipe = self._recipe
            page = amplified(night.page(epoch, recipe.context_s, recipe.tail_s), gain)
            pictures.append(self._drawn(page))
            perceived.append(_perceive(page))
        seen = np.stack(perceived) if len(perceived) == len(pictures) else None
        return TrainingPage(pictures, np.asarray(stages, np.int64), seen, np.asarray(weights))

    def _drawn(self, page: Page) -> Pixels:
        return draw_page(page, self._recipe, self._mains_hz).rgb


def _perceive(page: Page) -> FloatArray:
    """Log band powers and amplitude of each second of the first EEG; 0 where nothing came."""
    out = np.zeros((round(PAGE_S), len(PERCEIVED_HZ) + 1))
    role = next((role for role in EEG_ROLES if role in page.signals), None)
    if role is None:
        return out.ravel()
    signal = page.signals[role]
    rate, second = signal.rate, round(signal.rate)
    first = round(page.context_s * rate)
    samples = np.nan_to_num(signal.samples[first : first + round(PAGE_S * rate)])
    whole = min(len(samples) // second, len(out))
    pieces = samples[: whole * second].reshape(whole, second)
    density = np.abs(np.fft.rfft(pieces * np.hanning(second), axis=1)) ** 2 / second
    hertz = np.fft.rfftfreq(second, 1 / rate)
    for place, (low, high) in enumerate(PERCEIVED_HZ):
        band = (hertz >= low) & (hertz < high)
        out[:whole, place] = np.log10(density[:, band].mean(axis=1) + 1.0)
    out[:whole, -1] = np.log10(np.ptp(pieces, axis=1) + 1.0)
    return out.ravel()
