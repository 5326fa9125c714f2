"""From a trained small model to the pack that ships."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from hypnocast.core.pictures.recipe import builtin
from hypnocast.core.verdicts.calibration import Calibration
from hypnocast.stagers.packs.manifest import Metric, Preprocess, Provenance, TrainingSource
from hypnocast.stagers.packs.pack import Pack
from hypnocast_models.data import ScoredRecording
from hypnocast_models.export.generative import (
    DECODER,
    EMBED,
    VISION,
    Parity,
    export_generative,
)
from hypnocast_models.export.packing import write_pack
from hypnocast_models.small.assembly import (
    ANSWERS,
    IMAGE_TOKEN,
    PAGES_BEFORE,
    PROMPT,
    tokenizer_json,
)
from hypnocast_models.small.sources import ATTRIBUTION, LICENCE
from hypnocast_models.small.tower import PAGE_PX

NAME = "hypnocast-small"
RECIPE = "spectral-448-one-eeg"
"""What the pack reads: one EEG, for it was judged on nothing else."""
TRAINING_RECIPE = "spectral-448"
"""Draws the pages to train on: those of one EEG are the same, simulated ones have six channels."""
INTENDED_USE = (
    "Research on live sleep staging, and trying Hypnocast out. Not a medical device: no "
    "diagnosis, no alarm function. Read CARD.md for what it was judged on."
)
PREPROCESS = Preprocess(dtype="uint8", width=PAGE_PX, height=PAGE_PX)


@dataclasses.dataclass(frozen=True, slots=True)
class Shipment:
    """A pack's texts beside its graphs."""

    version: str
    calibration: Calibration
    provenance: Provenance
    metrics: Sequence[Metric] = ()


def provenance(
    databases: Sequence[Sequence[ScoredRecording]], commit: str, command: str, notes: str = ""
) -> Provenance:
    """Return where a small model comes from: its nights by database, code and command."""
    return Provenance(
        base="from scratch",
        sources=tuple(
            TrainingSource(
                name=nights[0].database,
                licence=LICENCE,
                attribution=ATTRIBUTION[nights[0].database],
                subjects=tuple(sorted({night.subject for night in nights})),
                pages=sum(len(night.stages) for night in nights),
            )
            for nights in databases
        ),
        seed=0,
        commit=commit,
        command=command,
        notes=notes,
    )


def trial_metrics(path: Path) -> tuple[Metric, ...]:
    """Turn the figures of the trial into the pack's metrics."""
    found = json.loads(path.read_text(encoding="utf-8"))
    on = (
        "sleepedf20-5s: single EEG Fpz-Cz, 5 s of each 30-s page, 16 healthy adults, 4-fold "
        "subject-wise cross-validation, min_coverage lowered to 0.15; of the regimen, not of "
        "these very weights"
    )
    named = {"kappa": "kappa", "accuracy": "accuracy", "macro_f1": "macro_f1"}
    metrics = [
        Metric(name=name, value=value, low=low, high=high, on=on)
        for name, key in named.items()
        for value, low, high in [found["small"][key]]
    ]
    value, low, high = found["kappa_ahead_of_gradient_boosting"]
    return (
        *metrics,
        Metric(name="calibration_error", value=found["small"]["calibration_error"], on=on),
        Metric(
            name="kappa_ahead_of_gradient_boosting", value=value, low=low, high=high,
            on=f"{on}; paired over subjects",
        ),
    )  # fmt: skip


def lay_logs(runs: Path, figures: Path, folder: Path) -> None:
    """Put the figures, the choices and the losses of all models beside the pack's graphs."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(figures, folder / "figures.json")
    choices = {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted((runs / "choices").glob("*.json"))
    }
    (folder / "choices.json").write_text(json.dumps(choices, indent=1) + "\n", encoding="utf-8")
    entries = [
        json.dumps(
            {
                "model": f"{log.parent.parent.name}/{log.parent.name}",
                **json.loads(line.replace("NaN", "null")),
            }
        )
        for log in sorted(runs.glob("*/*/training.jsonl"))
        for line in log.read_text(encoding="utf-8").splitlines()
    ]
    text = "[\n" + ",\n".join(entries) + "\n]\n"
    (folder / "training.json").write_text(text, encoding="utf-8")


def ship(
    model: Any,
    shipment: Shipment,
    folder: Path,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[Pack, Parity]:
    """Export the model with its calibration into a verified pack.

    What lies in the folder already (card, training log) becomes part of it.
    """
    shape, parity = export_generative(model, PREPROCESS, folder, progress)
    (folder / "tokenizer.json").write_text(tokenizer_json(), encoding="utf-8")
    facts = {
        "name": NAME,
        "version": shipment.version,
        "licence": "Apache-2.0",
        "intended_use": INTENDED_USE,
        "recipe": RECIPE,
        "recipe_digest": builtin(RECIPE).digest,
        "context": {"before": PAGES_BEFORE},
        "montage": {
            "needed": [["F4-M1", "C4-M1", "O2-M1"]],
            "wanted": ["F4-M1", "C4-M1", "O2-M1", "E1-M2", "E2-M2", "Chin"],
            "min_coverage": 0.6,
        },
        "model": {
            "family": "generative",
            "vision_encoder": VISION,
            "embed_tokens": EMBED,
            "decoder": DECODER,
            "tokenizer": "tokenizer.json",
            "preprocess": msgspec.to_builtins(PREPROCESS),
            "prompt": PROMPT,
            "answers": list(ANSWERS),
            "scoring": "prefill",
            "image_token": IMAGE_TOKEN,
            "tokens_per_picture": model.config.vision_config.latents,
            "layers": shape.layers,
            "kv_heads": shape.kv_heads,
            "head_dim": shape.head_dim,
            "bos_token": "<s>",
        },
        "calibration": msgspec.to_builtins(shipment.calibration),
        "provenance": msgspec.to_builtins(shipment.provenance),
        "metrics": [msgspec.to_builtins(metric) for metric in shipment.metrics],
    }
    return write_pack(folder, facts), parity
