"""A pack of a small random model of a family; it needs torch and transformers."""

from __future__ import annotations

import warnings
from pathlib import Path

from hypnocast.core.pictures.recipe import builtin
from hypnocast.stagers.packs.pack import Pack
from hypnocast_models.export.label import Ask, plain_label
from hypnocast_models.export.stream_pack import pack_folder
from hypnocast_models.tune.families import tiny

RECIPE = builtin("clinical-448x224")


def small_pack(folder: Path, family: str, *, ask: Ask) -> Pack:
    """Write the weights and the pack of them, asked so, below a folder."""
    source = folder / "weights"
    source.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tiny(family, source)
    label = plain_label(family, "0.1.0", RECIPE)
    return pack_folder(source, folder / "pack", "fp32", label, ask=ask)
