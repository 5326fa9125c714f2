"""The regimen of the small pack: which pages, how many steps, which folds are left out.

This is the one place of its numbers. ``docs/training.md`` gives the commands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hypnocast.core.pictures.recipe import builtin
from hypnocast.core.types import STAGES, FloatArray
from hypnocast_models.data.pages import ROWS, SIMULATED, STITCHED, WHOLE, DrawingPlan, read_cache
from hypnocast_models.small.assembly import Size, build
from hypnocast_models.small.drawn_nights import DrawnNights
from hypnocast_models.small.ship import TRAINING_RECIPE
from hypnocast_models.small.sources import FOLDS, fold_of
from hypnocast_models.small.train import W_N3, Diet, TrainPlan, class_weights, train

SEED = 0
SIMULATED_PEOPLE = range(1000, 1060)
SIMULATED_PAGES = 24
PLANS: dict[str, DrawingPlan] = {
    "rows": ROWS,
    "stitched": STITCHED,
    "whole": WHOLE,
    "simulated": SIMULATED,
}


@dataclass(frozen=True, slots=True)
class Way:
    """One way of training among which each fold chooses, by its own training folds alone."""

    name: str
    nominal: float
    """Share of stretches at the gain they were recorded with; see :func:`by_lot`."""
    pair_steps: int

    @property
    def fold_steps(self) -> int:
        """Steps of a model that has three folds to learn from."""
        return self.pair_steps * 5 // 3

    @property
    def final_steps(self) -> int:
        """Steps of the model that has all four."""
        return self.pair_steps * 25 // 12


WAYS = (
    Way("wary", nominal=0.0, pair_steps=2400),
    Way("wary-short", nominal=0.0, pair_steps=1200),
    Way("trusting", nominal=0.35, pair_steps=2400),
)
"""How far the recorded gain is trusted, and when training stops."""
_BATCH = {"rows": 11, "stitched": 2, "whole": 2, "simulated": 1}
_SHARE = {"rows": 0.75, "stitched": 0.1, "whole": 0.09, "simulated": 0.06}


def open_drawn_nights(cache: Path, kind: str) -> DrawnNights:
    """Open the drawn pages of one kind."""
    plan = PLANS[kind]
    return DrawnNights(
        kind, read_cache(cache / kind, plan, builtin(TRAINING_RECIPE), SEED), plan.variants
    )


def nights_in(material: DrawnNights, folds: Sequence[int]) -> NDArray[np.int64]:
    """Give the nights whose subjects belong to some folds."""
    names = [name.rsplit("-", 1)[0] for name in material.pages.nights]
    return np.flatnonzero([fold_of(name) in folds for name in names])


def recall(folder: Path) -> Any:
    """Read a trained model back from its folder."""
    kept = torch.load(folder / "model.pt", weights_only=True)
    model = build(Size())
    model.load_state_dict(kept["model"])
    return model.eval()


def prior_without(material: DrawnNights, without: Sequence[int]) -> FloatArray:
    """Give the stage shares that training on all but some folds makes a model see."""
    return _class_weights(material, without)[1]


def train_without(
    cache: Path,
    folder: Path,
    without: Sequence[int],
    way: Way,
    steps: int,
    *,
    kinds: Sequence[str] = tuple(PLANS),
    advance: Callable[[int, float], None] = lambda _step, _loss: None,
) -> None:
    """Train on all subjects but those of some folds, unless that was done before."""
    finished = folder / "model.pt"
    if finished.exists():
        return
    diets = []
    weights = torch.ones(len(STAGES))
    for kind in kinds:
        material = open_drawn_nights(cache, kind)
        if kind == "rows":
            weights, _ = _class_weights(material, without)
        diets.append(
            Diet(
                material,
                nights_in(material, [fold for fold in range(FOLDS) if fold not in without]),
                batch=_BATCH[kind],
                share=_SHARE[kind],
                stages=W_N3 if kind == "whole" else (0, 1, 2, 3, 4),
                cut_share=0.0 if kind == "rows" else 0.4,
            )
        )
    model = train(TrainPlan(SEED, steps, nominal=way.nominal), diets, weights, folder, advance)
    torch.save({"model": model.state_dict()}, finished)
    (folder / "checkpoint.pt").unlink()


def _class_weights(
    material: DrawnNights, without: Sequence[int]
) -> tuple[torch.Tensor, FloatArray]:
    nights = nights_in(material, [fold for fold in range(FOLDS) if fold not in without])
    return class_weights(material.pages.stage[np.isin(material.pages.night, nights)])
