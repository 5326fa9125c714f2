"""Folders that look like a download, in published configurations, with random weights of a seed.

So every figure of speed and memory can be repeated without a download. Weights are written as
bf16 shard by shard, some rows at a time; names and shapes are those of transformers' classes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from hypnocast.errors import ConfigError

_SHARD = 4_000_000_000
_ROWS_AT_ONCE = 2**23

_CLIP_L = {
    "model_type": "clip_vision_model", "hidden_size": 1024, "image_size": 336,
    "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 24,
    "patch_size": 14, "projection_dim": 768,
}  # fmt: skip
_GRIDS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]


def _smolvlm(text: dict[str, Any], factor: int) -> dict[str, Any]:
    vision = {
        "hidden_size": 768, "image_size": 512, "intermediate_size": 3072,
        "num_attention_heads": 12, "num_hidden_layers": 12, "patch_size": 16,
    }  # fmt: skip
    words = {
        "model_type": "llama", "vocab_size": 49280, "rms_norm_eps": 1e-5,
        "rope_theta": 100000.0, "max_position_embeddings": 8192, **text,
    }  # fmt: skip
    return {
        "model_type": "smolvlm", "image_token_id": 49190, "scale_factor": factor,
        "text_config": words, "vision_config": vision, "tie_word_embeddings": False,
        "pad_token_id": 2,
    }  # fmt: skip


def _llava(kind: str, text: dict[str, Any], **more: Any) -> dict[str, Any]:
    words = {
        "hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 32,
        "vocab_size": 32064, "rms_norm_eps": 1e-5, **text,
    }  # fmt: skip
    return {
        "model_type": kind, "image_token_index": 32000, "text_config": words,
        "vision_config": _CLIP_L, "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default", "tie_word_embeddings": False, **more,
    }  # fmt: skip


_MISTRAL = {
    "model_type": "mistral", "num_key_value_heads": 8, "intermediate_size": 14336,
    "rope_theta": 1000000.0, "max_position_embeddings": 32768, "sliding_window": None,
}  # fmt: skip
_VICUNA = {
    "model_type": "llama", "num_key_value_heads": 32, "intermediate_size": 11008,
    "max_position_embeddings": 4096,
}  # fmt: skip
_QWEN = {
    "model_type": "qwen2_5_vl", "hidden_size": 2048, "intermediate_size": 11008,
    "num_attention_heads": 16, "num_hidden_layers": 36, "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "vocab_size": 151936,
    "max_position_embeddings": 128000, "tie_word_embeddings": True, "image_token_id": 151655,
    "vision_start_token_id": 151652, "vision_end_token_id": 151653, "video_token_id": 151656,
    "rope_scaling": {"type": "mrope", "rope_type": "default", "mrope_section": [16, 24, 24]},
    "vision_config": {
        "model_type": "qwen2_5_vl", "depth": 32, "hidden_size": 1280, "intermediate_size": 3420,
        "num_heads": 16, "out_hidden_size": 2048, "patch_size": 14, "spatial_merge_size": 2,
        "temporal_patch_size": 2, "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31],
    },
}  # fmt: skip

SIZES: dict[str, Callable[[], dict[str, Any]]] = {
    "smolvlm-256m": lambda: _smolvlm(
        {"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9,
         "num_key_value_heads": 3, "num_hidden_layers": 30}, 4),
    "smolvlm-500m": lambda: _smolvlm(
        {"hidden_size": 960, "intermediate_size": 2560, "num_attention_heads": 15,
         "num_key_value_heads": 5, "num_hidden_layers": 32}, 4),
    "qwen2.5-vl-3b": lambda: _QWEN,
    "llava-1.5-7b": lambda: _llava("llava", _VICUNA),
    "llava-next-7b": lambda: _llava("llava_next", _MISTRAL, image_grid_pinpoints=_GRIDS),
    "clip-vit-l-14-336": lambda: {
        "model_type": "clip", "projection_dim": 768, "vision_config": _CLIP_L,
        "text_config": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12,
                        "num_hidden_layers": 12, "max_position_embeddings": 77,
                        "vocab_size": 49408, "eos_token_id": 2},
    },
    "siglip-so400m-384": lambda: {
        "model_type": "siglip",
        "vision_config": {"hidden_size": 1152, "image_size": 384, "intermediate_size": 4304,
                          "num_attention_heads": 16, "num_hidden_layers": 27, "patch_size": 14},
        "text_config": {"hidden_size": 1152, "intermediate_size": 4304,
                        "num_attention_heads": 16, "num_hidden_layers": 27,
                        "max_position_embeddings": 64, "vocab_size": 32000},
    },
}  # fmt: skip


def write_random(size: str, folder: Path, seed: int = 0, *, layers: int | None = None) -> int:
    """Write a folder of weights; return their bytes. ``layers`` makes a shallower decoder."""
    make = SIZES.get(size)
    if make is None:
        raise ConfigError(
            f"there is no size {size!r}", where="weights", remedy=f"Use one of {', '.join(SIZES)}."
        )
    config = json.loads(json.dumps(make()))
    if layers is not None:
        (config if "num_hidden_layers" in config else config["text_config"])[
            "num_hidden_layers"
        ] = layers
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    return _write_shards(_names_and_shapes(config), folder, np.random.default_rng(seed))


def _names_and_shapes(config: dict[str, Any]) -> list[tuple[str, tuple[int, ...]]]:
    """Ask transformers' own class, which is made without memory for its weights."""
    import torch
    import transformers as hf

    kind = config["model_type"]
    auto = hf.AutoModel if kind in {"clip", "siglip"} else hf.AutoModelForImageTextToText
    whole = hf.AutoConfig.for_model(**config)
    with torch.device("meta"):
        model = auto.from_config(whole)
    tied = (
        set(getattr(model, "_tied_weights_keys", None) or ()) if whole.tie_word_embeddings else ()
    )
    named = dict(model.named_parameters())
    return [
        (_as_published(name, kind), tuple(tensor.shape))
        for name, tensor in named.items()
        if name not in tied
    ]


