"""Amplifiers of other makers in plain pylsl, in a process of their own; nothing is Hypnocast's.

Each says of itself what its program says: muselsl and a headbox's program name channels and
units, the OpenBCI GUI names neither, OpenBCI's own script names the channels alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pylsl
from numpy.typing import NDArray

from support.sending_outlets import SendingOutlet, describe_channels, send_until_killed


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


def sending(gear: ForeignGear, noise: np.random.Generator) -> SendingOutlet:
    """Return an outlet that says of itself what such gear says."""
    count = len(gear.labels) or gear.count
    source = f"{gear.name}-source"
    info = pylsl.StreamInfo(gear.name, gear.kind, count, gear.rate, gear.format, source)
    if gear.labels:
        describe_channels(info, gear.labels, gear.unit)

    def values(times: NDArray[np.float64]) -> NDArray[np.float64]:
        hz = 7.0 + np.arange(count)
        waves = 20.0 * np.sin(2 * np.pi * hz * times[:, None] + np.arange(count))
        return (waves + noise.normal(0.0, 8.0, waves.shape)) * gear.per_microvolt

    return SendingOutlet(info, values)


if __name__ == "__main__":
    random = np.random.default_rng(3)
    send_until_killed([sending(gear, random) for gear in GEAR])
