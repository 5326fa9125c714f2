"""Nothing that comes later changes a terminal verdict: not its samples, not when they arrive.

Random nights run through the daemon's own headbox and decider in the order of arrival, once as
they were and once with another future from some moment on: other samples, other delays, lost
stretches, other chunks. What was terminal by then must be the same, to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

import bedside as bed
from hypnocast.core.calibration import Calibration, HiddenMarkov
from hypnocast.core.decide import Decider, NightState
from hypnocast.core.filter import log_normalise
from hypnocast.core.headbox import Headbox, PageNeeds
from hypnocast.core.types import (
    PAGE_S,
    Chunk,
    Opinion,
    Page,
    Role,
    Staged,
    StreamHeader,
    StreamOpened,
)

START = 1000.0
RATES = {"eeg": 4.0, "eog": 2.0}
ROLES = {"eeg": (Role.F4, Role.C4), "eog": (Role.E1,)}
NEEDS = PageNeeds(roles=(Role.F4, Role.C4, Role.E1), context_s=5.0, tail_s=1.0)
LEAST_COVERAGE = 0.3
EVEN = 0.05

Timed = tuple[float, bed.Event]
Told = tuple[int, bytes | None]
"""Epoch, and its probabilities to the bit; None where it was withheld."""


@dataclass(frozen=True)
class Verdicts:
    """What became terminal, and when."""

    when: list[float]
    told: list[Told]

    def by(self, moment: float) -> list[Told]:
        return [one for at, one in zip(self.when, self.told, strict=True) if at < moment]


def decider(*, look_ahead: bool) -> Decider:
    rows = [[1 - 4 * EVEN if a == b else EVEN for b in range(5)] for a in range(5)]
    table = tuple(tuple(row) for row in rows)
    chain = HiddenMarkov(transitions=table, initial=(0.2,) * 5)  # type: ignore[arg-type]  # five by five, as range(5) says
    return Decider(Calibration(prior=(0.2,) * 5, sequence=chain), context_after=look_ahead)


def opinion(page: Page, after: Page | None = None) -> Opinion:
    """A stand-in for a model: a number of every sample of the page, and of the next page."""
    numbers = [np.nan_to_num(s.samples, nan=7.0).sum() for s in page.signals.values()]
    if after is not None:
        numbers += [np.nan_to_num(s.samples, nan=3.0).sum() for s in after.signals.values()]
    scores = np.sin(np.outer(np.arange(1, 6), numbers)).sum(axis=1)
    return Opinion(page.epoch, log_normalise(3.0 * scores), provider="stand-in")


def arrivals(seed: int, pages: int, until: float, future: int) -> list[Timed]:
    """Give a night's events by their time of arrival, the same before ``until`` in any future."""
    streams = [_stream(key, seed, pages, until, future) for key in RATES]
    return sorted((one for stream in streams for one in stream), key=lambda pair: pair[0])


def _stream(key: str, seed: int, pages: int, until: float, future: int) -> Iterator[Timed]:
    head: StreamHeader = bed.header(key, [role.value for role in ROLES[key]], RATES[key])
    number = list(RATES).index(key)
    rng = np.random.default_rng([seed, number])
    seconds = pages * PAGE_S + 20.0
    sent = bed.send(
        head, start=START - 8.0, seconds=seconds, seed=seed * 7 + number,
        jitter=0.002, drift_ppm=float(rng.uniform(-100, 100)), offset=float(rng.uniform(-50, 50)),
    )  # fmt: skip
    for hole in START + rng.uniform(0, pages * PAGE_S, 3):
        sent = sent.without(float(hole), float(hole + rng.exponential(20.0)))
    readings = sent.readings()
    other = np.random.default_rng([seed, number, future])
    yield float(sent.taken[0]), StreamOpened(head, float(sent.taken[0]))
    first, clock = 0, 0.0
    while first < len(sent.stamps):
        draw = rng if sent.taken[first] < until else other
        last = min(first + int(draw.integers(1, 60)), len(sent.stamps))
        if sent.taken[first] < until < sent.taken[last - 1]:
            last = max(first + 1, int(sent.taken.searchsorted(until)))
        chunk = sent.chunk(first, last)
        late = float(draw.exponential(0.2) + (draw.random() < 0.03) * draw.uniform(0.0, 8.0))
        clock = max(clock, float(sent.taken[last - 1]) + late)
        while readings and readings[0].at - readings[0].offset <= chunk.stamps.max():
            yield clock, readings.pop(0)
        if sent.taken[first] < until or not future:
            yield clock, chunk
        elif other.random() > 0.1:
            changed = other.normal(0.0, 30.0, chunk.samples.shape).astype(np.float32)
            yield clock, Chunk(chunk.stream, changed, chunk.stamps, clock)
        first = last


