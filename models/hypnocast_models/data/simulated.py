"""Whole six-channel pages from Hypnocast's own simulator, to show a model what a page can hold.

They teach where the eyes and the chin are drawn and that channels may be missing. They show
nothing about how well a model stages people: a score on them is never called accuracy.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hypnocast.core.types import PAGE_S, STAGES, FloatArray, Page, Role, Stage
from hypnocast.simulate.montages import CLINICAL
from hypnocast.simulate.night import SimulatedNight
from hypnocast_models.data.recordings import page_of

ROLES = (Role.F4, Role.C4, Role.O2, Role.E1, Role.E2, Role.CHIN)
RATE = 128


def stretch(seed: int, pages: int) -> SimulatedNight:
    """Simulate a stretch of one person's night in which every stage is as likely as another."""
    rng = np.random.default_rng([seed, 0xB0])
    stages: list[Stage] = []
    while len(stages) < pages:
        stages += [STAGES[rng.integers(len(STAGES))]] * int(rng.integers(2, 9))
    return SimulatedNight(seed, stages=stages[:pages])


def pages(
    night: SimulatedNight, context_s: float, tail_s: float, gains: FloatArray
) -> Iterator[Page]:
    """Give the pages of a simulated stretch, each channel at its gain."""
    for epoch in range(len(night.stages)):
        start = epoch * PAGE_S
        samples = night.samples(
            start - context_s, start + PAGE_S + tail_s, leads=CLINICAL, rate=RATE
        )
        channels = {
            role: (samples[:, place].astype(np.float64) * gains[place], float(RATE), lead.label)
            for place, (role, lead) in enumerate(zip(ROLES, CLINICAL, strict=True))
        }
        yield page_of(channels, epoch, context_s, tail_s)
