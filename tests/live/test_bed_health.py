"""What a bed's status shows of its streams: how each does, and what is wrong with it."""

from __future__ import annotations

import pytest

from hypnocast.core.pages.aligned_stream import AlignedStreamState
from hypnocast.core.types import ChannelInfo, StreamHeader
from hypnocast.core.wire.payloads import StreamHealth
from hypnocast.live.bed.bed_updates import SignalsSeen
from hypnocast.live.publishing.bed_health import stream_health
from hypnocast.ports.lsl.problems import ProblemKind, StreamProblem

HEADER = StreamHeader("amp", "amp", "EEG", "amp-1", "uid", "pc", 256.0, (ChannelInfo("C4-M1"),))


def status(*problems: StreamProblem, open_now: bool) -> StreamHealth:
    state = AlignedStreamState("amp", open_now, 99.0, 256, 0.0, "measured", 0.0, 0.0, 0, 0)
    seen = SignalsSeen(
        at_utc=0.0, streams=((HEADER, state),), channels={}, ready=True, problems=(),
        late_samples=0, local=100.0,
    )  # fmt: skip
    (health,) = stream_health(seen, problems)
    return health


def problem(kind: ProblemKind, stream: str = "amp") -> StreamProblem:
    return StreamProblem(kind, "bed1", stream, "something is wrong", "Do something")


@pytest.mark.parametrize(
    ("kind", "open_now", "state"),
    [
        (ProblemKind.STAMPS_STUCK, False, "refused"),
        (ProblemKind.CLAIMED_TWICE, False, "refused"),
        (ProblemKind.AMBIGUOUS, True, "live"),  # the open one is kept
        (ProblemKind.NOT_FOUND, False, "lost"),
        (ProblemKind.FOREIGN_CLOCK, True, "live"),
    ],
)
def test_a_stream_that_is_there_and_not_read_is_refused(
    kind: ProblemKind, open_now: bool, state: str
) -> None:
    health = status(problem(kind), open_now=open_now)
    assert health.state == state
    assert health.problem == "something is wrong. Do something"


def test_a_stream_has_no_other_streams_problems() -> None:
    health = status(problem(ProblemKind.NO_UNIT, "other"), open_now=True)
    assert (health.state, health.problem) == ("live", None)
    both = status(problem(ProblemKind.NO_UNIT), problem(ProblemKind.FOREIGN_CLOCK), open_now=True)
    assert both.problem == "something is wrong. Do something; something is wrong. Do something"
