"""Whether a model that was trained on everyday pictures and sentences learns sleep faster.

The paper's claim is that general-purpose models need no prior exposure to sleep. This trial
compares five models on the same pages, folds and number of steps: a LLaVA and a CLIP whose eye
was trained on ImageNet, both with random weights, and the small pack's own tower.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hypnocast.core.pictures.recipe import builtin
from hypnocast.core.types import FloatArray
from hypnocast_models.compare import figures
from hypnocast_models.compare.figures import ScoredPages
from hypnocast_models.data.pages import DrawingPlan, PageSet, read_cache
from hypnocast_models.small.assembly import PAGES_BEFORE, PICTURES
from hypnocast_models.small.augment import colour
from hypnocast_models.small.drawn_nights import DrawnNights
from hypnocast_models.small.pretrained_towers import ClipArm, LlavaArm
from hypnocast_models.small.regimen import SEED, nights_in
from hypnocast_models.small.ship import TRAINING_RECIPE
from hypnocast_models.small.sources import FOLDS
from hypnocast_models.small.train import EEG_BANDS, STRETCH, class_weights, off_page

PAGES = DrawingPlan("rows at their recorded gain", columns=96, gains=(1.0,))
STRETCHES = 5
"""Stretches of pages in a step."""
NEW_RATE, PRETRAINED_RATE = 1e-3, 2e-4
"""Learning rates of weights that begin at random, and of those that know pictures or words."""


@dataclass(frozen=True, slots=True)
class PretrainedArm:
    """One of the models compared."""

    name: str
    structure: str
    """``llava`` reads nine pages in a row, ``clip`` one page against five sentences."""
    eye: str
    """``imagenet``, ``random`` or ``small``: where the vision tower's weights come from."""


ARMS = (
    PretrainedArm("LLaVA structure, ImageNet tower", "llava", "imagenet"),
    PretrainedArm("LLaVA structure, the same tower from random weights", "llava", "random"),
    PretrainedArm("CLIP structure, ImageNet tower and MiniLM", "clip", "imagenet"),
    PretrainedArm("CLIP structure, both from random weights", "clip", "random"),
    PretrainedArm("LLaVA structure, the small pack's tower", "llava", "small"),
)


@dataclass(frozen=True, eq=False)
class PretrainedTrial:
    """What all arms share."""

    nights: DrawnNights
    runs: Path
    steps: int

    def folder(self, arm: PretrainedArm, fold: int) -> Path:
        """Where the run of an arm lies."""
        return self.runs / f"{arm.structure}-{arm.eye}" / f"fold{fold}"


def open_pages(cache: Path) -> DrawnNights:
    """Open the pages drawn for this trial."""
    pages: PageSet = read_cache(cache, PAGES, builtin(TRAINING_RECIPE), SEED)
    return DrawnNights(PAGES.name, pages, PAGES.variants)


