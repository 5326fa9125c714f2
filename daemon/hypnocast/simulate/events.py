"""What happens on a page: each spindle, K complex, eye movement, arousal … with its time.

The list is drawn from (seed, page) alone and is the truth: what is listed is in the signal, and
of what a scorer would look for nothing is in the signal that is not listed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from hypnocast.core.types import PAGE_S, Stage
from hypnocast.simulate.person import Person


class EventKind(StrEnum):
    """The graphoelements and incidents of the simulator."""

    SPINDLE = "spindle"
    K_COMPLEX = "k_complex"
    SLOW_WAVES = "slow_waves"
    VERTEX_WAVE = "vertex_wave"
    BLINK = "blink"
    RAPID_EYE_MOVEMENT = "rapid_eye_movement"
    SLOW_EYE_MOVEMENT = "slow_eye_movement"
    SAWTOOTH = "sawtooth"
    AROUSAL = "arousal"
    BODY_MOVEMENT = "body_movement"
    TWITCH = "twitch"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happens, in seconds since the night's beginning and in µV."""

    kind: EventKind
    start: float
    duration: float
    microvolts: float
    """Size where it is largest; negative for an eye movement to the other side."""
    hz: float = 0.0
    place: int = 0
    """Where in an endless noise an event made of noise begins."""

    @property
    def end(self) -> float:
        """When it is over."""
        return self.start + self.duration


