"""The documented example runs, and what it sends is what a sleep lab needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from hypnocast.core.types import Chunk, ClockReading, StreamOpened
from hypnocast.ports.lsl.beds import BedStreams, Selector
from hypnocast.ports.lsl.source import LslSource
from support.lsl_lab import Collector, unique, wait_until

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "vendor_outlet.py"


def test_the_example_streams_labels_units_and_times() -> None:
    serial = unique("AMP")
    sink = Collector()
    bed = BedStreams("b", (Selector(source_id=serial),))
    with (
        subprocess.Popen([sys.executable, str(EXAMPLE), "--serial", serial]) as example,
        LslSource([bed]).reading(sink) as source,
    ):
        try:
            wait_until(lambda: len(sink.counts("b")) > 700, "three seconds of samples", 20.0)
            assert not source.problems()
        finally:
            example.terminate()
    header = next(a.header for a in sink.of("b") if isinstance(a, StreamOpened))
    assert header.channels[0].label == "F4-M1"
    assert header.channels[5].kind == "EMG"
    assert {channel.unit for channel in header.channels} == {"microvolts"}
    assert header.rate == 256.0
    chunks = [a for a in sink.of("b") if isinstance(a, Chunk)]
    samples = np.concatenate([chunk.samples for chunk in chunks])
    stamps = np.concatenate([chunk.stamps for chunk in chunks])
    assert np.abs(samples).max() > 49.0
    assert np.abs(samples).max() < 51.0
    offset = next(a.offset for a in sink.of("b") if isinstance(a, ClockReading))
    delay = chunks[-1].arrived - (stamps[-1] + offset)
    assert 0.0 < delay < 1.0
    assert abs(np.polyfit(np.arange(len(stamps)), stamps, 1)[0] * 256.0 - 1.0) < 0.02
