"""One live night under attack, in 2 GB: the bed beside loses, delays and changes nothing.

Everything is real: outlets, announcements, mosquitto, the daemon as it is started. All attacks come
at once, in the second page, and go on to the end. ``calm`` is a bed that nobody attacks.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from attacks.calm_bed import CALM, NODE, OTHER_BED, AttackedDaemon, OtherBed, attacked_daemon
from faults.stream_lab import now
from support.lsl_lab import Outlets, Stream
from support.lsl_liar import Liar, Lie
from support.paho_clients import end_client

pytestmark = [pytest.mark.timeout(420), pytest.mark.long]

STAMPED = ("ahead", "behind")
"""Beds of one amplifier each that stamps half a second wrong by a day, again and again."""
LIED = ("fast", "wide", "pit")
PAGES = 3


@dataclass(frozen=True)
class Siege:
    """What came of the night."""

    night: AttackedDaemon
    other: OtherBed
    refused: int
    """Metrics connections that were closed at once."""

    def events(self, bed: str) -> list[dict[str, Any]]:
        """Return a bed's terminal events, each once."""
        return self.night.events(bed)

    def problem_of(self, bed: str) -> str:
        """Return all problems that were reported of a bed."""
        return self.night.problem_of(bed)


@pytest.fixture(scope="module")
def siege(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, pack: Path
) -> Iterator[Siege]:
    with _night(tmp_path_factory.mktemp("siege"), pack) as lived:
        request.node.stash[OTHER_BED] = str(lived.other)
        yield lived


@contextmanager
def _night(folder: Path, pack: Path) -> Iterator[Siege]:
    beds = (*LIED, "described", "marks")
    with ExitStack() as stack:
        marks = stack.enter_context(Outlets(Stream("marks", "Markers", "marks", marker=True)))
        night = stack.enter_context(
            attacked_daemon(folder, pack, beds=beds, amplifiers=(*STAMPED, "rival"))
        )
        with _Attacks(night, marks) as attack:
            night.wait_for_pages(PAGES)
            attack.over.set()
            yield Siege(night, night.end(), attack.refused)


class _Attacks:
    """Everything at once, until it is over."""

    def __init__(self, night: AttackedDaemon, marks: Outlets) -> None:
        self.over = threading.Event()
        self.refused = 0
        self._night, self._marks = night, marks
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        lies = [
            Lie("fast", rate="1e7"),
            Lie("wide", channels="1000000000"),
            Lie("rival"),
            *(Lie("pit") for _ in range(200)),
            *(Lie(f"invented-{number}") for number in range(1500)),
        ]
        self._stack.enter_context(Liar(lies, "hang"))
        self._stack.enter_context(
            Outlets(Stream("described", source_id="described", padding=64 << 20))
        )
        for run in (self._stamp, self._mark, self._command, self._impersonate, self._idle):
            thread = threading.Thread(target=run, daemon=True)
            thread.start()
            self._stack.callback(thread.join, 20.0)
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._stack.close()

    def _every(self, seconds: float, act: Callable[[int], None]) -> None:
        number = 0
        while not self.over.wait(seconds):
            act(number)
            number += 1

    def _stamp(self) -> None:
        def act(_: int) -> None:
            begins = now() + 0.5
            for bed in STAMPED:
                self._night.amplifiers.order(bed, f"stamps {bed}", begins, begins + 0.5)

        self._every(5.0, act)

    def _mark(self) -> None:
        self._every(0.005, lambda number: self._marks.mark(f"{number} " + "x" * 60_000))

    def _client(self, name: str) -> paho.Client:
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=paho.MQTTv5)
        client.connect("127.0.0.1", self._night.broker.port)
        client.loop_start()
        self._stack.callback(end_client, client)
        return client

    def _command(self) -> None:
        client = self._client("rude")
        bad = [b"", b"{", b"[" * 8000, b"x" * 9000, b'{"command":"end_session"}', b"\x00" * 100,
               b'{"command":"page","request":"r","session":"s","epoch":1000000000000}']  # fmt: skip

        def act(number: int) -> None:
            for bed in (*STAMPED, "rival"):
                topic = f"hypnocast/lab/bed/{bed}/command"
                client.publish(topic, bad[number % len(bad)], qos=0, retain=number % 3 == 0)

        self._every(0.01, act)

    def _impersonate(self) -> None:
        """Connect as the daemon, by what its client id used to be."""

        def act(_: int) -> None:
            self._client(f"hypnocast-lab-{NODE}")

        self._every(3.0, act)

    def _idle(self) -> None:
        """Hold as many connections to the metrics port as there are to be had."""
        held: list[socket.socket] = []

        def act(_: int) -> None:
            with suppress(OSError):
                held.append(socket.create_connection(("127.0.0.1", self._night.metrics), 5.0))
            for line in held[-3:]:
                line.setblocking(False)
                with suppress(OSError):
                    self.refused += line.recv(1) == b""

        self._every(0.05, act)
        for line in held:
            line.close()


@pytest.mark.attack("siege: the daemon")
def test_the_other_bed_loses_delays_and_changes_nothing(siege: Siege) -> None:
    assert siege.other.pages >= PAGES
    assert not siege.other.harm, siege.other.harm


@pytest.mark.attack("siege: stamps")
@pytest.mark.parametrize("bed", STAMPED)
def test_half_a_second_of_wrong_stamps_ends_no_night_and_invents_no_page(
    siege: Siege, bed: str
) -> None:
    events = siege.events(bed)
    assert len({event["session"] for event in events}) == 1
    assert [event["epoch"] for event in events] == list(range(len(events)))
    assert len(events) <= len(siege.events(CALM)) + 1
    assert siege.night.statuses(bed)[-1]["state"] in ("live", "stale")
    if bed == "ahead":
        assert "later than this host's clock" in siege.problem_of(bed)


@pytest.mark.attack("siege: announcements")
@pytest.mark.parametrize("bed", LIED)
def test_a_bed_that_is_lied_about_says_so_and_waits(siege: Siege, bed: str) -> None:
    assert not siege.events(bed)
    assert siege.problem_of(bed).strip("[] ")


@pytest.mark.attack("siege: announcements")
def test_a_rival_does_not_interrupt_the_stream_that_is_read(siege: Siege) -> None:
    assert "the one being read is kept" in siege.problem_of("rival")
    assert {event["status"] for event in siege.events("rival")[:3]} == {"final"}


@pytest.mark.attack("siege: descriptions")
def test_a_description_of_64_mb_is_refused_and_reported(siege: Siege) -> None:
    assert "longer than" in siege.problem_of("described")


@pytest.mark.attack("siege: markers")
def test_a_flood_of_long_markers_is_left_out_and_reported(siege: Siege) -> None:
    assert "faster than" in siege.problem_of("marks")


@pytest.mark.attack("siege: broker")
def test_nobody_cuts_the_daemon_off_by_its_old_client_id(siege: Siege) -> None:
    """A busy machine may end a connection too; whoever connects under the old id does not."""
    assert "another client" not in siege.night.degraded
    sequences = [event["sequence"] for event in siege.events(CALM)]
    assert sequences == sorted(sequences)
    assert len(sequences) == len(set(sequences)) >= PAGES


@pytest.mark.attack("siege: commands")
@pytest.mark.parametrize("bed", ["rival"])
def test_bad_and_retained_commands_end_no_night(siege: Siege, bed: str) -> None:
    assert {event["reason"] for event in siege.events(bed)} <= {None, "session_end"}


@pytest.mark.attack("siege: metrics")
def test_idle_metrics_connections_are_few(siege: Siege) -> None:
    assert siege.refused > 100
