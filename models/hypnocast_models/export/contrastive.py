"""CLIP and SigLIP from a folder of weights: the picture tower as a graph, the texts as vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from hypnocast.errors import PackError
from hypnocast.stagers.packs.manifest import Preprocess
from hypnocast_models.export import towers
from hypnocast_models.export.onnx_writer import FLOAT, GraphWriter, Weights
from hypnocast_models.export.shards import Array, Shards

ENCODER = "image_encoder.onnx"


def is_clip(shards: Shards) -> bool:
    """Distinguish CLIP from SigLIP by what it has."""
    return shards.has("vision_model.embeddings.class_embedding")


def write_pictures(
    shards: Shards, config: Mapping[str, Any], how: Preprocess, path: Path, weights: Weights
) -> int:
    """Write the picture tower: pixels to unit vectors."""
    clip, prefix = is_clip(shards), "vision_model."
    vision = {**_defaults(clip=clip, of="vision"), **config["vision_config"]}
    g = GraphWriter(path, weights)
    pixels = g.add_input("pixel_values", FLOAT, ["pictures", 3, how.height, how.width])
    embed = towers.clip_pictures if clip else towers.siglip_pictures
    x = towers.encoder(g, embed(g, pixels, shards, prefix), shards, prefix, vision)
    if clip:
        x = g.node("Gather", x, g.constant(0), axis=1)
        x = towers.norm(g, x, f"{prefix}post_layernorm", shards, vision)
        x = g.linear(x, "visual_projection", shards["visual_projection.weight"])
    else:
        x = towers.norm(g, x, f"{prefix}post_layernorm", shards, vision)
        x = towers.pool_siglip(g, x, shards, prefix, vision)
    x = _unit(g, x)
    wide = shards["visual_projection.weight"].shape[0] if clip else vision["hidden_size"]
    g.gives("image_embeds", FLOAT, ["pictures", wide], x)
    return g.finish()


def embed_texts(
    shards: Shards, config: Mapping[str, Any], tokenizer: Path, texts: Sequence[str]
) -> Array:
    """Return the unit vectors of some texts, by graphs of a layer each that are thrown away.

    A whole text tower would take gigabytes for a handful of texts.
    """
    clip = is_clip(shards)
    text = {**_defaults(clip=clip, of="text"), **(config.get("text_config") or {})}
    table, places = (
        shards[f"text_model.embeddings.{part}_embedding.weight"] for part in ("token", "position")
    )
    states = [
        (table[ids].astype(np.float32) + places[: len(ids)].astype(np.float32))[None]
        for ids in _tokens(tokenizer, text, texts, clip=clip)
    ]
    with TemporaryDirectory(dir=tokenizer.parent) as folder:
        path = Path(folder) / "layer.onnx"
        for layer in range(text["num_hidden_layers"] + 1):
            write = _write_text_layer if layer < text["num_hidden_layers"] else _write_text_end
            g = GraphWriter(path, "fp32")
            x = g.add_input("states", FLOAT, ["texts", "tokens", text["hidden_size"]])
            last = layer == text["num_hidden_layers"]
            shape: list[str | int] = ["texts", "width"] if last else ["texts", "tokens", "width"]
            g.gives("out", FLOAT, shape, write(g, x, shards, text, layer))
            g.finish()
            states = _run(path, states)
    return np.concatenate(states)


def _write_text_layer(
    g: GraphWriter, x: str, shards: Shards, text: Mapping[str, Any], layer: int
) -> str:
    only, clip = range(layer, layer + 1), is_clip(shards)
    return towers.encoder(g, x, shards, "text_model.", text, layers=only, causal=clip)


def _write_text_end(g: GraphWriter, x: str, shards: Shards, text: Mapping[str, Any], _: int) -> str:
    # CLIP's text ends with its last token, SigLIP's always fills all places: the last one counts.
    x = g.node("Gather", x, g.constant(-1), axis=1)
    x = towers.norm(g, x, "text_model.final_layer_norm", shards, text)
    if is_clip(shards):
        return _unit(g, g.linear(x, "text_projection", shards["text_projection.weight"]))
    head = "text_model.head"
    return _unit(g, g.linear(x, "head", shards[f"{head}.weight"], shards[f"{head}.bias"]))


def _run(path: Path, states: Sequence[Array]) -> list[Array]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [session.run(None, {"states": each})[0] for each in states]


def _tokens(
    path: Path, text: Mapping[str, Any], texts: Sequence[str], *, clip: bool
) -> list[list[int]]:
    """Tokenise as the model's processor does: CLIP's texts end with their end, SigLIP's padded."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    room = text["max_position_embeddings"]
    rows = []
    for words in texts:
        ids: list[int] = tokenizer.encode(words).ids
        if len(ids) > room:
            raise PackError(
                f"the text {words[:40]!r} has {len(ids)} tokens, and there is room for {room}",
                where="prompts",
                remedy="Say it in fewer words.",
            )
        if clip:
            end = _end(ids, text)
            ids = ids[: end + 1]
        else:
            ids = ids + [text.get("pad_token_id", 1)] * (room - len(ids))
        rows.append(ids)
    return rows


def _end(ids: Sequence[int], text: Mapping[str, Any]) -> int:
    """Return where CLIP reads a text off: at its end token, in old models at the largest id."""
    end = text.get("eos_token_id", 49407)
    if end == 2:
        return int(np.argmax(ids))
    return ids.index(end) if end in ids else 0


def _unit(g: GraphWriter, x: str) -> str:
    x = g.node("Cast", x, to=FLOAT)
    return g.node("LpNormalization", x, axis=-1, p=2)


def _defaults(*, clip: bool, of: str) -> dict[str, Any]:
    """Return what published configurations leave out (those of transformers' classes)."""
    wide = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
    if clip and of == "text":
        wide |= {"hidden_size": 512, "num_attention_heads": 8, "max_position_embeddings": 77}
    if not clip:
        wide |= {"max_position_embeddings": 64}
    act = "quick_gelu" if clip else "gelu_pytorch_tanh"
    return {**wide, "hidden_act": act, "layer_norm_eps": 1e-5 if clip else 1e-6}
