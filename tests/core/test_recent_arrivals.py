"""What came last is enough to begin there: nothing of it is lost, nothing older is repeated."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hypnocast.core.pages.recent_arrivals import RecentArrivals
from hypnocast.core.types import Arrival, Chunk, ClockReading, StreamLost, StreamOpened
from support import bed_lab as bed

SECONDS = 30.0
STREAMS = ("eeg", "eog")


def _arrival(kind: str, stream: str, at: float) -> Arrival:
    match kind:
        case "opened":
            return StreamOpened(bed.header(stream, ["C4"], 4.0), at)
        case "lost":
            return StreamLost(stream, at)
        case "reading":
            return ClockReading(stream, at, offset=at)
        case _:
            return Chunk(stream, np.zeros((1, 1), np.float32), np.array([at]), at)


@st.composite
def nights(draw: st.DrawFn) -> list[Arrival]:
    kinds = st.sampled_from(["chunk", "chunk", "reading", "opened", "lost"])
    steps = draw(
        st.lists(st.tuples(kinds, st.sampled_from(STREAMS), st.floats(0.0, 20.0)), min_size=1)
    )
    times = np.cumsum([step for _, _, step in steps]).tolist()
    return [_arrival(kind, key, at) for (kind, key, _), at in zip(steps, times, strict=True)]


def _standing(arrivals: list[Arrival]) -> dict[str, tuple[StreamOpened, ClockReading | None]]:
    """Work out by hand which streams are open, and what was read of their clocks since."""
    open_now: dict[str, tuple[StreamOpened, ClockReading | None]] = {}
    for one in arrivals:
        match one:
            case StreamOpened():
                _, reading = open_now.get(one.header.key, (one, None))
                open_now[one.header.key] = (one, reading)
            case StreamLost():
                open_now.pop(one.stream, None)
            case ClockReading() if one.stream in open_now:
                open_now[one.stream] = (open_now[one.stream][0], one)
    return open_now


def _at(one: Arrival) -> float:
    return one.arrived if isinstance(one, Chunk) else one.at  # type: ignore[union-attr]  # no marks


@given(nights())
def test_what_is_remembered_suffices_to_begin_as_if_all_had_been_received(
    night: list[Arrival],
) -> None:
    recently = RecentArrivals(SECONDS)
    for arrival in night:
        recently.add(arrival)
    remembered = list(recently.arrivals())
    assert _standing(remembered) == _standing(night)
    recent = [one for one in night if _at(one) >= _at(night[-1]) - SECONDS]
    assert remembered[len(remembered) - len(recent) :] == recent
    older = remembered[: len(remembered) - len(recent)]
    assert not any(isinstance(one, Chunk | StreamLost) for one in older)
    assert recently.whole == (len(recent) == len(night))


@given(nights(), st.integers(0, 1000))
def test_what_came_after_an_arrival_is_known_as_long_as_it_is_remembered(
    night: list[Arrival], pick: int
) -> None:
    recently = RecentArrivals(SECONDS)
    for arrival in night:
        recently.add(arrival)
    place = pick % len(night)
    later = recently.since(night[place])
    if _at(night[place]) < _at(night[-1]) - SECONDS:
        assert later is None
    else:
        assert later is not None
        assert list(later) == night[place + 1 :]
