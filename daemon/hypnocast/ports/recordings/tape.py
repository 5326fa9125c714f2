"""The tape of one bed: everything that came in, as it came, appended to an XDF file.

Beside the bed's streams a tape holds two of Hypnocast's own, so that a replay can hand over the
same arrivals in the same order at the same times:

- ``Hypnocast`` (text): what the daemon decided about time, one JSON line each, and the events
  XDF has no place for: a stream opened, a stream lost;
- ``HypnocastArrivals`` (int32): one sample before each arrival and each line of text: the
  stream's number, the kind of arrival and a CRC-32 of the block that follows, stamped with the
  local LSL clock. A hole that a power cut left is so never read as signal.

Any other XDF reader sees both as ordinary streams. A tape that grows too long goes on in a next
part, which begins with all headers and can be read alone.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import BinaryIO, Final
from xml.sax.saxutils import escape

import numpy as np

from hypnocast.core.types import (
    Arrival,
    ChannelInfo,
    Chunk,
    ClockReading,
    Mark,
    StreamHeader,
    StreamLost,
    StreamOpened,
)
from hypnocast.errors import TapeError
from hypnocast.ports.recordings import xdf_encode as xdf
from hypnocast.ports.stream_xml import parse_header, write_header

NOTES: Final = 1
ARRIVALS: Final = 2
_FIRST_STREAM: Final = 3
BOUNDARY_EVERY_S: Final = 10.0
"""Damage to a file costs at most what lies between two boundaries."""

MOST_OFFSETS: Final = 20_000
"""The footer of a part repeats the newest: a day of readings, where a part lasts for weeks."""

NOTES_NAME: Final = "Hypnocast"
ARRIVALS_NAME: Final = "HypnocastArrivals"


class Kind(IntEnum):
    """What the arrival that follows is; *again* is repeated from the part before."""

    CHUNK = 0
    CLOCK = 1
    MARK = 2
    CLOCK_AGAIN = 3
    NOTE = 4


@dataclass(slots=True)
class _OnTape:
    """A stream in the part that is being written."""

    number: int
    header: StreamHeader
    interval: float
    format: str
    columns: int
    open: bool = True
    last_reading: ClockReading | None = None
    count: int = 0
    first_stamp: float | None = None
    last_stamp: float | None = None
    offsets: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=MOST_OFFSETS))
    """For the footer. All of them lie in the part as they came."""


def sync_and_close(file: BinaryIO) -> None:
    """Make a file survive a power cut, and let go of it either way."""
    try:
        os.fsync(file.fileno())
    finally:
        file.close()


class Tape:
    """Appends one bed's arrivals to ``<stem>_001.xdf``, ``<stem>_002.xdf`` … in a folder.

    Not thread-safe:
    :class:`~hypnocast.ports.recordings.tape_recorder.TapeRecorder` serves several threads.
    """

    def __init__(
        self,
        folder: Path,
        stem: str,
        *,
        facts: Mapping[str, str] | None = None,
        max_bytes: int = 2 * 1024**3,
        keep_safe: Callable[[BinaryIO], None] = sync_and_close,
    ) -> None:
        """Begin the first part. ``facts`` go into the file header: bed, site, times, boot id.

        ``keep_safe`` gets each part that is over, written to its end, to sync and to close it.
        """
        self._folder = folder
        self._stem = stem
        self._facts = dict(facts or {})
        self._max_bytes = max_bytes
        self._keep_safe = keep_safe
        self._part = 0
        self._file: BinaryIO | None = None
        self._streams: dict[str, _OnTape] = {}
        self._ended: list[_OnTape] = []
        self._next_number = _FIRST_STREAM
        self._next_boundary = 0.0
        self.size = 0
        """Bytes of the part being written."""
        self.total = 0
        """Bytes of all parts."""
        self._begin_part()

    @property
    def path(self) -> Path:
        """The part that is being written."""
        return self._folder / f"{self._stem}_{self._part:03d}.xdf"

    def write(self, arrival: Arrival) -> None:
        """Append what arrived. Raise :class:`TapeError` if the disk refuses.

        It is handed to the system at once, so that a killed daemon costs what it was writing.
        """
        match arrival:
            case Chunk():
                self._write_chunk(arrival)
            case ClockReading():
                self._write_reading(arrival, Kind.CLOCK)
            case Mark():
                self._write_mark(arrival)
            case StreamOpened():
                self._write_opened(arrival)
            case StreamLost():
                self._write_lost(arrival)
        self._hand_over()
        if self.size >= self._max_bytes:
            self._next_part()

    def note(self, text: str, at: float) -> None:
        """Append a decision of the daemon's, verbatim."""
        self._put_note(text, at)
        self._hand_over()

    def fileno(self) -> int | None:
        """Return the open file's number, for a sync elsewhere: all is handed to the system."""
        return None if self._file is None else self._file.fileno()

    def close(self) -> None:
        """Write the footers and hand the part over. May be called twice."""
        if self._file is None:
            return
        try:
            self._write_footers()
            self._hand_over()
            file, self._file = self._file, None
            self._keep_safe(file)
        except OSError as error:
            raise self._refused(error) from error
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Let go of a file the disk has refused, without another word to it."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                file.close()

    # -- arrivals --------------------------------------------------------------------------------

    def _write_chunk(self, chunk: Chunk) -> None:
        stream = self._stream(chunk.stream)
        if not len(chunk.stamps):
            return
        values = np.asarray(chunk.samples)
        wanted = xdf.DTYPES.get(stream.format)
        if wanted is None or values.ndim != 2 or values.shape[1] != stream.columns:
            raise TapeError(
                f"samples of shape {values.shape} do not fit stream {chunk.stream!r}",
                where=str(self.path),
            )
        stamps = np.asarray(chunk.stamps, dtype=np.float64)
        raw = xdf.samples(
            stream.number, values.astype(wanted, copy=False), stamps, interval=stream.interval
        )
        self._put_arrival(stream, Kind.CHUNK, chunk.arrived, raw)
        _count(stream, float(stamps[0]), float(stamps[-1]), len(stamps))

    def _write_reading(self, reading: ClockReading, kind: Kind) -> None:
        stream = self._stream(reading.stream)
        raw = xdf.clock_offset(stream.number, at=reading.at, offset=reading.offset)
        self._put_arrival(stream, kind, reading.at, raw)
        stream.last_reading = reading
        stream.offsets.append((reading.at - reading.offset, reading.offset))

    def _write_mark(self, mark: Mark) -> None:
        stream = self._stream(mark.stream)
        values = (mark.text.split("\t", stream.columns - 1) + [""] * stream.columns)[
            : stream.columns
        ]
        if stream.format == "string":
            raw = xdf.texts(stream.number, [(mark.stamp, values)])
        else:
            row = np.array([values]).astype(np.float64).astype(xdf.DTYPES[stream.format])
            raw = xdf.samples(stream.number, row, np.array([mark.stamp]), interval=0.0)
        self._put_arrival(stream, Kind.MARK, mark.arrived, raw)
        _count(stream, mark.stamp, mark.stamp, 1)

    def _write_opened(self, opened: StreamOpened) -> None:
        header = opened.header
        known = self._streams.get(header.key)
        if known is None or known.header != header:
            if known is not None:
                self._ended.append(known)
            known = self._new_stream(header)
        known.open = True
        self._note_opened(known, opened.at, again=False)
        self._maybe_boundary(opened.at)

    def _write_lost(self, lost: StreamLost) -> None:
        if lost.stream in self._streams:
            self._streams[lost.stream].open = False
        self._write_record(lost.at, {"tape": "lost", "stream": lost.stream, "why": lost.why})

    def _stream(self, key: str) -> _OnTape:
        try:
            return self._streams[key]
        except KeyError:
            raise TapeError(
                f"stream {key!r} was never opened on this tape", where=str(self.path)
            ) from None

    # -- own streams -----------------------------------------------------------------------------

    def _put_arrival(self, stream: _OnTape, kind: Kind, at: float, raw: bytes) -> None:
        self._maybe_boundary(at)
        self._put_block(stream.number, kind, at, raw)

    def _put_block(self, number: int, kind: Kind, at: float, raw: bytes) -> None:
        """Write a chunk, and before it whose it is and its checksum."""
        crc = xdf.checksum(number, kind, at, xdf.content_of(raw))
        row = np.array([[number, kind, crc]], dtype=np.int32)
        self._put(xdf.samples(ARRIVALS, row, np.array([at]), interval=0.0))
        self._put(raw)

    def _write_record(self, at: float, record: Mapping[str, object]) -> None:
        self._put_note(json.dumps(record, ensure_ascii=False), at)

    def _put_note(self, text: str, at: float) -> None:
        self._put_block(NOTES, Kind.NOTE, at, xdf.texts(NOTES, [(at, [text])]))

    def _note_opened(self, stream: _OnTape, at: float, *, again: bool) -> None:
        header = stream.header
        self._write_record(
            at,
            {
                "tape": "opened_again" if again else "opened",
                "number": stream.number,
                "key": header.key,
                "rate": header.rate,
                "channels": [[c.label, c.unit, c.kind, c.scale] for c in header.channels],
                "open": stream.open,
            },
        )

    def _maybe_boundary(self, at: float) -> None:
        if at >= self._next_boundary:
            self._next_boundary = at + BOUNDARY_EVERY_S
            self._put(xdf.boundary())

    # -- parts -----------------------------------------------------------------------------------

    def _new_stream(self, header: StreamHeader) -> _OnTape:
        xml = write_header(header)
        written = parse_header(xml).header
        stream = _OnTape(
            number=self._next_number,
            header=header,
            interval=1.0 / written.rate if written.rate > 0 else 0.0,
            format=written.format,
            columns=len(written.channels),
        )
        self._next_number += 1
        self._streams[header.key] = stream
        self._put(xdf.chunk(xdf.STREAM_HEADER, xml.encode(), stream.number))
        return stream

    def _begin_part(self) -> None:
        self._part += 1
        self.size = 0
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            opened = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            self._file = os.fdopen(opened, "wb", buffering=256 * 1024)
        except OSError as error:
            raise self._refused(error) from error
        facts = {**self._facts, "part": str(self._part)}
        inner = "".join(f"<{tag}>{escape(text)}</{tag}>" for tag, text in facts.items())
        header = f'<?xml version="1.0"?><info><version>1.0</version>{inner}</info>'
        self._put(xdf.MAGIC + xdf.chunk(xdf.FILE_HEADER, header.encode()))
        for number, own in (
            (NOTES, _own_header(NOTES_NAME, ("text",), "string")),
            (ARRIVALS, _own_header(ARRIVALS_NAME, ("stream", "kind", "checksum"), "int32")),
        ):
            self._put(xdf.chunk(xdf.STREAM_HEADER, write_header(own).encode(), number))

    def _next_part(self) -> None:
        before = list(self._streams.values())
        self.close()
        self._streams, self._ended, self._next_number = {}, [], _FIRST_STREAM
        self._begin_part()
        for old in before:
            stream = self._new_stream(old.header)
            stream.open = old.open
            self._note_opened(stream, old.last_reading.at if old.last_reading else 0.0, again=True)
            if old.last_reading is not None:
                self._write_reading(old.last_reading, Kind.CLOCK_AGAIN)

    def _write_footers(self) -> None:
        for stream in (*self._ended, *self._streams.values()):
            offsets = "".join(
                f"<offset><time>{time!r}</time><value>{value!r}</value></offset>"
                for time, value in stream.offsets
            )
            first, last = stream.first_stamp or 0.0, stream.last_stamp or 0.0
            footer = (
                f'<?xml version="1.0"?><info><first_timestamp>{first!r}</first_timestamp>'
                f"<last_timestamp>{last!r}</last_timestamp>"
                f"<sample_count>{stream.count}</sample_count>"
                f"<clock_offsets>{offsets}</clock_offsets></info>"
            )
            self._put(xdf.chunk(xdf.STREAM_FOOTER, footer.encode(), stream.number))

    def _put(self, raw: bytes) -> None:
        if self._file is None:
            raise TapeError("the tape is closed", where=str(self.path))
        try:
            self._file.write(raw)
        except OSError as error:
            raise self._refused(error) from error
        self.size += len(raw)
        self.total += len(raw)

    def _hand_over(self) -> None:
        if self._file is not None:
            try:
                self._file.flush()
            except OSError as error:
                raise self._refused(error) from error

    def _refused(self, error: OSError) -> TapeError:
        return TapeError(
            f"cannot be written ({error.strerror or error})",
            where=str(self.path),
            remedy="Is the disk full, or not writable for this user?",
        )


def _count(stream: _OnTape, first: float, last: float, count: int) -> None:
    if stream.first_stamp is None:
        stream.first_stamp = first
    stream.last_stamp = last
    stream.count += count


def _own_header(name: str, labels: tuple[str, ...], stream_format: str) -> StreamHeader:
    return StreamHeader(
        key=name,
        name=name,
        type="Hypnocast",
        source_id=f"{name}-tape",
        uid=name,
        host="",
        rate=0.0,
        channels=tuple(ChannelInfo(label) for label in labels),
        format=stream_format,
    )
