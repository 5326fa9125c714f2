"""From a folder of weights to a verified pack, in a stream."""

from __future__ import annotations

from pathlib import Path

from hypnocast.stagers.packs.manifest import Generative
from hypnocast.stagers.packs.pack import Pack
from hypnocast_models.export.label import AnswerForm, Ask, Label, write_labelled
from hypnocast_models.export.stream import Precision, Progress, Weighing, export_folder


def pack_folder(
    source: Path,
    folder: Path,
    precision: Precision | Weighing,
    label: Label,
    *,
    adapter: Path | None = None,
    ask: Ask = AnswerForm,
    progress: Progress = lambda _: None,
) -> Pack:
    """Write a pack from a model in transformers' layout; nothing in it is calibrated."""
    table = export_folder(
        source, folder, precision, recipe=label.recipe, adapter=adapter, progress=progress
    )
    how = f"Written in a stream as {precision}."
    if not isinstance(table, Generative):
        return write_labelled(folder, label, table, how=how)
    asked = ask(table)
    return write_labelled(folder, label, asked.table, asked.context, asked.files, how=how)
