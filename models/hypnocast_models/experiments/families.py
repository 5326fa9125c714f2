"""What an arm sees of a page, and how it learns from it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypnocast.core.pictures.conditioning import condition
from hypnocast.core.pictures.recipe import builtin
from hypnocast.core.pictures.render import render
from hypnocast.core.types import EEG_ROLES, PAGE_S, STAGES, FloatArray, Page, Pixels
from hypnocast_models.data.recordings import ScoredRecording
from hypnocast_models.experiments.plan import Arm
from hypnocast_models.scorers.gradient_boosting import baseline_features

TILE = 8
NET_ROUNDS = 15
_GREY = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True, eq=False)
class ArmInput:
    """What an arm sees of one stretch of a night."""

    night: str
    subject: str
    features: NDArray[np.float32]
    experts: NDArray[np.int64]
    """(experts, pages); −1 where an expert gave none."""

    @property
    def stages(self) -> NDArray[np.int64]:
        """The first expert's stages, which are learnt and judged by."""
        first: NDArray[np.int64] = self.experts[0]
        return first


def picture_features(page: Page, arm: Arm, mains_hz: int) -> NDArray[np.float32]:
    """Draw a page as the daemon does, and give mean and spread of each tile of the picture."""
    recipe = builtin(arm.recipe)
    picture = render(condition(page, recipe, mains_hz), recipe)
    return _tiles(picture, grey=arm.grey)


def _tiles(picture: Pixels, *, grey: bool) -> NDArray[np.float32]:
    shown = picture / 255.0
    shown = shown @ _GREY[:, None] if grey else shown
    rows, columns = shown.shape[0] // TILE, shown.shape[1] // TILE
    tiles = shown[: rows * TILE, : columns * TILE].reshape(rows, TILE, columns, TILE, -1)
    both = np.stack([tiles.mean(axis=(1, 3)), tiles.std(axis=(1, 3))])
    return both.astype(np.float32).ravel()


def signal_rows(pages: Sequence[Page]) -> tuple[FloatArray, float]:
    """Give what was recorded of the first EEG, a row a page; what is missing counts as flat."""
    rows = []
    rate = 0.0
    for page in pages:
        role = next(role for role in EEG_ROLES if role in page.signals)
        signal = page.signals[role]
        rate = signal.rate
        first = round(page.context_s * rate)
        rows.append(signal.samples[first : first + round(PAGE_S * rate)])
    table = np.stack(rows)
    known = np.isfinite(table).any(axis=0)
    return np.nan_to_num(table[:, : int(np.flatnonzero(known).max(initial=0)) + 1]), rate


def signal_features(pages: Sequence[Page], width: int) -> NDArray[np.float32]:
    """Give the baseline's features; ``width`` keeps damaged nights as wide as sound ones."""
    rows, rate = signal_rows(pages)
    shaped = np.zeros((len(rows), width))
    shaped[:, : min(width, rows.shape[1])] = rows[:, :width]
    count = len(rows)
    nothing = np.zeros(count, np.uint8)
    recording = ScoredRecording("", "", 1, rate, "", shaped, nothing, np.arange(count))
    return baseline_features(recording).astype(np.float32)


def with_context(features: NDArray[np.float32], before: int) -> NDArray[np.float32]:
    """Put the pages before beside each page; before the first there is nothing."""
    parts = [features]
    for lag in range(1, before + 1):
        moved = np.zeros_like(features)
        moved[lag:] = features[:-lag]
        parts.append(moved)
    return np.hstack(parts)


@dataclass(frozen=True, eq=False)
class Fitted:
    """A model that was trained, and what it needs to judge."""

    arm: Arm
    model: Any
    varying: NDArray[np.bool_]
    mean: NDArray[np.float32]
    spread: NDArray[np.float32]
    prior: FloatArray
    transitions: FloatArray

    def judge(self, seen: ArmInput) -> FloatArray:
        """Give log-probabilities (pages, 5)."""
        given = with_context(seen.features, self.arm.context)
        scaled = (given[:, self.varying] - self.mean) / self.spread
        shares = np.full((len(given), len(STAGES)), 1e-4)
        shares[:, self.model.classes_] = self.model.predict_proba(scaled)
        shares = np.maximum(shares, 1e-4)
        normal: FloatArray = np.log(shares / shares.sum(axis=1, keepdims=True))
        return normal


def fit(arm: Arm, train: Sequence[ArmInput], seed: int) -> Fitted:
    """Train an arm on some nights."""
    kept = [seen.stages >= 0 for seen in train]
    inputs = np.vstack(
        [with_context(s.features, arm.context)[k] for s, k in zip(train, kept, strict=True)]
    )
    stages = np.concatenate([s.stages[k] for s, k in zip(train, kept, strict=True)])
    spread = inputs.std(axis=0)
    varying = spread > 1e-4
    mean, spread = inputs[:, varying].mean(axis=0), spread[varying]
    with warnings.catch_warnings():
        # The net is stopped by count, so that nothing but the training pages decides.
        warnings.filterwarnings("ignore", message=".*optimization hasn't converged")
        model = _model(arm, seed, len(stages)).fit((inputs[:, varying] - mean) / spread, stages)
    prior, transitions = chances_of([s.stages for s in train])
    return Fitted(arm, model, varying, mean, spread, prior, transitions)


def _model(arm: Arm, seed: int, pages: int) -> Any:
    if arm.family == "signal":
        from sklearn.ensemble import HistGradientBoostingClassifier

        return HistGradientBoostingClassifier(
            learning_rate=0.08, max_iter=80, min_samples_leaf=30, l2_regularization=1.0,
            random_state=seed,
        )  # fmt: skip
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier(
        (48,), alpha=1.0, batch_size=min(64, pages), learning_rate_init=1e-3,
        max_iter=NET_ROUNDS, random_state=seed,
    )  # fmt: skip


def chances_of(nights: Sequence[NDArray[np.int64]]) -> tuple[FloatArray, FloatArray]:
    """Give how likely each stage is in some nights, and what follows what in them."""
    counts = np.ones(len(STAGES))
    table = np.full((len(STAGES), len(STAGES)), 0.5)
    for stages in nights:
        counts += np.bincount(stages[stages >= 0], minlength=len(STAGES))
        both = (stages[1:] >= 0) & (stages[:-1] >= 0)
        np.add.at(table, (stages[:-1][both], stages[1:][both]), 1.0)
    rows: FloatArray = table / table.sum(axis=1, keepdims=True)
    return counts / counts.sum(), rows
