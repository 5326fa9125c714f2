"""What a process did to its disk, as the shim wrote it down, and the shim's Python side."""

from __future__ import annotations

import ctypes
import enum
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support.needs import need_program

SOURCE = Path(__file__).with_name("disk_shim.c")
_HEAD = struct.Struct("<IIQQQI")


class CallKind(enum.IntEnum):
    """As the shim numbers them."""

    MADE = 1
    WRITE = 2
    CUT = 3
    SYNC = 4
    FOLDER_SYNC = 5
    RENAME = 6
    REMOVE = 7
    FOLDER = 8
    SEND = 9
    NOTE = 10


class Calls(enum.IntFlag):
    """System calls that can be made to fail."""

    OPEN = 1
    WRITE = 2
    SYNC = 4
    STAT = 8
    REMOVE = 16
    RENAME = 32
    CUT = 64
    ALL = 127


@dataclass(frozen=True, slots=True)
class Done:
    """One thing that was done."""

    kind: CallKind
    failed: bool
    file: int
    """Inode, or a socket's."""
    at: int
    time: float
    """Seconds on the monotonic clock."""
    data: bytes

    @property
    def text(self) -> str:
        return self.data.decode()


def compiled(folder: Path) -> Path:
    """Compile the shim; return what goes into ``LD_PRELOAD``."""
    library = folder / "disk_shim.so"
    compiler = need_program("gcc")
    command = [compiler, "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([*command, "-o", str(library), str(SOURCE), "-ldl", "-lpthread"], check=True)
    return library


def read_record(path: Path) -> list[Done]:
    """Read all that was written down."""
    return list(_records(path.read_bytes()))


def _records(raw: bytes) -> Iterator[Done]:
    at = 0
    while at + _HEAD.size <= len(raw):
        kind, failed, file, offset, time, length = _HEAD.unpack_from(raw, at)
        at += _HEAD.size
        yield Done(CallKind(kind), bool(failed), file, offset, time / 1e9, raw[at : at + length])
        at += length


class Shim:
    """Steers the shim of this process, which must have been started under it."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        for name in ("disk_seen", "disk_fired"):
            getattr(self._library, name).restype = ctypes.c_long

    def begin(self, folder: Path, record: Path | None) -> None:
        """Watch a folder; write down what is done to it, or only count."""
        self._library.disk_begin(bytes(folder), bytes(record) if record else b"")

    def end(self) -> None:
        """Look away."""
        self._library.disk_end()

    def note(self, text: str) -> None:
        """Put a note of the test among what is written down."""
        self._library.disk_note(text.encode())

    def fail(self, calls: Calls, first: int, *, error: int, count: int = 1, only: str = "") -> None:
        """Let some calls fail, counted from 1, of files whose name ends so."""
        self._library.disk_fault(
            int(calls), only.encode(), ctypes.c_long(first), ctypes.c_long(count), error
        )

    def lie(self) -> None:
        """Let every sync say that all is well, and do nothing."""
        self._library.disk_lie()

    @property
    def seen(self) -> int:
        """Calls of the chosen kinds so far."""
        return int(self._library.disk_seen())

    @property
    def fired(self) -> int:
        """How many of them were made to fail."""
        return int(self._library.disk_fired())
