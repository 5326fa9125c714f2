"""From a fine-tuned model to a verified pack."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from hypnocast.core.pictures.recipe import Recipe
from hypnocast.core.verdicts.calibration import Calibration
from hypnocast.stagers.packs.manifest import Context, Contrastive, Generative, Provenance
from hypnocast.stagers.packs.pack import Pack
from hypnocast_models.export.generative import export_generative
from hypnocast_models.export.packing import write_pack
from hypnocast_models.tune.contrastive import export_contrastive
from hypnocast_models.tune.families import CONTRASTIVE, describe
from hypnocast_models.tune.run_folder import provenance_of


@dataclass(frozen=True, slots=True)
class Label:
    """What a pack says of itself."""

    name: str
    version: str
    recipe: Recipe
    calibration: Calibration
    provenance: Provenance
    licence: str = "unknown"
    intended_use: str = "Research only; not validated."


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """How a generative model is asked, where that is not how this project asks its own."""

    table: Generative
    context: Context = field(default_factory=Context)
    files: Mapping[str, str] = field(default_factory=dict)
    """Name → text of what goes into the pack along with it."""


Ask = Callable[[Generative], AnswerForm]


def plain_label(
    name: str, version: str, recipe: Recipe, commit: str, weights: Path | None = None
) -> Label:
    """Label a pack whose calibration has not been fitted: every stage as likely as another.

    Weights that ``finetune`` tuned bring where they come from along.
    """
    origin = provenance_of(weights, commit) if weights is not None else None
    return Label(
        name=name,
        version=version,
        recipe=recipe,
        calibration=Calibration(prior=(0.2, 0.2, 0.2, 0.2, 0.2)),
        provenance=origin
        or Provenance(
            base="see CARD.md", sources=(), seed=0, commit=commit, command="hypnocast-models export"
        ),
    )


def deliver(
    model: Any,
    tokenizer: Any,
    tokenizer_file: Path,
    label: Label,
    folder: Path,
    *,
    ask: Ask = AnswerForm,
    say: Callable[[str], None] = lambda _: None,
) -> Pack:
    """Export a model of any family in fp32, prove parity, and write the pack around it.

    ``ask`` makes of a generative model's description how it is asked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table: Contrastive | Generative
    context = Context()
    if model.config.model_type in CONTRASTIVE:
        table = export_contrastive(model, tokenizer, folder, say)
    else:
        described = describe(model, tokenizer, label.recipe.width, label.recipe.height)
        asked = ask(described)
        export_generative(model, described.preprocess, folder, say)
        shutil.copyfile(tokenizer_file, folder / described.tokenizer)
        for name, text in asked.files.items():
            (folder / name).write_text(text, encoding="utf-8")
        table, context = asked.table, asked.context
    facts = {
        "name": label.name,
        "version": label.version,
        "licence": label.licence,
        "intended_use": label.intended_use,
        "recipe": label.recipe.name,
        "recipe_digest": label.recipe.digest,
        "context": msgspec.to_builtins(context),
        "montage": {
            "needed": [["F4-M1", "C4-M1", "O2-M1"]],
            "wanted": [role.value for role in label.recipe.roles],
        },
        "model": msgspec.to_builtins(table),
        "calibration": msgspec.to_builtins(label.calibration),
        "provenance": msgspec.to_builtins(label.provenance),
    }
    return write_pack(folder, facts)
