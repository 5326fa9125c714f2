"""Qwen2.5-VL's vision encoder for pictures of one size, any number of them at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hypnocast.errors import PackError
from hypnocast.stagers.packs.manifest import Preprocess
from hypnocast_models.export.llama import gated
from hypnocast_models.export.onnx_writer import FLOAT, GraphWriter, Weights
from hypnocast_models.export.shards import Array, Shards

_EPSILON = 1e-6


def write_qwen_vision(
    shards: Shards, vision: Mapping[str, Any], how: Preprocess, path: Path, weights: Weights
) -> int:
    """Write the graph; windows, rotations and order are constants for the size of ``how``."""
    high, across = how.height // how.patch_size, how.width // how.patch_size
    layout = _Layout(vision, high, across)
    prefix = shards.prefix("patch_embed.proj.weight")
    wide, heads = vision["hidden_size"], vision["num_heads"]
    g = GraphWriter(path, weights)
    patch = shards[f"{prefix}patch_embed.proj.weight"].reshape(wide, -1)
    tokens = high * across
    x = g.cast(g.add_input("pixel_values", FLOAT, ["pictures", tokens, patch.shape[1]]))
    x = g.node("Gather", x, g.constant(layout.order), axis=1)
    exact: Weights = "fp16" if weights == "fp16" else "fp32"
    x = g.linear(x, "patch_embed", patch, weights=exact)
    angles = layout.angles(wide // heads)
    cos, sin, start = g.real(np.cos(angles)), g.real(np.sin(angles)), g.constant(np.array([0]))
    added: str | None = None
    for number in range(vision["depth"]):
        block = f"{prefix}blocks.{number}."
        normed, x = g.rms_norm(x, added, f"{block}n1", shards[f"{block}norm1.weight"], _EPSILON)
        name = f"{block}attn.qkv"
        parts = zip(
            "qkv",
            np.split(shards[f"{name}.weight"], 3),
            np.split(shards[f"{name}.bias"], 3),
            strict=True,
        )
        q, k, v = (g.linear(normed, f"{name}{part}", w, b) for part, w, b in parts)
        q, k = (g.node("RotaryEmbedding", part, start, cos, sin) for part in (q, k))
        whole = number in vision["fullatt_block_indexes"]
        if not whole:
            q, k, v = (g.reshape(part, -1, layout.side**2, wide) for part in (q, k, v))
        attended = g.node("MultiHeadAttention", q, k, v, num_heads=heads)
        if not whole:
            attended = g.reshape(attended, -1, tokens, wide)
        name = f"{block}attn.proj"
        added = g.linear(attended, name, shards[f"{name}.weight"], shards[f"{name}.bias"])
        normed, x = g.rms_norm(x, added, f"{block}n2", shards[f"{block}norm2.weight"], _EPSILON)
        added = gated(g, normed, f"{block}mlp.", shards)
    normed, _ = g.rms_norm(x, added, "ln_q", shards[f"{prefix}merger.ln_q.weight"], _EPSILON)
    features = _merge(g, normed, shards, f"{prefix}merger.mlp.", layout)
    out = vision["out_hidden_size"]
    g.gives("image_features", FLOAT, ["features", out], g.reshape(features, -1, out))
    return g.finish()


def _merge(g: GraphWriter, normed: str, shards: Shards, mlp: str, layout: _Layout) -> str:
    """Join neighbouring patches to features, and put them back in the order of the picture."""
    group = layout.merge**2
    first, second = (shards[f"{mlp}{part}.weight"] for part in (0, 2))
    x = g.reshape(normed, -1, len(layout.order) // group, first.shape[1])
    x = g.node("Gelu", g.linear(x, "merge0", first, shards[f"{mlp}0.bias"]))
    x = g.linear(x, "merge2", second, shards[f"{mlp}2.bias"])
    back = np.argsort(layout.order[::group])
    return g.node("Gather", x, g.constant(back), axis=1)


class _Layout:
    """Where the patches of a picture lie: they come in merge groups, and go window by window."""

    def __init__(self, vision: Mapping[str, Any], high: int, across: int) -> None:
        self.merge = merge = vision["spatial_merge_size"]
        self.side = side = vision["window_size"] // vision["patch_size"]
        if high % side or across % side:
            raise PackError(
                f"{across} × {high} patches are not made of whole windows of {side}",
                where="picture",
                remedy=f"Let both sides be a multiple of {vision['window_size']} pixels.",
            )
        groups = np.arange(high * across).reshape(high // merge, across // merge, merge * merge)
        edge = side // merge
        windows = groups.reshape(high // side, edge, across // side, edge, -1).swapaxes(1, 2)
        self.order: Array = windows.reshape(-1)
        places = np.indices((high, across)).reshape(2, high // merge, merge, -1, merge)
        self._row, self._column = (
            part.swapaxes(1, 2).reshape(-1)[self.order] for part in (places[0], places[1])
        )

    def angles(self, head: int) -> Array:
        """Return the angles of every patch, rows first."""
        speeds = 10000.0 ** (-np.arange(0, head // 2, 2) / (head // 2))
        by_axis = [np.outer(axis, speeds) for axis in (self._row, self._column)]
        return np.hstack(by_axis).astype(np.float32)
