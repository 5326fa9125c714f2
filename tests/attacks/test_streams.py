"""Whoever announces streams that are not what they say costs nobody else a sample.

A real stream of another bed is read beside each lie, from real liblsl outlets. In the long form a
whole daemon reads the same network, and looks for the bed that is lied about too.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from structlog.testing import capture_logs

from attacks.limits import threads
from hypnocast.core.plain_text import plain
from hypnocast.core.types import Chunk
from hypnocast.ports.lsl.announcements import Announced, Network
from hypnocast.ports.lsl.beds import BedStreams, Selector
from hypnocast.ports.lsl.limits import MAX_LOGGED_UNLISTED, MAX_OPENERS, MAX_PROBES
from hypnocast.ports.lsl.opening import Openers
from hypnocast.ports.lsl.problems import ProblemKind
from hypnocast.ports.lsl.senders import Senders
from hypnocast.ports.lsl.source import LslSource
from hypnocast.ports.lsl.stream_slot import LslTimings
from hypnocast.ports.stream_xml import MAX_HEADER_CHARS
from hypnocast.ports.supervision import Supervisor
from support.lsl_lab import Collector, Stream, gaps, outlets, unique, wait_until
from support.lsl_liar import Behaviour, Liar, Lie

pytestmark = pytest.mark.usefixtures("calm_bed")

OTHER = "other"
OURS = MAX_OPENERS + MAX_PROBES + 4
"""Threads of Python's that reading streams may take, however many are announced."""


@contextmanager
def reading(*wanted: str) -> Iterator[tuple[LslSource, Collector]]:
    """Read beds of one stream each, each by its source id; ``other`` has a real one."""
    with outlets(Stream(unique("other"), source_id=OTHER)):
        collector = Collector()
        beds = [BedStreams(bed, (Selector(source_id=bed),)) for bed in (OTHER, *wanted)]
        supervisor = Supervisor()
        source = LslSource(beds, timing=LslTimings(silent_after_s=2.0), supervisor=supervisor)
        with source.reading(collector):
            collector.wait(lambda: len(collector.counts(OTHER)) > 100, "the other bed is read")
            yield source, collector
        assert gaps(collector.counts(OTHER)) == 0, "the other bed lost samples"
        failures = {name: failed for name, (failed, _) in supervisor.counts().items() if failed}
        assert not failures, "an attack is an error in words, not a worker that fails"


def problems(source: LslSource, bed: str) -> dict[ProblemKind, str]:
    return {one.kind: one.text for one in source.problems() if one.bed == bed}


LIES = {
    "ten million samples a second": Lie("bed", rate="1e7"),
    "no number of samples": Lie("bed", rate="nan"),
    "samples back in time": Lie("bed", rate="-100.0"),
    "a billion channels": Lie("bed", channels="1000000000"),
    "no channel": Lie("bed", channels="0"),
    "fewer than no channels": Lie("bed", channels="-5"),
    "a gigabyte a second": Lie("bed", rate="100000.0", channels="1024", format="double64"),
    "a thousand channels of text": Lie("bed", rate="0", channels="1000", format="string"),
}


@pytest.mark.attack("announcements")
@pytest.mark.parametrize("what", LIES)
def test_an_announcement_that_costs_too_much_is_refused_before_anything_is_made(what: str) -> None:
    with Liar([LIES[what]]) as liar, reading("bed") as (source, _):
        # What is no number at all liblsl does not take for an announcement.
        fields = {ProblemKind.TOO_COSTLY, ProblemKind.NOT_FOUND}
        wait_until(lambda: bool(fields & problems(source, "bed").keys()), "it is a problem", 30.0)
        assert source.health()[1].openings == 0
        assert liar.connections == 0
        if ProblemKind.TOO_COSTLY in problems(source, "bed"):
            wait_until(lambda: source.limits_met[ProblemKind.TOO_COSTLY] == 1, "it is counted")


@pytest.mark.attack("announcements")
@pytest.mark.parametrize(
    "address", ["attacker.example", "127.0.0.1:1", "[::1", "0x7f000001", "999.1.1.1"]
)
def test_an_announced_address_that_is_none_is_not_looked_up(address: str) -> None:
    with Liar([Lie("bed", address=address)]), reading("bed") as (source, _):
        wait_until(lambda: bool(problems(source, "bed")), "it is a problem", 30.0)
        assert source.health()[1].state != "open"


@pytest.mark.attack("announcements")
@pytest.mark.parametrize("behaviour", ["hang", "close", "endless", "nobody"])
def test_a_stream_that_never_answers_is_tried_again_with_pauses(behaviour: Behaviour) -> None:
    with Liar([Lie("bed")], behaviour) as liar, reading("bed") as (source, _):
        wait_until(
            lambda: ProblemKind.NO_ANSWER in problems(source, "bed"), "it is a problem", 30.0
        )
        assert liar.connections < 20


@pytest.mark.attack("descriptions")
@pytest.mark.parametrize("times", [1.1, 10.0])
def test_a_description_beyond_the_limit_is_refused_for_good(times: float) -> None:
    long = Stream(unique("long"), source_id="bed", padding=int(times * MAX_HEADER_CHARS))
    with outlets(long), reading("bed") as (source, _):
        wait_until(
            lambda: ProblemKind.BAD_METADATA in problems(source, "bed"), "it is a problem", 30.0
        )
        assert "longer than" in problems(source, "bed")[ProblemKind.BAD_METADATA]
        assert source.health()[1].openings == 0


