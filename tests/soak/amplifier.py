"""One bed's amplifier in plain pylsl, in a process of its own; nothing here is Hypnocast's."""

from __future__ import annotations

import sys
import time

import numpy as np
import pylsl

LABELS = ("F4-M1", "C4-M1", "O2-M1", "E1-M2", "E2-M2", "Chin1-Chin2")
RATE = 128
CHUNK_S = 0.1


def main() -> None:
    """Send until killed: a rhythm and noise, in microvolts."""
    bed = sys.argv[1]
    info = pylsl.StreamInfo(f"amp {bed}", "EEG", len(LABELS), RATE, "float32", f"soak-{bed}")
    channels = info.desc().append_child("channels")
    for label in LABELS:
        channel = channels.append_child("channel")
        channel.append_child_value("label", label)
        channel.append_child_value("unit", "microvolts")
    outlet = pylsl.StreamOutlet(info, max_buffered=30)
    random = np.random.default_rng(int.from_bytes(bed.encode(), "little") % 2**32)
    frequencies = 1.5 + random.uniform(0.0, 9.0, len(LABELS))
    began = pylsl.local_clock()
    sent = 0
    while True:
        due = int((pylsl.local_clock() - began) * RATE) - sent
        if due > 0:
            times = (sent + np.arange(due)) / RATE
            rhythm = 30.0 * np.sin(2 * np.pi * frequencies * times[:, None])
            values = rhythm + random.normal(0.0, 10.0, (due, len(LABELS)))
            sent += due
            chunk = np.ascontiguousarray(values.astype(np.float32))
            outlet.push_chunk(chunk, began + (sent - 1) / RATE)
        time.sleep(CHUNK_S)


if __name__ == "__main__":
    main()
