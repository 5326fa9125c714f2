"""One bed's streams become pages: by time alone, one for each 30 s, whatever happens."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hypnocast.core.pages.page_builder import PageBuilder, PageNeeds
from hypnocast.core.types import (
    ChannelInfo,
    Chunk,
    ClockReading,
    Role,
    StreamHeader,
    StreamLost,
    StreamOpened,
)
from support import bed_lab as bed
from support.examples import examples

START = 1000.0
ANCHOR = 1010.0


def two_streams(seconds: float = 100.0, *, seed: int = 0, jitter: float = 2e-4) -> list[bed.Sent]:
    eeg = bed.header("eeg", bed.EEG, 100.0)
    face = bed.header("face", bed.FACE, 64.0)
    return [
        bed.send(eeg, start=START, seconds=seconds, seed=seed, jitter=jitter),
        bed.send(face, start=START, seconds=seconds, seed=seed + 1, jitter=jitter, offset=-5000.25),
    ]


def whole(sent: list[bed.Sent]) -> list[bed.Event]:
    """All streams side by side, in chunks of about a second."""
    return bed.side_by_side(*(bed.timed(s, bed.always(100)) for s in sent))


# --- chunks and order cannot be seen on a page -------------------------------------------------


@pytest.mark.promise(4)
@pytest.mark.parametrize("size", [1, 7, 64, 5000])
def test_the_same_data_in_chunks_of_any_size_gives_the_same_pages(size: int) -> None:
    sent = [s.without(1042.0, 1053.5) for s in two_streams(jitter=0.003)]
    rng = np.random.default_rng(size)
    reference = bed.pages_of(whole(sent), anchor=ANCHOR, end=START + 100)
    mixed = bed.in_any_order([bed.in_chunks(s, bed.always(size)) for s in sent], rng)
    assert bed.all_same(bed.pages_of(mixed, anchor=ANCHOR, end=START + 100), reference)
    assert [page.epoch for page in reference] == [0, 1, 2]


gaps = st.lists(st.tuples(st.floats(0.0, 99.0), st.floats(0.001, 40.0)), max_size=4)


@pytest.mark.promise(4)
@settings(
    max_examples=examples(150, 500), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
@given(
    gaps=st.tuples(gaps, gaps),
    jitter=st.floats(0.0, 0.012),
    drift=st.floats(-200.0, 200.0),
    held_up=st.lists(st.tuples(st.integers(0, 6000), st.integers(1, 40)), max_size=3),
    seed=st.integers(0, 2**32 - 1),
)
def test_no_chunking_gap_jitter_or_order_of_arrival_changes_a_page(
    gaps: tuple[list[tuple[float, float]], list[tuple[float, float]]],
    jitter: float,
    drift: float,
    held_up: list[tuple[int, int]],
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    sent = []
    for roles, key, rate, offset, holes in (
        (bed.EEG, "eeg", 64.0, 0.0, gaps[0]),
        (bed.FACE, "face", 50.0, 777.5, gaps[1]),
    ):
        head = bed.header(key, roles, rate)
        one = bed.send(
            head,
            start=START,
            seconds=100.0,
            seed=seed,
            drift_ppm=drift,
            jitter=jitter,
            offset=offset,
        )
        for first, count in held_up:
            one.stamps[first : first + count] += 0.15
        for at, length in holes:
            one = one.without(START + at, min(START + at + length, START + 99.5))
        sent.append(one)
    one_way = bed.in_any_order([bed.in_chunks(s, bed.any_size(rng)) for s in sent], rng)
    other_way = chain.from_iterable(bed.in_chunks(s, bed.always(5000)) for s in sent)
    opened_first = sorted(other_way, key=lambda event: not isinstance(event, StreamOpened))
    pages = bed.pages_of(one_way, anchor=ANCHOR, end=START + 100)
    assert [page.epoch for page in pages] == [0, 1, 2]
    assert bed.all_same(pages, bed.pages_of(opened_first, anchor=ANCHOR, end=START + 100))


# --- time decides ------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [100.0, 256.0, 512.0])
@pytest.mark.parametrize("drift_ppm", [-200.0, 200.0])
def test_pulses_land_within_one_sample_under_drift_and_jitter(
    rate: float, drift_ppm: float
) -> None:
    head = bed.header("eeg", ["F4-M1"], rate)
    sent = bed.send(
        head, start=START, seconds=600.0, seed=3, drift_ppm=drift_ppm, jitter=0.005, offset=-70.0
    )
    sent.samples[:] = 0.0
    pulses = START + 150.3 + 1.7 * np.arange(260)
    at = np.searchsorted(sent.taken, pulses)
    sent.samples[at] = 100.0
    needs = PageNeeds((Role.F4,), 0.0, 1.0)
    events = bed.in_chunks(sent, bed.always(51))
    pages = bed.pages_of(events, anchor=START, end=START + 600, needs=needs)
    line = np.concatenate([bed.proper(page, Role.F4) for page in pages])
    for index in at:
        slot = (sent.taken[index] - START) * rate
        near = np.flatnonzero(line[int(slot) - 5 : int(slot) + 7] == 100.0) + int(slot) - 5
        assert len(near) in (1, 2)
        assert np.abs(near - slot).max() <= 1.0
    assert not np.isnan(line[: int(599 * rate)]).any()


@pytest.mark.parametrize("length", [10.0, 40.0])
def test_a_dropout_costs_its_own_pages_and_no_other(length: float) -> None:
    sent = two_streams(220.0)
    undisturbed = bed.pages_of(whole(sent), anchor=ANCHOR, end=START + 220)
    gone = [sent[0].without(1075.0, 1075.0 + length), sent[1]]
    pages = bed.pages_of(whole(gone), anchor=ANCHOR, end=START + 220)
    assert [page.epoch for page in pages] == list(range(7))
    for page, before in zip(pages, undisturbed, strict=True):
        lost = np.clip(1075.0 + length - ANCHOR - 30 * page.epoch, 0, 30) - np.clip(
            1075.0 - ANCHOR - 30 * page.epoch, 0, 30
        )
        assert bed.missing(page, Role.F4) == pytest.approx(lost / 30, abs=0.002)
        assert bed.missing(page, Role.E1) < 0.001
        there = ~np.isnan(bed.proper(page, Role.F4))
        assert np.array_equal(bed.proper(page, Role.F4)[there], bed.proper(before, Role.F4)[there])
        assert np.array_equal(bed.proper(page, Role.E1), bed.proper(before, Role.E1))


@pytest.mark.parametrize("uid", ["first", "second"])
def test_a_restarted_outlet_goes_on_on_the_same_grid(uid: str) -> None:
    sent = two_streams(220.0)
    undisturbed = bed.pages_of(whole(sent), anchor=ANCHOR, end=START + 220)
    eeg, face = sent
    before, after = eeg.only(eeg.taken < 1075.0), eeg.only(eeg.taken >= 1084.0)
    moved = 0.0 if uid == "first" else 3.0e4
    again = bed.header("eeg", bed.EEG, 100.0, uid=uid)
    after = bed.Sent(again, after.samples, after.stamps - moved, after.taken, after.offset + moved)
    events = bed.side_by_side(
        bed.timed(before, bed.always(50)),
        [(1077.0, StreamLost("eeg", 1077.0, "silent"))],
        bed.timed(after, bed.always(50)),
        bed.timed(face, bed.always(64)),
    )
    pages = bed.pages_of(events, anchor=ANCHOR, end=START + 220)
    assert [page.epoch for page in pages] == [page.epoch for page in undisturbed]
    for page, plain in zip(pages, undisturbed, strict=True):
        there = ~np.isnan(bed.proper(page, Role.F4))
        assert there.all() == (page.epoch != 2)
        assert np.array_equal(bed.proper(page, Role.F4)[there], bed.proper(plain, Role.F4)[there])
        assert np.array_equal(bed.proper(page, Role.E1), bed.proper(plain, Role.E1))
    assert bed.missing(pages[2], Role.F4) == pytest.approx(9.0 / 30, abs=0.002)


@pytest.mark.parametrize("hours", [70 / 60, 100 / 60])
def test_pages_without_streams_come_out_empty_one_by_one(hours: float) -> None:
    sent = two_streams(60.0)
    gone = hours * 3600
    later = [
        bed.Sent(s.header, s.samples, s.stamps + 60 + gone, s.taken + 60 + gone, s.offset)
        for s in sent
    ]
    lost: list[bed.Event] = [StreamLost("eeg", 1062.0), StreamLost("face", 1062.0)]
    events = [*whole(sent), *lost, *whole(later)]
    pages = bed.pages_of(events, anchor=START, end=START + 120 + gone)
    assert [page.epoch for page in pages] == list(range(round(4 + gone / 30)))
    assert [bed.missing(page, Role.F4) > 0.99 for page in pages] == [
        2 <= page.epoch < 2 + gone / 30 for page in pages
    ]


# --- clocks ------------------------------------------------------------------------------------


def live(
    sent: bed.Sent, *, needs: PageNeeds, stepped: float, at: float
) -> tuple[list[float], PageBuilder]:
    """Run live with a sender whose clock is set at a time; return each page's missing share."""
    builder = PageBuilder(needs, choose=bed.choose)
    builder.add(StreamOpened(sent.header, START))
    builder.begin(START)
    missing = []
    next_reading = START
    for first in range(0, len(sent.stamps), 25):
        last = min(first + 25, len(sent.stamps)) - 1
        now = float(sent.taken[last]) + 0.02
        if now >= next_reading:
            builder.add(ClockReading("eeg", now, 0.0 if now < at else -stepped))
            next_reading += 5.0
        builder.add(sent.chunk(first, last + 1, now))
        missing += [bed.missing(page, Role.F4) for page in builder.close_due(now)]
    return missing, builder


