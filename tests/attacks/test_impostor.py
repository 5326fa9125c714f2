"""Whoever takes an amplifier's place in mid-night, under its source id, is reported, or held off.

Impostor and amplifier are real liblsl outlets, the impostor's on a host of another name. In the
long form a whole daemon reads the bed too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from attacks.calm_bed import EXCHANGED, AttackedDaemon
from faults.stream_lab import Amplifiers
from faults.witness import Witness
from hypnocast.core.types import OutletChange, StreamOpened
from hypnocast.ports.lsl.beds import BedStreams, Selector
from hypnocast.ports.lsl.problems import ProblemKind
from hypnocast.ports.lsl.source import LslSource
from hypnocast.ports.lsl.stream_slot import LslTimings
from support.lsl_lab import Collector, Outlets, Stream, unique, wait_until

pytestmark = pytest.mark.usefixtures("calm_bed")

FALSE = 1_000_000
"""From here the impostor counts its samples."""


class ImpostorNight:
    """A bed that is read, from an amplifier that can be exchanged."""

    def __init__(self, *, pinned: bool, session: str | None = "night") -> None:
        self.session = session
        self.collector = Collector()
        self.source = LslSource(
            [BedStreams("bed", (Selector(source_id="bed"),))],
            timing=LslTimings(silent_after_s=2.0),
            session_of=lambda _: self.session,
            pinned=pinned,
        )
        self.stack = ExitStack()

    def amplifier(self, host: str | None = None, start: int = 0) -> Outlets:
        """Start an outlet under the bed's source id."""
        stream = Stream(unique("amplifier"), source_id="bed", start=start)
        return self.stack.enter_context(Outlets(stream, host=host))

    def read(self, start: int = 0) -> None:
        """Wait until samples come that count from so far on."""
        self.collector.wait(
            lambda: int((self.collector.counts("bed") >= start).sum()) > 100, "it is read"
        )

    @property
    def problem(self) -> str:
        found = [p for p in self.source.problems() if p.kind is ProblemKind.ANOTHER_OUTLET]
        return found[0].text if found else ""

    @property
    def changes(self) -> list[OutletChange]:
        opened = [a for a in self.collector.of("bed") if isinstance(a, StreamOpened)]
        return [one.change for one in opened if one.change is not None]


@contextmanager
def night(*, pinned: bool, session: str | None = "night") -> Iterator[ImpostorNight]:
    """A night whose amplifier is read."""
    lived = ImpostorNight(pinned=pinned, session=session)
    with lived.stack, lived.source.reading(lived.collector):
        yield lived


@pytest.mark.attack("impostors")
def test_an_impostor_that_takes_over_in_mid_night_is_reported() -> None:
    with night(pinned=False) as lived:
        true = lived.amplifier()
        lived.read()
        true.kill()
        lived.amplifier("evil", FALSE)
        lived.read(FALSE)
        wait_until(lambda: bool(lived.problem), "it is reported")
        assert "comes from evil at" in lived.problem
        (change,) = lived.changes
        assert change.moved
        assert "now, before from " in change.text


@pytest.mark.attack("impostors")
def test_a_pinned_bed_reads_no_impostor_and_the_true_amplifier_again() -> None:
    with night(pinned=True) as lived:
        true = lived.amplifier()
        lived.read()
        true.kill()
        lived.amplifier("evil", FALSE)
        wait_until(lambda: "it is not read" in lived.problem, "it is held off", 30.0)
        seen = len(lived.collector.counts("bed"))
        lived.amplifier(start=seen)
        lived.collector.wait(
            lambda: len(lived.collector.counts("bed")) > seen + 100, "the true one is read again"
        )
        assert lived.collector.counts("bed").max() < FALSE
        assert [change.moved for change in lived.changes] == [False]
        wait_until(lambda: not lived.problem, "nothing is wrong any more")


