"""Reads a tape that nobody closed, byte by byte by XDF 1.0; shares no code with the daemon."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree as ET

FILE_HEADER, STREAM_HEADER, SAMPLES, CLOCK_OFFSET, BOUNDARY, STREAM_FOOTER = range(1, 7)
SIZES = {"float32": 4, "double64": 8, "int64": 8, "int32": 4, "int16": 2, "int8": 1}
UNPACK = {"float32": "f", "double64": "d", "int64": "q", "int32": "i", "int16": "h", "int8": "b"}


@dataclass
class OnTape:
    """One stream as it lies on a tape."""

    name: str
    columns: int
    format: str
    rate: float
    labels: tuple[str, ...]
    stamps: list[float] = field(default_factory=list)
    rows: list[tuple[float, ...]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    offsets: int = 0


@dataclass
class TapeRead:
    """What could be read of a tape."""

    streams: dict[int, OnTape]
    chunks: int
    torn: int
    """Bytes at its end that are no whole chunk."""
    closed: bool
    """Whether it ends with footers."""
    size: int

    def named(self, name: str) -> list[OnTape]:
        """Return a stream by its name, as often as it was opened with other channels."""
        return [stream for stream in self.streams.values() if stream.name == name]


def read_raw(path: Path) -> TapeRead:
    """Read all whole chunks; whatever is wrong before the torn end is an error."""
    raw = path.read_bytes()
    if not raw:  # killed between the file and its first byte: nothing had come yet
        return TapeRead({}, 0, 0, False, 0)
    assert raw[:4] == b"XDF:", "no XDF file"
    streams: dict[int, OnTape] = {}
    place, chunks, closed = 4, 0, False
    while place < len(raw):
        framed = _frame(raw, place)
        if framed is None:
            break
        begin, end = framed
        tag = struct.unpack_from("<H", raw, begin)[0]
        body = raw[begin + 2 : end]
        assert FILE_HEADER <= tag <= STREAM_FOOTER, f"{path.name}: tag {tag} at byte {place}"
        assert tag != BOUNDARY or len(body) == 16
        if tag == STREAM_HEADER:
            number, stream = _header(body)
            assert number not in streams
            streams[number] = stream
        elif tag == SAMPLES:
            _samples(streams[struct.unpack_from("<I", body)[0]], body[4:])
        elif tag == CLOCK_OFFSET:
            streams[struct.unpack_from("<I", body)[0]].offsets += 1
        closed = tag == STREAM_FOOTER
        place, chunks = end, chunks + 1
    return TapeRead(streams, chunks, len(raw) - place, closed, len(raw))


def _length(raw: bytes, place: int) -> tuple[int, int] | None:
    """Read a length and where it ends; None where the file ends first."""
    if place >= len(raw):
        return None
    size = raw[place]
    assert size in (1, 4, 8), f"a length of {size} bytes at byte {place}"
    if place + 1 + size > len(raw):
        return None
    return int.from_bytes(raw[place + 1 : place + 1 + size], "little"), place + 1 + size


def _frame(raw: bytes, place: int) -> tuple[int, int] | None:
    found = _length(raw, place)
    if found is None or found[1] + found[0] > len(raw):
        return None
    return found[1], found[1] + found[0]


def _header(body: bytes) -> tuple[int, OnTape]:
    info = ET.fromstring(body[4:].decode())  # noqa: S314 - our own tapes
    labels = tuple(node.findtext("label") or "" for node in info.iter("channel"))
    return struct.unpack_from("<I", body)[0], OnTape(
        info.findtext("name") or "",
        int(info.findtext("channel_count") or 0),
        info.findtext("channel_format") or "",
        float(info.findtext("nominal_srate") or 0.0),
        labels,
    )


def _samples(stream: OnTape, body: bytes) -> None:
    found = _length(body, 0)
    assert found is not None
    count, place = found
    for _ in range(count):
        stamped = body[place]
        place += 1
        if stamped:
            assert stamped == 8
            stream.stamps.append(struct.unpack_from("<d", body, place)[0])
            place += 8
        else:
            stream.stamps.append(stream.stamps[-1] + 1.0 / stream.rate)
        if stream.format == "string":
            for _ in range(stream.columns):
                text = _length(body, place)
                assert text is not None
                stream.texts.append(body[text[1] : text[1] + text[0]].decode())
                place = text[1] + text[0]
        else:
            kind = f"<{stream.columns}{UNPACK[stream.format]}"
            stream.rows.append(struct.unpack_from(kind, body, place))
            place += stream.columns * SIZES[stream.format]
    assert place == len(body), "a chunk of samples is longer than its samples"