@pytest.mark.parametrize("stepped", [-4000.0, -2.5, 0.8, 40.0])
def test_a_sender_whose_clock_is_set_loses_nothing(stepped: float) -> None:
    needs = PageNeeds((Role.F4,), 0.0, 1.0)
    head = bed.header("eeg", ["F4-M1"], 128.0)
    sent = bed.send(head, start=START, seconds=180.0, jitter=0.001)
    at = 1067.3
    sent.stamps[sent.taken >= at] += stepped
    missing, _ = live(sent, needs=needs, stepped=stepped, at=at)
    assert missing == [0.0] * 5


def test_a_gateway_that_stamps_unix_time_is_tied_to_arrival() -> None:
    head = bed.header("eeg", ["F4-M1"], 128.0)
    sent = bed.send(head, start=START, seconds=70.0)
    sent.stamps[:] += 1.76e9
    needs = PageNeeds((Role.F4,), 0.0, 1.0)
    missing, builder = live(sent, needs=needs, stepped=0.0, at=0.0)
    assert max(missing) < 0.01
    (state,) = builder.states()
    assert state.clock == "foreign"


def test_without_any_clock_reading_the_local_clock_is_assumed_and_reported() -> None:
    (eeg, _) = two_streams(70.0)
    seen: list[str] = []
    events = [event for event in whole([eeg]) if not isinstance(event, ClockReading)]
    pages = bed.pages_of(
        events,
        anchor=ANCHOR,
        end=START + 70,
        watch=lambda builder: seen.extend(state.clock for state in builder.states()),
    )
    assert seen == ["assumed"]
    assert bed.missing(pages[0], Role.F4) == 0.0