@pytest.mark.attack("impostors")
def test_an_impostor_that_waits_beside_the_amplifier_keeps_a_pinned_bed_no_time_unread() -> None:
    with night(pinned=True) as lived:
        true = lived.amplifier()
        lived.read()
        lived.amplifier("evil", FALSE)
        wait_until(
            lambda: any(p.kind is ProblemKind.AMBIGUOUS for p in lived.source.problems()),
            "the rival is reported",
        )
        true.kill()
        seen = len(lived.collector.counts("bed"))
        lived.amplifier(start=seen)
        lived.collector.wait(
            lambda: len(lived.collector.counts("bed")) > seen + 100, "the true one is read again"
        )
        assert lived.collector.counts("bed").max() < FALSE


@pytest.mark.attack("impostors")
def test_a_pinned_bed_reads_another_amplifier_once_the_lab_says_so() -> None:
    with night(pinned=True) as lived:
        true = lived.amplifier()
        lived.read()
        true.kill()
        lived.amplifier("spare", FALSE)
        wait_until(lambda: "it is not read" in lived.problem, "it is held off", 30.0)
        assert lived.source.accept("bed")
        lived.read(FALSE)
        assert [change.moved for change in lived.changes] == [True]
        assert not lived.problem
        assert not lived.source.accept("bed")


@pytest.mark.attack("impostors")
def test_between_nights_amplifiers_are_exchanged_without_a_word() -> None:
    with night(pinned=True, session=None) as lived:
        true = lived.amplifier()
        lived.read()
        true.kill()
        lived.amplifier("spare", FALSE)
        lived.read(FALSE)
        assert not lived.problem
        assert not lived.changes


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.attack("impostors")
def test_a_whole_daemon_marks_the_night_and_the_event_and_obeys_the_lab(
    attacked: AttackedDaemon,
) -> None:
    listener, running = attacked.listener, attacked.daemon
    with ExitStack() as stack:
        true = Amplifiers(EXCHANGED).begin()
        stack.callback(true.kill)
        running.wait_for(lambda: _status(listener).get("since"), "it records", 120.0)
        true.kill()
        spare = Amplifiers(EXCHANGED, host="spare").begin()
        stack.callback(spare.kill)
        held = "it is not read"
        running.wait_for(lambda: held in str(_status(listener)["problems"]), "it is reported", 60.0)
        accept = {"command": "accept_stream", "session": _status(listener)["session"]}
        commands = f"hypnocast/lab/bed/{EXCHANGED}/command"
        listener.publish(commands, {**accept, "request": "a"})
        running.wait_for(lambda: _replies(listener).get("a", {}).get("ok"), "it is obeyed")
        running.wait_for(lambda: _streams(listener), "the night says so", 60.0)
        assert "comes from spare at" in _streams(listener)[-1]["text"]
        running.wait_for(lambda: listener.events(EXCHANGED), "a page", 90.0)
        event = json.loads(listener.events(EXCHANGED)[0])
        assert event["review"]
        assert held not in str(_status(listener)["problems"])
        listener.publish(commands, {**accept, "request": "b"})
        running.wait_for(lambda: "b" in _replies(listener), "it is answered")
        assert "no stream comes from elsewhere" in _replies(listener)["b"]["error"]


def _status(listener: Witness) -> dict[str, Any]:
    statuses = [one for one in listener.of(f"/bed/{EXCHANGED}/status") if one]
    return dict(json.loads(statuses[-1])) if statuses else {}


def _replies(listener: Witness) -> dict[str, dict[str, Any]]:
    return {one["request"]: one for one in map(json.loads, listener.of(f"/bed/{EXCHANGED}/reply"))}


def _streams(listener: Witness) -> list[dict[str, Any]]:
    nights = [one for one in listener.of(f"/bed/{EXCHANGED}/night") if one]
    marks = json.loads(nights[-1])["marks"] if nights else []
    return [mark for mark in marks if mark["kind"] == "stream"]
