"""The eye of the small pack: a vision tower that reads a ``spectral-448`` page band by band.

A page has six bands. Of each the tower cuts the strip of the trace and the strip of the
spectrogram, reads both with the same small convolutions for every band, and makes one token per
32 columns. Tokens without ink are masked, so a page with one channel, or with five seconds of
thirty, costs nothing in meaning. A few latent queries gather the tokens into the visual features
that the language model sees.

Importing this module registers the tower with transformers, so that a
``LlavaForConditionalGeneration`` with this tower loads from a folder like any other model.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

BANDS = 6
PAGE_PX = 448
TRACE_HALF_PX = 224
TOKEN_PX = 32
STRIP_ROWS = 56
"""Rows cut around a trace's zero line: half as much again as its band, for tall waves."""
SPECTRUM_ROWS = 37
SPECTRUM_STEP_PX = 4
"""Columns of pixels that show one and the same spectrum."""
_BAND_PX = TRACE_HALF_PX / BANDS
TRACE_TOPS = tuple(round((k + 0.5) * _BAND_PX) - STRIP_ROWS // 2 for k in range(BANDS))
SPECTRUM_TOPS = tuple(TRACE_HALF_PX + round(k * _BAND_PX) for k in range(BANDS))
_PAD_ROWS = STRIP_ROWS // 2
_GRID_INK = 0.25
"""Brightness under which ink is the printed grid, not a trace."""


class PageTowerConfig(PretrainedConfig):  # type: ignore[misc]  # transformers is untyped here
    """How wide and how deep the tower is."""

    model_type = "hypnocast_page_tower"

    def __init__(
        self,
        *,
        hidden_size: int = 128,
        trace_channels: int = 64,
        spectrum_channels: int = 128,
        latents: int = 4,
        num_hidden_layers: int = 1,
        num_attention_heads: int = 4,
        intermediate_size: int = 256,
        dropout: float = 0.1,
        image_size: int = PAGE_PX,
        **rest: Any,
    ) -> None:
        """Keep the sizes; the geometry of the page is fixed by its recipe."""
        self.hidden_size = hidden_size
        self.trace_channels = trace_channels
        self.spectrum_channels = spectrum_channels
        self.latents = latents
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.dropout = dropout
        self.image_size = image_size
        super().__init__(**rest)


class _ChannelNorm(nn.Module):  # type: ignore[misc]  # torch is passed over by mypy
    """LayerNorm over channels of (n, channels, rows, columns): blind to how full a page is."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.norm(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


class _Gather(nn.Module):  # type: ignore[misc]  # torch is passed over by mypy
    """One round in which the latents look at the tokens and at each other."""

    def __init__(self, config: PageTowerConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.norm_latents = nn.LayerNorm(width)
        self.norm_tokens = nn.LayerNorm(width)
        self.norm_mlp = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, config.intermediate_size),
            nn.GELU(),
            nn.Linear(config.intermediate_size, width),
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, latents: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        batch, count, width = latents.shape
        both = torch.cat([tokens, latents], 1)
        query = self.query(self.norm_latents(latents)).view(batch, count, self.heads, -1)
        key_value = self.key_value(self.norm_tokens(both))
        key, value = key_value.view(batch, -1, 2, self.heads, width // self.heads).unbind(2)
        weights = query.transpose(1, 2) @ key.permute(0, 2, 3, 1)
        weights = weights * (width // self.heads) ** -0.5 + mask
        weights = weights.softmax(-1).to(value.dtype)
        seen = (weights @ value.transpose(1, 2)).transpose(1, 2).reshape(batch, count, width)
        latents = latents + self.dropout(self.out(seen))
        return latents + cast("Tensor", self.dropout(self.mlp(self.norm_mlp(latents))))


class PageTower(PreTrainedModel):  # type: ignore[misc]  # transformers is untyped here
    """Reads the strips of a page and gives ``latents`` visual features."""

    config_class = PageTowerConfig
    base_model_prefix = "tower"
    main_input_name = "pixel_values"

    def __init__(self, config: PageTowerConfig) -> None:
        super().__init__(config)
        width, trace, spectrum = (
            config.hidden_size,
            config.trace_channels,
            config.spectrum_channels,
        )
        self.trace = nn.Sequential(
            nn.Conv2d(1, 24, 8, 4, 2),
            _ChannelNorm(24),
            nn.GELU(),
            nn.Conv2d(24, 48, 3, (2, 1), 1),
            _ChannelNorm(48),
            nn.GELU(),
            nn.Conv2d(48, trace, (7, 3), 1, (0, 1)),
            _ChannelNorm(trace),
            nn.GELU(),
        )
        self.spectrum = nn.Sequential(
            nn.Conv2d(2, spectrum, (SPECTRUM_ROWS, 5), 1, (0, 2)),
            _ChannelNorm(spectrum),
            nn.GELU(),
            nn.Conv2d(spectrum, spectrum, (1, 3), 1, (0, 1)),
            _ChannelNorm(spectrum),
            nn.GELU(),
        )
        self.level = nn.Sequential(nn.Linear(1, 32), nn.GELU(), nn.Linear(32, width))
        self.project = nn.Linear(trace + spectrum, width)
        self.band = nn.Parameter(torch.randn(BANDS, width) * 0.1)
        self.queries = nn.Parameter(torch.randn(1, config.latents, width) * 0.5)
        self.gather = nn.ModuleList(_Gather(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(width)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)

    def read(self, ink: Tensor, power: Tensor, band: Tensor) -> Tensor:
        """Give the features of strips that were already cut.

        ``ink`` (pages, strips, 56, columns) and ``power`` (pages, strips, 37, columns / 4) in
        0 … 1, ``band`` (pages, strips) which band each strip is; columns are a multiple of 32.
        A page cut to its inked strips and columns gives the same numbers as the whole page.
        """
        pages, strips, _, columns = ink.shape
        blocks = columns // TOKEN_PX
        ink = torch.relu(ink.flatten(0, 1) - _GRID_INK) / (1 - _GRID_INK)
        power = power.flatten(0, 1)
        inked = (power > 0).to(power.dtype)
        level = power.sum((1, 2)) / inked.sum((1, 2)).clamp(min=1.0)
        relative = (power - level[:, None, None]) * inked * 7.5
        shapes = self.trace(ink[:, None]).mean(2)
        rhythms = self.spectrum(torch.stack([relative, inked], 1))[:, :, 0]
        seen = torch.cat(
            [x.unflatten(2, (blocks, -1)).mean(3) for x in (shapes, rhythms)], 1
        ).transpose(1, 2)
        tokens = self.project(seen) + self.level((level[:, None] - 0.5) * 7.5)[:, None]
        tokens = tokens.unflatten(0, (pages, strips)) + self.band[band][:, :, None]
        there = inked.amax(1).unflatten(1, (blocks, -1)).amax(2).unflatten(0, (pages, strips))
        mask = (there.flatten(1) - 1.0) * 1e4
        mask = torch.cat([mask, mask.new_zeros(pages, self.queries.shape[1])], 1)[:, None, None]
        tokens = tokens.flatten(1, 2)
        latents = self.queries.expand(pages, -1, -1)
        for layer in self.gather:
            latents = layer(latents, tokens, mask)
        return cast("Tensor", self.norm(latents))

    def cut(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Cut the six strips of trace and of spectrogram out of whole pages."""
        traces = pixel_values[:, :, :TRACE_HALF_PX].amax(1)
        traces = nn.functional.pad(traces, (0, 0, _PAD_ROWS, _PAD_ROWS))
        ink = torch.stack([traces[:, t + _PAD_ROWS :][:, :STRIP_ROWS] for t in TRACE_TOPS], 1)
        grey = pixel_values[:, 0, :, ::SPECTRUM_STEP_PX]
        power = torch.stack([grey[:, t : t + SPECTRUM_ROWS] for t in SPECTRUM_TOPS], 1)
        return ink, power

    def forward(
        self, pixel_values: Tensor, *, output_hidden_states: bool = False, **_: Any
    ) -> BaseModelOutput:
        """Look at whole pages (batch, 3, 448, 448) in 0 … 1."""
        ink, power = self.cut(pixel_values)
        band = torch.arange(BANDS, device=ink.device)[None].expand(ink.shape[0], -1)
        features = self.read(ink, power, band)
        hidden = (features,) if output_hidden_states else None
        return BaseModelOutput(last_hidden_state=features, hidden_states=hidden)


AutoConfig.register("hypnocast_page_tower", PageTowerConfig)
AutoModel.register(PageTowerConfig, PageTower)
