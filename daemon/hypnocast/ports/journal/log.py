"""The write-ahead log, written anew: what a failed sync may have cost is never trusted.

After a sync that failed, Linux treats the pages it could not write as written: they are in memory,
not on the disk, and the next sync reports success. What is committed then lies behind a hole,
and after a power cut SQLite stops reading at the hole. So before anything is called durable again,
the log is written once more, byte for byte, and synced; and the pages that were folded out of it
into the file are written once more too, since the sync of the file may be the one that failed.

The format is https://www.sqlite.org/fileformat2.html#the_write_ahead_log.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hypnocast.ports.durable_files import sync_folder, write_all

_FIRST_BYTES: Final = 65536
"""The largest page of SQLite."""

_HEADER: Final = 32
_FRAME: Final = 24
_MAGIC: Final = {0x377F0682: "<", 0x377F0683: ">"}
"""First word of a log → byte order of its checksums."""


@dataclass(frozen=True, slots=True)
class Folded:
    """How far SQLite had folded the log into the file when it was last asked."""

    salts: bytes
    """What distinguishes one run of the log from the next, at the start of the same file."""
    frames: int
    """Pages in the log then."""
    folded: int
    """How many of them, from the first on, had been written into the file."""


def log_of(journal: Path) -> Path:
    """Return the write-ahead log of a journal."""
    return journal.with_name(journal.name + "-wal")


def log_bytes(journal: Path) -> int:
    """Return how long the log is; 0 where there is none, or the disk does not answer."""
    try:
        return log_of(journal).stat().st_size
    except OSError:
        return 0


def folded_now(journal: Path, answer: tuple[int, int, int]) -> Folded | None:
    """Keep what ``PRAGMA wal_checkpoint`` answered, with the run of the log it answered for."""
    _, frames, folded = answer
    try:
        with log_of(journal).open("rb") as file:
            return Folded(_salts(file.read(_HEADER)), frames, folded)
    except OSError:
        return None


def write_anew(journal: Path, descriptor: int, known: Folded | None) -> None:
    """Write the log, and what was folded out of it, once more and sync both.

    The caller holds the write lock. ``descriptor`` is the journal's file, kept open by the caller:
    closing it would release the locks that SQLite holds on it. Raise ``OSError`` where the disk
    refuses, ``sqlite3.DatabaseError`` where the log can no longer be read as it was written.
    """
    log = log_of(journal)
    try:
        opened = os.open(log, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raw = b""
    else:
        try:
            raw = log.read_bytes()
            write_all(opened, raw, 0)
            os.fsync(opened)
        finally:
            os.close(opened)
    # A new file's first page is written before there is a log.
    write_all(descriptor, os.pread(descriptor, _FIRST_BYTES, 0), 0)
    if known is not None and raw and _salts(raw) == known.salts:
        size, pages = _pages(raw, known)
        for number, page in pages.items():
            write_all(descriptor, page, (number - 1) * size)
    os.fsync(descriptor)
    sync_folder(journal.parent)


def _salts(raw: bytes) -> bytes:
    return raw[16:24]


def _pages(raw: bytes, known: Folded) -> tuple[int, dict[int, memoryview]]:
    """Return the size of a page, and the folded pages as the log has them last."""
    magic, _, size, _ = struct.unpack_from(">4I", raw)
    order = _MAGIC.get(magic)
    if order is None:
        raise sqlite3.DatabaseError("the write-ahead log has no head")
    view = memoryview(raw)
    sums = _sums(order, view[: _HEADER - 8], (0, 0))
    pages: dict[int, memoryview] = {}
    for index in range(known.frames):
        at = _HEADER + index * (_FRAME + size)
        frame = view[at : at + _FRAME + size]
        if len(frame) < _FRAME + size or frame[8:16] != _salts(raw):
            raise sqlite3.DatabaseError(f"the write-ahead log has a hole at page {index + 1}")
        sums = _sums(order, frame[_FRAME:], _sums(order, frame[:8], sums))
        if struct.unpack_from(">2I", frame, 16) != sums:
            raise sqlite3.DatabaseError(f"the write-ahead log is not as written, page {index + 1}")
        if index < known.folded:
            pages[int.from_bytes(frame[:4], "big")] = frame[_FRAME:]
    return size, pages


def _sums(order: str, data: memoryview, sums: tuple[int, int]) -> tuple[int, int]:
    """Go on with SQLite's checksum over some more bytes."""
    one, two = sums
    words = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    for first, second in zip(words, words, strict=True):
        one = (one + first + two) & 0xFFFFFFFF
        two = (two + second + one) & 0xFFFFFFFF
    return one, two
