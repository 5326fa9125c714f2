"""A tape replayed by its own decisions gives the same pages, whatever the night was like."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hypnocast.core.pages.page_builder import PageBuilder
from hypnocast.core.timing.decisions import (
    Decision,
    PageClosed,
    decision_from_json,
    decision_to_json,
)
from hypnocast.core.types import (
    Chunk,
    ClockReading,
    Page,
    StreamHeader,
    StreamLost,
    StreamOpened,
)
from support import bed_lab as bed
from support.examples import examples

START = 1000.0


@dataclass
class ReplayableNight:
    """What a live night left: its pages, and its tape."""

    pages: list[Page] = field(default_factory=list)
    tape: list[bed.Event] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    late: int = 0


def arrivals(
    head: StreamHeader, rng: np.random.Generator, *, offset: float, restart: str
) -> Iterator[tuple[float, bed.Event]]:
    """Let one stream arrive with delays, stalls, gaps, noisy readings, and perhaps a restart."""
    sent = bed.send(
        head,
        start=START,
        seconds=130.0,
        seed=int(rng.integers(1000)),
        jitter=0.002,
        drift_ppm=float(rng.uniform(-200, 200)),
        offset=offset,
    )
    hole = float(rng.uniform(0.0, 120.0))
    sent = sent.without(START + hole, START + hole + float(rng.choice([0.0, 0.3, 12.0])))
    broken = START + float(rng.uniform(20.0, 110.0)) if restart else np.inf
    now = START
    yield now, StreamOpened(head, now)
    next_reading = START + 0.3
    first = 0
    while first < len(sent.stamps):
        last = min(first + int(rng.integers(1, 60)), len(sent.stamps))
        delay = float(rng.choice([0.02, 0.1, 3.0], p=[0.6, 0.37, 0.03]))
        now = max(now, float(sent.taken[last - 1]) + delay)
        if now > broken:
            broken = np.inf
            yield now, StreamLost(head.key, now, "gone")
            uid = "first" if restart == "same" else "second"
            labels = [c.label for c in head.channels]
            if restart == "other labels":
                labels.reverse()
            again = bed.header(head.key, labels, head.rate, uid=uid)
            yield now, StreamOpened(again, now)
        if now > next_reading:
            noise = float(rng.normal(0.0, 3e-4))
            yield now, ClockReading(head.key, now, offset + noise)
            next_reading = now + float(rng.uniform(2.0, 8.0))
        yield now, sent.chunk(first, last, now)
        first = last


def live(rng: np.random.Generator, restart: str) -> ReplayableNight:
    night = ReplayableNight()
    builder = PageBuilder(bed.NEEDS, choose=bed.choose)
    events = sorted(
        [
            *arrivals(bed.header("eeg", bed.EEG, 64.0), rng, offset=12.5, restart=restart),
            *arrivals(bed.header("face", bed.FACE, 50.0), rng, offset=0.0, restart=""),
        ],
        key=lambda pair: pair[0],
    )
    begun = False
    for now, event in events:
        if not begun and now > START + 8.0:
            builder.begin(now + 0.0123)
            begun = True
        night.tape.append(event)
        builder.add(event)
        night.pages += builder.close_due(now)
        night.decisions += builder.pop_decisions()
    night.pages += builder.end(events[-1][0])
    night.decisions += builder.pop_decisions()
    night.late = builder.late
    return night


def rechunked(tape: list[bed.Event], rng: np.random.Generator) -> Iterator[bed.Event]:
    """Cut a tape's samples differently; no sample crosses an opening or a loss."""
    held: dict[str, Chunk] = {}
    for event in tape:
        if isinstance(event, Chunk):
            samples, stamps = event.samples, event.stamps
            if event.stream in held:
                before = held.pop(event.stream)
                samples = np.concatenate((before.samples, samples))
                stamps = np.concatenate((before.stamps, stamps))
            cut = int(rng.integers(0, len(stamps) + 1))
            held[event.stream] = Chunk(event.stream, samples[cut:], stamps[cut:])
            yield Chunk(event.stream, samples[:cut], stamps[:cut])
        elif not isinstance(event, ClockReading):
            yield from held.values()
            held.clear()
            if isinstance(event, StreamOpened) or rng.random() < 0.5:
                yield event
    yield from held.values()


@pytest.mark.promise(5)
@settings(
    max_examples=examples(30, 100), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
@given(
    seed=st.integers(0, 2**32 - 1),
    restart=st.sampled_from(["", "same", "other uid", "other labels"]),
)
def test_a_replayed_tape_gives_the_pages_of_the_night(seed: int, restart: str) -> None:
    rng = np.random.default_rng(seed)
    night = live(rng, restart)
    written = [decision_to_json(decision) for decision in night.decisions]
    builder = PageBuilder(bed.NEEDS, choose=bed.choose, obey=map(decision_from_json, written))
    pages: list[Page] = []
    for event in rechunked(night.tape, rng):
        builder.add(event)
        pages += builder.close_due(0.0)
    pages += builder.end(0.0)
    assert len(pages) >= 4
    assert bed.all_same(pages, night.pages)
    assert builder.late == night.late
    assert closings(builder.pop_decisions()) == closings(night.decisions)


def closings(decisions: list[Decision]) -> list[PageClosed]:
    return [decision for decision in decisions if isinstance(decision, PageClosed)]


def test_a_tape_cut_short_gives_every_page_it_can() -> None:
    rng = np.random.default_rng(5)
    night = live(rng, "")
    short = night.tape[: len(night.tape) * 2 // 3]
    builder = PageBuilder(bed.NEEDS, choose=bed.choose, obey=night.decisions)
    pages: list[Page] = []
    for event in short:
        builder.add(event)
        pages += builder.close_due(0.0)
    whole = len(pages)
    assert whole >= 2
    assert bed.all_same(pages, night.pages[:whole])
    assert [page.epoch for page in [*pages, *builder.end(0.0)]] == list(range(len(night.pages)))