def train_arm(
    trial: PretrainedTrial, arm: PretrainedArm, fold: int, advance: Callable[[int, float], None]
) -> None:
    """Train one model without one fold and keep its opinions of that fold; once."""
    nights, steps, folder = trial.nights, trial.steps, trial.folder(arm, fold)
    if (folder / "said.npz").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    model: Any = LlavaArm(arm.eye) if arm.structure == "llava" else ClipArm(arm.eye)
    mine = nights_in(nights, [other for other in range(FOLDS) if other != fold])
    weights, _ = class_weights(nights.pages.stage[np.isin(nights.pages.night, mine)])
    optimizer = torch.optim.AdamW(_groups(model, arm), weight_decay=0.05)
    warm_up = steps // 10

    def rate(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 * (1 + float(np.cos(np.pi * (step - warm_up) / (steps - warm_up))))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    first = _resume(folder, model, optimizer, schedule)
    model.train()
    for step in range(first, steps):
        rng = np.random.default_rng([SEED, step])
        loss = _loss(model, nights, mine, weights, rng)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        advance(step + 1, loss.item())
        if (step + 1) % 50 == 0:
            _keep(folder, model, optimizer, schedule, step + 1)
    judged = {
        str(night): _judge(model.eval(), nights, int(night)) for night in nights_in(nights, (fold,))
    }
    np.savez(folder / "said.npz", **judged)  # type: ignore[arg-type]  # numpy's stub takes every keyword for its own
    (folder / "checkpoint.pt").unlink(missing_ok=True)


def summarise(trial: PretrainedTrial) -> dict[str, Any]:
    """Give κ of every arm over the folds that all arms have judged, and their differences."""
    folds = [
        fold
        for fold in range(FOLDS)
        if all((trial.folder(arm, fold) / "said.npz").exists() for arm in ARMS)
    ]
    judged = {arm.name: _scored(trial, arm, folds) for arm in ARMS}
    own = judged[ARMS[-1].name]
    by_eye = {(arm.structure, arm.eye): judged[arm.name] for arm in ARMS}
    return {
        "folds": folds,
        "arms": {
            name: {
                "kappa": str(figures.bootstrap(pages)),
                "macro_f1": str(figures.bootstrap(pages, figures.macro_f1)),
                "minus_small_tower": str(figures.bootstrap_difference(pages, own)),
            }
            for name, pages in judged.items()
        },
        "imagenet_minus_random": {
            structure: str(
                figures.bootstrap_difference(
                    by_eye[structure, "imagenet"], by_eye[structure, "random"]
                )
            )
            for structure in ("llava", "clip")
        },
    }


def run_trial(
    trial: PretrainedTrial,
    folds: list[int],
    advance: Callable[[PretrainedArm, int, int, float], None],
) -> dict[str, Any]:
    """Train and judge every arm on some folds; a finished arm is not trained again."""
    for fold in folds:
        for arm in ARMS:
            train_arm(trial, arm, fold, partial(advance, arm, fold))
    result = {
        "steps": trial.steps,
        "pages_a_step": STRETCHES * STRETCH,
        **summarise(trial),
    }
    text = json.dumps(result, indent=1, ensure_ascii=False)
    (trial.runs / "figures.json").write_text(text + "\n", encoding="utf-8")
    return result


def _groups(model: nn.Module, arm: PretrainedArm) -> list[dict[str, Any]]:
    known = {
        id(p)
        for name in ("tower", "text")
        if arm.eye == "imagenet" and isinstance(getattr(model, name, None), nn.Module)
        for p in getattr(model, name).parameters()
    }
    old = [p for p in model.parameters() if id(p) in known]
    new = [p for p in model.parameters() if id(p) not in known]
    groups = [{"params": new, "lr": NEW_RATE}]
    return [*groups, {"params": old, "lr": PRETRAINED_RATE}] if old else groups


def _loss(
    model: Any,
    nights: DrawnNights,
    mine: NDArray[np.int64],
    weights: Tensor,
    rng: np.random.Generator,
) -> Tensor:
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    rows, gains = nights.stretches(mine, STRETCHES, STRETCH, rng)
    ink, power = nights.features(rows.ravel(), np.repeat(gains, STRETCH))
    bands = torch.from_numpy(np.repeat(rng.choice(EEG_BANDS, STRETCHES), STRETCH))[:, None]
    power = colour(power, STRETCH, 1.0, generator)
    logits = model.logits(model.features(off_page(ink, bands), power, bands), STRETCH)
    there = torch.from_numpy(np.flatnonzero(rows.ravel() >= 0))
    if there.numel() == 0:
        nothing: Tensor = logits.sum() * 0.0
        return nothing
    stage = torch.from_numpy(nights.pages.stage[rows.ravel()].astype(np.int64))[there]
    return nn.functional.cross_entropy(logits[there], stage, weights, label_smoothing=0.05)


def _judge(model: Any, nights: DrawnNights, night: int) -> FloatArray:
    """Give log-probabilities of a night; NaN where no page is."""
    places = nights.places(night)
    order = np.concatenate([np.full(PAGES_BEFORE, -1, np.int64), places])
    with torch.inference_mode():
        seen = []
        for start in range(0, len(order), 128):
            ink, power = nights.features(order[start : start + 128], np.ones(1))
            bands = torch.ones(ink.shape[:2], dtype=torch.long)
            seen.append(model.features(off_page(ink, bands), power, bands))
        features = torch.cat(seen)
        if features.ndim == 2:
            logits = model.logits(features[PAGES_BEFORE:], 1)
        else:
            windows = features.unfold(0, PICTURES, 1).movedim(-1, 1)
            logits = torch.cat(
                [
                    model.logits(windows[at : at + 256].flatten(0, 1), PICTURES).unflatten(
                        0, (-1, PICTURES)
                    )[:, -1]
                    for at in range(0, len(windows), 256)
                ]
            )
    out: FloatArray = logits.log_softmax(-1).double().numpy()
    out[places < 0] = np.nan
    return out


def _scored(trial: PretrainedTrial, arm: PretrainedArm, folds: list[int]) -> list[ScoredPages]:
    nights, out = trial.nights, []
    for fold in folds:
        with np.load(trial.folder(arm, fold) / "said.npz") as said:
            for night in nights_in(nights, (fold,)):
                places = nights.places(int(night))
                there = places >= 0
                chances = np.exp(said[str(night)][there])
                name = nights.pages.nights[int(night)]
                expert = nights.pages.stage[places[there]].astype(np.int64)
                out.append(
                    ScoredPages(
                        name, name.rsplit("-", 1)[0], expert, chances.argmax(axis=1), chances
                    )
                )
    return out


def _resume(folder: Path, model: Any, *others: Any) -> int:
    path = folder / "checkpoint.pt"
    if not path.exists():
        return 0
    kept: Mapping[str, Any] = torch.load(path, weights_only=True)
    model.load_state_dict(kept["model"])
    for each, state in zip(others, kept["others"], strict=True):
        each.load_state_dict(state)
    return int(kept["step"])


def _keep(folder: Path, model: Any, optimizer: Any, schedule: Any, step: int) -> None:
    kept = {
        "model": model.state_dict(),
        "others": [optimizer.state_dict(), schedule.state_dict()],
        "step": step,
    }
    torch.save(kept, folder / "checkpoint.part")
    (folder / "checkpoint.part").rename(folder / "checkpoint.pt")
