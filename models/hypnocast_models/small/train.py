"""Training of the small pack: several kinds of pages, one loss, resumable."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hypnocast.core.types import STAGES, FloatArray
from hypnocast_models.small.assembly import PAGES_BEFORE, PICTURES, Size, build, look, read_on
from hypnocast_models.small.augment import blank_stretch, colour, keep_stretch
from hypnocast_models.small.drawn_nights import DrawnNights
from hypnocast_models.small.tower import STRIP_ROWS, TRACE_HALF_PX, TRACE_TOPS

EEG_BANDS = (0, 1, 2)
STRETCH = 12
"""Pages in a row that are read together; each is judged with those before it."""
W_N3 = (0, 3)


@dataclass(frozen=True, eq=False)
class Diet:
    """One kind of pages, and how it is fed."""

    material: DrawnNights
    nights: NDArray[np.int64]
    """Which of the nights may be used."""
    batch: int
    """Stretches of :data:`STRETCH` pages in a step."""
    share: float
    """Share of the steps."""
    stages: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Answers among which the loss decides: a source that has only wake and deep sleep must
    not teach that there is nothing else."""
    cut_share: float = 0.0
    """Share of pages of which only 5 to 25 s are kept."""


@dataclass(frozen=True, slots=True)
class TrainPlan:
    """How the model is trained."""

    seed: int
    steps: int
    size: Size = field(default_factory=Size)
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    smoothing: float = 0.05
    warm_up: float = 0.15
    average: float = 0.995
    colour: float = 1.0
    nominal: float = 0.0
    """Share of stretches that are shown at the gain they were recorded with."""
    checkpoint_every: int = 250


def class_weights(stages: NDArray[np.uint8]) -> tuple[Tensor, FloatArray]:
    """Give weights ∝ n^-½ (mean 1 over pages), and the stage shares they make training see."""
    counts = np.bincount(stages, minlength=len(STAGES)).astype(np.float64)
    weights = counts**-0.5
    weights *= counts.sum() / (counts * weights).sum()
    seen = counts * weights
    return torch.tensor(weights, dtype=torch.float32), seen / seen.sum()


