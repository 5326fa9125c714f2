"""How long a pack needs for a page, as a running night asks it: every look has one new picture."""

from __future__ import annotations

import time
from collections import deque

import numpy as np

from hypnocast.core.types import Look, Picture
from hypnocast.stagers.onnx.local import LocalStager
from hypnocast.stagers.packs.manifest import Signals
from hypnocast.stagers.packs.pack import Pack
from hypnocast.stagers.signal import sample_recipe


def time_per_page(pack: Pack, beds: int, rounds: int) -> float:
    """Give the median milliseconds a page on one core, a page of each bed in one batch."""
    rng = np.random.default_rng(0)
    stager = LocalStager(pack, "cpu", threads=1)
    places = pack.manifest.context.pictures
    recent: list[deque[Picture | None]] = [
        deque([None] * places, maxlen=places) for _ in range(beds)
    ]
    taken = []
    for turn in range(rounds + places):
        looks = []
        for bed, pictures in enumerate(recent):
            pictures.append(_picture(pack, turn, bed, rng))
            looks.append(Look(tuple(pictures), center=pack.manifest.context.before))
        begun = time.perf_counter()
        stager.judge(looks)
        taken.append((time.perf_counter() - begun) * 1000 / beds)
    stager.close()
    return float(np.median(taken[places:]))


def _picture(pack: Pack, turn: int, bed: int, rng: np.random.Generator) -> Picture:
    size = (pack.recipe.height, pack.recipe.width, 3)
    samples = None
    if isinstance(pack.manifest.model, Signals):
        recipe = sample_recipe(pack.manifest.model)
        samples = {role: rng.normal(0.0, 20.0, recipe.samples) for role, _, _ in recipe.bands}
    return Picture(
        epoch=turn,
        rgb=rng.integers(0, 256, size, dtype=np.uint8),
        digest=f"{bed}-{turn}",
        recipe=pack.recipe.digest,
        quality={},
        channels={},
        samples=samples,
    )
