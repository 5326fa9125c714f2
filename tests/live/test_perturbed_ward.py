"""Through the running daemon nothing that comes later changes a terminal verdict.

A ward of many beds runs from its source through pipelines, drawing, judge and scorer into the
journal. Two beds each have one night up to a moment and another from then on: other samples,
other delays, lost stretches. What was terminal by then stays, and is the same at both beds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from hypnocast.core.types import PAGE_S, Arrival, Chunk, Mark
from hypnocast.core.wire import payloads
from hypnocast.stagers.packs.manifest import Context
from support.brokers import free_port
from support.futures import Timed, arrivals
from support.packs import make_tiny_pack
from support.ward_lab import Coming, HandDriven, Running, running_ward

UNTIL = 6000.0
RATES = {"eeg": 16.0, "eog": 8.0}
SMALL = """
name = "small"
width = 64
height = 32
rate = 16.0
context_s = 5.0
tail_s = 1.0
ground = "#000000"
trace = { height = 32, width_px = 1.0, scaling = "fixed" }
[[bands]]
role = "F4-M1"
colour = "#FFFF00"
half_span_uv = 80.0
[[bands]]
role = "E1-M2"
colour = "#00FFFF"
half_span_uv = 80.0
"""
TICK_S = 2.0
STRIDE_S = 120.0
DEADLINE_S = 600.0


class Ticking(HandDriven):
    """For many beds: time passes every two seconds, not at each arrival."""

    over = False

    def arrivals(self) -> Iterator[tuple[str, Arrival] | None]:
        found = 0.0
        for at, bed, arrival in self._coming:
            while at > self._until and not self._stopped:
                yield from self._tick(self._until)
            if at > found + TICK_S:
                found = self._now = at
                yield None
            yield bed, arrival
        while not self._stopped:
            self.over = True
            yield from self._tick(self._until)

    def _tick(self, now: float) -> Iterator[None]:
        self._now = max(self._now, now)
        yield None
        with self._moved:
            self._moved.wait(0.2)


@dataclass(frozen=True)
class PerturbedNight:
    """One night with two futures, at two beds."""

    seed: int
    pages: int
    start: float

    @classmethod
    def of(cls, seed: int) -> PerturbedNight:
        rng = np.random.default_rng([seed, 99])
        pages = int(rng.integers(20, 61))
        return cls(seed, pages, UNTIL - float(rng.uniform(2.0, pages - 3)) * PAGE_S)

    def bed(self, future: int) -> str:
        return f"night-{self.seed}-{'ab'[future]}"

    def coming(self, future: int) -> list[Coming]:
        timed = arrivals(self.seed, self.pages, UNTIL, future, start=self.start, rates=RATES)
        name = self.bed(future)
        last = timed[-1][0] + 1.0
        end = Mark("marks", _last_stamp(timed), "end_session", last)
        return [*((at, name, _arrived(event, at)) for at, event in timed), (last, name, end)]


def _arrived(event: Arrival, at: float) -> Arrival:
    return replace(event, arrived=at) if isinstance(event, Chunk) else event


def _last_stamp(timed: list[Timed]) -> float:
    stamps = [e.stamps.max() for _, e in timed if isinstance(e, Chunk) and e.stream == "eeg"]
    return float(max(stamps))


class Book:
    """The terminal events of a ward by bed and epoch, as they become durable."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._read = 0
        self.terminal: dict[str, dict[int, payloads.StageEvent]] = {}
        self.provisional: dict[str, set[int]] = {}

    def read(self) -> None:
        events = self._running.events
        for event in events[self._read :]:
            mine = self.terminal.setdefault(event.bed, {})
            waiting = self.provisional.setdefault(event.bed, set())
            assert event.epoch not in mine, f"{event.bed} page {event.epoch} comes again"
            if event.status == "provisional":
                waiting.add(event.epoch)
            else:
                mine[event.epoch] = event
                waiting.discard(event.epoch)
        self._read = len(events)

    def settled(self, *, over: bool = False) -> bool:
        """Whether every page that was drawn has its verdict; ``over``: its terminal one."""
        self.read()
        pages = self._running.ward.signal_thread.pages
        waiting = {} if over else self.provisional
        return all(
            len(self.terminal.get(bed, ())) + len(waiting.get(bed, ())) >= count
            for bed, count in pages.items()
        )


async def _come_true(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not what():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def _ward(folder: Path, pack: Path, nights: list[PerturbedNight]) -> list[tuple[int, bool]]:
    """Run nights with both their futures; return of each how much was terminal, and differed."""
    coming = sorted(
        (one for night in nights for future in (0, 1) for one in night.coming(future)),
        key=lambda one: one[0],
    )
    source = Ticking(coming)
    async with running_ward(folder, pack, source, free_port(), deadline_s=DEADLINE_S) as running:
        book = Book(running)

        async def go_to(local: float) -> None:
            source.go_to(local)
            await _come_true(lambda: source.now() >= local)
            await _come_true(book.settled)

        for local in np.arange(coming[0][0], UNTIL, STRIDE_S):
            await go_to(float(local))
        await go_to(UNTIL)
        before = {bed: dict(events) for bed, events in book.terminal.items()}
        for local in np.arange(UNTIL + STRIDE_S, coming[-1][0] + STRIDE_S, STRIDE_S):
            await go_to(float(local))
        await _come_true(lambda: source.over and book.settled(over=True))
    return [_compared(night, before, book.terminal) for night in nights]


def _compared(
    night: PerturbedNight,
    before: dict[str, dict[int, payloads.StageEvent]],
    after: dict[str, dict[int, payloads.StageEvent]],
) -> tuple[int, bool]:
    known = before[night.bed(0)]
    ours, theirs = (_contents(after[night.bed(future)]) for future in (0, 1))
    for found in (ours, theirs):
        assert set(range(night.pages)) <= set(found)
        assert {k: found[k] for k in known} == _contents(known)
    return len(known), any(ours[k] != theirs[k] for k in range(night.pages))


def _contents(events: dict[int, payloads.StageEvent]) -> dict[int, tuple[object, ...]]:
    return {
        epoch: (e.status, e.reason, e.stage, e.probabilities, e.start, e.digests.picture)
        for epoch, e in events.items()
    }


async def check_nights(folder: Path, count: int, *, at_once: int) -> None:
    """Run wards of so many nights, one with a pack that looks ahead after one that does not."""
    found: list[tuple[int, bool]] = []
    for number, first in enumerate(range(0, count, at_once)):
        after = number % 2
        pack = make_tiny_pack(
            folder / f"pack-{after}",
            recipe="small.toml",
            files={"small.toml": SMALL},
            context=Context(after=after),
        )
        nights = [PerturbedNight.of(seed) for seed in range(first, min(first + at_once, count))]
        found += await _ward(folder / f"ward-{number}", pack, nights)
    terminal, differs = zip(*found, strict=True)
    assert sum(terminal) > 12 * count
    # A future that is withheld to its end looks like any other.
    assert sum(differs) > 0.95 * count


async def test_another_future_changes_no_earlier_terminal_verdict(tmp_path: Path) -> None:
    await check_nights(tmp_path, 8, at_once=4)


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_another_future_changes_nothing_earlier_in_a_thousand_nights(tmp_path: Path) -> None:
    await check_nights(tmp_path, 1000, at_once=20)
