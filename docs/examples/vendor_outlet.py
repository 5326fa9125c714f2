"""How a vendor SDK's callback becomes a proper LSL outlet.

Needs only pylsl and numpy. Replace :class:`FakeAmplifier` by your SDK; everything else stays.
Run it, and `hypnocast streams` shows the bed with its montage::

    python vendor_outlet.py --name "Bed 1 PSG" --serial AMP-0042
"""

from __future__ import annotations

import argparse
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pylsl
from numpy.typing import NDArray


@dataclass(frozen=True)
class Channel:
    """One channel of the page builder, as a sleep lab names it."""

    label: str
    kind: str
    microvolts_per_count: float


CHANNELS = (
    Channel("F4-M1", "EEG", 0.05),
    Channel("C4-M1", "EEG", 0.05),
    Channel("O2-M1", "EEG", 0.05),
    Channel("E1-M2", "EOG", 0.05),
    Channel("E2-M2", "EOG", 0.05),
    Channel("Chin1-Chin2", "EMG", 0.025),
)


class VendorOutlet:
    """An LSL outlet that is fed by a callback with blocks of raw counts."""

    def __init__(
        self,
        name: str,
        serial: str,
        rate: float,
        channels: Sequence[Channel],
        *,
        latency_s: float = 0.0,
    ) -> None:
        """Declare the stream; ``latency_s`` is how old a sample is when the SDK hands it over."""
        # The source_id must be the same after every restart and different for every device:
        # the serial number. Without it a receiver cannot see that the stream has come back.
        info = pylsl.StreamInfo(name, "EEG", len(channels), rate, pylsl.cf_float32, serial)
        described = info.desc().append_child("channels")
        for channel in channels:
            node = described.append_child("channel")
            node.append_child_value("label", channel.label)
            node.append_child_value("unit", "microvolts")
            node.append_child_value("type", channel.kind)
        info.desc().append_child_value("manufacturer", "Example Devices")
        self._scale = np.array([channel.microvolts_per_count for channel in channels])
        self._latency_s = latency_s
        self._outlet = pylsl.StreamOutlet(info, max_buffered=60)

    def on_block(self, counts: NDArray[np.int32]) -> None:
        """Take a block of raw counts, (samples, channels); give this to the SDK as callback."""
        # First the time, then the work: nothing below may shift the stamp.
        newest = pylsl.local_clock() - self._latency_s
        microvolts = (counts * self._scale).astype(np.float32)
        # One stamp for the newest sample; LSL counts back from it with the nominal rate.
        # Never use time.time() or the device's own clock: LSL could not correct for it.
        self._outlet.push_chunk(np.ascontiguousarray(microvolts), newest)


class FakeAmplifier:
    """Stands for a vendor's SDK: calls back, from a thread of its own, with blocks of counts."""

    def __init__(
        self, rate: float, block: int, callback: Callable[[NDArray[np.int32]], None]
    ) -> None:
        """Take the rate, the samples per block, and whom to call."""
        self._rate = rate
        self._block = block
        self._callback = callback
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin to acquire: a 10 Hz wave of 50 µV on every channel."""
        self._thread.start()

    def stop(self) -> None:
        """Stop acquiring."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        began, sent = time.monotonic(), 0
        while True:
            due = began + (sent + self._block) / self._rate
            if self._stopping.wait(max(0.0, due - time.monotonic())):
                return
            phase = 2 * math.pi * 10.0 * (sent + np.arange(self._block)) / self._rate
            microvolts = 50.0 * np.sin(phase)
            counts = [np.rint(microvolts / channel.microvolts_per_count) for channel in CHANNELS]
            self._callback(np.stack(counts, axis=1).astype(np.int32))
            sent += self._block


def main() -> None:
    """Stream until interrupted, or for ``--seconds``."""
    parser = argparse.ArgumentParser(description="A vendor's amplifier as an LSL stream.")
    parser.add_argument("--name", default="Bed 1 PSG")
    parser.add_argument("--serial", default="AMP-0042")
    parser.add_argument("--rate", type=float, default=256.0)
    parser.add_argument("--seconds", type=float, default=math.inf)
    arguments = parser.parse_args()
    outlet = VendorOutlet(arguments.name, arguments.serial, arguments.rate, CHANNELS)
    amplifier = FakeAmplifier(arguments.rate, 16, outlet.on_block)
    amplifier.start()
    try:
        ends = time.monotonic() + arguments.seconds
        while time.monotonic() < ends:
            time.sleep(0.2)
    except KeyboardInterrupt:
        pass
    finally:
        amplifier.stop()


if __name__ == "__main__":
    main()
