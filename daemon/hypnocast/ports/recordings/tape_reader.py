"""A tape, read: the arrivals of one bed in the order, the chunks and at the times they came."""

from __future__ import annotations

import gzip
import re
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, BinaryIO, cast
from xml.etree import ElementTree as ET

import msgspec

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
from hypnocast.ports.recordings import xdf_encode
from hypnocast.ports.recordings.limits import FREE_INFLATION_BYTES, MAX_INFLATION
from hypnocast.ports.recordings.tape import ARRIVALS_NAME, NOTES_NAME, Kind
from hypnocast.ports.recordings.xdf_decode import (
    Damage,
    Event,
    FileHeader,
    Footer,
    Header,
    Offset,
    Samples,
    Texts,
    read_events,
)


@dataclass(frozen=True, slots=True)
class TapeDecision:
    """A decision of the daemon that made the tape, verbatim."""

    text: str
    at: float


class _Opened(msgspec.Struct, tag_field="tape", tag="opened"):
    number: int
    key: str
    rate: float
    channels: list[tuple[str, str | None, str | None, float | None]]
    open: bool = True


class _OpenedAgain(_Opened, tag_field="tape", tag="opened_again"):
    pass


class _Lost(msgspec.Struct, tag_field="tape", tag="lost"):
    stream: str
    why: str = ""


_BLOCK = 1024 * 1024
_records = msgspec.json.Decoder(_Opened | _OpenedAgain | _Lost)


def open_xdf(path: Path) -> BinaryIO:
    """Open an XDF file, also a compressed one (``.xdfz``, ``.xdf.gz``)."""
    try:
        if path.suffix == ".xdfz" or path.name.endswith(".xdf.gz"):
            return _inflated(path)
        return path.open("rb")
    except OSError as error:
        raise TapeError(f"cannot be opened ({error.strerror})", where=str(path)) from error


def _inflated(path: Path) -> BinaryIO:
    """Unpack a compressed recording into a file without a name.

    Reading it needs to go back, and going back in a compressed file is unpacking it anew.
    """
    unpacked = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    try:
        _unpack(path, unpacked)
    except (zlib.error, OSError) as error:
        unpacked.close()
        raise TapeError(f"cannot be unpacked ({error})", where=str(path)) from error
    except TapeError:
        unpacked.close()
        raise
    unpacked.seek(0)
    return cast("BinaryIO", unpacked)


def _unpack(path: Path, unpacked: IO[bytes]) -> None:
    most = FREE_INFLATION_BYTES + MAX_INFLATION * path.stat().st_size
    # What a crash cut off ends there, as in a file that was never compressed.
    with gzip.open(path, "rb") as packed, suppress(EOFError):
        while block := packed.read1(_BLOCK):
            if unpacked.tell() + len(block) > most:
                what = f"becomes more than {MAX_INFLATION} times its size"
                raise TapeError(what, where=str(path))
            unpacked.write(block)


def tape_parts(path: Path) -> tuple[Path, ...]:
    """Return a tape's part and all parts that follow it without a hole."""
    numbered = re.fullmatch(r"(.*_)(\d{3,})\.xdf", path.name)
    if not numbered:
        return (path,)
    parts, number = [path], int(numbered[2])
    while (following := path.with_name(f"{numbered[1]}{number + 1:03d}.xdf")).is_file():
        parts.append(following)
        number += 1
    return tuple(parts)


def is_tape(path: Path) -> bool:
    """Return whether an XDF file is a tape of Hypnocast's rather than another recorder's."""
    with open_xdf(path) as file:
        for event in read_events(file, name=str(path)):
            if isinstance(event, Header):
                return event.described.header.name == NOTES_NAME
            if not isinstance(event, FileHeader):
                return False
    return False


def tape_facts(path: Path) -> dict[str, str]:
    """Return a tape's own facts: bed, site, when and where it was made."""
    with open_xdf(path) as file:
        for event in read_events(file, name=str(path)):
            return file_facts(event.xml) if isinstance(event, FileHeader) else {}
    return {}


def file_facts(xml: str) -> dict[str, str]:
    """Return the entries of an XDF file header; what cannot be read is left out."""
    if "<!" in xml:
        return {}
    try:
        root = ET.fromstring(xml)  # noqa: S314 - no declarations (above), bounded by the decoder
    except ET.ParseError:
        return {}
    return {node.tag: (node.text or "").strip() for node in root if not len(node)}


def read_tape(
    path: Path, *, on_damage: Callable[[Damage], None] | None = None, signals: bool = True
) -> Iterator[Arrival | TapeDecision]:
    """Read a tape and the parts that follow it; without ``signals`` chunks come empty, and soon.

    Damage is stepped over and reported to ``on_damage``; the tail that a crash cut off is damage
    too, and so is a later part of which nothing reached the disk. Raise :class:`TapeError` where
    there is no tape at all.
    """
    for index, part in enumerate(tape_parts(path)):
        with open_xdf(part) as file:
            if index and not _begins_as_xdf(file):
                if on_damage is not None:
                    on_damage(Damage(0, f"{part.name} is no XDF file: it never reached the disk"))
                continue
            player = _Player(continued=index > 0)
            for event in guarded_events(file, name=str(part), signals=signals):
                if isinstance(event, Damage):
                    player.forget()
                    if on_damage is not None:
                        on_damage(event)
                elif player.is_whole(event):
                    yield from player.play(event)
                elif on_damage is not None:
                    on_damage(Damage(file.tell(), "a block is not as it was written (checksum)"))


