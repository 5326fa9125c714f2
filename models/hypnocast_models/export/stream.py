"""From a folder of weights to the graphs of a pack: one tensor at a time, without PyTorch."""

from __future__ import annotations

import resource
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from hypnocast.core.pictures.recipe import Recipe
from hypnocast.errors import ConfigError, PackError
from hypnocast.stagers.packs.manifest import Contrastive, Generative
from hypnocast_models.export import contrastive, llava_vision, model_files
from hypnocast_models.export.llama import Text, check_decoder, write_text
from hypnocast_models.export.onnx_writer import Weights
from hypnocast_models.export.quantise import BLOCK
from hypnocast_models.export.qwen_vision import write_qwen_vision
from hypnocast_models.export.shards import Shards
from hypnocast_models.tune.run_folder import taught_here

Precision = Literal["fp32", "fp16", "int8", "int4", "int4-fp16"]
Progress = Callable[[str], None]

PROMPTS = (
    "a polysomnogram of wakefulness",
    "a polysomnogram of sleep stage N1",
    "a polysomnogram of sleep stage N2",
    "a polysomnogram of sleep stage N3, slow waves",
    "a polysomnogram of REM sleep",
)
STAGES: tuple[Literal["W", "N1", "N2", "N3", "R"], ...] = ("W", "N1", "N2", "N3", "R")
EMBEDDINGS = "prompts.f32"


@dataclass(frozen=True, slots=True)
class Weighing:
    """How the parts of a model are kept."""

    decoder: Weights
    head: Weights
    vision: Weights
    block: int = BLOCK
    """Numbers of decoder and head that share a scale, where they are kept in blocks."""
    half: bool = False
    """Whether the decoder computes in fp16 whatever its weights, for a GPU."""

    def __str__(self) -> str:
        parts = f"decoder {self.decoder}, head {self.head}, vision {self.vision}"
        half = ", in fp16" if self.half else ""
        return f"{parts}, blocks of {self.block}{half}"


WEIGHINGS: dict[str, Weighing] = {
    "fp32": Weighing("fp32", "fp32", "fp32"),
    "fp16": Weighing("fp16", "fp16", "fp16"),
    "int8": Weighing("int8x8", "int8", "int8x8"),
    "int4": Weighing("int4", "int4", "int8x8"),
    "int4-fp16": Weighing("int4", "int4", "fp16", half=True),
}
"""The price list is in docs/performance.md."""


BLOCKS = (32, 64, 128)
HEADS: tuple[Weights, ...] = ("int4", "int8", "fp32")


def weighing(precision: str, *, head: str | None = None, block: int = BLOCK) -> Weighing:
    """Return how parts are kept in a precision; ``head``: embeddings and head otherwise."""
    found = WEIGHINGS.get(precision)
    if found is None:
        raise ConfigError(
            f"there is no precision {precision!r}",
            where="export",
            remedy=f"Use one of {', '.join(WEIGHINGS)}.",
        )
    own_head = next((each for each in HEADS if each == head), None)
    if block not in BLOCKS or (head is not None and own_head is None):
        raise ConfigError(
            f"blocks of {block} with a head in {head or precision} are not written",
            where="export",
            remedy=f"Use blocks of {', '.join(map(str, BLOCKS))}, a head in {', '.join(HEADS)}.",
        )
    return replace(found, head=own_head or found.head, block=block)


_TOWERS = {"", "clip_vision_model", "siglip_vision_model"}


def why_not_streamed(source: Path, adapter: Path | None = None) -> str:
    """Return what of a model is not known here, so that PyTorch has to trace it; else nothing."""
    config = model_files.read_config(source)
    kind, tower = config["model_type"], (config.get("vision_config") or {}).get("model_type", "")
    try:
        shards = Shards(source, adapter)
        if kind in {"clip", "siglip"}:
            shards.prefix("vision_model.embeddings.patch_embedding.weight")
        else:
            Text.of(config)
            check_decoder(shards)
    except PackError as error:
        return error.what
    if kind in {"llava", "llava_next"} and tower not in _TOWERS:
        return f"its tower is a {tower}"
    return ""


def export_folder(
    source: Path,
    out: Path,
    precision: Precision | Weighing = "int4",
    *,
    recipe: Recipe,
    adapter: Path | None = None,
    prompts: Sequence[str] = PROMPTS,
    progress: Progress = lambda _: None,
) -> Contrastive | Generative:
    """Write the graphs of a model in transformers' layout; return the ``[model]`` of its pack.

    Pixels and tokens are those of the model's own files, or as ``finetune`` showed them where it
    made the weights. An ``adapter`` (peft's LoRA) is merged on the way.
    """
    config = model_files.read_config(source)
    whole = taught_here(adapter or source)
    kept = precision if isinstance(precision, Weighing) else weighing(precision)
    shards = Shards(source, adapter)
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = source / "tokenizer.json"
    if not tokenizer.is_file():
        raise ConfigError(
            "there is no tokenizer.json",
            where=str(source),
            remedy="Save the tokenizer with transformers' AutoTokenizer(…).save_pretrained.",
        )
    if config["model_type"] in {"clip", "siglip"}:
        began = time.perf_counter()
        tower = _contrastive(shards, config, source, out, kept=kept, prompts=prompts, whole=whole)
        size = (out / tower.image_encoder).with_suffix(".onnx.data").stat().st_size
        _report_done(progress, "picture tower and embedded prompts", began, size)
        return tower
    table = model_files.describe_folder(source, config, recipe.width, recipe.height, whole=whole)
    began = time.perf_counter()
    sizes = write_text(
        shards,
        Text.of(config),
        out,
        weights=kept.decoder,
        head=kept.head,
        block=kept.block,
        half=kept.half,
    )
    _report_done(progress, "decoder and embeddings", began, sum(sizes.values()))
    began = time.perf_counter()
    path = out / table.vision_encoder
    if config["model_type"] == "qwen2_5_vl":
        vision = config["vision_config"]
        size = write_qwen_vision(shards, vision, table.preprocess, path, kept.vision)
    else:
        write = (
            llava_vision.write_llava_vision
            if config["model_type"] in {"llava", "llava_next"}
            else llava_vision.write_idefics_vision
        )
        size = write(shards, config, table.preprocess, path, kept.vision)
    _report_done(progress, "vision encoder", began, size)
    shutil.copyfile(tokenizer, out / table.tokenizer)
    return table


def _contrastive(
    shards: Shards,
    config: model_files.Config,
    source: Path,
    out: Path,
    *,
    kept: Weighing,
    prompts: Sequence[str],
    whole: bool,
) -> Contrastive:
    clip = contrastive.is_clip(shards)
    how = model_files.contrastive_pixels(source, config, clip=clip, whole=whole)
    path = out / contrastive.ENCODER
    contrastive.write_pictures(shards, config, how, path, kept.vision)
    tokenizer = source / "tokenizer.json"
    vectors = contrastive.embed_texts(shards, config, tokenizer, prompts)
    vectors.astype("<f4").tofile(out / EMBEDDINGS)
    return Contrastive(
        image_encoder=contrastive.ENCODER,
        preprocess=how,
        prompts=tuple(prompts),
        prompt_stages=STAGES,
        prompt_embeddings=EMBEDDINGS,
        dimensions=vectors.shape[1],
        logit_scale=float(np.exp(shards["logit_scale"].astype(np.float64).reshape(())[()])),
    )


def _report_done(progress: Progress, what: str, began: float, size: int) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    took = time.perf_counter() - began
    progress(f"{what}: {took:.1f} s, {size / 1e9:.2f} GB, peak resident {peak:.2f} GB")
