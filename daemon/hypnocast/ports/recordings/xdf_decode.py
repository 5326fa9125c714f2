"""XDF, read: a file as a stream of events, in the order in which it was written.

Nothing in a file is trusted: lengths are checked against limits before anything is allocated,
and damage costs what lies between it and the next boundary, never the rest of the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from hypnocast.core.types import FloatArray
from hypnocast.errors import HypnocastError, TapeError
from hypnocast.ports.recordings.limits import (
    MAX_CHUNK_SAMPLES,
    MAX_DAMAGES,
    MAX_TEXT_CHARS,
    MAX_TEXT_CHUNK_BYTES,
    MAX_TIME,
)
from hypnocast.ports.recordings.xdf_chunks import Malformed, go_on, read_chunk
from hypnocast.ports.recordings.xdf_encode import (
    BOUNDARY,
    CLOCK_OFFSET,
    DTYPES,
    FILE_HEADER,
    MAGIC,
    STREAM_FOOTER,
    STREAM_HEADER,
)
from hypnocast.ports.stream_xml import MAX_HEADER_CHARS, ParsedHeader, parse_header

MAX_STREAMS = 4096


@dataclass(frozen=True, slots=True)
class FileHeader:
    """The file's own description, as XML."""

    xml: str


@dataclass(frozen=True, slots=True)
class Header:
    """A stream begins."""

    stream: int
    described: ParsedHeader


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Numeric samples of one stream."""

    stream: int
    values: NDArray[Any]
    stamps: FloatArray
    content: bytes
    """The chunk as it lies in the file, behind its length and tag."""


@dataclass(frozen=True, slots=True)
class Texts:
    """Samples of a text stream: a timestamp and one text per channel."""

    stream: int
    rows: tuple[tuple[float, tuple[str, ...]], ...]
    content: bytes


@dataclass(frozen=True, slots=True)
class Offset:
    """A clock reading; ``time`` is on the sender's clock."""

    stream: int
    time: float
    offset: float
    content: bytes


@dataclass(frozen=True, slots=True)
class Footer:
    """A stream ends, as XML."""

    stream: int
    xml: str


@dataclass(frozen=True, slots=True)
class Damage:
    """Something that could not be read, and where in the file it lies."""

    at_byte: int
    why: str


Event = FileHeader | Header | Samples | Texts | Offset | Footer | Damage


@dataclass(slots=True)
class _Stream:
    channels: int
    format: str
    interval: float
    last: float = 0.0


def read_events(
    file: BinaryIO, *, name: str, signals: bool = True, any_time: bool = True
) -> Iterator[Event]:
    """Read an open XDF file; raise :class:`TapeError` only where it is no XDF at all.

    A tape keeps whatever stamps came. Without ``any_time`` those beyond belief are damage.

    Without ``signals``, samples of streams of a steady rate are looked over for damage, and come
    without values.
    """
    if file.read(len(MAGIC)) != MAGIC:
        raise TapeError("this is no XDF file (it does not begin with 'XDF:')", where=name)
    at = file.tell()
    size = file.seek(0, 2)
    file.seek(at)
    return _events(file, size, _Decoder(signals=signals, any_time=any_time))


def _events(file: BinaryIO, size: int, decoder: _Decoder) -> Iterator[Event]:
    damages = 0
    while True:
        start = file.tell()
        try:
            framed = read_chunk(file, size)
            if framed is None:
                return
            event = decoder.decode(*framed)
            if event is not None:
                yield event
        except Malformed as fault:
            damages += 1
            if damages > MAX_DAMAGES:
                yield Damage(start, f"more than {MAX_DAMAGES} damaged places; the rest is left out")
                return
            yield Damage(start, str(fault))
            if not go_on(file, start):
                return


