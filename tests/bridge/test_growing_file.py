"""A file that a recorder is still writing is sent sample by sample as it is, in real time.

The recorder here writes records of 40 ms, so that no test takes long; nobody needs liblsl but for
its clock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import edfio
import numpy as np
import pylsl
import pytest

from hypnocast.bridge import growing_file
from hypnocast.bridge.gear import BridgeRun
from hypnocast.bridge.growing_file import GrowingFile
from hypnocast.bridge.played_file import PlayedFile
from hypnocast.core.types import Arrival, Chunk, FloatArray, Mark, StreamOpened
from hypnocast.errors import StreamError
from hypnocast.ports.recordings.files import open_recording

TAPE = Path(__file__).parents[1] / "earlier" / "0.1.0" / "tape_unfinished_001.xdf"
RECORD_S = 0.04
LABELS = ("C4-M1", "Chin1-Chin2")
RATES = (250, 500)


def _finished(path: Path, records: int) -> list[FloatArray]:
    """Write a whole file; return the signals as the file has them, in its own unit."""
    rng = np.random.default_rng(7)
    signals = [
        edfio.EdfSignal(
            rng.normal(0.0, 30.0, round(records * RECORD_S * rate)), rate,
            label=label, physical_dimension="uV", physical_range=(-400, 400),
        )
        for label, rate in zip(LABELS, RATES, strict=True)
    ]  # fmt: skip
    notes = [edfio.EdfAnnotation(0.1, None, "Lights off")]
    edfio.Edf(signals, data_record_duration=RECORD_S, annotations=notes).write(path)
    return [signal.data for signal in edfio.read_edf(path).signals]


class SlowWriter:
    """Writes a finished file anew, piece by piece, as a test says."""

    def __init__(self, finished: Path, path: Path) -> None:
        """Begin with the header, in which the number of records is open."""
        whole = finished.read_bytes()
        self.header = int(whole[184:192])
        self.records = int(whole[236:244])
        self.size = (len(whole) - self.header) // self.records
        self._whole = whole
        self.path = path
        head = bytearray(whole[: self.header])
        head[236:244] = b"-1      "
        path.write_bytes(head)
        self.written = 0

    def write(self, count: int, *, torn: int = 0) -> None:
        """Append records, and some bytes of the next one."""
        begin = self.header + self.written * self.size
        with self.path.open("r+b") as file:
            file.seek(begin)
            file.write(self._whole[begin : begin + count * self.size + torn])
        self.written += count

    def close(self) -> None:
        """Say in the header how many records there are."""
        with self.path.open("r+b") as file:
            file.write(self._whole[: self.header])


class Publishing:
    """Takes what a file gives, as the bridge would."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.said: list[str] = []
        self.stop = threading.Event()
        self.run = BridgeRun(self.stop, self.said.append)
        self.chunks: list[Chunk] = []
        self.marks: list[Mark] = []
        self.streams: list[StreamOpened] = []

    def take(self, arrivals: Iterator[Arrival], each: Callable[[], None] = lambda: None) -> None:
        """Take everything until it ends; look at the clock at each piece."""
        for arrival in arrivals:
            match arrival:
                case Chunk():
                    ahead = float(arrival.stamps[-1]) - pylsl.local_clock()
                    assert ahead <= 0.001, "no sample is later than it is sent"
                    self.chunks.append(arrival)
                    each()
                case Mark():
                    self.marks.append(arrival)
                case StreamOpened():
                    self.streams.append(arrival)

    def samples(self, key: str) -> tuple[FloatArray, FloatArray]:
        """Return what came of a stream, and its stamps."""
        mine = [chunk for chunk in self.chunks if chunk.stream == key]
        return (
            np.concatenate([chunk.samples[:, 0] for chunk in mine]),
            np.concatenate([chunk.stamps for chunk in mine]),
        )


@pytest.fixture
def publishing() -> Publishing:
    return Publishing()


def test_every_sample_comes_once_as_it_stands_in_the_file(
    tmp_path: Path, publishing: Publishing
) -> None:
    expected = _finished(tmp_path / "finished.edf", 50)
    writer = SlowWriter(tmp_path / "finished.edf", tmp_path / "night.edf")

    def write() -> None:
        pause = threading.Event()
        while writer.written < writer.records:
            pause.wait(RECORD_S)
            writer.write(1, torn=17 if writer.written + 1 < writer.records else 0)
        writer.close()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        publishing.take(GrowingFile(writer.path, "night", {"1": "F4-M1"}).arrivals(publishing.run))
    finally:
        thread.join()
    slow, fast, marks = (opened.header for opened in publishing.streams)
    assert (slow.name, fast.name, marks.name) == ("night-psg", "night-exg", "night-markers")
    assert [one.label for one in (*slow.channels, *fast.channels)] == ["F4-M1", "Chin1-Chin2"]
    assert slow.channels[0].unit == "uV"
    for header, signal, rate in zip((slow, fast), expected, RATES, strict=True):
        values, stamps = publishing.samples(header.key)
        assert values == pytest.approx(signal, abs=1e-9)
        assert np.abs(np.diff(stamps) - 1 / rate).max() < 1e-6
    (mark,) = publishing.marks
    assert mark.text == "Lights off"
    begun = publishing.samples(slow.key)[1][0]
    assert mark.stamp == pytest.approx(begun + 0.1, abs=1e-6)
    assert publishing.said == []


