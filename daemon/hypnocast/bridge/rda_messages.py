"""The messages of BrainVision Recorder's Remote Data Access (RDA), read from bytes.

Brain Products publishes the format with its Recorder (``RecorderRDA.h``; the manual's chapter on
RDA), and BCI2000, OpenViBE and FieldTrip read it. All numbers are little-endian. Every message
begins with a GUID, its own size and its type.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hypnocast.errors import StreamError
from hypnocast.ports.stream_xml import MAX_CHANNELS, MAX_RATE

GUID: Final = bytes.fromhex("8e45584396c9864caf4a98bbf6c91450")
START, DATA_16, STOP, DATA_32, KEEP_ALIVE = 1, 2, 3, 4, 10_000

MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024
"""A second of 256 channels at 5 kHz is 5 MB."""

_HEADER = struct.Struct("<16sII")
_START = struct.Struct("<Id")
_DATA = struct.Struct("<III")
_MARKER = struct.Struct("<IIIi")
_SAMPLES = {DATA_16: "<i2", DATA_32: "<f4"}


@dataclass(frozen=True, slots=True)
class RdaStart:
    """An acquisition begins."""

    labels: tuple[str, ...]
    rate: float
    resolutions: tuple[float, ...]
    """Microvolts per count, for each channel."""


@dataclass(frozen=True, slots=True)
class RdaMarker:
    """A marker within a block."""

    position: int
    """Number of the sample in its block."""
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class RdaBlock:
    """A block of samples."""

    number: int
    """Blocks since the acquisition began."""
    counts: NDArray[Any]
    """(points, channels), as sent; times the resolution they are µV."""
    markers: tuple[RdaMarker, ...]


@dataclass(frozen=True, slots=True)
class RdaStop:
    """The acquisition was stopped."""


RdaMessage = RdaStart | RdaBlock | RdaStop


class RdaDecoder:
    """Turns the bytes of one connection into messages, however they are cut."""

    def __init__(self) -> None:
        """Begin with a connection."""
        self._bytes = bytearray()
        self._channels = 0

    def feed(self, piece: bytes) -> Iterator[RdaMessage]:
        """Add bytes; yield the messages that are whole now."""
        self._bytes += piece
        while len(self._bytes) >= _HEADER.size:
            guid, size, kind = _HEADER.unpack_from(self._bytes)
            if guid != GUID:
                raise StreamError("does not speak BrainVision RDA")
            if not _HEADER.size <= size <= MAX_MESSAGE_BYTES:
                raise StreamError(f"sends an RDA message of {size} bytes")
            if len(self._bytes) < size:
                return
            body = bytes(self._bytes[_HEADER.size : size])
            del self._bytes[:size]
            try:
                message = self._message(kind, body)
            except (struct.error, ValueError, IndexError) as error:
                raise StreamError(f"sends a damaged RDA message of type {kind}") from error
            if message is not None:
                yield message

    def _message(self, kind: int, body: bytes) -> RdaMessage | None:
        if kind == START:
            start = _start(body)
            self._channels = len(start.labels)
            return start
        if kind in _SAMPLES and self._channels:
            return _block(body, self._channels, _SAMPLES[kind])
        # What is none of these keeps the connection alive, or belongs to a later Recorder.
        return RdaStop() if kind == STOP else None


def _start(body: bytes) -> RdaStart:
    count, interval_us = _START.unpack_from(body)
    if not 0 < count <= MAX_CHANNELS:
        raise StreamError(f"announces {count} channels")
    rate = 1e6 / interval_us if interval_us > 0.0 else 0.0
    if not 0.0 < rate <= MAX_RATE:
        raise StreamError(f"announces a sampling interval of {interval_us:g} µs")
    resolutions = struct.unpack_from(f"<{count}d", body, _START.size)
    names = body[_START.size + 8 * count :].split(b"\0")[:count]
    labels = tuple(name.decode("latin-1") for name in names)
    if len(labels) != count or not np.isfinite(resolutions).all():
        raise ValueError(count)
    return RdaStart(labels, rate, resolutions)


def _block(body: bytes, channels: int, sample: str) -> RdaBlock:
    number, points, markers = _DATA.unpack_from(body)
    counts = np.frombuffer(body, sample, points * channels, _DATA.size).reshape(points, channels)
    at = _DATA.size + counts.nbytes
    read: list[RdaMarker] = []
    for _ in range(markers):
        size, position, _points, _channel = _MARKER.unpack_from(body, at)
        if size < _MARKER.size or at + size > len(body):
            raise ValueError(size)
        kind, _, rest = body[at + _MARKER.size : at + size].partition(b"\0")
        text = rest.partition(b"\0")[0]
        read.append(RdaMarker(min(position, points), _words(kind, text)))
        at += size
    return RdaBlock(number, counts, tuple(read))


def _words(kind: bytes, text: bytes) -> str:
    return "/".join(part for part in (kind.decode("latin-1"), text.decode("latin-1")) if part)
