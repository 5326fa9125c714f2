"""Export of vision-language models into the three-file layout, with parity proven."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hypnocast.errors import PackError
from hypnocast.stagers.onnx.pixels import patch_grid
from hypnocast.stagers.packs.manifest import Preprocess
from hypnocast_models.export.graphs import (
    KEEP,
    GraphFile,
    keep_last,
    read_shapes,
    write_graph,
)
from hypnocast_models.export.llama import DecoderShape
from hypnocast_models.export.parts import DecoderModule, Embed, vision_part

VISION, EMBED, DECODER = (
    "vision_encoder.onnx",
    "embed_tokens.onnx",
    "decoder_model_merged.onnx",
)
BOUND_FP32 = 1e-4
"""Largest difference of a logit to PyTorch's that an fp32 export may show."""
GREEDY_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Parity:
    """How far the exported graphs are from the model they were made of."""

    largest: float
    """Largest difference of a logit, over prefill and every step."""
    same_tokens: bool
    """Whether greedy decoding gave the same tokens."""
    tokens: int

    def __str__(self) -> str:
        same = "equal" if self.same_tokens else "NOT equal"
        return f"max |Δlogit| {self.largest:.1e}, {self.tokens} greedy tokens {same}"

    def demand(self, bound: float) -> None:
        """Refuse an export that is further off than ``bound`` or chooses other tokens."""
        if self.largest > bound or not self.same_tokens:
            raise PackError(
                f"it differs from PyTorch: {self}",
                where="export",
                remedy=f"At most {bound:g} and equal tokens are allowed; do not use these files.",
            )


def pixel_example(preprocess: Preprocess, pictures: int) -> Tensor:
    """Return random pixels as the vision graph reads them."""
    size = (preprocess.height, preprocess.width)
    if preprocess.layout == "patches":
        rows, columns = patch_grid(preprocess)
        patches = rows * columns * preprocess.merge_size**2
        numbers = 3 * preprocess.temporal_patch_size * preprocess.patch_size**2
        return torch.randn(patches, numbers)
    if preprocess.dtype == "uint8":
        return torch.randint(0, 256, (pictures, 3, *size), dtype=torch.uint8)
    return torch.randn(pictures * preprocess.tiles, 3, *size)


