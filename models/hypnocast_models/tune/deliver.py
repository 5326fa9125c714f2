"""From a folder of weights to a verified and proved pack: the one way, whatever the model is.

Decoders and towers that are known are written in a stream; what is not known is traced by
PyTorch; image classifiers of any make go through optimum or come as graphs.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np

from hypnocast.core.pictures.conditioning import condition
from hypnocast.core.pictures.recipe import Recipe
from hypnocast.core.pictures.render import render
from hypnocast.core.types import EEG_ROLES, Picture, Pixels
from hypnocast.errors import CommandError, ConfigError, InstallError
from hypnocast.ports.memory import free_bytes
from hypnocast.stagers.packs.pack import Pack
from hypnocast_models.data import simulated
from hypnocast_models.export.asking import ask_as_sleepvlm, ask_stage_first
from hypnocast_models.export.classifier import export_classifier, is_classifier
from hypnocast_models.export.label import AnswerForm, Ask, Label, write_labelled
from hypnocast_models.export.model_files import (
    base_of,
    check_known,
    describe_folder,
    is_adapter,
    read_config,
)
from hypnocast_models.export.packing import check_name, check_version
from hypnocast_models.export.quantise import BLOCK
from hypnocast_models.export.shards import Shards
from hypnocast_models.export.stream import WEIGHINGS, weighing, why_not_streamed
from hypnocast_models.export.stream_pack import pack_folder
from hypnocast_models.readers.datasets import find_nights, open_night
from hypnocast_models.staging.night import pictures_of
from hypnocast_models.tune.sleepvlm import PROMPT

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is to be made of a model, where that is not what is made of all."""

    precision: str = "fp32"
    block: int = BLOCK
    head: str | None = None
    """Precision of embeddings and head, if otherwise."""
    stage_first: bool = False
    prompt: Path | None = None
    """SleepVLM's system prompt; else the one that lies beside weights that were taught by one."""
    labels: Sequence[str] = ()
    """A classifier's classes in its order, where its own names do not say."""
    prove: bool = True
    prove_on: Path | None = None
    """An archive whose pages prove the pack, however much memory that takes."""
    pages: int = 10
    """So many of that archive."""


PLAIN = Wishes()


def deliver(
    weights: Path,
    label: Label,
    folder: Path,
    wishes: Wishes = PLAIN,
    *,
    base: Path | None = None,
    progress: Progress = lambda _: None,
) -> Pack:
    """Make a pack of a model of any family, and prove that it says what the model says.

    ``weights`` may be an adapter of ``base``, or of the weights that it names itself.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if is_classifier(weights):
        pages = pages_to_prove(label.recipe, wishes.prove_on, wishes.pages)
        axes = export_classifier(weights, folder, pages, labels=wishes.labels, progress=progress)
        return _lowered(write_labelled(folder, label, axes), wishes, progress)
    source, adapter = (base_of(weights, base), weights) if is_adapter(weights) else (weights, None)
    check_known(source, read_config(source))
    unknown = why_not_streamed(source, adapter)
    if unknown:
        progress(f"traced by PyTorch: {unknown}")
        return _trace(source, label, folder, wishes, adapter=adapter, progress=progress)
    kept = weighing(wishes.precision, head=wishes.head, block=wishes.block)
    ask = _ask(source, weights, wishes)
    made = pack_folder(source, folder, kept, label, adapter=adapter, ask=ask, progress=progress)
    _prove(made, weights, source, wishes, progress)
    return made


def _ask(source: Path, weights: Path, wishes: Wishes) -> Ask:
    taught = weights / PROMPT
    prompt = wishes.prompt or (taught if taught.is_file() else None)
    if prompt is not None:
        return ask_as_sleepvlm(source, prompt)
    return ask_stage_first if wishes.stage_first else AnswerForm


def _trace(
    source: Path,
    label: Label,
    folder: Path,
    wishes: Wishes,
    *,
    adapter: Path | None,
    progress: Progress,
) -> Pack:
    """Export by ``torch.onnx.export`` in fp32, prove parity, and lower the precision after it."""
    from hypnocast_models.export.generative import export_generative
    from hypnocast_models.tune.contrastive import export_contrastive
    from hypnocast_models.tune.families import CONTRASTIVE, load

    if (wishes.head, wishes.block) != (None, BLOCK):
        raise ConfigError(
            "a head or blocks of its own are chosen for models that are written in a stream",
            where="export",
            remedy="Leave --head and --block out.",
        )
    model, tokenizer = load(source) if adapter is None else load(adapter, base=source)
    if model.config.model_type in CONTRASTIVE:
        made = write_labelled(folder, label, export_contrastive(model, tokenizer, folder, progress))
    else:
        recipe, config = label.recipe, model.config.to_dict()
        described = describe_folder(source, config, recipe.width, recipe.height, whole=True)
        described = msgspec.structs.replace(described, cache="grown")
        export_generative(model, described.preprocess, folder, progress)
        shutil.copyfile(source / "tokenizer.json", folder / described.tokenizer)
        asked = _ask(source, adapter or source, wishes)(described)
        made = write_labelled(
            folder, label, asked.table, asked.context, asked.files, how="Traced by PyTorch."
        )
    del model
    return _lowered(made, wishes, progress)


def _lowered(made: Pack, wishes: Wishes, progress: Progress) -> Pack:
    """Rewrite graphs that were traced for a lower precision."""
    if wishes.precision == "fp32":
        return made
    from hypnocast_models.export.precision import lower  # with PyTorch: the writer needs none

    return lower(made, wishes.precision, progress)


def _prove(made: Pack, weights: Path, source: Path, wishes: Wishes, progress: Progress) -> None:
    """Hold the pack against the model; a large one only where pages are given for it."""
    if not wishes.prove:
        return
    from hypnocast_models.tune.proof import prove  # with PyTorch: the writer needs none

    needs, free = 4 * Shards(source).numbers, free_bytes()
    if wishes.prove_on is None and free is not None and needs > free / 3:
        progress(
            f"not proved: the model in fp32 takes {needs / 1e9:.1f} GB of memory, and "
            f"{free / 1e9:.1f} GB are free; --prove-on ARCHIVE runs it all the same"
        )
        return
    count = wishes.pages if wishes.prove_on is not None else SIMULATED_PAGES
    around = made.manifest.context.pictures - 1
    pages = pages_to_prove(made.recipe, wishes.prove_on, count + around)
    proof = prove(made, weights, pages, base=source if source != weights else None)
    progress(str(proof))
    if wishes.precision == "fp32":
        proof.demand()


SIMULATED_PAGES = 2
"""Judged by the model and by its pack where no archive is given."""


def check_delivery(name: str, version: str, precision: str) -> None:
    """Refuse, before hours of work, what would be refused at its end."""
    known = tuple(WEIGHINGS)
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