@pytest.mark.attack("rivals")
def test_a_rival_that_is_only_an_announcement_keeps_no_bed_unread() -> None:
    true = Stream(unique("true"), source_id="bed")
    with Liar([Lie("bed")], "nobody"), outlets(true), reading("bed") as (source, collector):
        collector.wait(lambda: len(collector.counts("bed")) > 100, "the true one is read")
        assert source.health()[1].state == "open"


@pytest.mark.attack("crowds")
def test_two_thousand_invented_streams_hide_no_real_one() -> None:
    lies = [Lie(f"invented-{number}") for number in range(2000)]
    with Liar(lies, "nobody"):
        network = Network()
        wait_until(lambda: len(network.announced(0.0)) > 1500, "they are seen", 60.0)
        with reading() as (source, _):
            assert not problems(source, OTHER)


@pytest.mark.attack("crowds")
def test_a_crowd_that_no_bed_takes_is_named_in_the_log_up_to_a_limit() -> None:
    lies = [Lie(f"invented-{number}") for number in range(MAX_LOGGED_UNLISTED + 100)]
    with Liar(lies, "nobody"), capture_logs() as logged, reading():

        def lines() -> list[str]:
            return [line["event"] for line in logged if "no bed takes" in line["event"]]

        wait_until(lambda: any("no further" in line for line in lines()), "the end of it")
        assert len(lines()) == MAX_LOGGED_UNLISTED + 1


@pytest.mark.attack("crowds")
@pytest.mark.parametrize("named", [True, False])
def test_a_stream_is_read_only_from_an_address_that_is_named(named: bool) -> None:
    senders = Senders(["10.0.0.7", "127.0.0.0/31" if named else "127.0.0.2/31"])
    source = LslSource([BedStreams("bed", (Selector(source_id="bed"),))], senders=senders)
    collector = Collector()
    with outlets(Stream(unique("bed"), source_id="bed")), source.reading(collector):
        if named:
            collector.wait(lambda: len(collector.counts("bed")) > 100, "it is read")
            return
        wait_until(lambda: ProblemKind.BAD_METADATA in problems(source, "bed"), "it is a problem")
        text = problems(source, "bed")[ProblemKind.BAD_METADATA]
        assert text == "comes from 127.0.0.1, which is none of the addresses in [lsl] senders"
        assert source.health()[0].openings == 0


@pytest.mark.long
@pytest.mark.attack("crowds")
def test_nine_hundred_announcements_of_a_tarpit_take_no_more_threads_than_one() -> None:
    """Beds are found by themselves: each announcement would have to be asked."""
    lies = [Lie(f"pit-{number}", name=f"pit {number}") for number in range(900)]
    real = Stream(unique("real"), source_id="real", labels=("F4-M1", "C4-M1"))
    supervisor, collector = Supervisor(), Collector()
    before = threading.active_count()
    with Liar(lies, "hang"), outlets(real):
        source = LslSource(None, supervisor=supervisor)
        with source.reading(collector):
            most = 0

            def found() -> bool:
                nonlocal most
                most = max(most, threading.active_count() - before)
                return any(isinstance(a, Chunk) for bed, a in collector.all() if real.name in bed)

            wait_until(found, "the real one is found among them", 90.0)
            assert most <= OURS
            assert not supervisor.problems()
            watchers = [one for one in supervisor.health() if one.name == "lsl-watcher"]
            assert [one.restarts for one in watchers] == [0]


@pytest.mark.attack("threads")
def test_streams_that_never_answer_leave_no_thread_of_liblsl_behind() -> None:
    """Though what was wrong with each is remembered."""
    lies = [Lie(f"mute-{number}") for number in range(6)]
    openers = Openers(Supervisor(), lambda: None)
    with Liar(lies, "hang"):
        network = Network()

        def mute() -> list[Announced]:
            seen = network.announced(0.0).values()
            return [one for one in seen if one.seen.source_id.startswith("mute-")]

        wait_until(lambda: len(mute()) == len(lies), "they are seen")
        before = threads(os.getpid())
        attempts = [openers.probe(entry, now=0.0) for entry in mute()]
        asked = [attempt for attempt in attempts if attempt is not None]
        assert len(asked) == len(lies)
        wait_until(lambda: all(one.done.is_set() for one in asked), "all were asked")
        wait_until(lambda: threads(os.getpid()) <= before + 2, "their threads have ended")
        assert all(one.error is not None for one in asked)


@pytest.mark.attack("threads")
def test_a_watcher_that_fails_is_reported_and_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    supervisor = Supervisor()
    failing = threading.Event()
    looks = Network.by_predicate

    def fails(network: Network) -> dict[str, frozenset[str]]:
        if failing.is_set():
            raise RuntimeError("can't start new thread")
        return looks(network)

    monkeypatch.setattr(Network, "by_predicate", fails)
    collector = Collector()
    source = LslSource([BedStreams(OTHER, (Selector(source_id=OTHER),))], supervisor=supervisor)
    with source.reading(collector):
        failing.set()
        wait_until(lambda: bool(supervisor.problems()), "its failure is reported")
        failing.clear()
        with outlets(Stream(unique("other"), source_id=OTHER)):
            collector.wait(lambda: len(collector.counts(OTHER)) > 100, "the bed is read after it")
    assert supervisor.counts()["lsl-watcher"][1] >= 1


@pytest.mark.attack("terminal")
@pytest.mark.parametrize(
    "text", ["\x1b[2J", "\x1b]0;title\x07", "\x9b31m", "a\u202eb", "\x00", "a\nb", "a\rb"]
)
def test_what_a_stream_calls_itself_cannot_steer_a_terminal(text: str) -> None:
    assert plain(text).isprintable()
    assert plain("Übung 1 – C4‑M1 µV") == "Übung 1 – C4‑M1 µV"
    assert len(plain("x" * 100_000)) == 256
