"""One fine-tuning from a folder of weights to a folder of weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import set_seed

from hypnocast.core.pictures.recipe import builtin
from hypnocast.core.types import STAGES
from hypnocast.errors import CommandError, InstallError, TapeError
from hypnocast_models.export.model_files import describe_folder
from hypnocast_models.readers.material import Material
from hypnocast_models.tune.contrastive import ContrastiveStudent
from hypnocast_models.tune.families import CONTRASTIVE, load
from hypnocast_models.tune.generative import GenerativeStudent, add_lora
from hypnocast_models.tune.lessons import TrainingPages
from hypnocast_models.tune.rationale import as_answer
from hypnocast_models.tune.recipe import Training
from hypnocast_models.tune.run_folder import RUN, TAUGHT, Cast, begin_run, describe_run
from hypnocast_models.tune.sleepvlm import PROMPT, as_sleepvlm, prompt_of
from hypnocast_models.tune.trainer import train

_BESIDE = (
    "preprocessor_config.json", "processor_config.json", "chat_template.json",
    "chat_template.jinja", "video_preprocessor_config.json", "generation_config.json",
)  # fmt: skip
"""What belongs to weights and is not written by ``save_pretrained``."""


def cast_of(nights: Sequence[Material], training: Training, held_out: Sequence[str] = ()) -> Cast:
    """Choose the subjects that judge the model while it trains: whole people, by the seed."""
    subjects = sorted({night.subject for night in nights})
    if not training.validate:
        return Cast(nights, (), held_out)
    if len(subjects) < 2:
        raise CommandError(
            "one subject cannot both teach and judge",
            where="--validate",
            remedy="Give more subjects, or --validate 0.",
        )
    count = min(max(1, round(training.validate * len(subjects))), len(subjects) - 1)
    chosen = set(np.random.default_rng(training.seed).permutation(subjects)[:count].tolist())
    return Cast(
        [night for night in nights if night.subject not in chosen],
        [night for night in nights if night.subject in chosen],
        held_out,
    )


def check_machine(training: Training) -> None:
    """Refuse what this machine cannot do before anything is loaded."""
    if training.precision == "fp16" and not torch.cuda.is_available():
        raise CommandError("a CPU does not train in fp16", remedy="Use bf16 or fp32.")
    if training.four_bit:
        from importlib.util import find_spec

        if find_spec("bitsandbytes") is None or not torch.cuda.is_available():
            raise InstallError(
                "a base in 4 bits needs a CUDA GPU and bitsandbytes",
                where="four_bit",
                remedy="Run `pip install bitsandbytes` there, or leave four_bit out.",
            )


class TuningSession:
    """A model and its student, ready to be trained."""

    def __init__(self, weights: Path, training: Training) -> None:
        """Load the weights; the seed decides all that is not loaded."""
        check_machine(training)
        set_seed(training.seed)
        self._weights, self._training = weights, training
        self.model, self.tokenizer = load(weights, four_bit=training.four_bit)
        recipe = builtin(training.pages)
        self._wrapped: Any = None
        self._prompt: Path | None = None
        self.student: Any
        if self.model.config.model_type in CONTRASTIVE:
            self.student = ContrastiveStudent(self.model, self.tokenizer)
            return
        described = describe_folder(
            weights, self.model.config.to_dict(), recipe.width, recipe.height, whole=True
        )
        answers: tuple[str, ...] = ()
        if training.answer == "reasoned":
            self._prompt = prompt_of(training.prompt)
            described = as_sleepvlm(described, self.tokenizer, self._prompt).table
            answers = tuple(as_answer("", [], stage.value) for stage in STAGES)
        if training.lora_rank:
            self._wrapped = add_lora(self.model, training)
        self.student = GenerativeStudent(self.model, described, weights / "tokenizer.json", answers)

    def train(
        self,
        data: Path,
        cast: Cast,
        out: Path,
        *,
        mains_hz: int = 50,
        report_to: Sequence[str] = (),
        advance: Callable[[int, float], None] = lambda _step, _loss: None,
    ) -> list[float]:
        """Train, keep the adapters, merge them, and save weights and tokenizer."""
        training = self._training
        recipe = builtin(training.pages)
        reasoned = training.answer == "reasoned"
        around = int(reasoned)
        lessons = TrainingPages(cast.taught, recipe, mains_hz, around=around, reasoned=reasoned)
        exam = (
            TrainingPages(cast.judging, recipe, mains_hz, around=around) if cast.judging else None
        )
        if not len(lessons):
            raise TapeError("none of its pages has a stage", where=str(data))
        if (training.perception_steps or reasoned) and not lessons.perceivable:
            raise TapeError(
                "pages that are kept as pictures have no samples to see by, or to reason about",
                where="--perception-steps" if training.perception_steps else "answer",
                remedy="Train on recordings alone, then go on with the pictures.",
            )
        begin_run(out, describe_run(self._weights, data, cast, training), training)
        self.student.stage_weights = _stage_weights(lessons, training)
        losses = train(
            self.student, lessons, training, out, exam=exam, report_to=report_to, advance=advance
        )
        self._save(out)
        return losses

    def _save(self, out: Path) -> None:
        tuned = self.model
        if self._wrapped is not None:
            self._wrapped.save_pretrained(out / "adapter")
            if self._training.four_bit:
                from peft import PeftModel

                base, _ = load(self._weights)
                self._wrapped = PeftModel.from_pretrained(base, out / "adapter")
            tuned = self._wrapped.merge_and_unload()
        tuned.save_pretrained(out / "weights")
        self.tokenizer.save_pretrained(out / "weights")
        for name in _BESIDE:
            if (self._weights / name).is_file():
                shutil.copyfile(self._weights / name, out / "weights" / name)
        for folder in (out / "weights", out / "adapter"):
            if folder.is_dir():
                shutil.copyfile(out / RUN, folder / TAUGHT)
                if self._prompt is not None:
                    shutil.copyfile(self._prompt, folder / PROMPT)
        self.model = tuned


def _stage_weights(lessons: TrainingPages, training: Training) -> torch.Tensor:
    power = {"none": 0.0, "sqrt": -0.5, "full": -1.0}[training.class_weights]
    counts = torch.from_numpy(np.maximum(lessons.counts, 1)).float()
    weights = counts**power
    return weights / weights.mean()
