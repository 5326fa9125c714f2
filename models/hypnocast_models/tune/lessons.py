"""Lessons: pages drawn by the daemon's code, with the answer the model should give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hypnocast.core.condition import condition
from hypnocast.core.recipe import Recipe
from hypnocast.core.render import render
from hypnocast.core.types import PAGE_S, FloatArray, Pixels, Role
from hypnocast_models.data.recordings import Recording

MAINS_HZ = 50
PERCEIVED_HZ = ((0.5, 4.0), (4.0, 8.0), (8.0, 12.0), (12.0, 16.0), (16.0, 35.0))


@dataclass(frozen=True, eq=False)
class Lesson:
    """A batch of pages."""

    pictures: list[Pixels]
    stages: NDArray[np.int64]
    perceived: FloatArray
    """(pages, 30 × 6): what is to be seen in each second, for perception pre-training."""


class Lessons:
    """All pages of some recordings, drawn when they are asked for."""

    def __init__(
        self, recordings: Sequence[Recording], recipe: Recipe, role: Role = Role.C4
    ) -> None:
        """Take the nights and how a page is drawn."""
        self._recordings = list(recordings)
        self._recipe, self._role = recipe, role
        self._index = [
            (night, row)
            for night, recording in enumerate(self._recordings)
            for row in range(len(recording.stages))
        ]

    def __len__(self) -> int:
        return len(self._index)

    def draw(self, places: NDArray[np.int64], rng: np.random.Generator, jitter: float) -> Lesson:
        """Draw some pages, each at a gain jittered log-uniformly by up to ``jitter``."""
        pictures, stages, perceived = [], [], []
        for place in places:
            night, row = self._index[int(place)]
            recording = self._recordings[night]
            gain = float(np.exp(rng.uniform(-1, 1) * np.log(jitter)))
            page = recording.page(
                row, self._recipe.context_s, self._recipe.tail_s, self._role, gain
            )
            pictures.append(render(condition(page, self._recipe, MAINS_HZ), self._recipe))
            stages.append(int(recording.stages[row]))
            perceived.append(_perceive(recording.rows[row] * gain, recording.rate))
        return Lesson(pictures, np.asarray(stages, np.int64), np.stack(perceived))


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