class _Page:
    """Gathers the events of one page."""

    def __init__(self, person: Person, rng: np.random.Generator, start: float) -> None:
        self.person = person
        self.rng = rng
        self.start = start
        self.events: list[Event] = []

    def size(self, typical: float, spread: float = 0.2) -> float:
        return float(typical * np.exp(spread * np.clip(self.rng.standard_normal(), -2.0, 2.0)))

    def side(self) -> float:
        return 1.0 if self.rng.random() < 0.5 else -1.0

    def happens(self, chance: float) -> bool:
        return bool(self.rng.random() < chance)

    def times(self, per_minute: float, apart: float) -> list[float]:
        """Draw times on the page, at least so far apart, in order."""
        count = int(self.rng.poisson(per_minute * PAGE_S / 60.0))
        taken: list[float] = []
        for t in np.sort(self.rng.uniform(0.0, PAGE_S, count)):
            if not taken or t - taken[-1] >= apart:
                taken.append(float(t))
        return taken

    def add(
        self, kind: EventKind, at: float, duration: float, microvolts: float, hz: float = 0.0
    ) -> None:
        place = int(self.rng.integers(1 << 20))
        self.events.append(Event(kind, self.start + at, duration, microvolts, hz, place))

    # --- what is drawn in more than one stage

    def spindles(self, per_minute: float) -> None:
        for at in self.times(per_minute, 2.2):
            duration = float(np.clip(self.size(0.95, 0.3), 0.55, 1.9))
            hz = self.person.spindle_hz + 0.3 * float(self.rng.standard_normal())
            self.add(EventKind.SPINDLE, at, duration, self.size(self.person.spindle_uv), hz)

    def k_complexes(self, per_minute: float) -> None:
        for at in self.times(per_minute, 4.0):
            duration = float(self.rng.uniform(0.9, 1.4))
            self.add(EventKind.K_COMPLEX, at, duration, self.size(self.person.k_complex_uv, 0.15))

    def blinks(self, per_minute: float) -> None:
        for at in self.times(per_minute, 0.7):
            duration = float(self.rng.uniform(0.35, 0.55))
            self.add(EventKind.BLINK, at, duration, self.size(1.1 * self.person.eye_uv))

    def slow_eyes(self, per_minute: float) -> None:
        for at in self.times(per_minute, 5.5):
            duration = float(self.rng.uniform(2.6, 5.0))
            size = self.side() * self.size(0.65 * self.person.eye_uv)
            self.add(EventKind.SLOW_EYE_MOVEMENT, at, duration, size)

    def arousal(self, per_page: float) -> None:
        if self.happens(per_page):
            duration = float(self.rng.uniform(3.5, 11.0))
            self.add(EventKind.AROUSAL, float(self.rng.uniform(2, 18)), duration, self.size(16.0))

    def movement(self, per_page: float) -> None:
        if self.happens(per_page):
            duration = float(self.rng.uniform(2.5, 9.0))
            at = float(self.rng.uniform(0, 20))
            self.add(EventKind.BODY_MOVEMENT, at, duration, self.size(110.0, 0.35))

    # --- the stages

    def wake(self, *, eyes_closed: bool) -> None:
        if eyes_closed:
            self.blinks(1.0)
            if self.happens(0.25):
                self.slow_eyes(5.0)
        else:
            self.blinks(14.0)
            for at in self.times(14.0, 0.9):
                size = self.side() * self.size(0.55 * self.person.eye_uv, 0.35)
                self.add(EventKind.RAPID_EYE_MOVEMENT, at, float(self.rng.uniform(0.5, 0.9)), size)
        self.movement(0.12 if eyes_closed else 0.3)

    def drowsy(self) -> None:
        if self.happens(0.75):
            self.slow_eyes(6.0)
        if self.happens(0.6):
            for at in self.times(4.0, 1.5):
                duration = float(self.rng.uniform(0.4, 0.6))
                self.add(EventKind.VERTEX_WAVE, at, duration, self.size(75.0))
        self.arousal(0.12 * self.person.restlessness)

    def light(self) -> None:
        self.spindles(self.person.spindles_per_min)
        self.k_complexes(self.person.k_complexes_per_min)
        if not any(e.kind in (EventKind.SPINDLE, EventKind.K_COMPLEX) for e in self.events):
            self.spindles(6.0)
        if self.happens(0.2):
            self.slow_train(float(self.rng.uniform(2.0, 24.0)), float(self.rng.uniform(2.0, 4.5)))
        self.arousal(0.05 * self.person.restlessness)
        self.movement(0.015 * self.person.restlessness)

    def deep(self) -> None:
        self.spindles(0.5 * self.person.spindles_per_min)
        share = float(self.rng.uniform(0.4, 0.9))
        at = float(self.rng.uniform(0.0, 2.0))
        while at < PAGE_S - 2.0:
            length = min(float(self.rng.uniform(5.0, 13.0)), PAGE_S - at)
            self.slow_train(at, length)
            at += length / share**0.8
        self.movement(0.006)

    def slow_train(self, at: float, length: float) -> None:
        self.add(EventKind.SLOW_WAVES, at, length, self.size(self.person.slow_wave_uv, 0.12))

    def dream(self) -> None:
        if self.happens(0.72):
            for at in self.times(6.0, 3.5):
                self.burst(at)
        for at in self.times(1.5, 2.0):
            duration = float(self.rng.uniform(0.1, 0.4))
            self.add(EventKind.TWITCH, at, duration, self.size(0.6 * self.person.emg_uv, 0.4))
        self.arousal(0.05 * self.person.restlessness)

    def burst(self, at: float) -> None:
        """Rapid eye movements, often after sawtooth waves."""
        if self.happens(0.45):
            length = float(self.rng.uniform(1.5, 3.5))
            hz = float(self.rng.uniform(2.3, 4.2))
            self.add(EventKind.SAWTOOTH, at, length, self.size(38.0), hz)
            at += 0.8 * length
        for _ in range(int(self.rng.integers(2, 7))):
            size = self.side() * self.size(0.9 * self.person.eye_uv, 0.35)
            self.add(EventKind.RAPID_EYE_MOVEMENT, at, float(self.rng.uniform(0.35, 0.9)), size)
            at += float(self.rng.uniform(0.35, 1.3))


def page_events(
    person: Person, rng: np.random.Generator, start: float, stage: Stage, *, eyes_closed: bool
) -> tuple[Event, ...]:
    """Draw what happens on a page of a stage, in order of time."""
    page = _Page(person, rng, start)
    match stage:
        case Stage.W:
            page.wake(eyes_closed=eyes_closed)
        case Stage.N1:
            page.drowsy()
        case Stage.N2:
            page.light()
        case Stage.N3:
            page.deep()
        case Stage.R:
            page.dream()
    return tuple(sorted(page.events, key=lambda event: event.start))
