"""``hypnocast bridge`` as people start it, between stand-ins for gear and plain pylsl."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pylsl
import pytest

from hypnocast import cli
from hypnocast.bridge.brainflow_boards import BoardPlace, BrainFlowBoard
from hypnocast.bridge.gear import BridgeRun
from hypnocast.errors import StreamError
from support.daemons import Daemon, daemon
from support.gear_bytes import rda, rda_block, rda_start, zmax_packet
from support.lsl_lab import unique
from support.needs import need_module
from support.replaying_server import replaying

DEADLINE_S = 60.0


@dataclass
class Reader:
    """A plain pylsl inlet and what came through it."""

    inlet: pylsl.StreamInlet
    rows: list[list[Any]] = field(default_factory=list)
    stamps: list[float] = field(default_factory=list)

    def read_until(self, true: Callable[[], object]) -> None:
        """Read until a condition holds."""
        deadline = time.monotonic() + DEADLINE_S
        while not true():
            assert time.monotonic() < deadline, f"{len(self.rows)} rows came"
            rows, stamps = self.inlet.pull_chunk(0.1)
            self.rows += rows
            self.stamps += stamps

    def channels(self) -> list[tuple[str, str, str]]:
        """Return label, unit and type of each channel, as the stream describes them."""
        node = self.inlet.info(10.0).desc().child("channels").child("channel")
        lines = []
        while not node.empty():
            lines.append(tuple(node.child_value(k) for k in ("label", "unit", "type")))
            node = node.next_sibling("channel")
        return lines


def _reader(name: str) -> Reader:
    found = pylsl.resolve_byprop("name", name, 1, DEADLINE_S)
    assert found, f"nobody sends {name}"
    return Reader(pylsl.StreamInlet(found[0]))


def _ends_well(running: Daemon, number: signal.Signals = signal.SIGINT) -> None:
    assert running.end(number) == 0
    assert running.complained == ""
    assert running.output.splitlines()[-1].endswith(": ended")


def test_brainvision_recorder_is_published_in_microvolts_and_found_again(tmp_path: Path) -> None:
    name = unique("recorder")
    over: list[bool] = []

    def acquisition(connection: int) -> Iterator[tuple[float, bytes]]:
        yield 0.0, rda_start(("F4", "E1", "Chin1"), 4000.0, (0.5, 1.0, 2.0))
        while not over and connection == 1:  # until somebody reads along
            yield 0.1, rda_block(0, np.zeros((0, 3), np.float32))
        first = 1000 * connection
        for number in range(1, 10_000 if connection > 1 else 13):
            counts = np.arange(first, first + 25, dtype=np.float32)
            marks = [(24, "Stimulus", f"S{number:3}")] if number == 12 else []
            yield 0.1, rda_block(number, np.stack([counts, counts, counts], axis=1), marks)
            first += 25
        yield 0.0, rda(3)

    with replaying(acquisition) as recorder:
        address = f"127.0.0.1:{recorder.port}"
        with daemon(
            tmp_path, "bridge", "rda", address, "--name", name, "--label", "F4=F4-M1"
        ) as running:
            signals, marks = _reader(name), _reader(f"{name}-markers")
            assert signals.channels() == [
                ("F4-M1", "microvolts", "EEG"),
                ("E1", "microvolts", "EOG"),
                ("Chin1", "microvolts", "EMG"),
            ]
            assert signals.inlet.info().nominal_srate() == 250.0
            signals.inlet.open_stream(10.0)
            marks.inlet.open_stream(10.0)
            over.append(True)
            # The second connection is another acquisition; the inlets know nothing of it.
            signals.read_until(lambda: signals.rows and signals.rows[-1][1] >= 2100.0)
            marks.read_until(lambda: marks.rows)
            _ends_well(running)
            lines = running.output.splitlines()
    rows = np.array(signals.rows)
    assert np.array_equal(rows[:, 0] * 2.0, rows[:, 1])
    assert np.array_equal(rows[:, 2], rows[:, 1] * 2.0)
    assert rows[:, 1].tolist() == [*range(1000, 1300), *range(2000, 1700 + len(rows))]
    assert marks.rows == [["Stimulus/S 12"]]
    assert abs(marks.stamps[0] - signals.stamps[299]) < 1e-6
    assert np.abs(np.diff(signals.stamps[:300]) - 0.004).max() < 0.05
    gear = f"BrainVision Recorder at {address}"
    assert [line for line in lines if "source_id" not in line] == [
        f"{gear}: sending",
        f"{address}: closed the connection. Trying again, at least every 30 s.",
        f"{gear}: sending",
        f"{gear}: ended",
    ]


def test_zmax_is_published_as_two_derivations_against_fpz(tmp_path: Path) -> None:
    name = unique("zmax")

    def headband(_: int) -> Iterator[tuple[float, bytes]]:
        yield 0.0, b"HDServer says hello\r\n"
        while True:
            yield 0.125, zmax_packet(left=32768 + 1024, right=32768 - 2048) * 32

    with replaying(headband, greeting=b"HELLO\n") as server:
        address = f"127.0.0.1:{server.port}"
        with daemon(tmp_path, "bridge", "zmax", address, "--name", name) as running:
            reader = _reader(name)
            assert reader.channels() == [
                ("F7-Fpz", "microvolts", "EEG"),
                ("F8-Fpz", "microvolts", "EEG"),
            ]
            reader.read_until(lambda: len(reader.rows) >= 512)
            _ends_well(running, signal.SIGTERM)
    assert reader.rows[-1] == [61.75, -123.5]
    assert reader.inlet.info().nominal_srate() == 256.0


def test_gear_that_is_away_is_waited_for_and_said_once(tmp_path: Path) -> None:
    with replaying(lambda _: ()) as gone:
        port = gone.port
    with daemon(tmp_path, "bridge", "zmax", f"127.0.0.1:{port}") as running:
        running.wait_for(lambda: "cannot be reached" in running.output, "the failure")
        _ends_well(running)
    assert running.output.count("cannot be reached") == 1


def test_brainflows_synthetic_board_is_published_with_its_names(tmp_path: Path) -> None:
    need_module("brainflow")
    name = unique("board")
    call = ("bridge", "brainflow", "--board", "synthetic", "--name", name)
    with daemon(tmp_path, *call, "--label", "F4=F4-M1", "--label", "2=C3-M2") as running:
        reader = _reader(name)
        labels = [label for label, _, _ in reader.channels()]
        assert labels[:3] == ["Fz", "C3-M2", "Cz"]
        assert labels[13] == "F4-M1"
        reader.read_until(lambda: len(reader.rows) >= 500)
        _ends_well(running)
    assert np.abs(np.diff(reader.stamps) - 0.004).max() < 0.05
    assert np.std(reader.rows, axis=0).min() > 1.0


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("brainflow", "--board", "cython"), "'cython' is no board"),
        (("brainflow", "--board", "synthetic", "--label", "C9=C4"), "no channel 'C9'"),
        (("zmax", "localhost", "--label", "C4"), "'C4' renames nothing"),
        (("rda", "localhost:rda"), "'localhost:rda' is no address"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], what: str
) -> None:
    if arguments[0] == "brainflow":
        need_module("brainflow")
    assert cli.run(["bridge", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert what in printed.err
    assert printed.err.count("\n") == 1


def test_a_recording_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["bridge", "file", "/nowhere/night.xdf"]) == 1
    assert "/nowhere/night.xdf: cannot be opened" in capsys.readouterr().err


def test_a_board_that_cannot_be_opened_is_tried_again() -> None:
    need_module("brainflow")
    board = BrainFlowBoard("cyton", BoardPlace(serial_port="/dev/nowhere"), "bed-1", {})
    with pytest.raises(StreamError, match="UNABLE_TO_OPEN_PORT"):
        list(board.arrivals(BridgeRun(threading.Event(), lambda _: None)))
