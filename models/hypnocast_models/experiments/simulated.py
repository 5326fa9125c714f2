"""Simulated people as a data set: whole montages, for what one-channel data cannot show.

How well an arm agrees with the simulator is never to be called accuracy: a simulator is kinder
than people, and what it puts into a channel is what it was set to.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hypnocast.core.types import PAGE_S, Page, Role
from hypnocast.simulate.montages import CLINICAL
from hypnocast_models.data.recordings import page_of
from hypnocast_models.data.simulated import RATE, ROLES, stretch
from hypnocast_models.readers.datasets import FoundRecording
from hypnocast_models.readers.scoring import ExpertScoring, Stages

SIMULATED = "simulated"
FIRST, PAGES = 9000, 160


def simulated_nights(subjects: int) -> list[FoundRecording]:
    """Name so many simulated people, one night each."""
    names = [f"person{FIRST + number}" for number in range(subjects)]
    return [FoundRecording(SIMULATED, name, name, Path(SIMULATED)) for name in names]


class SimulatedScoredNight:
    """A night of one simulated person, in which every stage is as likely as another."""

    def __init__(self, name: str) -> None:
        """Keep the person's name, which is the seed."""
        self.name = self.subject = name
        self._night = stretch(int(name.removeprefix("person")), PAGES)
        self.scorings = (ExpertScoring(tuple(self._night.stages), "AASM"),)
        self.channels: Mapping[Role, str] = {
            role: lead.label for role, lead in zip(ROLES, CLINICAL, strict=True)
        }
        self.oddities: tuple[str, ...] = ()

    @property
    def stages(self) -> Stages:
        """What the simulator was set to do."""
        return self.scorings[0].stages

    def page(self, epoch: int, context_s: float, tail_s: float) -> Page:
        """Simulate a page."""
        start = epoch * PAGE_S
        samples = self._night.samples(
            start - context_s, start + PAGE_S + tail_s, leads=CLINICAL, rate=RATE
        ).astype(np.float64)
        channels = {
            role: (samples[:, place], float(RATE), lead.label)
            for place, (role, lead) in enumerate(zip(ROLES, CLINICAL, strict=True))
        }
        return page_of(channels, epoch, context_s, tail_s)
