"""Drawn pages in the order of their nights, and stretches of them at one gain."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hypnocast.core.types import FloatArray
from hypnocast_models.data.pages import PageSet, by_lot

SPAN = 8.0
"""Decades from black to white in the recipe's spectrogram."""
_DARKEST = 1 / 255


class DrawnNights:
    """The pages of a cache by night, epoch and gain.

    A page was drawn at a few gains. Asked for another, the nearest is used and its
    spectrogram moved by what is missing, exactly as the recipe's scale asks; the trace stays,
    so the gains drawn must lie close together. A page drawn at one gain is shown at that one.
    """

    def __init__(self, name: str, pages: PageSet, variants: int) -> None:
        """Hold pages in which the ``variants`` of one epoch are side by side."""
        self.name = name
        self.pages = pages
        self.variants = variants
        self._gains = np.log(pages.gain.reshape(-1, variants))
        self._first: dict[int, int] = {}
        self._places: dict[int, NDArray[np.int64]] = {}
        for night in range(len(pages.nights)):
            rows = np.flatnonzero(pages.night == night)[::variants]
            epochs = pages.epoch[rows]
            places = np.full(int(epochs.max()) + 1, -1, dtype=np.int64)
            places[epochs] = rows
            self._places[night] = places

    def places(self, night: int) -> NDArray[np.int64]:
        """Give for each epoch of a night its first page, or −1 where there is none."""
        return self._places[night]

    def stretches(
        self,
        nights: NDArray[np.int64],
        count: int,
        length: int,
        rng: np.random.Generator,
        nominal: float = 0.0,
    ) -> tuple[NDArray[np.int64], FloatArray]:
        """Choose stretches of nights: (count, length) pages, −1 for none, and a gain for each.

        A stretch may begin before its night, and some lose their first pages or single ones:
        the model must know what to do where a neighbour does not exist. ``nominal`` is the share
        of stretches that are shown at the gain they were recorded with.
        """
        weights = np.array([(self._places[int(n)] >= 0).sum() for n in nights], dtype=np.float64)
        chosen = rng.choice(nights, count, p=weights / weights.sum())
        rows = np.full((count, length), -1, dtype=np.int64)
        for out, night in zip(rows, chosen, strict=True):
            places = self._places[int(night)]
            there = np.flatnonzero(places >= 0)
            last = int(there[rng.integers(there.size)]) + int(rng.integers(length))
            epochs = np.arange(last - length + 1, last + 1)
            inside = (epochs >= 0) & (epochs < places.size)
            out[inside] = places[epochs[inside]]
            if rng.random() < 0.1:
                out[: rng.integers(1, length)] = -1
            out[rng.random(length) < 0.02] = -1
        return rows, by_lot(rng, count, nominal)

    def features(self, rows: NDArray[np.int64], gains: FloatArray) -> tuple[Tensor, Tensor]:
        """Give ink and power of pages at gains; a row of −1 is a black page."""
        there = rows >= 0
        unit = np.where(there, rows, 0) // self.variants
        wanted = np.log(np.broadcast_to(gains, rows.shape))
        nearest = np.abs(self._gains[unit] - wanted[:, None]).argmin(axis=1)
        page = unit * self.variants + nearest
        missing = torch.from_numpy(wanted - self._gains[unit, nearest]).float()
        if self.variants == 1:
            missing.zero_()
        black = torch.from_numpy(~there)[:, None, None, None]
        ink = torch.from_numpy(self.pages.ink[page]).float() / 255
        power = torch.from_numpy(self.pages.power[page]).float() / 255
        return ink.masked_fill(black, 0.0), louder(power, missing).masked_fill(black, 0.0)


def louder(power: Tensor, log_gain: Tensor) -> Tensor:
    """Give spectrograms as they would be at another gain (per page, natural logarithm)."""
    step = 2 * log_gain / (SPAN * math.log(10))
    moved = (power + step[:, None, None, None]).clamp(_DARKEST, 1.0)
    return torch.where(power > 0, moved, power)
