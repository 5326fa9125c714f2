"""Decoders of the Llama kind, with their token embeddings: Llama, Mistral, Qwen2, Qwen2.5-VL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hypnocast.errors import PackError
from hypnocast_models.export.onnx_writer import FLOAT, HALF, INT32, INT64, GraphWriter, Weights
from hypnocast_models.export.quantise import BLOCK
from hypnocast_models.export.shards import Array, Shards

EMBED, DECODER = "embed_tokens.onnx", "decoder_model_merged.onnx"
KEEP = "num_logits_to_keep"
"""The input that tells a decoder how many last positions need logits."""


_UNSAID = {"hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 32}
"""What published configurations leave out where it is as in Llama-7B."""


@dataclass(frozen=True, slots=True)
class DecoderShape:
    """What a decoder's memory looks like, read from ``config.json``."""

    layers: int
    kv_heads: int
    head_dim: int
    mrope: bool

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> DecoderShape:
        """Read a model's configuration."""
        text = {**_UNSAID, **(config.get("text_config") or config)}
        rope = text.get("rope_scaling") or text.get("rope_parameters") or {}
        heads = text["num_attention_heads"]
        return cls(
            layers=text["num_hidden_layers"],
            kv_heads=text.get("num_key_value_heads") or heads,
            head_dim=text.get("head_dim") or text["hidden_size"] // heads,
            mrope=bool(rope.get("mrope_section")),
        )