class _Decoder:
    """Knows the streams seen so far."""

    def __init__(self, *, signals: bool, any_time: bool) -> None:
        self._signals = signals
        self._any_time = any_time
        self._streams: dict[int, _Stream] = {}

    def decode(self, tag: int, content: bytes) -> Event | None:
        if tag == BOUNDARY:
            return None
        if tag == FILE_HEADER:
            return FileHeader(content[:MAX_HEADER_CHARS].decode("utf-8", "replace"))
        if len(content) < 4:
            raise Malformed("a chunk without its stream's number")
        number, body = int.from_bytes(content[:4], "little"), content[4:]
        if tag == STREAM_HEADER:
            return self._header(number, body)
        stream = self._streams.get(number)
        if stream is None:
            raise Malformed(f"stream {number} has no header")
        if tag == STREAM_FOOTER:
            return Footer(number, body[:MAX_HEADER_CHARS].decode("utf-8", "replace"))
        return self._timed(tag, number, stream, content)

    def _timed(self, tag: int, number: int, stream: _Stream, content: bytes) -> Event:
        """Decode what has times; where they must be believed, refuse what cannot be."""
        before, event = stream.last, self._offset_or_samples(tag, number, stream, content)
        if self._any_time:
            return event
        times: Sequence[float] | FloatArray
        match event:
            case Offset(_, time, offset, _):
                times = (time, offset)
            case Texts(_, rows, _):
                times = [stamp for stamp, _ in rows]
            case Samples():
                times = event.stamps
        if len(times) and not np.abs(times).max() <= MAX_TIME:
            stream.last = before
            raise Malformed("times beyond belief")
        return event

    def _offset_or_samples(
        self, tag: int, number: int, stream: _Stream, content: bytes
    ) -> Offset | Samples | Texts:
        if tag != CLOCK_OFFSET:
            return self._samples(number, stream, content)
        if len(content) != 20:
            raise Malformed(f"a clock offset of {len(content) - 4} bytes")
        time, offset = struct.unpack("<dd", content[4:])
        return Offset(number, time, offset, content)

    def _header(self, number: int, body: bytes) -> Header:
        if len(self._streams) >= MAX_STREAMS:
            raise Malformed(f"more than {MAX_STREAMS} streams")
        try:
            described = parse_header(body.decode("utf-8", "replace"))
        except HypnocastError as error:
            raise Malformed(f"header of stream {number}: {error}") from error
        header = described.header
        self._streams[number] = _Stream(
            channels=len(header.channels),
            format=header.format,
            interval=1.0 / header.rate if header.rate > 0 else 0.0,
        )
        return Header(number, described)

    def _samples(self, number: int, stream: _Stream, content: bytes) -> Samples | Texts:
        body = content[4:]
        count, at = _varint(body, 0)
        if stream.format == "string":
            if len(body) > MAX_TEXT_CHUNK_BYTES:
                raise Malformed(f"a chunk of {len(body)} bytes of texts")
            return Texts(number, _texts(stream, body, at, count), content)
        dtype = DTYPES[stream.format]
        width = dtype.itemsize * stream.channels
        if count * (1 + width) > len(body) - at:
            raise Malformed(f"{count} samples announced, fewer there")
        if count > MAX_CHUNK_SAMPLES:
            raise Malformed(f"a chunk of {count} samples")
        if not self._signals and stream.interval > 0 and _is_regular(body, at, count, width):
            return Samples(number, np.empty((0, stream.channels)), np.empty(0), content)
        if count == 1 and body[at] == 8 and len(body) == at + 9 + width:
            # Alone, as every arrival on a tape is noted: read without a detour.
            (stream.last,) = struct.unpack_from("<d", body, at + 1)
            alone = np.frombuffer(body, dtype, offset=at + 9).reshape(1, -1)
            values = alone.astype(dtype.newbyteorder("="))
            return Samples(number, values, np.array([stream.last]), content)
        stamps, rows = _numeric(stream, np.frombuffer(body, np.uint8, offset=at), count, width)
        values = np.ascontiguousarray(rows).view(dtype)
        values = values.astype(dtype.newbyteorder("="), copy=False)
        return Samples(number, values, stamps, content)


