"""What a bed's status shows of its streams: how each does, and what is wrong with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hypnocast.core.montage.choice import choose_montage
from hypnocast.core.pages.aligned_stream import AlignedStreamState
from hypnocast.core.pictures.recipe import builtin
from hypnocast.core.types import ChannelInfo, Role, StreamHeader, StreamOpened
from hypnocast.core.wire.page_facts import JudgedMontages
from hypnocast.core.wire.payloads import SourceName, StreamHealth
from hypnocast.live.bed.bed_updates import Item, SignalsSeen
from hypnocast.live.bed.page_drawing import DrawingSettings
from hypnocast.live.bed.signal_health import HealthReports
from hypnocast.live.bed.stream_intake import StreamIntake
from hypnocast.live.publishing.bed_health import stream_health
from hypnocast.live.publishing.bed_publisher import BedPublisher, SiteStates
from hypnocast.ports.journal.journal import Journal
from hypnocast.ports.lsl.problems import ProblemKind, StreamProblem
from hypnocast.ports.mqtt.link import MqttLink
from support.mqtt_lab import TOPICS, nobody

HEADER = StreamHeader("amp", "amp", "EEG", "amp-1", "uid", "pc", 256.0, (ChannelInfo("C4-M1"),))


def signals(*, open_now: bool = True) -> SignalsSeen:
    """Return what is reported of a stream whose newest sample is a second old."""
    state = AlignedStreamState("amp", open_now, 99.0, 256, 0.0, "measured", 0.0, 0.0, 0, 0)
    return SignalsSeen(
        at_utc=0.0, streams=((HEADER, state),), channels={}, ready=True, problems=(),
        late_samples=0, local=100.0,
    )  # fmt: skip


def status(*problems: StreamProblem, open_now: bool) -> StreamHealth:
    (health,) = stream_health(signals(open_now=open_now), problems)
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


def test_no_channel_is_lacking_while_the_beds_other_streams_may_still_show_up() -> None:
    """Streams open one after another; what the first one lacks is the next one's to bring."""
    drawing = DrawingSettings(builtin("paper-336"), ((Role.C4,),), 0.9, 50, 5.0)
    intake = StreamIntake(drawing, choose_montage)
    sent: list[Item] = []
    reports = HealthReports(drawing.needed, drawing.mains_hz, sent.append)

    def problems_at(now: float) -> tuple[str, ...]:
        reports.send(intake, now, now, ())
        seen = sent.pop()
        assert isinstance(seen, SignalsSeen)
        return seen.problems

    assert problems_at(90.0) == ()
    chin = replace(HEADER, key="chin", source_id="chin", channels=(ChannelInfo("Chin", "µV"),))
    intake.add(StreamOpened(chin, 100.0))
    assert problems_at(100.5) == ()
    assert any("no channel fits" in line for line in problems_at(103.6))
    intake.add(StreamOpened(replace(HEADER, channels=(ChannelInfo("C4-M1", "µV"),)), 104.0))
    assert problems_at(105.0) == ()


@pytest.mark.parametrize("source", ["live", "simulated"])
async def test_a_bed_of_which_nothing_is_reported_is_silent_as_well(
    tmp_path: Path, source: SourceName
) -> None:
    """After a restart nothing may ever have come; and the thread that reports may stand still."""
    async with Journal.open(tmp_path / "state" / "journal.sqlite") as journal:
        link = MqttLink(None, TOPICS, "node", journal, nobody)
        site = SiteStates(
            topics=TOPICS, node="node", source=source, pack="pack", show_pages=False,
            show_spectrum=False, done=lambda _: None, problems=lambda _: (),
            judged=JudgedMontages(),
        )  # fmt: skip
        publisher = BedPublisher("bed1", site, link)
        live = source == "live"
        assert publisher.silent_s < 1.0
        publisher._seen_at -= 6.0
        assert (publisher.silent_s > 5.0) is live
        publisher.seen(signals())
        assert publisher.silent_s < 2.0
        publisher._seen_at -= 6.0
        assert (publisher.silent_s > 5.0) is live
