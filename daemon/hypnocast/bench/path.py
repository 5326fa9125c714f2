"""Group *path*: from the samples that close a page to the broker's acknowledgement.

The model's own time is subtracted: what is left is drawing, batching, deciding, the journal with
its sync, and the way to the broker and back, queueing behind other beds included. With many beds
the pages close spread over one second, at which time samples come no faster than in real time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby

from hypnocast.bench.figures import Figure, Target
from hypnocast.bench.watched_ward import WardWatch, run_room
from hypnocast.core.types import (
    PAGE_S,
    Arrival,
    Chunk,
    ClockReading,
    Mark,
    StreamLost,
    StreamOpened,
)
from hypnocast.simulate import SimulatedSource
from hypnocast.stagers.packs.pack import Pack

CHUNK_S = 0.25
START_S = 1000.0
_BEFORE_S = 0.5
"""Samples come in real time from so long before the first close."""


def measure(pack: Pack, *, pages: int = 60, rounds: int = 8, beds: int = 64) -> Iterator[Figure]:
    """Measure one bed, then many that close within the same second."""
    targets = (Target("at most", 15.0), Target("at most", 60.0, "p99"))
    yield from _figures("1 bed", watch_beds(pack, 1, pages), targets)
    crowd = watch_beds(pack, beds, rounds)
    yield from _figures(f"{beds} beds", crowd, (Target("at most", 250.0, "p99"),))
    yield Figure("path", f"{beds} beds: with inference", "ms", _whole(crowd))


def watch_beds(pack: Pack, beds: int, pages: int) -> WardWatch:
    """Run some beds for some pages, one page at a time, and return what happened when."""
    tail_s = pack.recipe.tail_s
    return run_room(pack, lambda watch: page_by_page(watch, beds, pages, tail_s))


def _whole(watch: WardWatch) -> list[float]:
    return [1e3 * (watch.acknowledged[key] - at) for key, at in sorted(watch.closed.items())]


def _figures(name: str, watch: WardWatch, targets: tuple[Target, ...]) -> Iterator[Figure]:
    own, drawing, keeping, sending = [], [], [], []
    for key, closed in sorted(watch.closed.items()):
        acknowledged, durable = watch.acknowledged[key], watch.durable[key]
        drawn = watch.drawn[key]
        own.append(acknowledged - closed - watch.inferring(closed, acknowledged))
        drawing.append(drawn - closed)
        keeping.append(durable - drawn - watch.inferring(drawn, durable))
        sending.append(acknowledged - durable)
    yield Figure("path", f"{name}: close to PUBACK less inference", "ms", _ms(own), targets)
    yield Figure("path", f"{name}: close to drawn", "ms", _ms(drawing))
    yield Figure("path", f"{name}: drawn to durable less inference", "ms", _ms(keeping))
    yield Figure("path", f"{name}: durable to PUBACK", "ms", _ms(sending))


def _ms(seconds: list[float]) -> list[float]:
    return [1e3 * value for value in seconds]


def page_by_page(
    watch: WardWatch, beds: int, pages: int, tail_s: float
) -> Iterator[tuple[str, Arrival]]:
    """Give the arrivals of beds whose pages close spread over a second; wait after each round.

    All of a round is made before it begins, so that the simulator's own work is not measured.
    The first page of every bed warms up and is not kept.
    """
    source = SimulatedSource(
        beds, seed=1, pages=pages + 2, truth=False, chunk_s=CHUNK_S, clock_start=START_S
    )
    shift = {bed: number / beds for number, bed in enumerate(source.beds)}

    def round_of(coming: tuple[str, Arrival]) -> int:
        return max(0, int((arrived(coming[1]) - START_S - tail_s - 1.0) // PAGE_S))

    for number, part in groupby(source, round_of):
        if number > pages:
            return
        moved = [(bed, later(arrival, shift[bed])) for bed, arrival in part]
        moved.sort(key=lambda coming: arrived(coming[1]))
        closing = START_S + PAGE_S * (number + 1) + tail_s
        yield from _round(moved, closing, number, watch)
        watch.wait_for([(bed, number) for bed in source.beds])


def _round(
    arrivals: list[tuple[str, Arrival]], closing: float, number: int, watch: WardWatch
) -> Iterator[tuple[str, Arrival]]:
    """Give what came before the closes at once, and what closes pages when it is due."""
    paced_from = closing - _BEFORE_S
    began: float | None = None
    for bed, arrival in arrivals:
        at = arrived(arrival)
        due = time.monotonic()
        if at >= paced_from:
            began = due if began is None else began
            due = began + at - paced_from
            time.sleep(max(0.0, due - time.monotonic()))
        yield bed, arrival
        key = (bed, number)
        if number > 0 and key in watch.drawn and key not in watch.closed:
            watch.closed[key] = due


def arrived(arrival: Arrival) -> float:
    """Return when something came, on the local clock."""
    return arrival.arrived if isinstance(arrival, Chunk | Mark) else arrival.at


def later(arrival: Arrival, by: float) -> Arrival:
    """Return the same, as if its bed were behind by some seconds."""
    match arrival:
        case Chunk():
            return replace(arrival, stamps=arrival.stamps + by, arrived=arrival.arrived + by)
        case Mark():
            return replace(arrival, stamp=arrival.stamp + by, arrived=arrival.arrived + by)
        case StreamOpened() | StreamLost() | ClockReading():
            return replace(arrival, at=arrival.at + by)