# --- closing -----------------------------------------------------------------------------------


def test_a_page_waits_for_the_slowest_channel_but_not_beyond_the_grace() -> None:
    eeg, face = two_streams(60.0)
    builder = PageBuilder(bed.NEEDS, choose=bed.choose)
    for one in (eeg, face):
        builder.add(StreamOpened(one.header, START))
        builder.add(one.readings()[0])
    builder.begin(START)
    builder.add(eeg.chunk(0, 4000))
    builder.add(face.chunk(0, 64 * 25))
    end = START + 30 + bed.NEEDS.tail_s
    assert builder.close_due(end + 0.99) == []
    (page,) = builder.close_due(end + 1.0)
    assert bed.missing(page, Role.F4) == 0.0
    assert bed.missing(page, Role.CHIN) == pytest.approx(5 / 30, abs=0.001)


def test_late_samples_are_counted_not_drawn() -> None:
    eeg, face = two_streams(100.0)
    builder = PageBuilder(bed.NEEDS, choose=bed.choose)
    for one in (eeg, face):
        builder.add(StreamOpened(one.header, START))
        builder.add(one.readings()[0])
    builder.begin(START)
    builder.add(eeg.chunk(0, 4000))
    builder.add(face.chunk(0, 64 * 25))
    builder.close_due(START + 32.0)
    assert builder.late == 0
    builder.add(face.chunk(64 * 25, 64 * 40))
    late = builder.late
    assert late == pytest.approx(64 * 5, abs=1)
    builder.add(eeg.chunk(4000, 7000))
    builder.add(face.chunk(64 * 40, 64 * 70))
    (page,) = builder.close_due(START + 61.0)
    assert page.epoch == 1
    assert bed.missing(page, Role.CHIN) == 0.0
    assert builder.late == late


