"""The regimen of the small pack: which pages, how many steps, which folds are left out.

This is the one place where its numbers stand. ``docs/training.md`` gives the commands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hypnocast.core.recipe import builtin
from hypnocast.core.types import FloatArray
from hypnocast_models.pages import ROWS, SIMULATED, STITCHED, WHOLE, Plan, read_cache
from hypnocast_models.small.assembly import build
from hypnocast_models.small.shelf import Shelf
from hypnocast_models.small.ship import RECIPE
from hypnocast_models.small.sources import FOLDS, fold_of
from hypnocast_models.small.train import W_N3, Diet, TrainPlan, class_weights, train

SEED = 0
FINAL_STEPS, FOLD_STEPS, PAIR_STEPS = 5000, 4000, 2400
SIMULATED_PEOPLE = range(1000, 1060)
SIMULATED_PAGES = 24
PLANS: dict[str, Plan] = {
    "rows": ROWS,
    "stitched": STITCHED,
    "whole": WHOLE,
    "simulated": SIMULATED,
}
_BATCH = {"rows": 11, "stitched": 2, "whole": 2, "simulated": 1}
_SHARE = {"rows": 0.75, "stitched": 0.1, "whole": 0.09, "simulated": 0.06}


def open_shelf(cache: Path, kind: str) -> Shelf:
    """Open the drawn pages of one kind."""
    plan = PLANS[kind]
    return Shelf(read_cache(cache / kind, plan, builtin(RECIPE), SEED), plan.variants)


def nights_in(shelf: Shelf, folds: Sequence[int]) -> NDArray[np.int64]:
    """Give the nights whose subjects belong to some folds."""
    names = [name.rsplit("-", 1)[0] for name in shelf.pages.nights]
    return np.flatnonzero([fold_of(name) in folds for name in names])


def train_without(
    cache: Path,
    folder: Path,
    without: Sequence[int],
    steps: int = 0,
    *,
    kinds: Sequence[str] = tuple(PLANS),
    advance: Callable[[int, float], None] = lambda _step, _loss: None,
) -> tuple[Any, FloatArray]:
    """Train on all subjects but those of some folds; give the model and its training prior.

    A model that was trained before is read back from its folder, whatever the steps.
    """
    finished = folder / "model.pt"
    if finished.exists():
        kept = torch.load(finished, weights_only=True)
        plan = TrainPlan(SEED, steps)
        model = build(plan.size)
        model.load_state_dict(kept["model"])
        return model.eval(), kept["prior"].numpy()
    diets = []
    weights, prior = torch.ones(5), np.full(5, 0.2)
    for kind in kinds:
        shelf = open_shelf(cache, kind)
        used = [f for f in range(FOLDS) if f not in without]
        nights = nights_in(shelf, used)
        if kind == "rows":
            chosen = np.isin(shelf.pages.night, nights)
            weights, prior = class_weights(shelf.pages.stage[chosen])
        diets.append(
            Diet(
                shelf,
                nights,
                batch=_BATCH[kind],
                share=_SHARE[kind],
                stages=W_N3 if kind == "whole" else (0, 1, 2, 3, 4),
                cut_share=0.0 if kind == "rows" else 0.4,
            )
        )
    model = train(TrainPlan(SEED, steps), diets, weights, folder, advance)
    torch.save({"model": model.state_dict(), "prior": torch.from_numpy(prior)}, finished)
    (folder / "checkpoint.pt").unlink()
    return model, prior
