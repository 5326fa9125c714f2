"""What a pack says of itself and how its model is asked; every way of export writes it alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from hypnocast.core.pictures.recipe import Recipe
from hypnocast.core.verdicts.calibration import Calibration
from hypnocast.stagers.packs.manifest import Context, Contrastive, Generative, Provenance
from hypnocast.stagers.packs.pack import Pack
from hypnocast_models.export.packing import write_pack
from hypnocast_models.tune.run_folder import provenance_of

NO_COMMIT = "0" * 40
"""Of weights that belong to no commit of this project."""
ONE_PAGE = Context()
NO_FILES: Mapping[str, str] = {}


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
    """How a model is asked."""

    table: Generative
    context: Context = field(default_factory=Context)
    files: Mapping[str, str] = field(default_factory=dict)
    """Name → text of what goes into the pack along with it."""


Ask = Callable[[Generative], AnswerForm]
"""From how a model that writes is fed to how it is asked."""


def plain_label(
    name: str,
    version: str,
    recipe: Recipe,
    commit: str = NO_COMMIT,
    weights: Path | None = None,
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
            base=weights.name if weights is not None else "see CARD.md",
            sources=(),
            seed=0,
            commit=commit,
            command="hypnocast-models export",
        ),
    )


def write_labelled(
    folder: Path,
    label: Label,
    table: Contrastive | Generative,
    context: Context = ONE_PAGE,
    files: Mapping[str, str] = NO_FILES,
    *,
    how: str = "",
) -> Pack:
    """Write the pack over what lies in ``folder``, and ``files``; ``how`` it was made is noted."""
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    notes = " ".join(part for part in (label.provenance.notes, how) if part)
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
        "provenance": msgspec.to_builtins(msgspec.structs.replace(label.provenance, notes=notes)),
    }
    return write_pack(folder, facts)
