"""Training on transformers' Trainer: resumable to the bit, judged by subject, stopped cleanly.

With ``accelerate launch`` or ``torchrun`` it runs on several GPUs; alone it uses one GPU, or the
CPU. Only what learns is kept in a checkpoint: the adapters, or every weight where all learn.
"""

from __future__ import annotations

import json
import signal
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import Dataset, SequentialSampler
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from hypnocast.core.types import STAGES, Pixels
from hypnocast_models.compare import figures
from hypnocast_models.tune.judged_pictures import judged_pictures, keep_pictures
from hypnocast_models.tune.lessons import TrainingPage, TrainingPages
from hypnocast_models.tune.recipe import Training
from hypnocast_models.tune.run_folder import Stopped

LEARNED = "learned.safetensors"
WHOLE = "whole"
"""Lies in a checkpoint that was written to its end."""
LOG, PICTURES = "training.jsonl", "judged"
_KEPT = 3


class Draws(Dataset):  # type: ignore[misc]  # torch is passed over by mypy
    """What a training draws, one page after another: drawn by number, so a resumed run goes on."""

    def __init__(self, lessons: TrainingPages, training: Training, processes: int) -> None:
        """Know how many there will be."""
        self._lessons, self._training = lessons, training
        self._per_step = training.batch * training.accumulate * processes

    def __len__(self) -> int:
        return self._training.total_steps * self._per_step

    def __getitem__(self, number: int) -> tuple[int, bool]:
        return number, number // self._per_step < self._training.perception_steps

    def collate(self, numbers: Sequence[tuple[int, bool]]) -> dict[str, Any]:
        """Draw the pages of a batch; each number has a generator of its own."""
        drawn = [self._lesson(number) for number, _ in numbers]
        return _batch(drawn, perceiving=numbers[0][1])

    def _lesson(self, number: int) -> TrainingPage:
        rng = np.random.default_rng([self._training.seed, number])
        place = rng.integers(0, len(self._lessons), 1)
        return self._lessons.draw(place, rng, self._training.gain_jitter)


class Exam(Dataset):  # type: ignore[misc]  # torch is passed over by mypy
    """The pages of the subjects that judge, as they are."""

    def __init__(self, lessons: TrainingPages) -> None:
        self.lessons = lessons

    def __len__(self) -> int:
        return len(self.lessons)

    def __getitem__(self, place: int) -> int:
        return place

    def collate(self, places: Sequence[int]) -> dict[str, Any]:
        """Draw the pages of a batch at their own gain."""
        rng = np.random.default_rng(0)
        return _batch([self.lessons.draw(np.array([place]), rng, 1.0) for place in places])


def _batch(drawn: Sequence[TrainingPage], *, perceiving: bool = False) -> dict[str, Any]:
    seen = [one.perceived for one in drawn if one.perceived is not None]
    lesson = TrainingPage(
        [picture for one in drawn for picture in one.pictures],
        np.concatenate([one.stages for one in drawn]),
        [answer for one in drawn for answer in one.answers],
        np.concatenate(seen) if len(seen) == len(drawn) else None,
        np.concatenate([one.weights for one in drawn]),
    )
    stages = torch.from_numpy(lesson.stages)
    return {"lesson": lesson, "labels": stages, "perceiving": perceiving}


