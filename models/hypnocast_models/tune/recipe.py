"""Recipes of training: every number of a fine-tuning, as a file.

A recipe is a TOML file. Those that come with this package lie beside this module; a run folder
keeps the recipe that it was made by, so that the same command with that file repeats it.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from hypnocast.core.pictures.recipe import builtin
from hypnocast.errors import ConfigError, RecipeError

Positive = Annotated[float, Meta(gt=0.0)]
Share = Annotated[float, Meta(ge=0.0, le=0.9)]
Count = Annotated[int, Meta(ge=1)]
Whole = Annotated[int, Meta(ge=0)]


class Training(Struct, frozen=True, forbid_unknown_fields=True):
    """How a model is fine-tuned."""

    pages: str = "clinical-448x224"
    """The recipe by which pages are drawn."""
    lora_rank: Whole = 16
    """Rank of the adapters in the language part; 0 trains every weight. Contrastive models are
    always trained whole."""
    lora_alpha: Whole = 0
    """0: twice the rank."""
    lora_dropout: Share = 0.05
    lora_eye: bool = False
    """Adapters in the vision tower too; always so where perception is trained."""
    four_bit: bool = False
    """Load the base in 4 bits (QLoRA); needs bitsandbytes and a CUDA GPU."""
    steps: Count = 1000
    batch: Count = 8
    """Pages at once on each process."""
    accumulate: Count = 1
    learning_rate: Positive = 1e-4
    weight_decay: Annotated[float, Meta(ge=0.0)] = 0.01
    warmup: Share = 0.0
    """Share of the steps in which the learning rate rises."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    clip: Positive = 1.0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    gradient_checkpointing: bool = False
    gain_jitter: Annotated[float, Meta(ge=1.0, le=10.0)] = 2.0
    """Pages are drawn at gains between 1 over this and this."""
    answer: Literal["stage", "reasoned"] = "stage"
    """What the model learns to say: the stage; or, shown the pages before and after too, an object
    with rationale, rules and stage, as SleepVLM does (Qwen2.5-VL)."""
    prompt: str = ""
    """File with the system prompt of a reasoned answer; empty for this project's own."""
    class_weights: Literal["none", "sqrt", "full"] = "none"
    """Weight of a stage in the loss: the same, n^−½ or n^−1 of its pages."""
    perception_steps: Whole = 0
    """First so many steps only learn to read band power and amplitude off the picture."""
    validate: Share = 0.0
    """Share of the subjects that judge the model while it trains; the best by κ is kept."""
    every: Count = 200
    """Steps between checkpoints, and between validations."""
    patience: Whole = 0
    """Stop after so many validations without a better κ; 0 never does."""
    seed: Whole = 0

    @property
    def total_steps(self) -> int:
        """Perception and staging together."""
        return self.perception_steps + self.steps


def recipe_names() -> tuple[str, ...]:
    """Name the recipes that come with this package."""
    folder = files("hypnocast_models.tune") / "recipes"
    return tuple(sorted(f.name.removesuffix(".toml") for f in folder.iterdir()))


def read_training(name: str, overrides: dict[str, Any]) -> Training:
    """Read a recipe by name or path; what is not None in ``overrides`` replaces its values."""
    path = Path(name)
    if name in recipe_names():
        text = (files("hypnocast_models.tune") / "recipes" / f"{name}.toml").read_text("utf-8")
    elif path.suffix == ".toml":
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"cannot be opened ({error.strerror})", where=name) from error
    else:
        raise ConfigError(
            f"there is no recipe of training {name!r}",
            where="--recipe",
            remedy=f"There are {', '.join(recipe_names())}, or give a file (.toml); how pages are "
            "drawn is set by --pages.",
        )
    try:
        values = msgspec.toml.decode(text)
        values |= {key: value for key, value in overrides.items() if value is not None}
        training = msgspec.convert(values, Training)
        builtin(training.pages)
    except (msgspec.DecodeError, TypeError) as error:
        what, _, key = str(error).partition(" - at `$.")
        raise ConfigError(what, where=f"recipe {name}: {key.rstrip('`')}".rstrip(": ")) from error
    except RecipeError as error:
        raise ConfigError(error.what, where=f"recipe {name}: pages", remedy=error.remedy) from error
    return training


def training_toml(training: Training) -> str:
    """Write a recipe with all its values."""
    values = msgspec.to_builtins(training).items()
    # JSON's strings, numbers and booleans are TOML's.
    return "".join(f"{key} = {msgspec.json.encode(value).decode()}\n" for key, value in values)