@dataclass(frozen=True, slots=True)
class Text:
    """What a decoder looks like, read from ``config.json``."""

    hidden: int
    shape: DecoderShape
    heads: int
    vocabulary: int
    epsilon: float
    theta: float
    sections: tuple[int, ...]
    """How many frequencies turn by time, row and column; one entry: plain rotation."""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Text:
        """Read a model's configuration."""
        text = {**_UNSAID, **(config.get("text_config") or config)}
        rope = text.get("rope_scaling") or text.get("rope_parameters") or {}
        kind = rope.get("rope_type") or rope.get("type") or "default"
        activation = text.get("hidden_act", "silu")
        if kind not in {"default", "mrope"} or activation != "silu":
            raise PackError(
                f"rotation {kind!r} with activation {activation!r} is not known",
                where="config.json",
                remedy="This exporter knows plain and mrope rotation, and silu.",
            )
        shape = DecoderShape.of(config)
        theta = text.get("rope_theta") or rope.get("rope_theta") or 10000.0
        return cls(
            hidden=text["hidden_size"],
            shape=shape,
            heads=text["num_attention_heads"],
            vocabulary=text["vocab_size"],
            epsilon=text.get("rms_norm_eps", 1e-6),
            theta=float(theta),
            sections=tuple(rope.get("mrope_section") or [shape.head_dim // 2]),
        )


def write_text(
    shards: Shards,
    text: Text,
    folder: Path,
    *,
    weights: Weights,
    head: Weights,
    block: int = BLOCK,
    half: bool = False,
) -> dict[str, int]:
    """Write decoder and embeddings; tied weights are stored once. Return bytes by file.

    ``half``: activations are fp16 whatever the weights.
    """
    table = check_decoder(shards)
    if text.hidden % block and head in {"int4", "int8"}:
        raise PackError(
            f"its width of {text.hidden} is not made of whole blocks of {block}",
            where="export",
            remedy="Use smaller blocks, or a head in fp32.",
        )
    g = GraphWriter(folder / DECODER, weights, block, half=half)
    normed = _layers(g, shards, text, table)
    head_name = next(n for n in (*_heads(table), f"{table}embed_tokens.weight") if n in shards)
    logits = g.linear(normed, "lm_head", shards[head_name], weights=head)
    g.gives("logits", FLOAT, ["batch", "kept", text.vocabulary], logits)
    tied = head_name == f"{table}embed_tokens.weight"
    embeddings = shards[f"{table}embed_tokens.weight"]
    embed = _write_embeddings(g, embeddings, text, folder, head, tied=tied)
    return {DECODER: g.finish(), EMBED: embed.finish()}


def check_decoder(shards: Shards) -> str:
    """Refuse a decoder of another kind; return what its names begin with."""
    table = shards.prefix("embed_tokens.weight")
    for unknown in ("self_attn.q_norm.weight", "self_attn.sinks", "mlp.experts.0.up_proj.weight"):
        if f"{table}layers.0.{unknown}" in shards:
            raise PackError(
                f"its decoder has {unknown}, which is not known",
                where="export",
                remedy="Export it with a version of Hypnocast that knows this kind.",
            )
    return table


def _heads(table: str) -> tuple[str, ...]:
    outer = table.removesuffix("model.").removesuffix("text_model.").removesuffix("language_model.")
    return tuple(dict.fromkeys((f"{table.removesuffix('model.')}lm_head.weight",
                                f"{outer}lm_head.weight", "lm_head.weight")))  # fmt: skip


def _write_embeddings(
    decoder: GraphWriter, table: Array, text: Text, folder: Path, head: Weights, *, tied: bool
) -> GraphWriter:
    exact: Weights = "fp16" if decoder.float == HALF else "fp32"
    e = GraphWriter(folder / EMBED, exact, decoder.block)
    ids = e.add_input("input_ids", INT64, ["batch", "tokens"])
    if head in {"int4", "int8"}:
        bits = 4 if head == "int4" else 8
        if tied:  # the bytes of the head serve once more, without the axis of blocks
            bytes_wide = -(-text.hidden // e.block) * e.block * bits // 8
            numbers = e.share(decoder, "lm_head", (text.vocabulary, bytes_wide))
            count = -(-text.hidden // e.block)
            scales = e.share(decoder, "lm_head.scales", (text.vocabulary, count))
        else:
            numbers, scales = e.blocks("table", table, bits, flat=True)
        found = e.node(
            "GatherBlockQuantized", numbers, ids, scales,
            bits=bits, block_size=e.block, gather_axis=0, quantize_axis=1,
        )  # fmt: skip
    else:
        if tied:
            stored = e.share(decoder, "lm_head", table.shape)
        else:
            kind = np.float16 if e.weights == "fp16" else np.float32
            step = max(1, 2**23 // table.shape[1])
            pieces = (
                table[start : start + step].astype(kind) for start in range(0, table.shape[0], step)
            )
            stored = e.store("table", table.shape, pieces)
        found = e.node("Gather", stored, ids)
    e.gives("inputs_embeds", e.float, ["batch", "tokens", text.hidden], found)
    return e


def _layers(g: GraphWriter, shards: Shards, text: Text, prefix: str) -> str:
    """Write inputs and layers; return the normed states of the last tokens."""
    x = g.add_input("inputs_embeds", g.float, ["batch", "tokens", text.hidden])
    mask = g.add_input("attention_mask", INT64, ["batch", "total"])
    place = ["axes", "batch", "tokens"] if text.shape.mrope else ["batch", "tokens"]
    places = g.add_input("position_ids", INT64, place)
    keep = g.add_input(KEEP, INT64, [])
    total = g.node("Cast", g.node("Gather", g.node("Shape", mask), g.constant(1)), to=INT32)
    count = g.node("ReduceSum", mask, g.constant(np.array([1])), keepdims=0)
    last = g.node("Cast", g.node("Sub", count, g.constant(1)), to=INT32)
    rows, cos, sin = _rotation(g, x, places, text)
    added: str | None = None
    for number in range(text.shape.layers):
        layer = f"{prefix}layers.{number}."
        normed, x = g.rms_norm(
            x, added, f"{layer}norm1", shards[f"{layer}input_layernorm.weight"], text.epsilon
        )
        q, k, v = (
            g.linear(normed, name, shards[f"{name}.weight"], shards.get(f"{name}.bias"))
            for name in (f"{layer}self_attn.{part}_proj" for part in "qkv")
        )
        q, k = (g.node("RotaryEmbedding", part, rows, cos, sin) for part in (q, k))
        attended = _attention(g, text, number, (q, k, v), (last, total))
        name = f"{layer}self_attn.o_proj"
        added = g.linear(attended, name, shards[f"{name}.weight"], shards.get(f"{name}.bias"))
        normed, x = g.rms_norm(
            x,
            added,
            f"{layer}norm2",
            shards[f"{layer}post_attention_layernorm.weight"],
            text.epsilon,
        )
        added = gated(g, normed, f"{layer}mlp.", shards)
    normed, _ = g.rms_norm(x, added, "norm", shards[f"{prefix}norm.weight"], text.epsilon)
    axis = g.constant(np.array([1]))
    first = g.node("Reshape", g.node("Neg", keep), axis)
    return g.node("Slice", normed, first, g.constant(np.array([2**62])), axis)


def _rotation(g: GraphWriter, x: str, places: str, text: Text) -> tuple[str, str, str]:
    """Write one row of angles for each token.

    A product with the frequencies in the row of their section picks time, row or column; with one
    section it is plain rotation. ``RotaryEmbedding`` then merely counts the rows.
    """
    axes = len(text.sections)
    angles = np.zeros((axes, text.shape.head_dim // 2), np.float32)
    axis = np.repeat(np.arange(axes), text.sections)
    frequencies = text.theta ** (-np.arange(0, text.shape.head_dim, 2) / text.shape.head_dim)
    angles[axis, np.arange(text.shape.head_dim // 2)] = frequencies
    flat = g.reshape(places, axes, -1)
    flat = g.node("Transpose", g.node("Cast", flat, to=FLOAT), perm=[1, 0])
    turned = g.node("MatMul", flat, g.constant(angles))
    cos, sin = g.cast(g.node("Cos", turned)), g.cast(g.node("Sin", turned))
    shape = g.node("Shape", x, start=0, end=2)
    tokens = g.node("ReduceProd", shape, keepdims=0)
    rows = g.node("Range", g.constant(0), tokens, g.constant(1))
    return g.node("Reshape", rows, shape), cos, sin


def _attention(
    g: GraphWriter, text: Text, number: int, qkv: tuple[str, ...], lengths: tuple[str, str]
) -> str:
    names = [f"{number}.{part}" for part in ("key", "value")]
    for name in names:
        shape: list[str | int] = ["batch", text.shape.kv_heads, "past", text.shape.head_dim]
        g.add_input(f"past_key_values.{name}", g.float, shape)
        g.gives(
            f"present.{name}",
            g.float,
            ["batch", text.shape.kv_heads, "present", text.shape.head_dim],
        )
    attended, _, _ = g.nodes(
        "GroupQueryAttention",
        *qkv,
        *(f"past_key_values.{name}" for name in names),
        *lengths,
        outputs=[True, *(f"present.{name}" for name in names)],
        num_heads=text.heads,
        kv_num_heads=text.shape.kv_heads,
        scale=text.shape.head_dim**-0.5,
    )
    return attended


def gated(g: GraphWriter, x: str, name: str, shards: Shards) -> str:
    """Write down(silu(gate(x)) * up(x))."""
    gate, up, down = (f"{name}{part}" for part in ("gate_proj", "up_proj", "down_proj"))

    def product(given: str, part: str) -> str:
        return g.linear(given, part, shards[f"{part}.weight"], shards.get(f"{part}.bias"))

    opened = g.node("QuickGelu", product(x, gate), alpha=1.0)
    return product(g.node("Mul", opened, product(x, up)), down)
