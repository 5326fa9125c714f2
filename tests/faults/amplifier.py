"""Amplifiers in plain pylsl, in a process of their own, that do what is ordered; no Hypnocast.

What a channel carries at a time follows from its label and the time alone, so a second process
carries on where a first one ended, and whoever reads a tape can compute what should be on it.

It begins at the order ``go``, so that everything is loaded by then. Orders come after that, as JSON
lines on standard input, each naming a stream, a fault and from when to when
by the LSL clock: ``nan``, ``inf``, ``hole``, ``flood``, ``step`` (its stamps go an hour ahead),
``stamps ahead`` and ``stamps behind`` (by more than a day).
"""

from __future__ import annotations

import json
import sys
import threading
import time
import zlib
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pylsl
from numpy.typing import NDArray

from support.orphans import die_with_parent

RATE = 100
FLOODED = 50
"""How many samples a flooding amplifier sends where it should send one."""
STEP_S = 3600.0
FAR_S = 1e5
STILL = "E2-M2"
"""Nothing is connected to this channel: whatever carries a signal there was mistaken for it."""
WILD = "X"
"""Labels that begin so carry what no body does."""


@lru_cache(maxsize=64)
def second(label: str, number: int) -> NDArray[np.float32]:
    """Return one second of one channel, in microvolts."""
    if label == STILL:
        return np.zeros(RATE, np.float32)
    rng = np.random.default_rng([zlib.crc32(label.encode()), number])
    at = (number * RATE + np.arange(RATE)) / RATE
    wave = 25.0 * np.sin(2 * np.pi * 2.0 * at) + rng.normal(0.0, 12.0, RATE)
    return (wave * (200.0 if label.startswith(WILD) else 1.0)).astype(np.float32)


def carried(labels: tuple[str, ...], first: int, count: int) -> NDArray[np.float32]:
    """Return samples by their number, which is their time in hundredths of a second."""
    seconds = range(first // RATE, (first + count - 1) // RATE + 1)
    whole = np.stack([np.concatenate([second(one, s) for s in seconds]) for one in labels], axis=1)
    skip = first % RATE
    return whole[skip : skip + count]


@dataclass
class FaultyAmplifier:
    """One outlet."""

    name: str
    source_id: str
    labels: tuple[str, ...]
    faults: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        info = pylsl.StreamInfo(self.name, "EEG", len(self.labels), RATE, "float32", self.source_id)
        channels = info.desc().append_child("channels")
        for label in self.labels:
            channel = channels.append_child("channel")
            channel.append_child_value("label", label)
            channel.append_child_value("unit", "microvolts")
        self._outlet = pylsl.StreamOutlet(info)
        self._sent = int(pylsl.local_clock() * RATE)

    def send(self, now: float) -> None:
        """Send what is due."""
        due = int(now * RATE) - self._sent
        if due <= 0:
            return
        samples = carried(self.labels, self._sent, due)
        stamps = (self._sent + np.arange(due)) / RATE
        self._sent += due
        kinds = {one["fault"] for one in self.faults if one["begins"] <= now < one["ends"]}
        if "hole" in kinds:
            return
        if "nan" in kinds:
            samples = np.full_like(samples, np.nan)
        if "inf" in kinds:
            samples = np.full_like(samples, np.inf)
            samples[:, ::2] = -np.inf
        if "flood" in kinds:
            samples = np.repeat(200.0 * samples, FLOODED, axis=0)
            stamps = np.linspace(stamps[0], stamps[-1], len(samples))
        if "step" in kinds:
            stamps = stamps + STEP_S
        if "stamps ahead" in kinds:
            stamps = stamps + FAR_S
        if "stamps behind" in kinds:
            stamps = stamps - FAR_S
        self._outlet.push_chunk(np.ascontiguousarray(samples), stamps.tolist())


def main() -> None:
    """Send until killed."""
    die_with_parent()
    assert sys.stdin.readline() == "go\n"
    amplifiers = [
        FaultyAmplifier(one["name"], one["source_id"], tuple(one["labels"]))
        for one in json.loads(sys.argv[1])
    ]

    def obey() -> None:
        for line in sys.stdin:
            order = json.loads(line)
            for amplifier in amplifiers:
                if amplifier.name == order["name"]:
                    amplifier.faults.append(order)

    threading.Thread(target=obey, daemon=True).start()
    sys.stdout.write(f"{pylsl.local_clock()!r}\n")
    sys.stdout.flush()
    while True:
        for amplifier in amplifiers:
            amplifier.send(pylsl.local_clock())
        time.sleep(0.1)


if __name__ == "__main__":
    main()
