"""One fine-tuning from a folder of weights to a folder of weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypnocast.core.pictures.recipe import Recipe
from hypnocast.errors import TapeError
from hypnocast_models.tune.contrastive import ContrastiveStudent
from hypnocast_models.tune.families import CONTRASTIVE, describe, load
from hypnocast_models.tune.generative import GenerativeStudent, add_lora
from hypnocast_models.tune.lessons import TrainingPages
from hypnocast_models.tune.loop import Course, train


class TuningSession:
    """A model and its student, ready to be trained."""

    def __init__(self, weights: Path, recipe: Recipe, lora_rank: int) -> None:
        """Load the weights; ``lora_rank`` 0, or a contrastive model, trains every weight."""
        self.model, self.tokenizer = load(weights)
        self._wrapped: Any = None
        self.student: Any
        if self.model.config.model_type in CONTRASTIVE:
            self.student = ContrastiveStudent(self.model, self.tokenizer)
            return
        described = describe(self.model, self.tokenizer, recipe.width, recipe.height)
        if lora_rank:
            self._wrapped = add_lora(self.model, lora_rank)
        self.student = GenerativeStudent(self.model, described, weights / "tokenizer.json")

    def train(
        self,
        lessons: TrainingPages,
        course: Course,
        out: Path,
        advance: Callable[[int, float], None] = lambda _step, _loss: None,
    ) -> list[float]:
        """Train, merge what was adapted, and save weights and tokenizer."""
        if course.perception_steps and not lessons.perceivable:
            raise TapeError(
                "pages that are kept as pictures have no samples to pre-train perception on",
                where="--perception-steps",
                remedy="Pre-train on recordings alone, then go on with the pictures.",
            )
        losses = train(self.student, lessons, course, out, advance)
        tuned = self._wrapped.merge_and_unload() if self._wrapped is not None else self.model
        tuned.save_pretrained(out / "weights")
        self.tokenizer.save_pretrained(out / "weights")
        self.model = tuned
        return losses
