"""One live night under attack, in 2 GB: the bed beside loses, delays and changes nothing.

Everything is real: outlets, announcements, mosquitto, the daemon as it is started. All attacks come
at once, in the second page, and go on to the end. ``calm`` is a bed that nobody attacks.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from attacks.limits import TWO_GB, peak_bytes, threads
from faults.stream_lab import BED, CONFIG, Amplifiers, now
from faults.witness import Witness, witness
from hypnocast.config.tables import Config, PackTable
from hypnocast.nights.replay import Replayed, ReplaySettings, replay
from support.brokers import free_port, running_mosquitto
from support.daemons import Daemon, daemon
from support.lsl_lab import Outlets, Stream
from support.lsl_liar import Liar, Lie

pytestmark = [pytest.mark.timeout(420), pytest.mark.long]

CALM = "calm"
STAMPED = ("ahead", "behind")
"""Beds of one amplifier each that stamps half a second wrong by a day, again and again."""
LIED = ("fast", "wide", "pit")
BEDS = (CALM, *STAMPED, "rival", "described", *LIED, "marked")
MEMORY = 600 << 20
THREADS = 120
PAGES = 3
MARKER = '[[bed]]\nid = "marked"\nstreams = [{ source_id = "marks" }]\n'


@dataclass
class Siege:
    """What came of the night."""

    state: Path
    listener: Witness
    pack: Path
    utc_at_0: float
    memory: int = 0
    threads: int = 0
    problems: dict[str, str] = field(default_factory=dict)
    refused: int = 0
    """Metrics connections that were closed at once."""
    degraded: str = ""

    def events(self, bed: str) -> list[dict[str, Any]]:
        """Return a bed's terminal events, each once."""
        document = [json.loads(one) for one in self.listener.events(bed)]
        return list(
            {one["epoch"]: one for one in document if one["status"] != "provisional"}.values()
        )

    def statuses(self, bed: str) -> list[dict[str, Any]]:
        """Return every event of a bed."""
        return [json.loads(one) for one in self.listener.of(f"/bed/{bed}/status") if one]

    def problem_of(self, bed: str) -> str:
        """Return all problems that were reported of a bed."""
        return " ".join(str(status["problems"]) for status in self.statuses(bed))


@pytest.fixture(scope="module")
def siege(tmp_path_factory: pytest.TempPathFactory, pack: Path) -> Iterator[Siege]:
    with _night(tmp_path_factory.mktemp("siege"), pack) as lived:
        yield lived


@contextmanager
def _night(folder: Path, pack: Path) -> Iterator[Siege]:
    with ExitStack() as stack:
        broker = stack.enter_context(running_mosquitto(folder))
        siege = Siege(
            folder / "state", stack.enter_context(witness(broker.port)), pack, time.time() - now()
        )
        true = Amplifiers(CALM, *STAMPED, "rival").begin()
        stack.callback(true.kill)
        marks = stack.enter_context(Outlets(Stream("marks", "Markers", "marks", marker=True)))
        metrics = free_port()
        config = folder / "run.toml"
        config.write_text(
            CONFIG.format(state=siege.state, port=broker.port, pack=pack)
            + f"[metrics]\nport = {metrics}\n"
            + "".join(BED.format(bed=bed) for bed in BEDS if bed != "marked")
            + MARKER
        )
        hypnocast = stack.enter_context(
            daemon(folder / "daemon", "run", "-c", str(config), memory_bytes=TWO_GB)
        )
        recording = (CALM, *STAMPED, "rival")
        hypnocast.wait_for(
            lambda: all((siege.statuses(bed) or [{}])[-1].get("since") for bed in recording),
            "the true beds record",
            150.0,
        )
        attack = stack.enter_context(_Attacks(true, marks, broker.port, metrics, siege))
        hypnocast.wait_for(
            lambda: len(siege.events(CALM)) >= PAGES, f"{PAGES} pages of the calm bed", 200.0
        )
        attack.over.set()
        siege.memory = peak_bytes(hypnocast.process.pid)
        siege.threads = threads(hypnocast.process.pid)
        siege.refused = attack.refused
        siege.degraded = _degraded(siege.listener)
        _end(siege, hypnocast)
        yield siege


def _degraded(listener: Witness) -> str:
    document = [json.loads(one) for one in listener.of("/daemon/node1/state") if one]
    return " ".join(str(one["degraded"]) for one in document)


