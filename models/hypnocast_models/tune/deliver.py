"""From a fine-tuned model to a verified pack."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from hypnocast.core.pictures.conditioning import condition
from hypnocast.core.pictures.recipe import Recipe
from hypnocast.core.pictures.render import render
from hypnocast.core.types import EEG_ROLES, Picture, Pixels
from hypnocast.core.verdicts.calibration import Calibration
from hypnocast.errors import CommandError, InstallError
from hypnocast.stagers.packs.manifest import (
    Context,
    Contrastive,
    Generative,
    Provenance,
)
from hypnocast.stagers.packs.pack import Pack
from hypnocast_models.data import simulated
from hypnocast_models.export.classifier import export_classifier
from hypnocast_models.export.generative import export_generative
from hypnocast_models.export.packing import check_name, check_version, write_pack
from hypnocast_models.export.precision import PRECISIONS
from hypnocast_models.readers.datasets import find_nights, open_night
from hypnocast_models.staging.night import pictures_of
from hypnocast_models.tune.contrastive import export_contrastive
from hypnocast_models.tune.families import CONTRASTIVE, describe
from hypnocast_models.tune.run_folder import provenance_of


@dataclass(frozen=True, slots=True)
class Label:
    """A pack's own description."""

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
    progress: Callable[[str], None] = lambda _: None,
) -> Pack:
    """Export a model of any family in fp32, prove parity, and write the pack around it.

    ``ask`` makes of a generative model's description how it is asked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table: Contrastive | Generative
    context = Context()
    if model.config.model_type in CONTRASTIVE:
        table = export_contrastive(model, tokenizer, folder, progress)
    else:
        described = describe(model, tokenizer, label.recipe.width, label.recipe.height)
        asked = ask(described)
        export_generative(model, described.preprocess, folder, progress)
        shutil.copyfile(tokenizer_file, folder / described.tokenizer)
        for name, text in asked.files.items():
            (folder / name).write_text(text, encoding="utf-8")
        table, context = asked.table, asked.context
    return _pack(folder, label, table, context)


def deliver_classifier(
    source: Path,
    label: Label,
    folder: Path,
    pages: Sequence[Pixels],
    *,
    labels: Sequence[str] = (),
    progress: Callable[[str], None] = lambda _: None,
) -> Pack:
    """Make a pack of an image classifier of any make, proved on pages."""
    table = export_classifier(source, folder, pages, labels=labels, progress=progress)
    return _pack(folder, label, table, Context())


def check_delivery(name: str, version: str, precision: str) -> None:
    """Refuse, before hours of work, what would be refused at its end."""
    known = ("fp32", *PRECISIONS)
    if precision not in known:
        raise CommandError(f"{precision!r} is none of {', '.join(known)}", where="--precision")
    check_name(name)
    check_version(version)
    if find_spec("onnxruntime") is None:
        raise InstallError(
            "an export is proved with ONNX Runtime, which is missing",
            where="export",
            remedy='Run `pip install "hypnocast[models,cpu]"`, or [models,gpu].',
        )


def pages_to_prove(recipe: Recipe, archive: Path | None, count: int = 10) -> list[Pixels]:
    """Draw pages on which an export is proved: of an archive, else of simulated people."""
    if archive is not None:
        found = find_nights(archive)
        drawn = (
            item.rgb
            for one in found
            for item in pictures_of(open_night(one, scored=False), recipe, needed=((*EEG_ROLES,),))
            if isinstance(item, Picture)
        )
    else:
        made = simulated.pages(
            simulated.stretch(0, count),
            recipe.context_s,
            recipe.tail_s,
            np.ones(len(simulated.ROLES)),
        )
        drawn = (render(condition(page, recipe, 50), recipe) for page in made)
    return list(islice(drawn, count))


def _pack(folder: Path, label: Label, table: Contrastive | Generative, context: Context) -> Pack:
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
