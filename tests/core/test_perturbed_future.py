"""Nothing that comes later changes a terminal verdict: not its samples, not when they arrive.

Random nights run through the daemon's own page builder and decider in the order of arrival, once as
they were and once with another future from some moment on: other samples, other delays, lost
stretches, other chunks. What was terminal by then must be the same, to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from hypnocast.core.pages.page_builder import PageBuilder, PageNeeds
from hypnocast.core.types import PAGE_S, Opinion, Page, Role, Staged
from hypnocast.core.verdicts.calibration import Calibration, HiddenMarkov
from hypnocast.core.verdicts.decider import Decider, NightState
from hypnocast.core.verdicts.sequence_filter import log_normalise
from support import bed_lab as bed
from support.futures import START, Timed, arrivals

NEEDS = PageNeeds(roles=(Role.F4, Role.C4, Role.E1), context_s=5.0, tail_s=1.0)
LEAST_COVERAGE = 0.3
EVEN = 0.05

Given = tuple[int, bytes | None]
"""Epoch, and its probabilities to the bit; None where it was withheld."""


@dataclass(frozen=True)
class Verdicts:
    """What became terminal, and when."""

    when: list[float]
    given: list[Given]

    def by(self, moment: float) -> list[Given]:
        return [one for at, one in zip(self.when, self.given, strict=True) if at < moment]


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


class StagedBed:
    """One bed as the daemon runs it live: pages close as things arrive, verdicts follow."""

    def __init__(self, *, look_ahead: bool) -> None:
        self.look_ahead = look_ahead
        self.judge, self.state = decider(look_ahead=look_ahead), NightState()
        self.found = Verdicts([], [])
        self.waiting: Page | None = None

    def record(self, verdict: Staged, now: float) -> None:
        if not verdict.provisional:
            self.found.when.append(now)
            self.found.given.append((verdict.epoch, verdict.probabilities.tobytes()))

    def add(self, page: Page, now: float) -> None:
        if not _covered(page):
            self.waiting = None
            self.state, settled = self.judge.withhold(self.state, page.epoch)
            for verdict in settled:
                self.record(verdict, now)
            self.found.when.append(now)
            self.found.given.append((page.epoch, None))
            return
        if self.waiting is not None:
            self.state, verdict = self.judge.step(self.state, opinion(self.waiting, page))
            self.record(verdict, now)
        self.state, verdict = self.judge.step(self.state, opinion(page))
        self.record(verdict, now)
        self.waiting = page if self.look_ahead else None

    def end(self, now: float) -> None:
        while self.state.pending:
            self.state, verdict = self.judge.settle(self.state)
            self.record(verdict, now)


def staged(events: list[Timed], pages: int, *, look_ahead: bool) -> Verdicts:
    """Run a night."""
    builder = PageBuilder(NEEDS, choose=bed.choose)
    builder.begin(START)
    beside, now = StagedBed(look_ahead=look_ahead), START
    for now, event in events:
        # The clock ticks between arrivals too: pages whose grace is over close by themselves.
        closed = builder.close_due(now)
        builder.add(event)
        for page in [*closed, *builder.close_due(now)]:
            beside.add(page, now)
    for page in builder.end(START + pages * PAGE_S):
        beside.add(page, now + 1.0)
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
        assert [epoch for epoch, _ in verdicts.given] == list(range(pages))
    before = one.by(until)
    assert before == two.given[: len(before)]
    return len(before), one.given != two.given


def check_nights(count: int) -> None:
    terminal, differs = zip(*(check(seed) for seed in range(count)), strict=True)
    assert sum(terminal) > 12 * count
    # A future that is withheld to its end looks like any other.
    assert sum(differs) > 0.95 * count


def test_another_future_changes_no_earlier_terminal_verdict() -> None:
    check_nights(25)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_another_future_changes_no_earlier_terminal_verdict_in_a_thousand_nights() -> None:
    check_nights(1000)
