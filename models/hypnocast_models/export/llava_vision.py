"""The eyes of LLaVA, LLaVA-NeXT, Idefics3 and SmolVLM: a tower, and what leads to the decoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hypnocast.errors import PackError
from hypnocast.stagers.packs.manifest import Preprocess
from hypnocast_models.export import towers
from hypnocast_models.export.onnx_writer import FLOAT, GraphWriter, Weights
from hypnocast_models.export.shards import Array, Shards


def write_llava_vision(
    shards: Shards, config: Mapping[str, Any], how: Preprocess, path: Path, weights: Weights
) -> int:
    """Write tower and projector; LLaVA-NeXT's tiles are joined to one picture, row by row."""
    g = GraphWriter(path, weights)
    vision, side = config["vision_config"], how.height
    pixels = g.add_input("pixel_values", FLOAT, ["pictures", 3, side, side])
    states = _states(g, pixels, shards, config)
    projector = shards.prefix("linear_1.weight")
    for name, last in (("linear_1", False), ("linear_2", True)):
        part = f"{projector}{name}"
        states = g.linear(states, part, shards[f"{part}.weight"], shards.get(f"{part}.bias"))
        states = states if last else g.node("Gelu", states)
    out = shards[f"{projector}linear_2.weight"].shape[0]
    if how.tiles > 1:
        grid = side // vision["patch_size"]
        newline = shards[f"{shards.prefix('image_newline')}image_newline"].reshape(1, 1, 1, -1)
        ends = g.vector("newline", newline)
        states = _join_tiles(g, states, how, grid=grid, newline=ends, wide=out)
    g.gives("image_features", FLOAT, ["features", out], g.reshape(states, -1, out))
    return g.finish()


def _states(g: GraphWriter, pixels: str, shards: Shards, config: Mapping[str, Any]) -> str:
    """Write the tower up to the layer that the model looks at."""
    vision, layer = config["vision_config"], config.get("vision_feature_layer", -2)
    if not isinstance(layer, int):
        raise PackError(
            "it looks at several layers of its tower",
            where="config.json: vision_feature_layer",
            remedy="This exporter knows models that look at one.",
        )
    layers = layer if layer >= 0 else vision["num_hidden_layers"] + 1 + layer
    clip = shards.has("vision_model.embeddings.class_embedding")
    prefix = shards.prefix("embeddings.patch_embedding.weight")
    embed = towers.clip_pictures if clip else towers.siglip_pictures
    x = embed(g, pixels, shards, prefix)
    x = towers.encoder(
        g, x, shards, prefix, {**_defaults(clip=clip), **vision}, layers=range(layers)
    )
    if config.get("vision_feature_select_strategy", "default") != "default":
        return x
    ends = (g.constant(np.array([at])) for at in (1, 2**62, 1))
    return g.node("Slice", x, *ends)


def _join_tiles(
    g: GraphWriter, states: str, how: Preprocess, *, grid: int, newline: str, wide: int
) -> str:
    """Put the whole picture first, then the rows of all tiles, each row ended by ``newline``."""
    rows, columns = how.tile_rows, how.tile_columns
    states = g.reshape(states, -1, how.tiles, grid * grid, wide)
    begin, last, end, axis = (g.constant(np.array([at])) for at in (0, how.tiles - 1, 2**62, 1))
    tiles = g.node("Slice", states, begin, last, axis)
    whole = g.reshape(g.node("Slice", states, last, end, axis), -1, grid * grid, wide)
    tiles = g.reshape(tiles, -1, rows, columns, grid, grid, wide)
    tiles = g.node("Transpose", tiles, perm=[0, 1, 3, 2, 4, 5])
    tiles = g.reshape(tiles, -1, rows * grid, columns * grid, wide)
    count = g.node("Shape", tiles, start=0, end=1)
    shape = g.node("Concat", count, g.constant(np.array([rows * grid, 1, wide])), axis=0)
    tiles = g.node("Concat", tiles, g.node("Expand", newline, shape), axis=2)
    tiles = g.reshape(tiles, -1, rows * grid * (columns * grid + 1), wide)
    return g.node("Concat", whole, tiles, axis=1)


def write_idefics_vision(
    shards: Shards, config: Mapping[str, Any], how: Preprocess, path: Path, weights: Weights
) -> int:
    """Write the SigLIP tower of Idefics3 and SmolVLM, and the shuffle that joins its patches."""
    g = GraphWriter(path, weights)
    vision = {**_defaults(clip=False), "num_attention_heads": 16, **config["vision_config"]}
    side, factor = how.height, config.get("scale_factor", 2)
    grid = side // vision["patch_size"]
    if grid % factor:
        raise PackError(
            f"{grid} patches a side cannot be joined by {factor}",
            where="config.json: scale_factor",
            remedy="The folder is not whole, or of another kind.",
        )
    pixels = g.add_input("pixel_values", FLOAT, ["tiles", 3, side, side])
    prefix = shards.prefix("embeddings.patch_embedding.weight")
    x = towers.siglip_pictures(g, pixels, shards, prefix, _places(grid))
    x = towers.encoder(g, x, shards, prefix, vision)
    x = towers.norm(g, x, f"{prefix}post_layernorm", shards, vision)
    wide, edge = vision["hidden_size"], grid // factor
    x = g.reshape(x, -1, edge, factor, edge, factor * wide)
    x = g.node("Transpose", x, perm=[0, 1, 3, 2, 4])
    x = g.reshape(x, -1, edge * edge, factor * factor * wide)
    name = f"{shards.prefix('modality_projection.proj.weight')}modality_projection.proj"
    x = g.linear(x, name, shards[f"{name}.weight"])
    out = shards[f"{name}.weight"].shape[0]
    g.gives("image_features", FLOAT, ["features", out], g.reshape(x, -1, out))
    return g.finish()


def _places(grid: int) -> Array:
    """Return the place of every patch as transformers finds it: not simply one after another."""
    shares = np.arange(grid, dtype=np.float32) / np.float32(grid) * np.float32(1 - 1e-6)
    edges = (1 / grid + np.arange(grid - 1) / grid).astype(np.float32)
    axis = np.searchsorted(edges, shares, side="right")
    return (axis[:, None] * grid + axis).reshape(-1)


def _defaults(*, clip: bool) -> dict[str, Any]:
    """Return what a configuration leaves out where it is as transformers has it."""
    if clip:
        return {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
    return {
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
        "num_hidden_layers": 12,
    }
