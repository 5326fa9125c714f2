"""Stamps that cannot be: no sample is later than the local clock allows, and one moves nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pytest

from hypnocast.core.pages.page_builder import PageBuilder
from hypnocast.core.timing.decisions import Decision, decision_from_json, decision_to_json
from hypnocast.core.types import Chunk, ClockReading, FloatArray, Page, Role, StreamOpened
from support.bed_lab import (
    EEG,
    NEEDS,
    Event,
    Sent,
    choose,
    header,
    missing,
    proper,
    same,
    send,
)

CHUNK = 25
WRONG = (1e5, 50.0, 1e12, -1e5, -50.0)


def live(sent: Sent, stamps: FloatArray, *, readings: bool = True) -> Iterator[Event]:
    """Give an outlet's events as they come over a network: each chunk when its last was sampled."""
    began = float(sent.taken[0])
    yield StreamOpened(sent.header, began)
    yield ClockReading(sent.header.key, began, sent.offset)
    read_at = began
    for start in range(0, len(stamps), CHUNK):
        part = slice(start, start + CHUNK)
        arrived = float(sent.taken[part][-1]) + 0.02
        if readings and arrived - read_at >= 5.0:
            read_at = arrived
            yield ClockReading(sent.header.key, arrived, sent.offset)
        yield Chunk(sent.header.key, sent.samples[part], stamps[part], arrived)


def live_pages(
    events: Iterable[Event], *, end: float
) -> tuple[list[Page], list[Decision], PageBuilder]:
    """Run a bed by the local clock, which is where the newest chunk arrived."""
    builder = PageBuilder(NEEDS, choose=choose)
    builder.begin(1000.0)
    pages: list[Page] = []
    decided: list[Decision] = []
    for event in events:
        builder.add(event)
        if isinstance(event, Chunk):
            pages += builder.close_due(event.arrived)
            decided += builder.pop_decisions()
    pages += builder.end(end)
    return pages, decided + builder.pop_decisions(), builder


def spoilt(sent: Sent, at: int, by: float, *, count: int = CHUNK) -> FloatArray:
    stamps = sent.stamps.copy()
    stamps[at : at + count] += by
    return stamps


def eeg(seconds: float = 150.0) -> Sent:
    return send(header("eeg", EEG, 100.0), start=1000.0, seconds=seconds, jitter=0.001)


@pytest.mark.parametrize("by", WRONG)
@pytest.mark.parametrize("at", [0, 25, 4000, 4010])
def test_a_chunk_of_wrong_stamps_costs_its_own_samples_and_no_more(by: float, at: int) -> None:
    sent = eeg()
    pages, _, builder = live_pages(live(sent, spoilt(sent, at, by)), end=1150.0)
    assert len(pages) == 5
    lost = [missing(page, Role.F4) for page in pages]
    hit = min(at // 3000, 4)
    assert all(share < 0.001 for epoch, share in enumerate(lost) if epoch != hit), lost
    assert lost[hit] < 0.1, lost
    (state,) = builder.states()
    assert state.latest is not None
    assert state.latest <= 1150.1


@pytest.mark.parametrize("readings", [True, False])
def test_wrong_stamps_again_and_again_never_hold_good_ones_up(*, readings: bool) -> None:
    sent = eeg()
    stamps = sent.stamps.copy()
    for at in range(0, len(stamps), 4 * CHUNK):
        stamps[at : at + CHUNK] += 1e5
    pages, _, builder = live_pages(live(sent, stamps, readings=readings), end=1150.0)
    for page in pages[:-1]:
        assert missing(page, Role.F4) == pytest.approx(0.25, abs=0.05)
    (state,) = builder.states()
    assert state.refused == pytest.approx(len(stamps) / 4, abs=CHUNK)


def test_two_streams_that_leap_in_opposite_directions_move_nothing() -> None:
    first, second = eeg(), send(header("face", [Role.E1], 50.0), start=1000.0, seconds=150.0)
    events = [
        *live(first, spoilt(first, 4000, 1e5)),
        *live(second, spoilt(second, 2000, -1e5)),
    ]

    def came(event: Event) -> float:
        return event.arrived if isinstance(event, Chunk) else event.at

    pages, _, _ = live_pages(sorted(events, key=came), end=1150.0)
    assert len(pages) == 5
    for page in pages:
        assert missing(page, Role.F4) < 0.1
        assert missing(page, Role.E1) < 0.25
    assert missing(pages[-1], Role.E1) < 0.01


def test_a_replay_of_the_tape_refuses_the_same_samples() -> None:
    sent = eeg()
    stamps = spoilt(sent, 4000, 1e5)
    events = list(live(sent, stamps))
    pages, decided, _ = live_pages(events, end=1150.0)
    values = [decision_from_json(decision_to_json(one)) for one in decided]
    builder = PageBuilder(NEEDS, choose=choose, obey=values)
    replayed: list[Page] = []
    for event in events:
        if isinstance(event, Chunk):
            builder.add(Chunk(event.stream, event.samples, event.stamps))
        else:
            builder.add(event)
        replayed += builder.close_due(0.0)
    replayed += builder.end(1150.0)
    assert len(replayed) == len(pages)
    assert all(same(a, b) for a, b in zip(pages, replayed, strict=True))


def test_a_sender_whose_clock_reading_lies_puts_no_sample_into_the_future() -> None:
    sent = eeg()
    events: list[Event] = []
    for event in live(sent, sent.stamps):
        if isinstance(event, ClockReading) and event.at > 1060.0:
            event = ClockReading(event.stream, event.at, 1e5)  # noqa: PLW2901 - a lie
        events.append(event)
    pages, _, builder = live_pages(events, end=1150.0)
    assert len(pages) == 5
    (state,) = builder.states()
    assert state.latest is not None
    assert state.latest <= 1151.1
    assert not np.isnan(proper(pages[0], Role.F4)).any()