def _varint(body: bytes, at: int) -> tuple[int, int]:
    size = body[at] if at < len(body) else 0
    if size not in (1, 4, 8) or at + 1 + size > len(body):
        raise Malformed("a length that is none")
    return int.from_bytes(body[at + 1 : at + 1 + size], "little"), at + 1 + size


def _is_regular(body: bytes, at: int, count: int, width: int) -> bool:
    """Return whether every sample has a stamp, or the first one alone: the shapes of our tapes."""
    if len(body) == at + count * (9 + width):
        return body[at :: 9 + width].count(8) == count
    behind = body[at + 9 + width :: 1 + width]
    first_alone = len(body) == at + 8 + count * (1 + width) and body[at] == 8
    return first_alone and behind.count(0) == count - 1


def _numeric(
    stream: _Stream, data: NDArray[np.uint8], count: int, width: int
) -> tuple[FloatArray, NDArray[np.uint8]]:
    """Return timestamps and raw values; the shapes writers make are read without a loop."""
    if count == 0:
        return np.empty(0), np.empty((0, width), np.uint8)
    if len(data) == count * (9 + width):
        rows = data.reshape(count, 9 + width)
        if (rows[:, 0] == 8).all():
            stamps = np.ascontiguousarray(rows[:, 1:9]).view("<f8")[:, 0]
            stream.last = float(stamps[-1])
            return stamps.astype(np.float64, copy=False), rows[:, 9:]
    first = 9 if data[0] == 8 else 1
    if len(data) == first + width + (count - 1) * (1 + width):
        # Behind the first stamp, if there is one, every sample is a flag and values.
        rows = data[first - 1 :].reshape(count, 1 + width)
        if data[0] in (0, 8) and not rows[1:, 0].any():
            stamps = np.full(count, stream.interval)
            stamps[0] = data[1:9].view("<f8")[0] if first == 9 else stream.last + stream.interval
            np.add.accumulate(stamps, out=stamps)
            stream.last = float(stamps[-1])
            return stamps, rows[:, 1:]
    return _mixed(stream, data, count, width)


def _mixed(
    stream: _Stream, data: NDArray[np.uint8], count: int, width: int
) -> tuple[FloatArray, NDArray[np.uint8]]:
    stamps = np.empty(count)
    values = np.empty((count, width), np.uint8)
    body, at, last = data.tobytes(), 0, stream.last
    for index in range(count):
        last, at = _stamp(body, at, last + stream.interval)
        stamps[index] = last
        if at + width > len(body):
            raise Malformed("samples end too early")
        values[index] = data[at : at + width]
        at += width
    if at != len(body):
        raise Malformed("bytes left over behind the last sample")
    stream.last = last
    return stamps, values


def _stamp(body: bytes, at: int, deduced: float) -> tuple[float, int]:
    flag = body[at] if at < len(body) else -1
    if flag == 0:
        return deduced, at + 1
    if flag != 8 or at + 9 > len(body):
        raise Malformed("a timestamp that is none")
    return float(struct.unpack_from("<d", body, at + 1)[0]), at + 9


def _texts(
    stream: _Stream, body: bytes, at: int, count: int
) -> tuple[tuple[float, tuple[str, ...]], ...]:
    if count * (1 + 2 * stream.channels) > len(body) - at:
        raise Malformed(f"{count} texts announced, fewer there")
    rows = []
    last = stream.last
    for _ in range(count):
        last, at = _stamp(body, at, last + stream.interval)
        values = []
        for _channel in range(stream.channels):
            size, at = _varint(body, at)
            if at + size > len(body):
                raise Malformed("a text ends too early")
            text = body[at : at + min(size, 4 * MAX_TEXT_CHARS)].decode("utf-8", "replace")
            values.append(text if size <= MAX_TEXT_CHARS else text[:MAX_TEXT_CHARS])
            at += size
        rows.append((last, tuple(values)))
    stream.last = last
    return tuple(rows)
