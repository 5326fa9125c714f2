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
from hypnocast_models.readers.night import ScoredNight, amplified
from hypnocast_models.tune.rationale import reasoned_answer

PERCEIVED_HZ = ((0.5, 4.0), (4.0, 8.0), (8.0, 12.0), (12.0, 16.0), (16.0, 35.0))


@dataclass(frozen=True, eq=False)
class TrainingPage:
    """A batch of pages."""

    pictures: list[Pixels]
    """Of each page in its turn: the pages before it, itself, the pages after it."""
    stages: NDArray[np.int64]
    answers: list[str]
    """What is to be said of each, where more is learnt than its stage."""
    perceived: FloatArray | None
    """(pages, 30 × 6): what is to be seen in each second, for perception pre-training; None where
    a page has no samples."""
    weights: FloatArray
    """(pages,): how much each counts in the loss; below 1 where a model gave the stage."""


class TrainingPages:
    """All staged pages of some nights."""

    def __init__(
        self,
        nights: Sequence[Material],
        recipe: Recipe,
        mains_hz: int = 50,
        *,
        around: int = 0,
        reasoned: bool = False,
    ) -> None:
        """Keep the nights and how a page is drawn.

        ``around`` pages before and after are shown along; with ``reasoned`` each page has its
        rationale.
        """
        self._recipe, self._mains_hz = recipe, mains_hz
        self._around, self._reasoned = around, reasoned
        self._index = [
            (night, epoch, STAGES.index(stage))
            for night in nights
            for epoch, stage in enumerate(night.stages)
            if stage is not None
        ]
        self.perceivable = not any(isinstance(night, PictureNight) for night in nights)
        """Whether every page has samples to pre-train perception on, and to reason about."""

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
        pictures: list[Pixels] = []
        stages, perceived, answers, weights = [], [], [], []
        for place in places:
            night, epoch, stage = self._index[int(place)]
            gain = float(np.exp(rng.uniform(-1, 1) * np.log(jitter)))
            stages.append(stage)
            reach = range(epoch - self._around, epoch + self._around + 1)
            if isinstance(night, PictureNight):
                weights.append(night.weights.get(epoch, 1.0))
                pictures += [self._kept(night, one) for one in reach]
                continue
            weights.append(1.0)
            pages = {one: self._page(night, one, gain) for one in reach}
            pictures += [self._drawn(page) for page in pages.values()]
            perceived.append(_perceive(pages[epoch]))
            if self._reasoned:
                answers.append(reasoned_answer(pages[epoch], STAGES[stage]))
        seen = np.stack(perceived) if len(perceived) == len(stages) else None
        return TrainingPage(
            pictures, np.asarray(stages, np.int64), answers, seen, np.asarray(weights)
        )

    def _page(self, night: ScoredNight, epoch: int, gain: float) -> Page:
        """Cut a page; beyond the night's ends there is one without channels."""
        recipe = self._recipe
        if not 0 <= epoch < len(night.stages):
            return Page(epoch, {}, recipe.context_s, recipe.tail_s)
        return amplified(night.page(epoch, recipe.context_s, recipe.tail_s), gain)

    def _kept(self, night: PictureNight, epoch: int) -> Pixels:
        if epoch in night.epochs:
            return night.picture(epoch)
        return np.zeros((self._recipe.height, self._recipe.width, 3), np.uint8)

    def _drawn(self, page: Page) -> Pixels:
        if not page.signals:  # as the daemon shows a model what is not there
            return np.zeros((self._recipe.height, self._recipe.width, 3), np.uint8)
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