def test_a_file_is_waited_for_and_joined_where_one_of_its_pages_begins(
    tmp_path: Path, publishing: Publishing
) -> None:
    _finished(tmp_path / "finished.edf", 1800)  # 72 s
    path = tmp_path / "night.edf"
    started = threading.Event()

    def write() -> None:
        started.wait(10.0)
        path.write_bytes(b"0")
        writer = SlowWriter(tmp_path / "finished.edf", path)
        writer.write(1400)  # 56 s are there already
        joined.wait(10.0)
        writer.write(200)
        publishing_done.wait(10.0)
        publishing.stop.set()

    joined, publishing_done = threading.Event(), threading.Event()
    said = publishing.said

    def say(line: str) -> None:
        said.append(line)
        started.set()
        if "joined" in line:
            joined.set()

    publishing.run = BridgeRun(publishing.stop, say)
    thread = threading.Thread(target=write)
    thread.start()
    try:
        publishing.take(
            GrowingFile(path, "night", {}).arrivals(publishing.run), publishing_done.set
        )
    finally:
        thread.join()
    assert said[0] == f"{path}: cannot be opened (No such file or directory); waiting for it"
    assert said[-1] == f"{path}: joined at 60 s of the recording"
    first = publishing.chunks[0]
    signal = edfio.read_edf(tmp_path / "finished.edf").signals[0].data
    assert np.array_equal(first.samples[:, 0], signal[15_000 : 15_000 + len(first.samples)])


def test_a_finished_recording_is_distinguished_from_one_that_pauses(
    tmp_path: Path, publishing: Publishing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growing_file, "QUIET_S", 0.1)
    _finished(tmp_path / "night.edf", 1800)

    def say(line: str) -> None:
        publishing.said.append(line)
        if "has not grown" in line:
            publishing.stop.set()

    gear = GrowingFile(tmp_path / "night.edf", "night", {})
    publishing.take(gear.arrivals(BridgeRun(publishing.stop, say)))
    assert publishing.chunks == []
    assert publishing.said[-1].endswith(" s; a finished recording is sent by --play")


def test_a_recorder_that_writes_seldom_is_followed_later_after_one_gap(
    tmp_path: Path, publishing: Publishing
) -> None:
    _finished(tmp_path / "finished.edf", 150)
    writer = SlowWriter(tmp_path / "finished.edf", tmp_path / "night.edf")

    def write() -> None:
        pause = threading.Event()
        while writer.written < writer.records:
            writer.write(50)  # two seconds at once
            pause.wait(2.0)
        writer.close()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        publishing.take(GrowingFile(writer.path, "night", {}).arrivals(publishing.run))
    finally:
        thread.join()
    (line,) = publishing.said
    assert "late to disk; what follows is sent so much later (--delay" in line
    values, stamps = publishing.samples(publishing.streams[0].header.key)
    assert len(values) == 1500
    gaps = np.flatnonzero(np.diff(stamps) > 0.02)
    assert gaps.tolist() == [499], "one gap, and none after it"


def test_a_file_that_is_begun_anew_is_followed_anew(tmp_path: Path, publishing: Publishing) -> None:
    _finished(tmp_path / "finished.edf", 50)
    writer = SlowWriter(tmp_path / "finished.edf", tmp_path / "night.edf")
    writer.write(30)
    gear = GrowingFile(writer.path, "night", {})

    def begin_anew() -> None:
        writer.path.write_bytes(writer.path.read_bytes()[: writer.header])

    with pytest.raises(StreamError, match="was begun anew"):
        publishing.take(gear.arrivals(publishing.run), begin_anew)
    writer.path.write_bytes((tmp_path / "finished.edf").read_bytes())
    with pytest.raises(StreamError, match="No such file"):
        publishing.take(gear.arrivals(publishing.run), lambda: writer.path.unlink(missing_ok=True))


def test_a_finished_recording_is_played_in_real_time(
    tmp_path: Path, publishing: Publishing
) -> None:
    expected = _finished(tmp_path / "night.edf", 40)
    begun = pylsl.local_clock()
    publishing.take(PlayedFile(tmp_path / "night.edf", "", {}).arrivals(publishing.run))
    assert pylsl.local_clock() - begun >= 1.6
    assert [one.header.name for one in publishing.streams] == ["250-hz", "500-hz", "night-markers"]
    for opened, signal in zip(publishing.streams, expected, strict=False):
        values, stamps = publishing.samples(opened.header.key)
        assert values == pytest.approx(signal, abs=1e-9)
        assert np.abs(np.diff(stamps) - 1 / opened.header.rate).max() < 1e-6
    assert [mark.text for mark in publishing.marks] == ["Lights off"]


def test_a_tape_is_played_on_this_hosts_clock_whatever_the_senders_was(
    publishing: Publishing,
) -> None:
    gear = PlayedFile(TAPE, "bed-1", {"1": "C4-M1"})
    begun = pylsl.local_clock()
    publishing.take(gear.arrivals(publishing.run))
    psg, marks = (opened.header for opened in publishing.streams)
    assert (psg.name, marks.name) == ("bed-1", "bed-1-markers")
    assert psg.channels[0].label == "C4-M1"
    values, stamps = publishing.samples(psg.key)
    taped = [each for each in open_recording(TAPE).arrivals() if isinstance(each, Chunk)]
    assert np.array_equal(values, np.concatenate([chunk.samples[:, 0] for chunk in taped]))
    # On the tape the sender was 7.1 s ahead of its receiver.
    expected = np.concatenate([chunk.stamps for chunk in taped]) - 7.123456789 - 100.0
    assert stamps - begun == pytest.approx(expected + stamps[0] - begun - expected[0], abs=1e-6)
    assert 0.0 <= stamps[0] - begun - expected[0] < 1.5
