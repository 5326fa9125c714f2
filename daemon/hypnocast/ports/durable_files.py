"""Files and folders whose names survive a power cut, and whether the disk is slow or full.

A file that was synced can still be gone after a power cut: its name lies in its folder, and the
folder has to be synced too.
"""

from __future__ import annotations

import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

SLOW_SYNC_S: Final = 1.0
"""A disk that is well needs some hundredths of a second."""

FULL_BYTES: Final = 16_000_000
"""With so little room left, what is to be written next may be refused."""

SHOWN_S: Final = 15.0
"""How long a slow sync is reported."""


class SyncPace:
    """Whether the disk is slow over syncs; one thread syncs, any may ask."""

    def __init__(self, what: str) -> None:
        """Keep what is synced."""
        self._what = what
        self._words = ""
        self._began: float | None = None
        self._shown_until = float("-inf")

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Time what is done within: a sync, or what ends in one."""
        self._began = began = time.monotonic()
        try:
            yield
        finally:
            now = time.monotonic()
            if now - began >= SLOW_SYNC_S:
                self._words = f"{self._what} took {now - began:.1f} s to sync: is the disk slow?"
                self._shown_until = now + SHOWN_S
            self._began = None

    @property
    def problem(self) -> str:
        """A slow sync that goes on, or was a moment ago, in words; empty where there is none."""
        now, began = time.monotonic(), self._began
        if began is not None and now - began >= SLOW_SYNC_S:
            return f"{self._what} takes more than {SLOW_SYNC_S:g} s to sync: is the disk slow?"
        return self._words if now < self._shown_until else ""


def room_problem(folder: Path) -> str:
    """Return in words that a folder's disk is full, or will be soon; empty where it is not.

    Nothing may have been refused yet: a full disk takes what needs no more room than before.
    """
    try:
        disk = os.statvfs(folder)
    except OSError:
        return ""  # what is written there will be refused, and says why
    if not disk.f_blocks or disk.f_bavail * disk.f_frsize >= FULL_BYTES:
        return ""
    return f"the disk is full: less than {FULL_BYTES / 1e6:.0f} MB are left at {folder}"


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut: made, renamed and removed ones."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it that are missing, so that it is there after a power cut.

    The name of one that is there already is synced too: whoever made it may have been refused.
    """
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    # Somebody else's folder above ours may be neither readable nor writable.
    with suppress(PermissionError):
        sync_folder(folder.parent)
    for one in reversed(missing):
        one.mkdir(mode=0o700, exist_ok=True)
        sync_folder(one.parent)


def private_file(path: Path, content: bytes) -> None:
    """Write a file that its user alone reads; a link in its place is not followed."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)
        file.write(content)


def write_all(descriptor: int, content: bytes | memoryview, at: int) -> None:
    """Write all of it at a place in a file: one call of the system may write only a part."""
    rest = memoryview(content)
    while rest:
        count = os.pwrite(descriptor, rest, at)
        rest, at = rest[count:], at + count


def replace_file(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Put a file in another's place, whole or not at all; on return it survives a power cut.

    Owner and rights stay as they were; a new file is its owner's alone, or as ``mode`` and the
    process's mask allow. An error names the file, and not its draft.
    """
    before = path.stat() if path.exists() else None
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            if before is not None:
                os.fchown(handle, before.st_uid, before.st_gid)
                os.fchmod(handle, stat.S_IMODE(before.st_mode))
            write_all(handle, content, 0)
            os.fsync(handle)
        finally:
            os.close(handle)
        draft.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise
    finally:
        with suppress(OSError):
            draft.unlink()
