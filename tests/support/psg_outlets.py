"""Three beds' amplifiers in plain pylsl, in a process of their own; nothing here is Hypnocast's.

Every channel is a sine of known amplitude in known company of others, with a little noise, so
that whoever reads it can see whether the right channels came out at the right scale.

- ``two-boxes``: referential EEG in volts at 512 Hz from one outlet; EOG and EMG, ready-made, in
  microvolts at 256 Hz from another.
- ``one-box``: six derivations in microvolts at 256 Hz.
- ``no-units``: the same, but its header names no unit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pylsl
from numpy.typing import NDArray

from support.sending_outlets import SendingOutlet, describe_channels, send_until_killed

NOISE_UV = 1.0

WAVES: dict[str, dict[str, tuple[float, float]]] = {
    "two-boxes": {"F4": (50.0, 10.0), "C4": (40.0, 9.0), "O2": (30.0, 11.0), "M1": (20.0, 4.0),
                  "M2": (10.0, 6.0), "E1-M2": (60.0, 1.0), "E2-M2": (45.0, 2.0),
                  "Chin1-Chin2": (20.0, 30.0)},
    "one-box": {"F4-M1": (35.0, 10.0), "C4-M1": (30.0, 9.0), "O2-M1": (25.0, 11.0),
                "E1-M2": (60.0, 1.0), "E2-M2": (45.0, 2.0), "Chin1-Chin2": (20.0, 30.0)},
}  # fmt: skip
"""Bed → label → amplitude in µV and frequency in Hz."""


@dataclass(frozen=True)
class Box:
    """One outlet."""

    name: str
    source_id: str
    type: str
    rate: int
    labels: tuple[str, ...]
    waves: dict[str, tuple[float, float]]
    unit: str | None
    per_microvolt: float


BOXES = (
    Box("acme eeg", "acme-1", "EEG", 512, ("F4", "C4", "O2", "M1", "M2"), WAVES["two-boxes"],
        "V", 1e-6),
    Box("acme exg", "acme-2", "ExG", 256, ("E1-M2", "E2-M2", "Chin1-Chin2"), WAVES["two-boxes"],
        "microvolts", 1.0),
    Box("solo", "solo-1", "EEG", 256, tuple(WAVES["one-box"]), WAVES["one-box"],
        "uV", 1.0),
    Box("mute", "mute-1", "EEG", 256, tuple(WAVES["one-box"]), WAVES["one-box"], None, 1.0),
)  # fmt: skip


def sending(box: Box, noise: np.random.Generator) -> SendingOutlet:
    """Return an outlet with the metadata that LSL's documentation recommends."""
    count = len(box.labels)
    info = pylsl.StreamInfo(box.name, box.type, count, box.rate, "float32", box.source_id)
    describe_channels(info, box.labels, box.unit)

    def values(times: NDArray[np.float64]) -> NDArray[np.float64]:
        waves = [box.waves[label] for label in box.labels]
        clean = np.stack([a * np.sin(2 * np.pi * f * times) for a, f in waves], axis=1)
        return (clean + noise.normal(0.0, NOISE_UV, clean.shape)) * box.per_microvolt

    return SendingOutlet(info, values)


if __name__ == "__main__":
    random = np.random.default_rng(1)
    send_until_killed([sending(box, random) for box in BOXES])
