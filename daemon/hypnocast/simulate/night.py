"""One person's night: the truth, and the signals that follow from it.

Everything is a function of (seed, person, time). Signals are synthesised page by page and cut to
what is asked, so no way of asking for them can change a bit of them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from math import ceil

import numpy as np

from hypnocast.core.types import PAGE_S, FloatArray, Stage
from hypnocast.errors import ConfigError
from hypnocast.simulate.events import Event, page_events
from hypnocast.simulate.hypnogram import TrueHypnogram, hypnogram
from hypnocast.simulate.montages import CLINICAL, SimulatedLead
from hypnocast.simulate.person import Person, person
from hypnocast.simulate.scalp import Levels, levels
from hypnocast.simulate.synthesis import Synthesis, synthesise
from hypnocast.simulate.waves import BLOCK, RATE, Wave

_KEPT_PAGES = 4


class SimulatedNight:
    """A night of one simulated person, from time 0 (in seconds) to :attr:`duration_s`."""

    def __init__(
        self,
        seed: int,
        *,
        hours: float | None = None,
        pages: int | None = None,
        stages: Sequence[Stage] | None = None,
        sleeper: Person | None = None,
        mains_hz: int = 50,
    ) -> None:
        """Begin with a seed and a length (8 h where none is given), or the stage of every page."""
        if sum(given is not None for given in (hours, pages, stages)) > 1:
            raise ConfigError("a night has one length", remedy="Give hours, pages or stages.")
        self.seed = seed
        self.person = person(seed) if sleeper is None else sleeper
        self.mains_hz = mains_hz
        count = pages if pages is not None else round((8.0 if hours is None else hours) * 120)
        if stages is not None:
            self.hypnogram = TrueHypnogram(tuple(stages), 0.0, len(stages) * PAGE_S)
        else:
            self.hypnogram = hypnogram(self.person, seed, count)
        if not self.hypnogram.stages:
            raise ConfigError("a night needs at least one page", remedy="Give it a length.")
        self._events: OrderedDict[int, tuple[Event, ...]] = OrderedDict()
        self._blocks: OrderedDict[tuple[int, int, tuple[SimulatedLead, ...]], Wave] = OrderedDict()
        self._syntheses: dict[tuple[SimulatedLead, ...], Synthesis] = {}

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The true stage of every page."""
        return self.hypnogram.stages

    @property
    def duration_s(self) -> float:
        """How long the night is."""
        return len(self.stages) * PAGE_S

    # --- the truth

    def eyes_closed(self, page: int) -> bool:
        """Whether the eyes are closed on a page."""
        if self.stage(page) is not Stage.W:
            return True
        lit = not self.hypnogram.lights_off <= page * PAGE_S < self.hypnogram.lights_on
        return bool(self._rng(page, 1).random() < (0.15 if lit else 0.85))

    def stage(self, page: int) -> Stage:
        """Return the stage of a page; before the first and after the last nothing changes."""
        return self.stages[min(max(page, 0), len(self.stages) - 1)]

    def page_events(self, page: int) -> tuple[Event, ...]:
        """Return what begins on a page, in order of time."""
        if page < 0 or page >= len(self.stages):
            return ()
        if page not in self._events:
            self._events[page] = page_events(
                self.person,
                self._rng(page, 2),
                page * PAGE_S,
                self.stage(page),
                eyes_closed=self.eyes_closed(page),
            )
            if len(self._events) > _KEPT_PAGES:
                self._events.popitem(last=False)
        return self._events[page]

    def events(self, start: float, end: float) -> list[Event]:
        """Return what begins in a stretch of time, in order."""
        found: list[Event] = []
        for page in range(int(start // PAGE_S), ceil(end / PAGE_S)):
            found.extend(e for e in self.page_events(page) if start <= e.start < end)
        return found

    def levels(self, page: int) -> Levels:
        """Return how strong the enduring sources are on a page."""
        mood: FloatArray = np.exp(0.12 * self._rng(page, 3).standard_normal(8))
        return levels(self.person, self.stage(page), eyes_closed=self.eyes_closed(page), mood=mood)

    def warmth(self, page: int) -> float:
        """Return how much the person sweats: a slow tide over the night, 0 … 1."""
        phase = self.seed % 97
        tide = np.sin(2.0 * np.pi * (page / 131.0 + phase / 97.0)) - 0.55
        return float(max(0.0, tide) / 0.45)

    # --- the signals

    def samples(
        self,
        start: float,
        end: float,
        *,
        leads: tuple[SimulatedLead, ...] = CLINICAL,
        rate: int = RATE,
    ) -> Wave:
        """Return (n, leads) samples in µV: those with ``start <= i / rate < end``."""
        return self.at(ceil(start * rate - 1e-6), ceil(end * rate - 1e-6), leads=leads, rate=rate)

    def at(
        self,
        first: int,
        last: int,
        *,
        leads: tuple[SimulatedLead, ...] = CLINICAL,
        rate: int = RATE,
    ) -> Wave:
        """Return samples number ``first`` up to, but not including, ``last``."""
        length = round(PAGE_S) * rate
        parts = [
            self._block(page, leads, rate)[
                max(first - page * length, 0) : max(0, last - page * length)
            ]
            for page in range(first // length, max(first // length + 1, -(-last // length)))
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _block(self, page: int, leads: tuple[SimulatedLead, ...], rate: int) -> Wave:
        """Return one page as (n, leads), from the few that are kept or made anew."""
        key = (page, rate, leads)
        if key not in self._blocks:
            made = self._make(page, leads) if rate == RATE else self._resample(page, leads, rate)
            made.flags.writeable = False
            self._blocks[key] = made
            if len(self._blocks) > _KEPT_PAGES * max(1, len(self._syntheses)):
                self._blocks.popitem(last=False)
        return self._blocks[key]

    def _make(self, page: int, leads: tuple[SimulatedLead, ...]) -> Wave:
        if leads not in self._syntheses:
            self._syntheses[leads] = Synthesis.of(self.person, leads, self.seed, self.mains_hz)
        return synthesise(
            self._syntheses[leads],
            page,
            before=self.levels(page - 1),
            now=self.levels(page),
            warmth=(self.warmth(page - 1), self.warmth(page)),
            events=self.page_events(page - 1) + self.page_events(page),
        )

    def _resample(self, page: int, leads: tuple[SimulatedLead, ...], rate: int) -> Wave:
        from scipy.signal import resample_poly

        margin = RATE
        around = self.at(page * BLOCK - margin, (page + 1) * BLOCK + margin, leads=leads, rate=RATE)
        other = resample_poly(around, rate, RATE, axis=0)
        return np.ascontiguousarray(other[rate : rate + round(PAGE_S) * rate], dtype=np.float32)

    def _rng(self, page: int, purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, purpose, page + 1_000_000])