def _end(siege: Siege, hypnocast: Daemon) -> None:
    session = siege.statuses(CALM)[-1]["session"]
    command = {"command": "end_session", "request": "the-end", "session": session}
    found = float("-inf")

    def over() -> bool:
        """Repeat the command until it is obeyed, as who gets no answer does."""
        nonlocal found
        if time.monotonic() - found > 5.0:
            found = time.monotonic()
            siege.listener.publish(f"hypnocast/lab/bed/{CALM}/command", command)
        return bool(siege.events(CALM)[-1]["reason"] == "session_end")

    hypnocast.wait_for(over, "the end", 60.0)
    assert hypnocast.end() == 0, hypnocast.complained


class _Attacks:
    """Everything at once, until it is over."""

    def __init__(
        self, true: Amplifiers, marks: Outlets, broker: int, metrics: int, siege: Siege
    ) -> None:
        self.over = threading.Event()
        self.refused = 0
        self._true, self._marks, self._siege = true, marks, siege
        self._broker, self._metrics = broker, metrics
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
                self._true.order(bed, f"stamps {bed}", begins, begins + 0.5)

        self._every(5.0, act)

    def _mark(self) -> None:
        self._every(0.005, lambda number: self._marks.mark(f"{number} " + "x" * 60_000))

    def _client(self, name: str) -> paho.Client:
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=paho.MQTTv5)
        client.connect("127.0.0.1", self._broker)
        client.loop_start()
        self._stack.callback(client.loop_stop)
        self._stack.callback(client.disconnect)
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
            self._client("hypnocast-lab-node1")

        self._every(3.0, act)

    def _idle(self) -> None:
        """Hold as many connections to the metrics port as there are to be had."""
        held: list[socket.socket] = []

        def act(_: int) -> None:
            with suppress(OSError):
                held.append(socket.create_connection(("127.0.0.1", self._metrics), 5.0))
            for line in held[-3:]:
                line.setblocking(False)
                with suppress(OSError):
                    self.refused += line.recv(1) == b""

        self._every(0.05, act)
        for line in held:
            line.close()


def test_the_calm_bed_loses_delays_and_withholds_no_page(siege: Siege) -> None:
    events = siege.events(CALM)
    assert [event["epoch"] for event in events] == list(range(len(events)))
    assert len({event["session"] for event in events}) == 1
    *whole, last = events
    assert last["reason"] == "session_end" or last["status"] == "final"
    assert {event["status"] for event in whole} == {"final"}
    for event in whole:
        assert event["quality"]["F4-M1"]["coverage"] > 0.999, event
        assert event["timing"]["journaled"] < 10_000, event["timing"]
    assert not siege.problem_of(CALM).strip("[] ")


async def test_the_pictures_of_the_calm_bed_are_those_of_its_tape(siege: Siege) -> None:
    (tape,) = sorted((siege.state / "tapes").glob(f"{CALM}_*.xdf"))
    replayed = Replayed()
    async with asyncio.timeout(120):
        await replay(
            Config(pack=PackTable(name=str(siege.pack))), ReplaySettings(tape), watchers=(replayed,)
        )
    live = {event["epoch"]: event["digests"]["picture"] for event in siege.events(CALM)}
    assert {event.epoch: event.digests.picture for event in replayed.events} == live


@pytest.mark.attack("siege: the daemon")
def test_the_daemon_stays_small_and_well(siege: Siege) -> None:
    assert siege.memory <= MEMORY, f"{siege.memory >> 20} MB"
    assert siege.threads <= THREADS
    assert "lsl-" not in siege.degraded


@pytest.mark.attack("siege: stamps")
@pytest.mark.parametrize("bed", STAMPED)
def test_half_a_second_of_wrong_stamps_ends_no_night_and_invents_no_page(
    siege: Siege, bed: str
) -> None:
    events = siege.events(bed)
    assert len({event["session"] for event in events}) == 1
    assert [event["epoch"] for event in events] == list(range(len(events)))
    assert len(events) <= len(siege.events(CALM)) + 1
    assert siege.statuses(bed)[-1]["state"] in ("live", "stale")
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
    assert "faster than" in siege.problem_of("marked")


@pytest.mark.attack("siege: broker")
def test_nobody_cuts_the_daemon_off_by_its_old_client_id(siege: Siege) -> None:
    """A busy machine may end a connection too; whoever connects under the old id does not."""
    assert "another client" not in siege.degraded
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
