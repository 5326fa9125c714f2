"""The journal's files: their rights, who holds them, what becomes of a damaged one."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from hypnocast.errors import JournalError
from hypnocast.ports.durable_files import make_folder, sync_folder
from hypnocast.ports.journal.log import log_of, write_anew
from hypnocast.ports.journal.store import Store

RESERVE_BYTES: Final = 8 * 1024 * 1024
"""Given up when the disk is full: room for about a night of 12 beds, and time to call somebody."""

_FAMILY = ("", "-wal", "-shm")
_OWN_FILE = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
"""A link that somebody planted in a file's place is not followed."""


class JournalFiles:
    """Everything beside the tables: the folder, the lock, the reserve, the damaged."""

    def __init__(self, path: Path) -> None:
        """Make the folder where it is missing, check its rights, and lock the journal."""
        self.path = path
        self._reserve = path.with_name(path.name + ".reserve")
        try:
            make_folder(path.parent)
            self._refuse_if_others_write(path.parent)
            lock = path.with_name(path.name + ".lock")
            self._lock = os.open(lock, _OWN_FILE, 0o600)
        except OSError as error:
            raise JournalError(
                f"cannot be written: {error.strerror}",
                where=str(path),
                remedy="Name a directory on a disk that this user may write.",
            ) from error
        try:
            self._acquire_lock()
            self._orphan = self._set_orphan_aside()
            self.descriptor = self._open_file()
            self._refuse_if_others_write(path)
        except OSError as error:
            os.close(self._lock)
            raise JournalError(
                f"cannot be written: {error.strerror}",
                where=str(path),
                remedy="Check the file's owner and rights.",
            ) from error
        except JournalError:
            os.close(self._lock)
            raise

    def _refuse_if_others_write(self, path: Path) -> None:
        mode = path.stat().st_mode
        # A sticky bit keeps others from removing files, not from planting links.
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise JournalError(
                f"others may write it (mode {stat.S_IMODE(mode):o})",
                where=str(path),
                remedy=f"chmod go-w {path}",
            )

    def _acquire_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
            raise JournalError(
                f"another hypnocast (process {holder}) is writing it",
                where=str(self.path),
                remedy="Stop that one first, or give this one its own state directory.",
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, str(os.getpid()).encode(), 0)

    def _open_file(self) -> int:
        """Open the journal's file. It stays open: closing it would undo SQLite's locks on it."""
        return os.open(self.path, _OWN_FILE, 0o600)

    def release(self) -> None:
        """Let another process have the journal."""
        os.close(self.descriptor)
        os.close(self._lock)

    def open_store(self) -> tuple[Store, Path | None]:
        """Open the tables; set a damaged file aside, begin a new one, and return where it went."""
        try:
            return self._open_checked(), self._orphan
        except JournalError:
            raise
        except (sqlite3.OperationalError, OSError) as error:
            raise JournalError(
                f"cannot be opened: {error}",
                where=str(self.path),
                remedy="Check the disk: is it full, read-only, or failing?",
            ) from error
        except sqlite3.DatabaseError:
            aside = self.set_aside()
            return self._open_checked(), aside

    def _open_checked(self) -> Store:
        store = Store(self.path)
        try:
            store.check()
            # Of a process that ended nobody knows whether its last sync failed.
            with store.transaction():
                write_anew(self.path, self.descriptor, None)
        except BaseException:
            store.close()
            raise
        return store

    def set_aside(self) -> Path:
        """Move the journal with its companions out of the way; nothing is deleted."""
        aside = self._move_aside()
        old, self.descriptor = self.descriptor, self._open_file()
        os.close(old)
        sync_folder(self.path.parent)
        return aside

    def _set_orphan_aside(self) -> Path | None:
        """Move a log out of the way whose file is missing or empty: SQLite would delete it.

        A cut between the renames of :meth:`set_aside` leaves it so.
        """
        log = log_of(self.path)
        empty = not self.path.exists() or not self.path.stat().st_size
        if not empty or not log.exists() or not log.stat().st_size:
            return None
        aside = self._move_aside()
        sync_folder(self.path.parent)
        return log_of(aside)

    def _move_aside(self) -> Path:
        aside = self._free_name()
        # The file first: a log without its file is found at the next start, while a file without
        # its log would pass for a whole journal.
        for suffix in _FAMILY:
            companion = self._companion(suffix)
            if companion.exists():
                companion.rename(aside.with_name(aside.name + suffix))
        return aside

    def _companion(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)

    def _free_name(self) -> Path:
        moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        name = f"{self.path.name}.damaged-{moment}"
        aside, n = self.path.with_name(name), 1
        while any(aside.with_name(aside.name + suffix).exists() for suffix in _FAMILY):
            n += 1
            aside = self.path.with_name(f"{name}-{n}")
        return aside

    def lay_by_reserve(self) -> bool:
        """Keep some room on the disk for when it is full; return whether there is any.

        Asked on the writing thread, which must outlive a disk that refuses everything.
        """
        try:
            if self._reserve.exists() and self._reserve.stat().st_size >= RESERVE_BYTES:
                return True
            descriptor = os.open(self._reserve, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return False
        try:
            os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
        except OSError:
            self.give_up_reserve()
            return False
        finally:
            os.close(descriptor)
        return True

    def give_up_reserve(self) -> bool:
        """Free the reserve for the journal; return whether there was any."""
        try:
            self._reserve.unlink()
        except OSError:
            return False
        return True
