"""The towers of CLIP and SigLIP: pictures or texts to states, as their layers compute them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hypnocast.errors import PackError
from hypnocast_models.export.onnx_writer import GraphWriter, Weights
from hypnocast_models.export.shards import Array, Shards

_ACTIVATIONS: Mapping[str, tuple[str, dict[str, float]]] = {
    "quick_gelu": ("QuickGelu", {"alpha": 1.702}),
    "gelu": ("Gelu", {}),
    "gelu_pytorch_tanh": ("FastGelu", {}),
}


def cut_into_patches(g: GraphWriter, pixels: str, weight: Array, bias: Array | None) -> str:
    """Embed the patches of pictures (n, 3, height, width): (n, patches, width of the tower)."""
    wide, _, side, _ = weight.shape
    stored = g.vector("patch_embedding", weight)
    added = () if bias is None else (g.vector("patch_embedding.bias", bias),)
    x = g.node("Conv", g.cast(pixels), stored, *added, strides=[side, side])
    return g.node("Transpose", g.reshape(x, 0, wide, -1), perm=[0, 2, 1])


def clip_pictures(g: GraphWriter, pixels: str, shards: Shards, prefix: str) -> str:
    """Write the embeddings of CLIP's picture tower, and the norm before its layers."""
    place = f"{prefix}embeddings."
    x = cut_into_patches(g, pixels, shards[f"{place}patch_embedding.weight"], None)
    first = g.vector("class_embedding", shards[f"{place}class_embedding"].reshape(1, 1, -1))
    count = g.node("Shape", x, start=0, end=1)
    shape = g.node("Concat", count, g.constant(np.array([1, 1])), axis=0)
    x = g.node("Concat", g.node("Expand", first, shape), x, axis=1)
    x = g.node("Add", x, g.vector("positions", shards[f"{place}position_embedding.weight"]))
    name = f"{prefix}pre_layrnorm"
    return _norm(g, x, name, shards, 1e-5)


def siglip_pictures(
    g: GraphWriter, pixels: str, shards: Shards, prefix: str, order: Array | None = None
) -> str:
    """Write the embeddings of SigLIP's picture tower; ``order`` picks the places of patches."""
    place = f"{prefix}embeddings."
    places = shards[f"{place}position_embedding.weight"]
    places = places if order is None else places[order]
    weight, bias = (shards[f"{place}patch_embedding.{part}"] for part in ("weight", "bias"))
    x = cut_into_patches(g, pixels, weight, bias)
    return g.node("Add", x, g.vector("positions", places))


def encoder(
    g: GraphWriter,
    x: str,
    shards: Shards,
    prefix: str,
    config: Mapping[str, Any],
    *,
    layers: range | None = None,
    causal: bool = False,
) -> str:
    """Write the layers; CLIP's and SigLIP's are alike but for numbers."""
    layers = range(config["num_hidden_layers"]) if layers is None else layers
    epsilon = config.get("layer_norm_eps", 1e-5)
    activation = _ACTIVATIONS.get(config.get("hidden_act", "quick_gelu"))
    if activation is None:
        raise PackError(
            f"activation {config['hidden_act']!r} is not known",
            where="config.json",
            remedy=f"The known ones are {', '.join(_ACTIVATIONS)}.",
        )
    kind, attributes = activation

    def product(given: str, name: str) -> str:
        return g.linear(given, name, shards[f"{name}.weight"], shards[f"{name}.bias"])

    for number in layers:
        layer = f"{prefix}encoder.layers.{number}."
        normed = _norm(g, x, f"{layer}layer_norm1", shards, epsilon)
        q, k, v = (product(normed, f"{layer}self_attn.{part}_proj") for part in "qkv")
        attended = g.node(
            "MultiHeadAttention",
            *(q, k, v),
            num_heads=config["num_attention_heads"],
            unidirectional=int(causal),
        )
        x = g.node("Add", x, product(attended, f"{layer}self_attn.out_proj"))
        normed = _norm(g, x, f"{layer}layer_norm2", shards, epsilon)
        opened = g.node(kind, product(normed, f"{layer}mlp.fc1"), **attributes)
        x = g.node("Add", x, product(opened, f"{layer}mlp.fc2"))
    return x


def norm(g: GraphWriter, x: str, name: str, shards: Shards, config: Mapping[str, Any]) -> str:
    """Write a norm with the tower's epsilon."""
    return _norm(g, x, name, shards, config.get("layer_norm_eps", 1e-5))


def pool_siglip(
    g: GraphWriter, x: str, shards: Shards, prefix: str, config: Mapping[str, Any]
) -> str:
    """Write SigLIP's pooling head: one learnt question to all patches, and an MLP."""
    head, wide = f"{prefix}head.", config["hidden_size"]
    weights = np.split(shards[f"{head}attention.in_proj_weight"], 3)
    biases = np.split(shards[f"{head}attention.in_proj_bias"], 3)
    probe = shards[f"{head}probe"].astype(np.float32).reshape(1, wide)
    asked = probe @ weights[0].astype(np.float32).T + biases[0].astype(np.float32)
    count = g.node("Shape", x, start=0, end=1)
    shape = g.node("Concat", count, g.constant(np.array([1, wide])), axis=0)
    q = g.node("Expand", g.vector("probe", asked.reshape(1, 1, wide)), shape)
    # One token of each picture goes through here: exact numbers cost nothing.
    exact: Weights = "fp16" if g.weights == "fp16" else "fp32"
    k, v = (g.linear(x, f"{head}{at}", weights[at], biases[at], exact) for at in (1, 2))
    x = g.node("MultiHeadAttention", q, k, v, num_heads=config["num_attention_heads"])
    name = f"{head}attention.out_proj"
    x = g.linear(x, name, shards[f"{name}.weight"], shards[f"{name}.bias"], exact)
    normed = _norm(g, x, f"{head}layernorm", shards, config.get("layer_norm_eps", 1e-6))
    kind, attributes = _ACTIVATIONS[config.get("hidden_act", "gelu_pytorch_tanh")]
    first, second = f"{head}mlp.fc1", f"{head}mlp.fc2"
    inner = g.linear(normed, first, shards[f"{first}.weight"], shards[f"{first}.bias"], exact)
    inner = g.node(kind, inner, **attributes)
    inner = g.linear(inner, second, shards[f"{second}.weight"], shards[f"{second}.bias"], exact)
    return g.reshape(g.node("Add", x, inner), -1, wide)


def _norm(g: GraphWriter, x: str, name: str, shards: Shards, epsilon: float) -> str:
    return g.layer_norm(x, name, shards[f"{name}.weight"], shards[f"{name}.bias"], epsilon)