def test_a_page_comes_even_where_there_is_no_stream_at_all() -> None:
    builder = PageBuilder(bed.NEEDS, choose=bed.choose)
    builder.begin(START)
    assert [page.epoch for page in builder.close_due(START + 95.0)] == [0, 1, 2]
    assert builder.close_due(START + 95.0) == []
    assert builder.next_epoch == 3


def test_the_last_page_is_partial_and_nothing_follows_it() -> None:
    builder_pages = bed.pages_of(whole(two_streams(100.0)), anchor=ANCHOR, end=START + 95.0)
    assert [page.epoch for page in builder_pages] == [0, 1, 2]
    builder = PageBuilder(bed.NEEDS, choose=bed.choose)
    builder.begin(START)
    assert [page.epoch for page in builder.end(START + 60.0)] == [0, 1]
    assert builder.close_due(START + 1000.0) == []
    assert builder.end(START + 1000.0) == []


# --- montages that change ----------------------------------------------------------------------


def test_a_late_stream_joins_and_a_lost_one_keeps_its_place_on_the_page() -> None:
    eeg, face = two_streams(100.0)
    events = bed.side_by_side(
        bed.timed(eeg.only(eeg.taken < 1075.0), bed.always(100)),
        [(1076.0, StreamLost("eeg", 1076.0))],
        bed.timed(face.only(face.taken >= 1050.0), bed.always(10)),
    )
    pages = bed.pages_of(events, anchor=ANCHOR, end=START + 100)
    assert [set(page.signals) for page in pages] == [
        set(bed.EEG),
        {*bed.EEG, *bed.FACE},
        {*bed.EEG, *bed.FACE},
    ]
    assert bed.missing(pages[1], Role.E1) == pytest.approx(10 / 30, abs=0.002)
    assert bed.missing(pages[2], Role.F4) == pytest.approx(25 / 30, abs=0.002)


def test_a_stream_found_again_with_other_channels_is_read_by_its_new_labels() -> None:
    eeg, _ = two_streams(100.0)
    swapped = bed.header("eeg", ["C4-M1", "Aux", "F4-M1"], 100.0, uid="second")
    later = bed.send(swapped, start=1050.0, seconds=50.0, seed=9)
    pages = bed.pages_of(
        [*whole([eeg.only(eeg.taken < 1049.0)]), *whole([later])], anchor=ANCHOR, end=START + 100
    )
    assert pages[2].signals[Role.F4].derivation.positive == 2
    first = round((ANCHOR + 60 - 1050.0) * 100)
    steps = np.rint(later.samples[first : first + 2000, 2].astype(np.float64) * 64) / 64
    assert np.array_equal(bed.proper(pages[2], Role.F4)[:2000], steps)


def test_samples_are_what_their_header_does_not_say_and_no_reader_falls() -> None:
    builder = PageBuilder(bed.NEEDS, choose=bed.choose)
    wild = StreamHeader(
        "eeg",
        "eeg",
        "EEG",
        "eeg",
        "u",
        "amp",
        100.0,
        (ChannelInfo("F4-M1", "uV"), ChannelInfo("C4-M1", None)),
    )
    builder.add(StreamOpened(wild, START))
    builder.add(ClockReading("eeg", START, 0.0))
    builder.begin(START)
    stamps = START + np.arange(4000) / 100.0
    values = np.full((4000, 1), 1.0, dtype=np.float32)
    values[100] = np.inf
    values[101] = -np.inf
    values[102] = np.nan
    values[103] = 3e38
    stamps[200] = np.nan
    stamps[201] = np.inf
    builder.add(Chunk("eeg", values, stamps))
    builder.add(Chunk("nobody", values, stamps))
    (page,) = builder.close_due(START + 35.0)
    line = bed.proper(page, Role.F4)
    assert np.flatnonzero(np.isnan(line)).tolist()[:3] == [100, 101, 102]
    assert np.isnan(line).sum() == 5
    assert np.isnan(bed.proper(page, Role.C4)).all()
    assert builder.states()[0].unusable == 2


def test_the_health_of_a_channel_is_seen_within_its_last_seconds() -> None:
    eeg, _ = two_streams(60.0)
    builder = PageBuilder(bed.NEEDS, choose=bed.choose)
    for event in whole([eeg.only(eeg.taken < START + 20.0)]):
        builder.add(event)
    recent = builder.recent(START + 22.0)
    assert set(recent) == set(bed.EEG)
    line = recent[Role.F4].samples
    assert len(line) == 500
    assert not np.isnan(line[:299]).any()
    assert np.isnan(line[301:]).all()