def export_generative(
    model: Any,
    preprocess: Preprocess,
    folder: Path,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[DecoderShape, Parity]:
    """Write the three graphs in fp32, print their inputs, and prove parity."""
    folder.mkdir(parents=True, exist_ok=True)
    model = model.float().eval()
    use_eager_attention(model)
    shape = DecoderShape.of(model.config.to_dict())
    with torch.no_grad():
        graphs = _write(model, preprocess, shape, folder)
        keep_last(folder / DECODER, "logits")
        for graph in graphs:
            progress(str(read_shapes(graph.path)))
        parity = prove(model, preprocess, shape, folder)
    progress(f"parity with PyTorch: {parity}")
    parity.demand(BOUND_FP32)
    return shape, parity


def use_eager_attention(model: Any) -> None:
    """Let every part of a model compute attention by plain matrix products, which export."""
    for module in model.modules():
        config = getattr(module, "config", None)
        if config is not None and hasattr(config, "_attn_implementation"):
            config._attn_implementation = "eager"  # noqa: SLF001 - no public way to change it late


def _write(
    model: Any, preprocess: Preprocess, shape: DecoderShape, folder: Path
) -> list[GraphFile]:
    vision = vision_part(model, preprocess.height, preprocess.width)
    patches = preprocess.layout == "patches"
    text = model.config.get_text_config()
    batch, new, before = 2, 5, 3
    positions = torch.arange(before, before + new)[None].expand(batch, -1).contiguous()
    if shape.mrope:
        positions = positions[None].expand(3, -1, -1).contiguous()
    past = [
        torch.randn(batch, shape.kv_heads, before, shape.head_dim) for _ in range(2 * shape.layers)
    ]
    kinds = [f"{layer}.{part}" for layer in range(shape.layers) for part in ("key", "value")]
    two = {0: "batch", 1: "sequence"}
    return [
        write_graph(
            vision,
            (pixel_example(preprocess, 2),),
            folder / VISION,
            names=["pixel_values"],
            outputs=["image_features"],
            free=[{} if patches else {0: "pictures"}],
            traced=patches,
        ),
        write_graph(
            Embed(model),
            (torch.ones(2, 7, dtype=torch.int64),),
            folder / EMBED,
            names=["input_ids"],
            outputs=["inputs_embeds"],
            free=[two],
        ),
        write_graph(
            DecoderModule(model),
            (
                torch.randn(batch, new, text.hidden_size),
                torch.ones(batch, before + new, dtype=torch.int64),
                positions,
                past,
            ),
            folder / DECODER,
            names=[
                "inputs_embeds",
                "attention_mask",
                "position_ids",
                *(f"past_key_values.{k}" for k in kinds),
            ],
            outputs=["logits", *(f"present.{k}" for k in kinds)],
            free=[
                two,
                {0: "batch", 1: "total"},
                {1: "batch", 2: "sequence"} if shape.mrope else two,
                *({0: "batch", 2: "past"} for _ in kinds),
            ],
        ),
    ]


def prove(model: Any, preprocess: Preprocess, shape: DecoderShape, folder: Path) -> Parity:
    """Compare the graphs with PyTorch: pixels to features to logits, then greedy steps.

    PyTorch runs the model's own parts (its vision path as transformers writes it), ONNX Runtime
    the three files; the prompt is random text around one picture.
    """
    files = _Files(folder, shape)
    generator = torch.Generator().manual_seed(1)
    pixels = pixel_example(preprocess, 1)
    features = reference_features(model, pixels, preprocess)
    vocabulary = model.config.get_text_config().vocab_size
    words = torch.randint(3, vocabulary, (1, 8), generator=generator)
    embedded = model.get_input_embeddings()(words)
    sentence = torch.cat([embedded[:, :4], features[None], embedded[:, 4:]], 1)
    word_rows = files.embed(words.numpy())
    seen = files.see(pixels.numpy())
    joined = np.concatenate([word_rows[:, :4], seen[None], word_rows[:, 4:]], 1)

    largest, same = 0.0, True
    past: list[NDArray[Any]] | None = None
    language = getattr(model.model, "language_model", None) or model.model.text_model
    for _ in range(GREEDY_TOKENS):
        places = torch.arange(sentence.shape[1])[None]
        if shape.mrope:
            places = places[None].expand(3, -1, -1)
        states = language(inputs_embeds=sentence, position_ids=places, use_cache=False)
        wanted = model.lm_head(states.last_hidden_state[:, -1:]).numpy()
        got, past = files.read(joined, sentence.shape[1], past)
        largest = max(largest, float(np.abs(wanted - got).max()))
        token = int(wanted[0, -1].argmax())
        same = same and token == int(got[0, -1].argmax())
        following = torch.tensor([[token]])
        sentence = torch.cat([sentence, model.get_input_embeddings()(following)], 1)
        joined = files.embed(following.numpy())
    return Parity(largest, same, GREEDY_TOKENS)


def reference_features(model: Any, pixels: Tensor, preprocess: Preprocess) -> Tensor:
    """Give the features as the model's own code computes them, not the exported part's."""
    kind = model.config.model_type
    if kind == "qwen2_5_vl":
        rows, columns = (size * preprocess.merge_size for size in patch_grid(preprocess))
        seen = model.model.visual(pixels, grid_thw=torch.tensor([[1, rows, columns]]))
        return seen if isinstance(seen, Tensor) else seen.pooler_output
    if kind in {"smolvlm", "idefics3"}:
        return torch.cat(list(model.model.get_image_features(pixels[None]).flatten(0, 1)[None]))
    if preprocess.dtype == "uint8":
        pixels = pixels.float() / 255
    tower = model.model.vision_tower(pixels, output_hidden_states=True)
    states = tower.hidden_states[model.config.vision_feature_layer]
    if model.config.vision_feature_select_strategy == "default":
        states = states[:, 1:]
    features: Tensor = model.model.multi_modal_projector(states).flatten(0, 1)
    return features


class _Files:
    """The three graphs in ONNX Runtime on the CPU."""

    def __init__(self, folder: Path, shape: DecoderShape) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1

        def open_graph(name: str) -> Any:
            return onnxruntime.InferenceSession(
                str(folder / name), options, providers=["CPUExecutionProvider"]
            )

        self._vision, self._embed, self._decoder = (
            open_graph(name) for name in (VISION, EMBED, DECODER)
        )
        self._shape = shape
        self._past = [
            f"past_key_values.{layer}.{part}"
            for layer in range(shape.layers)
            for part in ("key", "value")
        ]

    def see(self, pixels: NDArray[Any]) -> NDArray[Any]:
        features: NDArray[Any] = self._vision.run(None, {"pixel_values": pixels})[0]
        return features

    def embed(self, ids: NDArray[Any]) -> NDArray[Any]:
        embeds: NDArray[Any] = self._embed.run(None, {"input_ids": ids})[0]
        return embeds

    def read(
        self, embeds: NDArray[Any], total: int, past: list[NDArray[Any]] | None
    ) -> tuple[NDArray[Any], list[NDArray[Any]]]:
        batch, new = embeds.shape[:2]
        places = np.arange(total - new, total, dtype=np.int64)
        places = np.broadcast_to(places, (3, batch, new) if self._shape.mrope else (batch, new))
        nothing = np.zeros((batch, self._shape.kv_heads, 0, self._shape.head_dim), np.float32)
        known = past or [nothing] * len(self._past)
        feeds = {
            "inputs_embeds": embeds,
            "attention_mask": np.ones((batch, total), np.int64),
            "position_ids": np.ascontiguousarray(places),
            KEEP: np.asarray(1, dtype=np.int64),
            **dict(zip(self._past, known, strict=True)),
        }
        logits, *present = self._decoder.run(None, feeds)
        return logits, present