class StageTrainer(Trainer):  # type: ignore[misc]  # transformers is passed over by mypy
    """transformers' Trainer for a student that is shown pages."""

    def __init__(self, *args: Any, draws: Draws, exam: Exam | None, **kwargs: Any) -> None:
        super().__init__(*args, train_dataset=draws, eval_dataset=exam, **kwargs)
        self._draws, self._exam = draws, exam
        self.losses: list[float] = []
        """Of every step made here."""
        self._parts: list[float] = []
        self._judged: Any = None

    def get_train_dataloader(self) -> Any:
        """Draw in order: the numbers themselves are the chance."""
        return self._loader(self._draws, self.args.train_batch_size)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """Show every page that judges once."""
        del eval_dataset
        assert self._exam is not None  # noqa: S101 - asked for only where there is one
        return self._loader(self._exam, self.args.eval_batch_size)

    def _loader(self, pages: Any, batch: int) -> Any:
        return self.accelerator.prepare(
            torch.utils.data.DataLoader(
                pages,
                batch_size=batch,
                sampler=SequentialSampler(pages),
                collate_fn=pages.collate,
                num_workers=self.args.dataloader_num_workers,
            )
        )

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Make a part of a step, and remember its loss with all its digits."""
        loss: Tensor = super().training_step(*args, **kwargs)
        self._parts.append(float(loss.detach()))
        return loss

    def end_step(self) -> float:
        """Give the loss of the step that was made."""
        self.losses.append(sum(self._parts))
        self._parts.clear()
        return self.losses[-1]

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """Judge, and remember what was said of every page."""
        self._judged = super().evaluation_loop(*args, **kwargs)
        return self._judged

    def keep_pictures(self, folder: Path, step: int) -> None:
        """Keep what the last validation looks like."""
        exam, judged = self._exam, self._judged
        assert exam is not None  # noqa: S101 - there was a validation

        def page(place: int) -> Pixels:
            pictures = exam.collate([place])["lesson"].pictures
            middle: Pixels = pictures[len(pictures) // 2]
            return middle

        said, true = np.asarray(judged.predictions), np.asarray(judged.label_ids)
        writers = [getattr(one, "tb_writer", None) for one in self.callback_handler.callbacks]
        writer = next((one for one in writers if one is not None), None)
        keep_pictures(judged_pictures(said, true.astype(np.int64), page), folder, step, writer)

    # What is kept is what learns; these three are how the Trainer writes and reads a model.

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        del state_dict
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(learned(self.accelerator.unwrap_model(self.model)), folder / LEARNED)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        recall(model or self.model, Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        recall(self.model, Path(self.state.best_model_checkpoint))


def learned(student: nn.Module) -> dict[str, Tensor]:
    """Give the tensors that learn, each once."""
    return {
        name: value.detach().cpu().contiguous()
        for name, value in student.named_parameters()
        if value.requires_grad
    }


def recall(student: nn.Module, checkpoint: Path) -> None:
    """Put what was learned back."""
    student.load_state_dict(load_file(checkpoint / LEARNED), strict=False)


class _Keeper(TrainerCallback):  # type: ignore[misc]  # transformers is passed over by mypy
    """Writes the log, marks whole checkpoints, and turns signals into a clean stop."""

    def __init__(self, folder: Path, advance: Callable[[int, float], None]) -> None:
        self.folder, self._advance = folder, advance
        self.trainer: StageTrainer | None = None
        self.signal = 0

    def heed(self, number: int, _frame: FrameType | None) -> None:
        """Remember a signal; a second one ends at once."""
        if self.signal:
            raise KeyboardInterrupt
        self.signal = number

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - the Trainer's
        assert self.trainer is not None  # noqa: S101 - set before training begins
        loss = self.trainer.end_step()
        if state.is_world_process_zero:
            _note(self.folder, {"step": state.global_step, "loss": loss})
        self._advance(state.global_step, loss)
        if self.signal:
            control.should_save = control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - the Trainer's
        if state.is_world_process_zero:
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / WHOLE).touch()

    def on_evaluate(  # the Trainer's signature
        self,
        args: Any,  # noqa: ARG002
        state: Any,
        control: Any,  # noqa: ARG002
        metrics: Any,
        **_: Any,
    ) -> None:
        if state.is_world_process_zero:
            kept = {key: value for key, value in metrics.items() if key != "eval_confusion"}
            _note(self.folder, {"step": state.global_step, **kept})
            assert self.trainer is not None  # noqa: S101 - set before training begins
            self.trainer.keep_pictures(self.folder / PICTURES, state.global_step)


def train(
    student: nn.Module,
    lessons: TrainingPages,
    training: Training,
    folder: Path,
    *,
    exam: TrainingPages | None = None,
    report_to: Sequence[str] = (),
    advance: Callable[[int, float], None] = lambda _step, _loss: None,
) -> list[float]:
    """Train what requires a gradient; return the loss of every step made in this call.

    Goes on from the newest whole checkpoint of ``folder``. SIGINT and SIGTERM keep the step that
    is under way and raise :class:`Stopped`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    last = _last_whole(folder)
    _cut_log(folder, _step_of(last))
    keeper = _Keeper(folder, advance)
    callbacks: list[Any] = [keeper]
    if exam is not None and training.patience:
        callbacks.append(EarlyStoppingCallback(training.patience))
    arguments = _arguments(training, folder, judged=exam is not None, report_to=report_to)
    trainer = StageTrainer(
        model=student,
        args=arguments,
        draws=Draws(lessons, training, arguments.world_size),
        exam=None if exam is None else Exam(exam),
        compute_metrics=None if exam is None else _metrics,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    keeper.trainer = trainer
    before = {
        number: signal.signal(number, keeper.heed) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        with warnings.catch_warnings():
            # Checkpoints that are written at once are distinguished by their numbers anyway.
            warnings.filterwarnings("ignore", message="mtime may not be reliable")
            trainer.train(resume_from_checkpoint=None if last is None else str(last))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    student.eval()
    if keeper.signal and trainer.state.global_step < training.total_steps:
        raise Stopped(trainer.state.global_step, keeper.signal)
    return trainer.losses


def _arguments(
    training: Training, folder: Path, *, judged: bool, report_to: Sequence[str]
) -> TrainingArguments:
    strategy = "steps" if judged else "no"
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=training.total_steps,
        per_device_train_batch_size=training.batch,
        per_device_eval_batch_size=training.batch,
        gradient_accumulation_steps=training.accumulate,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        warmup_ratio=training.warmup,
        lr_scheduler_type=training.schedule,
        max_grad_norm=training.clip,
        bf16=training.precision == "bf16",
        fp16=training.precision == "fp16",
        gradient_checkpointing=training.gradient_checkpointing,
        # The other way teaches nothing behind an input without gradient: adapters in a frozen eye.
        gradient_checkpointing_kwargs={"use_reentrant": False},
        seed=training.seed,
        save_strategy="steps",
        save_steps=training.every,
        save_total_limit=_KEPT,
        eval_strategy=strategy,
        eval_steps=training.every,
        load_best_model_at_end=judged,
        metric_for_best_model="eval_kappa" if judged else None,
        greater_is_better=True if judged else None,
        logging_strategy="steps" if report_to else "no",
        report_to=list(report_to) or "none",
        remove_unused_columns=False,
        label_names=["labels"],
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        log_level="error",
        dataloader_pin_memory=False,
    )


def _metrics(predicted: Any) -> dict[str, Any]:
    """Judge log-probabilities (pages, 5) by the subjects that were held back."""
    ours = np.asarray(predicted.predictions).argmax(axis=1).astype(np.int64)
    table = figures.confusion(np.asarray(predicted.label_ids).astype(np.int64), ours)
    by_stage = zip(STAGES, figures.stage_f1(table), strict=True)
    return {
        "kappa": figures.kappa(table),
        "accuracy": figures.accuracy(table),
        "macro_f1": figures.macro_f1(table),
        **{f"f1_{stage.value}": float(np.nan_to_num(f1)) for stage, f1 in by_stage},
        "confusion": table[:, : len(STAGES)].tolist(),
    }


def _last_whole(folder: Path) -> Path | None:
    there = [path for path in folder.glob("checkpoint-*") if (path / WHOLE).is_file()]
    return max(there, key=_step_of, default=None)


def _step_of(checkpoint: Path | None) -> int:
    return 0 if checkpoint is None else int(checkpoint.name.rpartition("-")[2])


def _note(folder: Path, row: dict[str, Any]) -> None:
    with (folder / LOG).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def _cut_log(folder: Path, step: int) -> None:
    """Drop what the log holds of steps that a killed run did not keep."""
    log = folder / LOG
    if log.is_file():
        lines = log.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        log.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
