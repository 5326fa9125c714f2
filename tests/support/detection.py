"""How detectors fare against the simulator's list of what it put into the signals.

A detection is right if it lies within an event, 0.4 s before it or 0.2 s after it; an event is
found if a detection lies there. Several detections in one event are all right, and one find.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from hypnocast.core.evidence.measures import chin_tone, measure
from hypnocast.core.types import PAGE_S, STAGES, Page, Role, Stage
from hypnocast.core.wire.page_facts import Evidence
from hypnocast.simulate import SimulatedNight
from hypnocast.simulate.events import Event, EventKind
from hypnocast.simulate.montages import CLINICAL
from hypnocast_models.data.recordings import page_of
from hypnocast_models.data.simulated import ROLES

RATE = 128
CONTEXT_S, TAIL_S = 30.0, 3.0
KINDS = {
    EventKind.SPINDLE: "spindles",
    EventKind.K_COMPLEX: "k_complexes",
    EventKind.RAPID_EYE_MOVEMENT: "rapid_eye_movements",
    EventKind.SLOW_EYE_MOVEMENT: "slow_eye_movements",
}


@dataclass
class DetectionTally:
    """Counts of one kind of event."""

    events: int = 0
    found: int = 0
    detections: int = 0
    right: int = 0

    @property
    def recall(self) -> float:
        return self.found / self.events

    @property
    def precision(self) -> float:
        return self.right / self.detections


@dataclass
class DetectionTrial:
    """What came out of some nights."""

    tallies: dict[EventKind, DetectionTally] = field(
        default_factory=lambda: {k: DetectionTally() for k in KINDS}
    )
    slow_wave_shares: list[tuple[float, float]] = field(default_factory=list)
    """(listed, measured) on pages of N3."""
    by_stage: dict[Stage, list[tuple[Evidence, float]]] = field(
        default_factory=lambda: {stage: [] for stage in STAGES}
    )


def balanced_night(seed: int, pages: int) -> SimulatedNight:
    """Every stage in turn, four pages each."""
    return SimulatedNight(seed, stages=[STAGES[page // 4 % 5] for page in range(pages)])


def page_with_noise(
    night: SimulatedNight, epoch: int, noise_uv: float, roles: Iterable[Role]
) -> Page:
    """Cut a page with white noise of so much RMS on every channel (the chin has its own)."""
    start = epoch * PAGE_S
    samples = night.samples(start - CONTEXT_S, start + PAGE_S + TAIL_S, leads=CLINICAL, rate=RATE)
    rng = np.random.default_rng([night.seed, epoch])
    noisy = samples + noise_uv * rng.standard_normal(samples.shape)
    chosen = set(roles)
    channels = {
        role: (noisy[:, place].astype(np.float64), float(RATE), role.value)
        for place, role in enumerate(ROLES)
        if role in chosen
    }
    return page_of(channels, epoch, CONTEXT_S, TAIL_S)


def trial(seeds: Iterable[int], pages: int = 40, noise_uv: float = 0.0) -> DetectionTrial:
    """Measure nights and compare with their truth."""
    tally = DetectionTrial()
    for seed in seeds:
        night = balanced_night(seed, pages)
        for epoch in range(pages):
            page = page_with_noise(night, epoch, noise_uv, ROLES)
            evidence = measure(page)
            start = epoch * PAGE_S
            truth = night.events(start - 6.0, start + PAGE_S)
            for kind, name in KINDS.items():
                _count(
                    tally.tallies[kind], [e for e in truth if e.kind is kind], evidence, name, start
                )
            stage = night.stages[epoch]
            tally.by_stage[stage].append((evidence, chin_tone(page) or 0.0))
            if stage is Stage.N3 and evidence.slow_wave_share is not None:
                share = _share(night, start)
                tally.slow_wave_shares.append((share, evidence.slow_wave_share))
    return tally


def _count(
    tally: DetectionTally, truth: list[Event], evidence: Evidence, name: str, start: float
) -> None:
    times = getattr(evidence, name)
    spans = [(event.start - start, event.end - start) for event in truth]
    # What begins within half a second of the page's ends may count for the neighbour.
    inner = [span for span in spans if 0.5 <= span[0] < PAGE_S - 1.0]
    tally.events += len(inner)
    tally.found += sum(any(_within(t, span) for t in times) for span in inner)
    tally.detections += len(times)
    tally.right += sum(any(_within(t, span) for span in spans) for t in times)


def _within(time: float, span: tuple[float, float]) -> bool:
    return span[0] - 0.4 <= time <= span[1] + 0.2


def _share(night: SimulatedNight, start: float) -> float:
    trains = [e for e in night.events(start - 30.0, start + 30.0) if e.kind is EventKind.SLOW_WAVES]
    inside = sum(max(0.0, min(e.end, start + PAGE_S) - max(e.start, start)) for e in trains)
    return min(1.0, inside / PAGE_S)
