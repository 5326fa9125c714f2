"""Amplifiers of other makers in plain pylsl, in a process of their own; nothing is Hypnocast's.

Each says of itself what its program says: muselsl and a headbox's program name channels and
units, the OpenBCI GUI names neither, OpenBCI's own script names the channels alone.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

import numpy as np
import pylsl

from support.orphans import die_with_parent


@dataclass(frozen=True)
class ForeignGear:
    """One outlet."""

    name: str
    rate: float
    labels: tuple[str, ...] = ()
    """Empty: the header has no channels."""
    unit: str | None = None
    kind: str = "EEG"
    count: int = 0
    per_microvolt: float = 1.0
    format: str = "float32"


GEAR = (
    ForeignGear("Muse-7F2C", 256, ("TP9", "AF7", "AF8", "TP10", "Right AUX"), "microvolts"),
    ForeignGear("obci_eeg1", 250, count=8),
    ForeignGear("OpenBCI_EEG", 250, ("Fp1", "Fp2", "C3", "C4", "T5", "T6", "O1", "O2")),
    ForeignGear(
        "Headbox PSG", 500,
        ("F4", "C4", "O2", "A1", "A2", "LOC", "ROC", "Chin 1", "Chin 2", "ECG II", "Thorax"),
        "V", kind="PSG", per_microvolt=1e-6, format="double64",
    ),
)  # fmt: skip


def open_outlet(gear: ForeignGear) -> pylsl.StreamOutlet:
    """Open an outlet that says of itself what such gear says."""
    count = len(gear.labels) or gear.count
    source = f"{gear.name}-source"
    info = pylsl.StreamInfo(gear.name, gear.kind, count, gear.rate, gear.format, source)
    if gear.labels:
        channels = info.desc().append_child("channels")
        for label in gear.labels:
            channel = channels.append_child("channel")
            channel.append_child_value("label", label)
            if gear.unit is not None:
                channel.append_child_value("unit", gear.unit)
    return pylsl.StreamOutlet(info)


def main() -> None:
    """Send until killed."""
    die_with_parent()
    outlets = [open_outlet(gear) for gear in GEAR]
    random = np.random.default_rng(3)
    began = pylsl.local_clock()
    sent = [0] * len(GEAR)
    sys.stdout.write("up\n")
    sys.stdout.flush()
    while True:
        passed = pylsl.local_clock() - began
        for index, (gear, outlet) in enumerate(zip(GEAR, outlets, strict=True)):
            due = int(passed * gear.rate) - sent[index]
            if due < gear.rate // 16:
                continue
            count = len(gear.labels) or gear.count
            times = (sent[index] + np.arange(due)) / gear.rate
            hz = 7.0 + np.arange(count)
            waves = 20.0 * np.sin(2 * np.pi * hz * times[:, None] + np.arange(count))
            values = (waves + random.normal(0.0, 8.0, waves.shape)) * gear.per_microvolt
            kind = np.float32 if gear.format == "float32" else np.float64
            sent[index] += due
            outlet.push_chunk(
                np.ascontiguousarray(values, dtype=kind), began + (sent[index] - 1) / gear.rate
            )
        time.sleep(0.02)


if __name__ == "__main__":
    main()