class Bedside:
    """One bed as the daemon runs it live: pages close as things arrive, verdicts follow."""

    def __init__(self, *, look_ahead: bool) -> None:
        self.look_ahead = look_ahead
        self.judge, self.state = decider(look_ahead=look_ahead), NightState()
        self.found = Verdicts([], [])
        self.waiting: Page | None = None

    def tell(self, verdict: Staged, now: float) -> None:
        if not verdict.provisional:
            self.found.when.append(now)
            self.found.told.append((verdict.epoch, verdict.probabilities.tobytes()))

    def take(self, page: Page, now: float) -> None:
        if not _covered(page):
            self.waiting = None
            self.state, settled = self.judge.withhold(self.state, page.epoch)
            for verdict in settled:
                self.tell(verdict, now)
            self.found.when.append(now)
            self.found.told.append((page.epoch, None))
            return
        if self.waiting is not None:
            self.state, verdict = self.judge.step(self.state, opinion(self.waiting, page))
            self.tell(verdict, now)
        self.state, verdict = self.judge.step(self.state, opinion(page))
        self.tell(verdict, now)
        self.waiting = page if self.look_ahead else None

    def end(self, now: float) -> None:
        while self.state.pending:
            self.state, verdict = self.judge.settle(self.state)
            self.tell(verdict, now)


def staged(events: list[Timed], pages: int, *, look_ahead: bool) -> Verdicts:
    """Run a night."""
    box = Headbox(NEEDS, choose=bed.choose)
    box.begin(START)
    beside, now = Bedside(look_ahead=look_ahead), START
    for now, event in events:
        # The clock ticks between arrivals too: pages whose grace is over close by themselves.
        closed = box.close_due(now)
        bed.tell(box, event)
        for page in [*closed, *box.close_due(now)]:
            beside.take(page, now)
    for page in box.end(START + pages * PAGE_S):
        beside.take(page, now + 1.0)
    beside.end(now + 1.0)
    return beside.found


def _covered(page: Page) -> bool:
    signal = page.signals.get(Role.F4)
    return signal is not None and bed.missing(page, Role.F4) <= 1 - LEAST_COVERAGE


def check(seed: int) -> tuple[int, bool]:
    """Compare a night with another future: how much was terminal, and whether the rest differs."""
    rng = np.random.default_rng([seed, 99])
    pages = int(rng.integers(20, 61))
    until = START + float(rng.uniform(2.0, pages - 3)) * PAGE_S
    look_ahead = bool(seed % 2)
    one = staged(arrivals(seed, pages, until, 0), pages, look_ahead=look_ahead)
    two = staged(arrivals(seed, pages, until, 1), pages, look_ahead=look_ahead)
    for verdicts in (one, two):
        assert [epoch for epoch, _ in verdicts.told] == list(range(pages))
    before = one.by(until)
    assert before == two.told[: len(before)]
    return len(before), one.told != two.told


def check_nights(count: int) -> None:
    terminal, differs = zip(*(check(seed) for seed in range(count)), strict=True)
    assert sum(terminal) > 12 * count
    # A future that is withheld to its end looks like any other.
    assert sum(differs) > 0.95 * count


def test_another_future_changes_no_earlier_terminal_verdict() -> None:
    check_nights(60)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_another_future_changes_no_earlier_terminal_verdict_in_a_thousand_nights() -> None:
    check_nights(1000)