def _begins_as_xdf(file: BinaryIO) -> bool:
    begins = file.read(len(xdf_encode.MAGIC)) == xdf_encode.MAGIC
    file.seek(0)
    return begins


def guarded_events(
    file: BinaryIO, *, name: str, signals: bool = True, any_time: bool = True
) -> Iterator[Event]:
    """Read events; what the disk or the compression refuses is a :class:`TapeError`."""
    try:
        yield from read_events(file, name=name, signals=signals, any_time=any_time)
    except (OSError, EOFError) as error:
        raise TapeError(f"cannot be read ({error})", where=name) from error


class _Player:
    """Turns events back into arrivals."""

    def __init__(self, *, continued: bool) -> None:
        self._continued = continued
        self._headers: dict[int, StreamHeader] = {}
        self._keys: dict[int, str] = {}
        self._notes: int | None = None
        self._arrivals: int | None = None
        self._checked = False
        self._next: tuple[int, int, float] | None = None
        self._checksum: int | None = None
        """The checksum of the announced block; None on tapes of versions that wrote none."""

    def is_whole(self, event: Event) -> bool:
        """Return whether a block is as it was announced; a hole in a file may read as zeros."""
        expected, self._checksum = self._checksum, None
        if isinstance(event, FileHeader | Header | Footer | Damage):
            return True
        if not self._checked or event.stream == self._arrivals:
            return True
        if expected is None or self._next is None or self._next[0] != event.stream:
            return False
        number, kind, at = self._next
        return xdf_encode.checksum(number, kind, at, event.content) == expected

    def play(self, event: Event) -> Iterable[Arrival | TapeDecision]:
        """Return what an event was when it came."""
        match event:
            case Samples(number, values, stamps):
                if number != self._arrivals:
                    return self._arrival(event)
                if len(stamps):
                    stream, kind, *checksum = values[-1].tolist()
                    self._next = (stream, kind, float(stamps[-1]))
                    self._checksum = checksum[0] if self._checked else None
            case Texts(number, rows) if number == self._notes:
                return (note for at, row in rows for note in self._note(row[0], at))
            case Texts() | Offset():
                return self._arrival(event)
            case Header(number, described):
                if described.header.name == NOTES_NAME:
                    self._notes = number
                elif described.header.name == ARRIVALS_NAME:
                    self._arrivals = number
                    self._checked = len(described.header.channels) > 2
                else:
                    self._headers[number] = described.header
            case FileHeader() | Footer() | Damage():
                pass
        return ()

    def forget(self) -> None:
        """Note damage: what was announced before it does not belong to what follows."""
        self._next = None

    def _note(self, text: str, at: float) -> Iterator[Arrival | TapeDecision]:
        if not text.startswith('{"tape"'):
            yield TapeDecision(text, at)
            return
        try:
            record = _records.decode(text)
        except msgspec.DecodeError:
            return
        if isinstance(record, _Lost):
            yield StreamLost(stream=record.stream, at=at, why=record.why)
            return
        header = self._headers.get(record.number)
        if header is None:
            return
        header = replace(
            header,
            key=record.key,
            rate=record.rate,
            channels=tuple(ChannelInfo(*channel) for channel in record.channels),
        )
        self._headers[record.number] = header
        self._keys[record.number] = record.key
        again = isinstance(record, _OpenedAgain)
        if not again or (not self._continued and record.open):
            yield StreamOpened(header=header, at=at)

    def _arrival(self, event: Samples | Texts | Offset) -> Iterable[Arrival]:
        announced, self._next = self._next, None
        key = self._keys.get(event.stream)
        if key is None:
            return ()
        if announced is not None and announced[0] == event.stream:
            _, kind, at = announced
        else:
            kind, at = -1, None
        if isinstance(event, Offset):
            if kind == Kind.CLOCK_AGAIN and self._continued:
                return ()
            when = event.time + event.offset if at is None else at
            return (ClockReading(stream=key, at=when, offset=event.offset),)
        if isinstance(event, Samples) and kind != Kind.MARK:
            return (Chunk(key, event.values, event.stamps, arrived=at or 0.0),)
        return marks_of(event, key, arrived=at)


def marks_of(event: Samples | Texts, key: str, *, arrived: float | None) -> Iterator[Mark]:
    """Return the samples of a marker stream as marks."""
    rows: Any
    if isinstance(event, Texts):
        rows = event.rows
    else:
        rows = zip(event.stamps.tolist(), event.values.tolist(), strict=True)
    for stamp, values in rows:
        text = "\t".join(str(value) for value in values)
        yield Mark(
            stream=key, stamp=stamp, text=text, arrived=stamp if arrived is None else arrived
        )
