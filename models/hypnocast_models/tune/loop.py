"""The training loop of fine-tuning: AdamW, cosine annealing, accumulation, bf16, resumable.

With ``accelerate launch`` it runs on several GPUs; alone it takes one GPU, or the CPU.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from hypnocast_models.tune.lessons import TrainingPage, TrainingPages


class Student(Protocol):
    """A module that can tell how wrong it is on a lesson."""

    def loss(self, lesson: TrainingPage) -> Tensor:
        """Loss to be minimised."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """All weights."""
        ...


@dataclass(frozen=True, slots=True)
class Course:
    """How long and how hard to train."""

    steps: int
    batch: int = 8
    accumulate: int = 1
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    bf16: bool = False
    seed: int = 0
    gain_jitter: float = 2.0
    perception_steps: int = 0
    """First so many steps only learn to read band power and amplitude off the picture."""
    checkpoint_every: int = 200


def train(
    student: Any,
    lessons: TrainingPages,
    course: Course,
    folder: Path,
    advance: Callable[[int, float], None] = lambda _step, _loss: None,
) -> list[float]:
    """Train what requires a gradient; return the loss of every step made in this call."""
    from accelerate import Accelerator

    folder.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator(
        mixed_precision="bf16" if course.bf16 else "no",
        gradient_accumulation_steps=course.accumulate,
        cpu=not torch.cuda.is_available(),
    )
    torch.manual_seed(course.seed)
    learning = [p for p in student.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        learning, lr=course.learning_rate, weight_decay=course.weight_decay
    )
    total = course.perception_steps + course.steps
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=total)
    first = _resume(student, optimizer, schedule, folder)
    runner = accelerator.prepare_model(_Runner(student))
    optimizer = accelerator.prepare_optimizer(optimizer)
    runner.train()
    losses = []
    for step in range(first, total):
        # Each step draws from a generator of its own, so a resumed run sees what it would have.
        rng = np.random.default_rng([course.seed, step, accelerator.process_index])
        parts = []
        for part in range(course.accumulate):
            places = rng.choice(len(lessons), course.batch, replace=len(lessons) < course.batch)
            lesson = lessons.draw(places, rng, course.gain_jitter)
            last = part == course.accumulate - 1
            # Gradients are exchanged between processes once, at the last part of a step.
            with _hold_back(not last, accelerator, runner), accelerator.autocast():
                loss = runner(lesson, step < course.perception_steps) / course.accumulate
                # accelerate divides by the parts itself; here that is done above.
                accelerator.backward(loss * course.accumulate)
            parts.append(float(loss.detach()))
        accelerator.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        losses.append(sum(parts))
        advance(step + 1, losses[-1])
        if accelerator.is_main_process:
            _note(folder, step + 1, losses[-1])
            if (step + 1) % course.checkpoint_every == 0 or step + 1 == total:
                _keep(student, optimizer, schedule, step + 1, folder)
    student.eval()
    return losses


class _Runner(nn.Module):  # type: ignore[misc]  # torch is passed over by mypy
    """One forward method, as the wrappers for several GPUs want it."""

    def __init__(self, student: Any) -> None:
        super().__init__()
        self.student = student

    def forward(self, lesson: TrainingPage, perceiving: bool) -> Tensor:  # noqa: FBT001 - wrapped by DDP
        if perceiving:
            return self.student.perception_loss(lesson)
        return self.student.loss(lesson)


def _hold_back(condition: bool, accelerator: Any, runner: Any) -> Any:  # noqa: FBT001
    """Hold back the exchange of gradients while more parts of a step are to come."""
    from contextlib import nullcontext

    return accelerator.no_sync(runner) if condition else nullcontext()


def _learned(student: Any) -> dict[str, Tensor]:
    wanted = {name for name, p in student.named_parameters() if p.requires_grad}
    return {name: value for name, value in student.state_dict().items() if name in wanted}


def _keep(student: Any, optimizer: Any, schedule: Any, step: int, folder: Path) -> None:
    state = {
        "learned": _learned(student),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "step": step,
    }
    half_written = folder / "checkpoint.part"
    torch.save(state, half_written)
    half_written.rename(folder / "checkpoint.pt")


def _resume(student: Any, optimizer: Any, schedule: Any, folder: Path) -> int:
    path = folder / "checkpoint.pt"
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True, map_location="cpu")
    student.load_state_dict(state["learned"], strict=False)
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    return int(state["step"])


def _note(folder: Path, step: int, loss: float) -> None:
    with (folder / "training.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, "loss": round(loss, 5)}) + "\n")
