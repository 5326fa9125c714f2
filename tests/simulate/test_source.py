"""Simulated beds as a source: ordered, complete, true, in every montage."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest

from hypnocast.core.types import (
    PAGE_S,
    Arrival,
    Chunk,
    ClockReading,
    Mark,
    Stage,
    StreamHeader,
    StreamLost,
    StreamOpened,
)
from hypnocast.errors import ConfigError
from hypnocast.simulate import MONTAGES, EventKind, SimulatedSource


def when(arrival: Arrival) -> float:
    return arrival.arrived if isinstance(arrival, Chunk | Mark) else arrival.at


def content(arrival: Arrival) -> object:
    """Something that can be compared, for a Chunk compares as an object."""
    if isinstance(arrival, Chunk):
        samples, stamps = arrival.samples.tobytes(), arrival.stamps.tobytes()
        return arrival.stream, samples, stamps, arrival.arrived
    return arrival


def test_arrivals_come_in_the_order_of_time_over_all_beds() -> None:
    source = SimulatedSource(
        3, seed=1, pages=3, faults=["restart:new@20.1+5", "late@40+3"], chunk_s=0.5
    )
    times = [when(arrival) for _, arrival in source]
    assert all(later >= earlier for earlier, later in pairwise(times))
    assert all(chunk.arrived > chunk.stamps[-1] for _, chunk in source if isinstance(chunk, Chunk))


def test_each_iteration_gives_the_same_again() -> None:
    source = SimulatedSource(["left", "right"], seed=3, pages=2, faults=["jitter:2ms"])
    assert [(bed, content(a)) for bed, a in source] == [(bed, content(a)) for bed, a in source]


OVERLAPPING = ("restart:new@30+5", "restart:same@60+8", "restart:new@64+8", "restart:same@85+5")


def test_a_stream_is_open_before_anything_of_it_comes_and_until_the_end() -> None:
    open_streams: set[str] = set()
    source = SimulatedSource(2, seed=3, pages=3, montage="split", faults=OVERLAPPING)
    for _bed, arrival in source:
        if isinstance(arrival, StreamOpened):
            assert arrival.header.key not in open_streams
            open_streams.add(arrival.header.key)
        else:
            assert arrival.stream in open_streams
            if isinstance(arrival, StreamLost):
                open_streams.remove(arrival.stream)
    assert not open_streams


def test_beds_have_different_sleepers_and_streams() -> None:
    source = SimulatedSource(4, seed=9, pages=40)
    assert len({night.person for night in source.nights.values()}) == 4
    keys = [arrival.header.key for _, arrival in source if isinstance(arrival, StreamOpened)]
    assert len(keys) == len(set(keys)) == 4 * 3


@pytest.mark.parametrize("name", MONTAGES)
def test_every_montage_sends_what_its_metadata_say(name: str) -> None:
    per_unit = {"microvolts": 1.0, "volts": 1e6, "millivolts": 1e3, None: 1.0}
    headers: dict[str, StreamHeader] = {}
    samples: dict[str, list[np.ndarray]] = {}
    for _bed, arrival in SimulatedSource(1, seed=2, stages=(Stage.N2, Stage.W), montage=name):
        if isinstance(arrival, StreamOpened) and arrival.header.rate:
            headers[arrival.header.key] = arrival.header
        elif isinstance(arrival, Chunk):
            assert arrival.samples.dtype == np.float32
            samples.setdefault(arrival.stream, []).append(arrival.samples)
    assert set(samples) == set(headers)
    assert len(headers) == len(MONTAGES[name].outlets)
    for key, header in headers.items():
        sent = np.concatenate(samples[key])
        assert sent.shape == (60 * header.rate, len(header.channels))
        for channel, values in zip(header.channels, sent.T.astype(np.float64), strict=True):
            microvolts = np.std(values) * per_unit[channel.unit]
            if name == "wrong-units":
                microvolts /= 1e6
            low, high = (50.0, 400.0) if channel.kind == "ECG" else (1.5, 60.0)
            assert low < microvolts < high, channel


def test_an_unknown_montage_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="bipolar, full, referential"):
        SimulatedSource(1, montage="10-20")


def test_the_truth_stream_gives_every_stage_and_event_at_its_time() -> None:
    source = SimulatedSource(1, seed=6, pages=30, skip_pages=80, clock_start=50.0)
    marks = [arrival for _, arrival in source if isinstance(arrival, Mark)]
    truth = [(mark.stamp - 50.0, json.loads(mark.text)) for mark in marks if "{" in mark.text]
    stages = [values for _, values in truth if "stage" in values]
    assert [values["epoch"] for values in stages] == list(range(30))
    night = source.nights["bed-01"]
    assert [values["stage"] for values in stages] == [str(s) for s in night.stages[80:]]
    assert [source.stage("bed-01", epoch) for epoch in range(30)] == list(night.stages[80:])
    events = night.events(80 * PAGE_S, 110 * PAGE_S)
    values = [(at, each) for at, each in truth if "event" in each]
    assert len(values) == len(events) > 20
    for (at, each), event in zip(values, events, strict=True):
        assert at == pytest.approx(event.start - 80 * PAGE_S)
        assert each["start"] == pytest.approx(at, abs=1e-3)
        assert EventKind(each["event"]) is event.kind
    assert all(mark.arrived >= mark.stamp for mark in marks)


def test_beginning_later_in_the_night_shows_the_same_night() -> None:
    def sent(**given: int) -> np.ndarray:
        source = SimulatedSource(1, seed=6, **given)  # type: ignore[arg-type] # only page counts
        chunks = [arrival.samples for _, arrival in source if isinstance(arrival, Chunk)]
        return np.concatenate(chunks)

    assert np.array_equal(sent(pages=2, skip_pages=40), sent(pages=42)[40 * 30 * 256 :])


def test_lights_are_sent_by_a_marker_stream_of_their_own() -> None:
    source = SimulatedSource(1, seed=6, hours=8.0, chunk_s=30.0, truth=False)
    header = next(
        arrival.header
        for _, arrival in source
        if isinstance(arrival, StreamOpened) and arrival.header.type == "Markers"
    )
    assert (header.rate, header.format) == (0.0, "string")
    night = source.nights["bed-01"].hypnogram
    marks = [arrival for _, arrival in source if isinstance(arrival, Mark)]
    assert [(mark.text, mark.stamp - 1000.0) for mark in marks] == [
        ("lights_off", night.lights_off),
        ("lights_on", night.lights_on),
    ]
    readings = [a for _, a in source if isinstance(a, ClockReading) and a.stream == header.key]
    assert readings, "a stream without a clock reading cannot be placed in time"


def test_beds_without_names_of_their_own_are_refused() -> None:
    for beds in (0, [], ["a", "a"]):
        with pytest.raises(ConfigError, match="beds"):
            SimulatedSource(beds)
