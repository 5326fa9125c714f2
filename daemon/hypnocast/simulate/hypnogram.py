"""The course of a night: a semi-Markov chain of bouts whose laws change from cycle to cycle.

Sleep pressure is paid off first, so deep sleep is long in the first cycles and gone in the last;
dreaming is short at first and long towards morning. How long a bout lasts is drawn from a
log-normal law of its own, which is what makes the chain semi-Markov.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hypnocast.core.types import PAGE_S, Stage
from hypnocast.simulate.person import Person

_DEEP_MINUTES = (34.0, 26.0, 13.0, 4.0, 1.0)
_LIGHT_MINUTES = (22.0, 34.0, 44.0, 48.0, 44.0)
_DREAM_MINUTES = (8.0, 15.0, 19.0, 22.0, 23.0)
_MORNING_PAGES = 720
"""A night of at least this many pages ends with an awakening; a shorter one is cut off."""


@dataclass(frozen=True, slots=True)
class TrueHypnogram:
    """The true stage of every page, and when the lights went off and on, in seconds."""

    stages: tuple[Stage, ...]
    lights_off: float
    lights_on: float


def hypnogram(person: Person, seed: int, pages: int) -> TrueHypnogram:
    """Let a person sleep for some pages."""
    rng = np.random.default_rng([seed, 0x4711])
    evening = int(rng.integers(4, 11))
    latency = _pages(rng, 9.0 * person.restlessness**0.5, 0.5)
    stages = [Stage.W] * (evening + latency)
    for stage, length in _bouts(person, rng):
        stages.extend([stage] * length)
        if len(stages) >= pages:
            break
    del stages[pages:]
    lights_on = pages * PAGE_S
    if pages >= _MORNING_PAGES:
        awake, up = int(rng.integers(4, 12)), int(rng.integers(2, 4))
        stages[-awake:] = [Stage.W] * awake
        lights_on = (pages - up) * PAGE_S
    return TrueHypnogram(tuple(stages), min(evening, pages) * PAGE_S, lights_on)


def _pages(rng: np.random.Generator, minutes: float, spread: float) -> int:
    """Draw the length of a bout with a given median, at least one page."""
    return max(1, round(2.0 * minutes * float(np.exp(spread * rng.standard_normal()))))


def _bouts(person: Person, rng: np.random.Generator) -> Iterator[tuple[Stage, int]]:
    """Yield bout after bout, cycle after cycle, without end."""
    cycle = 0
    while True:
        place = min(cycle, len(_DEEP_MINUTES) - 1)
        yield Stage.N1, _pages(rng, 2.5 if cycle == 0 else 1.5, 0.5)
        deep = _pages(rng, _DEEP_MINUTES[place] * person.deep_sleep, 0.25)
        light = _pages(rng, _LIGHT_MINUTES[place], 0.2)
        if _DEEP_MINUTES[place] * person.deep_sleep < 2.5:
            deep = 0
        yield from _light(person, rng, max(4, round(0.45 * light)))
        yield from _deep(person, rng, deep)
        yield from _light(person, rng, max(4, round(0.55 * light)))
        yield from _dream(person, rng, _pages(rng, _DREAM_MINUTES[place], 0.25))
        if rng.random() < 0.45 * person.restlessness:
            yield Stage.W, _pages(rng, 1.0 + 0.4 * cycle * person.restlessness, 0.7)
        cycle += 1


def _light(person: Person, rng: np.random.Generator, total: int) -> Iterator[tuple[Stage, int]]:
    """N2, now and then broken by a short awakening and the N1 that follows it."""
    while total > 0:
        length = min(total, _pages(rng, 10.0 / person.restlessness, 0.5))
        yield Stage.N2, length
        total -= length
        if total > 0:
            if rng.random() < 0.45:
                yield Stage.W, _pages(rng, 0.8, 0.6)
            yield Stage.N1, _pages(rng, 1.3, 0.5)


def _deep(person: Person, rng: np.random.Generator, total: int) -> Iterator[tuple[Stage, int]]:
    """N3 in long bouts with a little N2 between them."""
    while total > 0:
        length = min(total, _pages(rng, 9.0 / person.restlessness**0.5, 0.5))
        yield Stage.N3, length
        total -= length
        if total > 0:
            yield Stage.N2, _pages(rng, 0.8, 0.4)


def _dream(person: Person, rng: np.random.Generator, total: int) -> Iterator[tuple[Stage, int]]:
    """R, broken rarely by a page or two of N1 or W."""
    while total > 0:
        length = min(total, _pages(rng, 11.0 / person.restlessness**0.5, 0.5))
        yield Stage.R, length
        total -= length
        if total > 0:
            yield (Stage.W if rng.random() < 0.3 else Stage.N1), _pages(rng, 0.6, 0.4)
