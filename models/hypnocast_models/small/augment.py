"""What is done to pages while training, so that the model learns stages and not sources.

All of it works on the strips of drawn pages; each is named in the pack's card.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hypnocast_models.data.pages import SPECTRUM_STEP_PX

DARKEST = 1 / 255
_WAVES = 4


def colour(power: Tensor, stretch: int, strength: float, generator: torch.Generator) -> Tensor:
    """Tilt and bend the spectra of each stretch: other electrodes, amplifiers and skulls."""
    rows = power.shape[2]
    place = torch.linspace(0.0, torch.pi, rows)
    waves = torch.stack([torch.cos((k + 1) * place) for k in range(_WAVES)])
    scale = torch.tensor([0.024, 0.012, 0.008, 0.008]) * strength
    pages, channels = power.shape[:2]
    amount = torch.randn(pages // stretch, channels, _WAVES, generator=generator) * scale
    bend = (amount @ waves)[..., None].repeat_interleave(stretch, 0)
    return torch.where(power > 0, (power + bend).clamp(DARKEST, 1.0), power)


def blank_stretch(
    ink: Tensor, power: Tensor, share: float, longest: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Let a stretch of some pages never have come."""
    pages, columns = ink.shape[0], power.shape[3]
    start = torch.randint(0, columns, (pages,), generator=generator)
    length = torch.rand(pages, generator=generator) * longest * columns
    length = torch.where(torch.rand(pages, generator=generator) < share, length, 0.0)
    at = torch.arange(columns)
    gone = (at >= start[:, None]) & (at < (start + length)[:, None])
    power = power.masked_fill(gone[:, None, None], 0.0)
    ink = ink.masked_fill(gone.repeat_interleave(SPECTRUM_STEP_PX, 1)[:, None, None], 0.0)
    return ink, power


def keep_stretch(
    ink: Tensor, power: Tensor, share: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Of some pages keep only 5 to 25 seconds, so that fullness shows nothing of the stage."""
    pages, columns = ink.shape[0], power.shape[3]
    length = (5 + 20 * torch.rand(pages, generator=generator)) / 30 * columns
    start = torch.rand(pages, generator=generator) * (columns - length)
    cut = torch.rand(pages, generator=generator) < share
    at = torch.arange(columns)
    inside = (at >= start[:, None]) & (at < (start + length)[:, None])
    gone = ~inside & cut[:, None]
    power = power.masked_fill(gone[:, None, None], 0.0)
    ink = ink.masked_fill(gone.repeat_interleave(SPECTRUM_STEP_PX, 1)[:, None, None], 0.0)
    return ink, power
