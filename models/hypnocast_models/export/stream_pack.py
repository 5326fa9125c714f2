"""From a folder of weights to a verified pack, in a stream; and how near it is to transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from hypnocast.core.pictures.recipe import Recipe
from hypnocast.stagers.packs.manifest import Context, Generative
from hypnocast.stagers.packs.pack import Pack
from hypnocast_models.export.packing import write_pack
from hypnocast_models.export.stream import Precision, Progress, Weighing, export_folder

Ask = Callable[[Generative], tuple[Generative, Context, Mapping[str, str]]]
"""From how a model is fed to how it is asked: its table, its context, and files that go along."""


def pack_folder(
    source: Path,
    folder: Path,
    precision: Precision | Weighing = "int4",
    *,
    name: str,
    recipe: Recipe,
    version: str = "0.1.0",
    adapter: Path | None = None,
    commit: str = "0" * 40,
    ask: Ask = lambda table: (table, Context(), {}),
    progress: Progress = lambda _: None,
) -> Pack:
    """Write a pack from a model in transformers' layout; nothing in it is calibrated."""
    table = export_folder(
        source, folder, precision, recipe=recipe, adapter=adapter, progress=progress
    )
    context = Context()
    if isinstance(table, Generative):
        table, context, files = ask(table)
        for file, text in files.items():
            (folder / file).write_text(text, encoding="utf-8")
    kept = precision if isinstance(precision, str) else str(precision)
    facts = {
        "name": name,
        "version": version,
        "licence": "unknown",
        "intended_use": "Research only; not validated.",
        "recipe": recipe.name,
        "recipe_digest": recipe.digest,
        "context": msgspec.to_builtins(context),
        "montage": {
            "needed": [["F4-M1", "C4-M1", "O2-M1"]],
            "wanted": [role.value for role in recipe.roles],
        },
        "model": msgspec.to_builtins(table),
        "calibration": {"prior": [0.2] * 5},
        "provenance": {
            "base": source.name,
            "sources": [],
            "seed": 0,
            "commit": commit,
            "command": "hypnocast-models export",
            "notes": f"Written in a stream as {kept}.",
        },
    }
    return write_pack(folder, facts)
