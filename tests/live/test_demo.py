"""The demo, watched from outside by plain paho and an independent validator."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from hypnocast.live.service.demo import AWAKE_PAGES
from hypnocast.simulate.night import SimulatedNight
from support.brokers import free_port
from support.daemons import DEADLINE_S, Daemon, command, daemon, environment
from support.mqtt_lab import Listener, kept_by_broker

SCHEMAS = Path(__file__).resolve().parents[2] / "docs" / "schemas"
BEDS = ("bed-01", "bed-02")
PAGES = 6


@dataclass(frozen=True)
class Watched:
    """A demo that has run to its end."""

    events: dict[str, list[Any]]
    kept: dict[str, bytes]
    """What a late subscriber got while it ran."""
    daemon: Daemon
    code: int
    left: list[Path]


def _demo(folder: Path, pack: Path, port: int, pages: int) -> tuple[str, ...]:
    (folder / "tmp").mkdir()
    return (
        *("demo", "--beds", str(len(BEDS)), "--pages", str(pages), "--speed", "20"),
        *("--headless", "--port", str(port), "--pack", str(pack)),
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, pack: Path) -> Iterator[Watched]:
    folder, port = tmp_path_factory.mktemp("demo"), free_port()
    arguments = _demo(folder, pack, port, PAGES)
    with daemon(folder, *arguments, TMPDIR=str(folder / "tmp")) as running:
        running.wait_for(lambda: "MQTT " in running.output, "the address")
        listener = Listener(port, v5=False)
        try:
            running.wait_for(lambda: "page 2" in running.output, "the third page")
            kept = kept_by_broker(port, v5=False)
            code = running.process.wait(DEADLINE_S)
        finally:
            listener.close()
        events = {bed: listener.json_of(f"hypnocast/demo/bed/{bed}/events") for bed in BEDS}
        yield Watched(events, kept, running, code, list((folder / "tmp").iterdir()))


def _valid(message: Any, schema: str) -> list[str]:
    validator = Draft202012Validator(json.loads((SCHEMAS / f"{schema}.json").read_text()))
    return [error.message for error in validator.iter_errors(message)]


@pytest.mark.promise(1)
@pytest.mark.parametrize("bed", BEDS)
def test_every_page_gets_exactly_one_terminal_event_in_order(demo: Watched, bed: str) -> None:
    events = demo.events[bed]
    terminal = [event for event in events if event["status"] != "provisional"]
    assert [event["epoch"] for event in terminal] == list(range(PAGES))
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    assert {event["session"] for event in events} == {events[0]["session"]}
    final = sum(event["status"] == "final" for event in terminal)
    assert final >= 0.99 * PAGES


def test_events_are_valid_and_say_that_they_are_simulated(demo: Watched) -> None:
    events = [event for bed in BEDS for event in demo.events[bed]]
    assert events
    assert [fault for event in events for fault in _valid(event, "event")] == []
    assert {event["source"] for event in events} == {"simulated"}
    assert "SIMULATED" in demo.daemon.output


def test_a_late_subscriber_finds_the_ward_as_it_is(demo: Watched) -> None:
    for bed in BEDS:
        for word in ("status", "stage", "night", "beside"):
            message = json.loads(demo.kept[f"hypnocast/demo/bed/{bed}/{word}"])
            assert _valid(message, word) == []
        assert demo.kept[f"hypnocast/demo/bed/{bed}/page"].startswith(b"\x89PNG")
        status = json.loads(demo.kept[f"hypnocast/demo/bed/{bed}/status"])
        assert status["state"] == "live"
        assert status["problems"] == []
        assert len(status["channels"]) == 6
        night = json.loads(demo.kept[f"hypnocast/demo/bed/{bed}/night"])
        assert night["session"] == status["session"]
        assert len(night["stages"]) >= 2
    assert _valid(json.loads(demo.kept["hypnocast/demo/daemon/demo/state"]), "daemon") == []
    assert demo.kept["hypnocast/demo/daemon/demo/available"] == b"online"


@pytest.mark.parametrize("bed", BEDS)
def test_the_simulators_stage_stands_beside_the_packs(demo: Watched, bed: str) -> None:
    """What was simulated is published, printed with each page, and counted at the end."""
    number = BEDS.index(bed)
    night = SimulatedNight(1 * 1009 + number, pages=PAGES + AWAKE_PAGES)
    (simulator,) = json.loads(demo.kept[f"hypnocast/demo/bed/{bed}/beside"])["packs"]
    meant = [stage.value for stage in night.stages[AWAKE_PAGES:]]
    assert simulator["stages"] == meant[: len(simulator["stages"])]
    lines = [line for line in demo.daemon.output.splitlines() if f" {bed} " in line]
    assert [line.split(" simulated ")[1].split()[0] for line in lines] == meant
    assert "The pack called simulated pages what they were meant to be: " in demo.daemon.output


def test_it_ends_by_itself_and_leaves_nothing_behind(demo: Watched) -> None:
    assert demo.code == 0
    assert demo.daemon.complained == ""
    assert demo.left == []


@pytest.mark.parametrize(
    ("number", "interruptible"),
    [
        (signal.SIGINT, True),
        (signal.SIGTERM, True),
        (signal.SIGHUP, True),
        pytest.param(signal.SIGINT, False, id="begun in a script's background"),
    ],
)
def test_a_demo_that_is_stopped_leaves_nothing_behind(
    tmp_path: Path, pack: Path, number: signal.Signals, interruptible: bool
) -> None:
    port = free_port()
    arguments = _demo(tmp_path, pack, port, 60)
    with daemon(
        tmp_path, *arguments, interruptible=interruptible, TMPDIR=str(tmp_path / "tmp")
    ) as running:
        running.wait_for(lambda: "page 0" in running.output, "the first page")
        assert list((tmp_path / "tmp").iterdir()) != []
        assert running.end(number) == 130
        assert list((tmp_path / "tmp").iterdir()) == []
        assert not running.left_over()
        assert running.complained == ""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port))


def test_in_a_terminal_the_addresses_stay_in_sight(tmp_path: Path, pack: Path) -> None:
    ours, theirs = pty.openpty()
    words = ("demo", "--pages", "4", "--speed", "20", "--pack", str(pack))
    running = subprocess.Popen(
        [sys.executable, "-m", "hypnocast", *words],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env=environment({"TMPDIR": str(tmp_path), "TERM": "xterm", "COLUMNS": "120"}),
    )  # fmt: skip
    os.close(theirs)
    shown, deadline = b"", time.monotonic() + DEADLINE_S
    try:
        # What is printed before the view fills the screen lies behind it.
        while not (
            b"MQTT   " in (view := shown.partition(b"\x1b[?1049h")[2]) and b"Ward   " in view
        ):
            assert time.monotonic() < deadline, shown
            if select.select([ours], [], [], 1.0)[0]:
                shown += os.read(ours, 65536)
    finally:
        running.send_signal(signal.SIGTERM)
        while running.poll() is None and time.monotonic() < deadline:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    os.read(ours, 65536)
                except OSError:
                    break
        code = running.wait(DEADLINE_S)
        os.close(ours)
    assert code == 130


def test_a_port_in_use_gives_one_line(tmp_path: Path, pack: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        outcome = command(*_demo(tmp_path, pack, port, 1), TMPDIR=str(tmp_path / "tmp"))
    assert outcome.returncode == 1
    (line,) = outcome.stderr.splitlines()
    assert str(port) in line
    assert "--port" in line
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_reader_that_has_seen_enough_ends_the_demo_without_a_word(pack: Path) -> None:
    """As ``hypnocast demo --headless | head -1`` does."""
    arguments = ("demo", "--beds", "1", "--pages", "3", "--speed", "400", "--headless")
    running = subprocess.Popen(
        [sys.executable, "-m", "hypnocast", *arguments, "--pack", str(pack)],
        env=environment({}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    assert running.stderr is not None
    try:
        assert running.stdout.readline()
        running.stdout.close()
        printed = running.stderr.read()
        assert (running.wait(DEADLINE_S), printed) == (0, "")
    finally:
        running.kill()
        running.wait()
        running.stderr.close()
