"""BrainVision Recorder by its Remote Data Access, as ``hypnocast bridge rda`` publishes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from hypnocast.bridge.gear import BridgeRun, marker_header, renamed, signal_header
from hypnocast.bridge.rda_messages import RdaBlock, RdaDecoder, RdaStart, RdaStop
from hypnocast.bridge.sample_clock import SampleClock
from hypnocast.bridge.tcp import Silence, TcpAddress, received
from hypnocast.core.types import Arrival, Chunk, Mark, StreamHeader, StreamOpened
from hypnocast.errors import StreamError
from hypnocast.ports.lsl.library import load_pylsl

PORT: Final = 51_244
"""The Recorder's port for 32-bit values. 51234 has the same in 16 bits, where what is beyond
±32767 counts is cut off."""

_SILENT_S = 10.0
_MOST_LOST_BLOCKS = 100_000


class RdaRecorder:
    """A BrainVision Recorder, or anything that serves its RDA."""

    def __init__(self, address: TcpAddress, name: str, names: Mapping[str, str]) -> None:
        """Take where it is, the name of its stream and other names for channels."""
        self._address = address
        self._stream_name = name
        self._names = names
        self._clock = load_pylsl().local_clock

    @property
    def name(self) -> str:
        """What people know it by."""
        return f"BrainVision Recorder at {self._address}"

    def arrivals(self, run: BridgeRun) -> Iterator[Arrival]:
        """Connect, and give what comes. Between acquisitions the Recorder may be silent."""
        decoder = RdaDecoder()
        silence = Silence(self._address, _SILENT_S)
        acquisition: _Acquisition | None = None
        for piece in received(self._address, run.stop):
            now: float = self._clock()
            if piece:
                silence.broken()
            elif acquisition is not None:
                silence.check()
            try:
                for message in decoder.feed(piece):
                    match message:
                        case RdaStart():
                            acquisition = _Acquisition(message, self._stream_name, self._names)
                            yield StreamOpened(acquisition.header, now)
                            yield StreamOpened(acquisition.markers, now)
                        case RdaBlock() if acquisition is not None:
                            yield from acquisition.take(message, now)
                        case RdaStop():
                            acquisition = None
            except StreamError as error:
                raise StreamError(error.what, where=str(self._address)) from error


class _Acquisition:
    """What the Recorder sends between a start and a stop."""

    def __init__(self, start: RdaStart, name: str, names: Mapping[str, str]) -> None:
        labels = renamed(start.labels, names)
        self.header: StreamHeader = signal_header("rda", name, start.rate, labels)
        self.markers: StreamHeader = marker_header("rda", name)
        self._resolutions = np.array(start.resolutions)
        self._clock = SampleClock(start.rate)
        self._next_block: int | None = None

    def take(self, block: RdaBlock, now: float) -> Iterator[Arrival]:
        """Give a block's samples in µV, and its markers."""
        points = len(block.counts)
        if self._next_block is not None:
            lost = block.number - self._next_block
            if 0 < lost <= _MOST_LOST_BLOCKS:
                self._clock.skip(lost * points)
        self._next_block = block.number + 1
        if not points:
            return
        stamps = self._clock.stamps(points, now)
        samples = (block.counts * self._resolutions).astype(np.float32)
        yield Chunk(self.header.key, samples, stamps, now)
        for marker in block.markers:
            at = float(stamps[min(marker.position, points - 1)])
            yield Mark(self.markers.key, at, marker.text, now)
