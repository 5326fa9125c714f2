"""The three parts of a vision-language model, each as a module that exports cleanly.

``vision_encoder``        pixels → features, one row per image token
``embed_tokens``          token ids → embeddings
``decoder_model_merged``  embeddings, mask, positions, past → logits, present

transformers' own forward methods split lists of pictures, build masks with vmap and ask tensors
for numbers; all of that freezes dimensions or fails to export. These modules call the same
layers with the same numbers and nothing around them.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache

from hypnocast.errors import PackError
from hypnocast_models.small.tower import PageTower

FAMILIES = ("llava", "llava_next", "smolvlm", "idefics3", "qwen2_5_vl")


class Embed(nn.Module):  # type: ignore[misc]  # torch is passed over by mypy
    """Token ids to embeddings."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.words = model.get_input_embeddings()

    def forward(self, input_ids: Tensor) -> Tensor:
        """Look tokens up."""
        return cast("Tensor", self.words(input_ids))


class DecoderModule(nn.Module):  # type: ignore[misc]  # torch is passed over by mypy
    """The language model with its head; key-values of the past in, of past and present out."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.language = getattr(model.model, "language_model", None) or model.model.text_model
        self.head = model.lm_head
        self.layers = self.language.config.num_hidden_layers

    def forward(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        past: list[Tensor],
    ) -> tuple[Tensor, ...]:
        """Read on from the past.

        The additive mask is built here: transformers passes a 4-D mask through untouched, so
        none of its mask code comes into the graph.
        """
        total, new = attention_mask.shape[1], inputs_embeds.shape[1]
        places = torch.arange(total, device=inputs_embeds.device)
        reader = torch.arange(new, device=inputs_embeds.device) + (total - new)
        keep = attention_mask[:, None, None, :].bool()
        keep = keep & (places[None, :] <= reader[:, None])[None, None]
        mask = torch.where(keep, 0.0, torch.finfo(inputs_embeds.dtype).min)
        cache = DynamicCache()
        for layer in range(self.layers):
            cache.update(past[2 * layer], past[2 * layer + 1], layer)
        read = self.language(
            inputs_embeds=inputs_embeds,
            attention_mask=mask.to(inputs_embeds.dtype),
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
        )
        known = [
            part
            for layer in range(self.layers)
            for part in (
                read.past_key_values.layers[layer].keys,
                read.past_key_values.layers[layer].values,
            )
        ]
        return (self.head(read.last_hidden_state), *known)


class PageVision(nn.Module):  # type: ignore[misc]  # torch is passed over by mypy
    """The small pack's tower and projector, fed with bytes: black costs nothing to convert."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.tower, self.project = model.model.vision_tower, model.model.multi_modal_projector

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Give the features of whole pages (pages, 3, 448, 448) in 0 … 255."""
        ink, power = self.tower.cut(pixel_values)
        pages, strips = ink.shape[0], ink.shape[1]
        band = torch.arange(strips, device=ink.device)[None].expand(pages, -1)
        features = self.tower.read(ink.float() / 255, power.float() / 255, band)
        projected = self.project(features)
        return cast("Tensor", projected.reshape(-1, projected.shape[-1]))


class LlavaVision(nn.Module):  # type: ignore[misc]  # torch is passed over by mypy
    """CLIP or SigLIP tower and projector of LLaVA, or of LLaVA-NeXT's tiles."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.tower, self.project = model.model.vision_tower, model.model.multi_modal_projector
        self.layer = model.config.vision_feature_layer
        self.drop_first = model.config.vision_feature_select_strategy == "default"

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Give the features of pictures (pictures, 3, height, width)."""
        states = self.tower(pixel_values, output_hidden_states=True).hidden_states[self.layer]
        features = self.project(states[:, 1:] if self.drop_first else states)
        return cast("Tensor", features.reshape(-1, features.shape[-1]))


class TileVision(nn.Module):  # type: ignore[misc]  # torch is passed over by mypy
    """Idefics3 and SmolVLM: full square tiles, so their padding masks fall away."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.tower, self.connect = model.model.vision_model, model.model.connector
        embeddings = self.tower.embeddings
        side = embeddings.image_size // embeddings.patch_size
        blank = torch.zeros(1, 3, embeddings.image_size, embeddings.image_size)
        # The position term comes from the real code: its ids are not simply 0 … n.
        with torch.no_grad():
            placed = embeddings(blank, torch.ones(1, side, side, dtype=torch.bool))
            bare = embeddings.patch_embedding(blank).flatten(2).transpose(1, 2)
        self.register_buffer("places", placed - bare)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Give the features of tiles (tiles, 3, side, side)."""
        patches = self.tower.embeddings.patch_embedding(pixel_values)
        states = patches.flatten(2).transpose(1, 2) + self.places
        states = self.tower.encoder(inputs_embeds=states).last_hidden_state
        features = self.connect(self.tower.post_layernorm(states))
        return cast("Tensor", features.reshape(-1, features.shape[-1]))


class QwenVision(nn.Module):  # type: ignore[misc]  # torch is passed over by mypy
    """Qwen2.5-VL's tower for pictures of one size: windows and rotations become constants."""

    def __init__(self, model: Any, rows: int, columns: int) -> None:
        super().__init__()
        self.tower = model.model.visual
        self.grid = [[1, rows, columns]]

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Give the features of one picture's patches (patches, numbers)."""
        return cast("Tensor", self.tower(pixel_values, grid_thw=torch.tensor(self.grid)))


def vision_part(model: Any, height: int, width: int) -> nn.Module:
    """Give the module that turns pixels into features, for any family."""
    kind = model.config.model_type
    if kind not in FAMILIES:
        raise PackError(
            f"no way is known to export models of type {kind!r}",
            where="export",
            remedy=f"The families are {', '.join(FAMILIES)}.",
        )
    if kind == "qwen2_5_vl":
        patch = model.config.vision_config.patch_size
        return QwenVision(model, height // patch, width // patch)
    if kind in {"smolvlm", "idefics3"}:
        return TileVision(model)
    if isinstance(model.model.vision_tower, PageTower):
        return PageVision(model)
    return LlavaVision(model)