def _as_published(name: str, kind: str) -> str:
    """Name a tensor as the published checkpoints do."""
    if kind == "qwen2_5_vl":
        return name.replace("model.language_model.", "model.").replace("model.visual.", "visual.")
    if kind in {"llava", "llava_next"}:
        if name.startswith("lm_head"):
            return f"language_model.{name}"
        inner = name.removeprefix("model.")
        return inner.replace("language_model.", "language_model.model.", 1)
    return name


def _write_shards(
    tensors: list[tuple[str, tuple[int, ...]]], folder: Path, rng: np.random.Generator
) -> int:
    shards: list[dict[str, tuple[tuple[int, ...], int, int]]] = [{}]
    size = total = 0
    for name, shape in tensors:
        more = 2 * math.prod(shape)
        if size + more > _SHARD and shards[-1]:
            shards.append({})
            size = 0
        shards[-1][name] = (shape, size, size + more)
        size, total = size + more, total + more
    where: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file_name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        header = {
            name: {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
            for name, (shape, start, end) in shard.items()
        }
        text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
        text += b" " * (-len(text) % 8)
        with (folder / file_name).open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for name, (shape, _, _) in shard.items():
                for part in _random(name, shape, rng):
                    _append(file, part)
                where[name] = file_name
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return total


def _random(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Iterator[Any]:
    """Give numbers as a fresh model has them: norms around 1, all else small."""
    if not shape:
        yield np.array(np.log(100.0) if name == "logit_scale" else -10.0, np.float32)
        return
    around = 1.0 if len(shape) == 1 and name.endswith("weight") else 0.0
    step = max(1, _ROWS_AT_ONCE // math.prod(shape[1:]))
    for start in range(0, shape[0], step):
        rows = (min(step, shape[0] - start), *shape[1:])
        yield around + 0.02 * rng.standard_normal(rows, dtype=np.float32)


def _append(file: BinaryIO, numbers: Any) -> None:
    file.write(np.asarray(numbers, ml_dtypes.bfloat16).view(np.uint16).tobytes())
