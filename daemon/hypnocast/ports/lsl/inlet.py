"""One stream from opening to its end: the only place that touches a liblsl inlet.

Inlets are opened with ``recover=False``. liblsl's own recovery is silent, keeps the old header
and gives up under conditions it does not report; without it a broken connection is an error at
the next read, and the supervisor opens the stream's successor as what it is: a new stream.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

import numpy as np

from hypnocast.core.types import Chunk, ClockReading, FloatArray, Mark, StreamHeader
from hypnocast.errors import StreamError
from hypnocast.ports.lsl.beds import AnnouncedStream
from hypnocast.ports.lsl.library import load_pylsl
from hypnocast.ports.lsl.limits import MAX_MARK_CHARS, buffer_s

MAX_SAMPLES = 4096
MAX_PULLED_TEXTS = 256
MAX_PULLED_VALUES = 524_288
"""Values of all channels that one look reads; pylsl makes room for as many."""


class Clock(Enum):
    """How a stream's stamps come to the local clock."""

    MEASURED = "measured"
    """By LSL's own offset measurement."""
    ARRIVAL = "arrival"
    """By the time at which samples arrive: the sender's clock is foreign or cannot be asked."""


class LostStream(Exception):  # noqa: N818 - an event of the supervisor's, no error for people
    """The stream is gone; the reason as text."""


class Inlet:
    """An open stream. ``open`` blocks and runs on a thread of its own; ``pull`` never waits."""

    def __init__(self, info: Any, seen: AnnouncedStream, *, keep_s: int) -> None:
        """Prepare an announced stream of bounded cost; nothing is asked of it yet."""
        self._pylsl = load_pylsl()
        self.uid = seen.uid
        most = MAX_PULLED_TEXTS if seen.format == "string" else MAX_SAMPLES
        self._at_once = max(1, min(most, MAX_PULLED_VALUES // seen.channel_count))
        try:
            self._inlet: Any = self._pylsl.StreamInlet(
                info,
                max_buflen=buffer_s(seen, keep_s),
                recover=False,
                processing_flags=0,
                as_numpy=True,
            )
        except RuntimeError as error:
            raise StreamError(
                f"cannot be opened as it is announced ({error})",
                remedy="Does its announcement name an address of its host?",
            ) from error
        self.clock = Clock.MEASURED
        self._last_offset: float | None = None
        self._measured_anew = False

    def open(self, *, timeout_s: float) -> None:
        """Subscribe: samples wait in liblsl's buffer from now on."""
        try:
            self._inlet.open_stream(timeout=timeout_s)
        except self._pylsl.util.TimeoutError as error:
            raise StreamError(
                f"announced, but gave no answer within {timeout_s:g} s",
                remedy="Is its program stopped, or its TCP port closed by a firewall?",
            ) from error
        except RuntimeError as error:
            raise StreamError(f"broke off while it was opened ({error})") from error

    def measure(self, *, timeout_s: float) -> float | None:
        """Ask the sender's clock; None where it does not answer. The first time lasts ≈ 0.6 s."""
        inlet = self._inlet
        if inlet is None:
            return None
        try:
            offset = float(inlet.time_correction(timeout=timeout_s))
        except RuntimeError:
            return None
        if not np.isfinite(offset):
            return None
        self._measured_anew = offset != self._last_offset
        self._last_offset = offset
        return offset

    def fresh_reading(self, stream: str, *, timeout_s: float) -> ClockReading | None:
        """Return a reading where the sender's clock was asked anew since the last one."""
        offset = self.measure(timeout_s=timeout_s)
        if offset is None or not self._measured_anew:
            return None
        return ClockReading(stream=stream, at=self._pylsl.local_clock(), offset=offset)

    def pull(self, header: StreamHeader) -> list[Chunk | Mark]:
        """Return what lies ready, or nothing; raise :class:`LostStream` at the end."""
        try:
            samples, stamps = self._inlet.pull_chunk(timeout=0.0, max_samples=self._at_once)
        except RuntimeError as error:
            raise LostStream(str(error)) from error
        if not len(stamps):
            return []
        arrived = self._pylsl.local_clock()
        if header.rate == 0:
            return list(_marks(header.key, samples, stamps, arrived))
        # Both are views of a larger room, which would be kept as long as the chunk is.
        samples, stamps = samples.copy(), stamps.copy()
        return [Chunk(stream=header.key, samples=samples, stamps=stamps, arrived=arrived)]

    def close(self) -> None:
        """Close the stream; liblsl's threads for it end. May last a moment."""
        self._inlet = None


def _marks(key: str, samples: Any, stamps: FloatArray, arrived: float) -> list[Mark]:
    return [
        Mark(stream=key, stamp=float(stamp), text=_mark_text(row), arrived=arrived)
        for row, stamp in zip(samples, stamps, strict=True)
    ]


def _mark_text(row: Any) -> str:
    values = (
        value[: 4 * MAX_MARK_CHARS].decode("utf-8", "replace")
        if isinstance(value, bytes)
        else str(value)
        for value in row.tolist()
    )
    return "\t".join(values)[:MAX_MARK_CHARS]
