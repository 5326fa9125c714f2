"""Simulated beds as LSL outlets, seen by plain pylsl in another process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hypnocast.core.types import Stage
from hypnocast.errors import ConfigError
from hypnocast.simulate import CLINICAL, SimulatedSource
from hypnocast.simulate.outlets import run_outlets
from support.needs import need_module

DAEMON = Path(__file__).parents[2] / "daemon"

SENDER = """
import sys, threading
from hypnocast.simulate import CLINICAL, SimulatedSource
from hypnocast.simulate.outlets import run_outlets
from hypnocast.core.types import Stage
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
source = SimulatedSource(
    [sys.argv[1]], seed=7, stages=[Stage.R] * 20, montage="split", chunk_s=0.1
)
run_outlets(source, stop=stop, opened=lambda header: print(header.name, flush=True))
print("ended", flush=True)
"""

READER = """
import json, sys, time
import pylsl
bed, seen = sys.argv[1], {}
deadline = time.monotonic() + 30
for suffix in ("eeg", "eog", "truth"):
    found = pylsl.resolve_byprop("name", f"{bed}-{suffix}", 1, 20)
    inlet = pylsl.StreamInlet(found[0])
    info = inlet.info(10)
    channels, node = [], info.desc().child("channels").child("channel")
    while not node.empty():
        channels.append([node.child_value(k) for k in ("label", "unit", "type")])
        node = node.next_sibling("channel")
    rows, stamps = [], []
    while len(rows) < (40 if suffix != "truth" else 1) and time.monotonic() < deadline:
        values, times = inlet.pull_chunk(0.2)
        rows += values
        stamps += times
    seen[suffix] = {
        "type": info.type(), "rate": info.nominal_srate(), "source_id": info.source_id(),
        "maker": info.desc().child_value("manufacturer"), "channels": channels,
        "rows": rows, "stamps": stamps, "now": pylsl.local_clock(),
    }
print(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def received(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What plain pylsl in a process of its own receives from a simulator in another."""
    need_module("pylsl")
    config = tmp_path_factory.mktemp("lsl") / "lsl_api.cfg"
    session = uuid.uuid4().hex
    config.write_text(
        f"[multicast]\nResolveScope = machine\n[lab]\nSessionID = {session}\n[log]\nlevel = -2\n"
    )
    environment = {**os.environ, "LSLAPICFG": str(config), "PYTHONPATH": str(DAEMON)}
    bed = f"bed-{session[:8]}"
    with subprocess.Popen(
        [sys.executable, "-c", SENDER, bed],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    ) as sender:
        assert sender.stdout is not None
        opened = [sender.stdout.readline().strip() for _ in range(5)]
        reader = subprocess.run(
            [sys.executable, "-c", READER, bed],
            env=environment,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        rest, _ = sender.communicate(timeout=30)
    assert reader.returncode == 0, reader.stderr
    assert sender.returncode == 0
    return {
        "opened": opened,
        "rest": rest.split(),
        "bed": bed,
        **json.loads(reader.stdout),
    }


def test_plain_pylsl_reads_labels_units_types_and_rates(received: dict[str, Any]) -> None:
    eeg, eog, truth = received["eeg"], received["eog"], received["truth"]
    assert (eeg["type"], eeg["rate"], eeg["maker"]) == ("EEG", 512.0, "Hypnocast")
    labels = ["F3", "F4", "C3", "C4", "O1", "O2", "M1", "M2"]
    assert eeg["channels"] == [[label, "volts", "EEG"] for label in labels]
    assert (eog["type"], eog["rate"]) == ("EOG", 256.0)
    assert eog["channels"] == [
        ["E1-M2", "microvolts", "EOG"],
        ["E2-M2", "microvolts", "EOG"],
        ["Chin", "microvolts", "EMG"],
    ]
    assert (truth["type"], truth["rate"]) == ("Truth", 0.0)
    assert received["bed"] in eeg["source_id"]


def test_the_samples_are_those_of_the_night_at_their_times(received: dict[str, Any]) -> None:
    source = SimulatedSource(["x"], seed=7, stages=[Stage.R] * 20, montage="split")
    night = source.nights["x"]
    eog = received["eog"]
    rows = np.array(eog["rows"], dtype=np.float32)
    truth = night.samples(0.0, 120.0, leads=CLINICAL[3:])
    starts = np.flatnonzero((truth == rows[0]).all(axis=1))
    assert len(starts) == 1
    assert np.array_equal(truth[starts[0] : starts[0] + len(rows)], rows)
    stamps = np.array(eog["stamps"])
    assert np.allclose(np.diff(stamps), 1 / 256, atol=1e-6)
    assert -0.5 < eog["now"] - stamps[-1] < 5.0, "in real time"


def test_stopping_ends_it_cleanly(received: dict[str, Any]) -> None:
    assert len(received["opened"]) == 5
    assert received["rest"] == ["ended"]


@pytest.mark.parametrize("each", ["drift:200ppm", "step:+3600@5", "clock:unix"])
def test_faults_of_another_clock_are_refused_on_one_host(each: str) -> None:
    source = SimulatedSource(1, pages=1, faults=[each])
    with pytest.raises(ConfigError, match="this host's clock"):
        run_outlets(source, stop=threading.Event())