def train(
    plan: TrainPlan,
    diets: Sequence[Diet],
    weights: Tensor,
    folder: Path,
    advance: Callable[[int, float], None] = lambda _step, _loss: None,
) -> Any:
    """Train, and give the averaged model; goes on from the folder's checkpoint if there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(plan.seed)
    model = build(plan.size)
    averaged = {name: value.detach().clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(_groups(model, plan.weight_decay), lr=plan.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, plan.learning_rate, total_steps=plan.steps, pct_start=plan.warm_up
    )
    checkpoint = folder / "checkpoint.pt"
    first = 0
    if checkpoint.exists():
        kept = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(kept["model"])
        averaged = kept["averaged"]
        optimizer.load_state_dict(kept["optimizer"])
        schedule.load_state_dict(kept["schedule"])
        first = kept["step"]
    model.train()
    begun, losses = time.monotonic(), []
    for step in range(first, plan.steps):
        # Each step has a generator of its own, so that a resumed run sees what it would have.
        rng = np.random.default_rng([plan.seed, step])
        diet = diets[rng.choice(len(diets), p=_shares(diets))]
        loss = _loss(model, diet, weights, plan, rng)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        _average(averaged, model, min(plan.average, (1 + step) / (10 + step)))
        losses.append(loss.item())
        advance(step + 1, losses[-1])
        if (step + 1) % plan.checkpoint_every == 0 or step + 1 == plan.steps:
            _note(folder, plan, step + 1, losses, time.monotonic() - begun)
            losses = []
            kept = {
                "model": model.state_dict(),
                "averaged": averaged,
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
                "step": step + 1,
            }
            torch.save(kept, checkpoint.with_suffix(".part"))
            checkpoint.with_suffix(".part").rename(checkpoint)
    model.load_state_dict(averaged)
    return model.eval()


def judge(model: Any, material: DrawnNights, night: int, gain: float, band: int = 1) -> FloatArray:
    """Give log-probabilities (epochs, 5) of a night of one-EEG pages; NaN where no page is.

    Each page is judged with the :data:`PAGES_BEFORE` before it, as the pack's prompt has it.
    """
    places = material.places(night)
    epochs = len(places)
    with torch.inference_mode():
        seen = []
        step = 512 * 96 // material.pages.ink.shape[3]
        blank = torch.zeros(PAGES_BEFORE, dtype=torch.long) - 1
        order = torch.cat([blank, torch.from_numpy(places)]).numpy()
        for start in range(0, len(order), step):
            ink, power = material.features(order[start : start + step], np.full(1, gain))
            bands = torch.full(ink.shape[:2], band)
            seen.append(look(model, off_page(ink, bands), power, bands))
        pictures = torch.cat(seen).unfold(0, PICTURES, 1).permute(0, 3, 1, 2)
        logits = torch.cat(
            [read_on(model, pictures[at : at + 512])[:, -1] for at in range(0, epochs, 512)]
        )
    out: FloatArray = logits.log_softmax(-1).double().numpy()
    out[places < 0] = np.nan
    return out


def off_page(ink: Tensor, bands: Tensor) -> Tensor:
    """Blank what of a strip lies above or below the page in the band it is put into."""
    row = torch.arange(STRIP_ROWS)
    top = torch.tensor(TRACE_TOPS)[bands][..., None] + row
    outside = (top < 0) | (top >= TRACE_HALF_PX)
    return ink.masked_fill(outside[..., None], 0.0)


def _loss(
    model: Any, diet: Diet, weights: Tensor, plan: TrainPlan, rng: np.random.Generator
) -> Tensor:
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    rows, gains = diet.material.stretches(diet.nights, diet.batch, STRETCH, rng, plan.nominal)
    ink, power = diet.material.features(rows.ravel(), np.repeat(gains, STRETCH))
    channels = ink.shape[1]
    if channels == 1:
        bands = torch.from_numpy(np.repeat(rng.choice(EEG_BANDS, diet.batch), STRETCH))[:, None]
    else:
        bands = torch.arange(channels)[None].expand(len(ink), -1)
        attached = _attached(diet.batch, channels, rng).repeat_interleave(STRETCH, 0)
        ink, power = ink * attached, power * attached
    ink = off_page(ink, bands)
    power = colour(power, STRETCH, plan.colour, generator)
    ink, power = blank_stretch(ink, power, 0.3, 0.25, generator)
    if diet.cut_share:
        ink, power = keep_stretch(ink, power, diet.cut_share, generator)
    pictures = look(model, ink, power, bands).unflatten(0, (diet.batch, STRETCH))
    logits = read_on(model, pictures).flatten(0, 1)
    there = torch.from_numpy(np.flatnonzero(rows.ravel() >= 0))
    if there.numel() == 0:
        return logits.sum() * 0.0
    stage = torch.from_numpy(diet.material.pages.stage[rows.ravel()].astype(np.int64))[there]
    logits = logits[there]
    if len(diet.stages) == len(STAGES):
        return nn.functional.cross_entropy(logits, stage, weights, label_smoothing=plan.smoothing)
    among = torch.tensor([diet.stages.index(int(s)) for s in stage])
    return nn.functional.cross_entropy(
        logits[:, list(diet.stages)], among, label_smoothing=plan.smoothing
    )


def _attached(stretches: int, channels: int, rng: np.random.Generator) -> Tensor:
    """Detach channels at random, for a whole stretch; one EEG always stays."""
    there = rng.random((stretches, channels)) < rng.uniform(0.3, 1.0, (stretches, 1))
    there[np.arange(stretches), rng.choice(EEG_BANDS, stretches)] = True
    return torch.from_numpy(there.astype(np.float32))[:, :, None, None]


def _shares(diets: Sequence[Diet]) -> FloatArray:
    shares = np.array([diet.share for diet in diets])
    normalised: FloatArray = shares / shares.sum()
    return normalised


def _groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    return [
        {"params": matrices, "weight_decay": decay},
        {"params": vectors, "weight_decay": 0.0},
    ]


@torch.no_grad()  # type: ignore[untyped-decorator]  # torch is passed over by mypy
def _average(averaged: dict[str, Tensor], model: nn.Module, keep: float) -> None:
    for name, value in model.state_dict().items():
        averaged[name].lerp_(value, 1 - keep)


def _note(folder: Path, plan: TrainPlan, step: int, losses: list[float], seconds: float) -> None:
    entry: dict[str, Any] = {
        "step": step,
        "loss": round(float(np.nanmean(losses)), 4),
        "seconds": round(seconds),
    }
    if step <= plan.checkpoint_every:
        entry["plan"] = asdict(plan)
    with (folder / "training.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
