"""What a run folder keeps of itself, so that it can be repeated, resumed and accounted for."""

from __future__ import annotations

import hashlib
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from hypnocast.errors import CommandError
from hypnocast.ports.durable_files import replace_file
from hypnocast.stagers.packs.manifest import Provenance, TrainingSource
from hypnocast_models.data.pictures import PictureNight
from hypnocast_models.readers.material import Material
from hypnocast_models.tune.recipe import Training, training_toml

RUN, RECIPE, TAUGHT = "run.json", "recipe.toml", "hypnocast-training.json"
"""The last lies beside the weights: an export reads a pack's provenance from it."""
_MAY_DIFFER = ("command", "versions")


class Stopped(Exception):  # noqa: N818 - not a fault: somebody asked for it
    """A signal ended the training after its step was kept."""

    def __init__(self, step: int, number: int) -> None:
        super().__init__(f"stopped after step {step}")
        self.step, self.signal = step, number


@dataclass(frozen=True)
class Cast:
    """Who teaches, who judges while it trains, and who is held out of both."""

    taught: Sequence[Material]
    judging: Sequence[Material]
    held_out: Sequence[str]


def teachers_of(nights: Sequence[Material]) -> dict[str, int]:
    """Give who gave the stages of nights that are kept as pictures, and of how many pages."""
    pages: Counter[str] = Counter()
    for night in nights:
        if isinstance(night, PictureNight) and night.scorer:
            who = f"{night.scorer} (weak labels)" if night.weak else night.scorer
            pages[who] += sum(stage is not None for stage in night.stages)
    return dict(sorted(pages.items()))


def describe_run(weights: Path, data: Path, cast: Cast, training: Training) -> dict[str, Any]:
    """Give everything that a run depends on."""
    return {
        "teachers": teachers_of(cast.taught),
        "weights": str(weights),
        "weights_digest": digest_of_weights(weights),
        "data": str(data),
        "data_digest": _digest_of_stages([*cast.taught, *cast.judging]),
        "taught": sorted({night.subject for night in cast.taught}),
        "judging": sorted({night.subject for night in cast.judging}),
        "held_out": sorted(cast.held_out),
        "pages": sum(stage is not None for night in cast.taught for stage in night.stages),
        "recipe": msgspec.to_builtins(training),
        "command": shlex.join(["hypnocast-models", *sys.argv[1:]]),
        "versions": {name: version(name) for name in ("torch", "transformers", "hypnocast")},
    }


def begin_run(folder: Path, run: dict[str, Any], training: Training) -> None:
    """Keep the description; refuse to go on with what another run began."""
    kept = folder / RUN
    if kept.is_file():
        before = msgspec.json.decode(kept.read_bytes())
        before.setdefault("teachers", run["teachers"])  # runs begun before it was written down
        other = [key for key in run if key not in _MAY_DIFFER and before.get(key) != run[key]]
        if "recipe" in other:
            was = before.get("recipe", {})
            other += [f"recipe.{k}" for k, v in run["recipe"].items() if was.get(k) != v]
            other.remove("recipe")
        if other:
            raise CommandError(
                f"was begun with another {', '.join(other)}",
                where=str(folder),
                remedy=f"Choose another folder, or repeat what {kept} says.",
            )
    elif folder.is_dir() and any(folder.iterdir()):
        raise CommandError(
            "holds other files", where=str(folder), remedy="Choose an empty folder for a new run."
        )
    folder.mkdir(parents=True, exist_ok=True)
    # The description first: by it a folder is known that the disk had no room for.
    for path, content in (
        (kept, msgspec.json.format(msgspec.json.encode(run), indent=1)),
        (folder / RECIPE, training_toml(training).encode()),
    ):
        if not path.is_file():
            replace_file(path, content, mode=0o666)


def taught_here(weights: Path) -> bool:
    """Return whether ``finetune`` made these weights, or this adapter."""
    return (weights / TAUGHT).is_file()


def provenance_of(weights: Path, commit: str) -> Provenance | None:
    """Give where tuned weights come from; None where they are not of this program's making."""
    if not taught_here(weights):
        return None
    run = msgspec.json.decode((weights / TAUGHT).read_bytes())
    source = TrainingSource(
        name=Path(run["data"]).name,
        licence="see its owner",
        attribution=run["data"],
        subjects=tuple(run["taught"]),
        pages=run["pages"],
    )
    judged = ", ".join(run["judging"]) or "nobody"
    held_out = ", ".join(run["held_out"]) or "nobody"
    return Provenance(
        base=run["weights"],
        sources=(source,),
        seed=run["recipe"]["seed"],
        commit=commit,
        command=run["command"],
        notes=f"{_teachers(run)}Judged while it trained by: {judged}. Held out: {held_out}. "
        "Recipe: " + ", ".join(f"{key} {value}" for key, value in run["recipe"].items()),
    )


def _teachers(run: dict[str, Any]) -> str:
    pages = [f"{who}: {count} pages" for who, count in run.get("teachers", {}).items()]
    return f"Stages of kept pictures by {'; '.join(pages)}. " if pages else ""


def digest_of_weights(weights: Path) -> str:
    """Digest a folder of weights: names and bytes of what a model is loaded from."""
    hashed = hashlib.sha256()
    for path in sorted(weights.iterdir()):
        if path.suffix in {".safetensors", ".json", ".bin"} and path.is_file():
            hashed.update(path.name.encode())
            with path.open("rb") as file:
                hashed.update(hashlib.file_digest(file, "sha256").digest())
    return f"sha256:{hashed.hexdigest()}"


def _digest_of_stages(nights: Sequence[Material]) -> str:
    stages = [(night.subject, night.name, [str(s) for s in night.stages]) for night in nights]
    return f"sha256:{hashlib.sha256(repr(sorted(stages)).encode()).hexdigest()}"
