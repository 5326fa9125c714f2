"""Scorers' corrections, written beside a daemon that may be running.

The daemon holds the journal's lock all day, and corrections come in the morning. They touch a
table of their own, in one short transaction; SQLite lets two processes write in turn.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from hypnocast.errors import JournalError
from hypnocast.ports.journal.records import Batch, Correction
from hypnocast.ports.journal.store import Store


def write_corrections(journal: Path, corrections: Sequence[Correction]) -> None:
    """Add corrections to a journal that exists; all of them or none."""
    if not journal.is_file():
        raise JournalError(
            "there is no journal here",
            where=str(journal),
            remedy="Name the state directory of the daemon.",
        )
    try:
        store = Store(journal)
        try:
            with store.transaction():
                store.apply(Batch(corrections=tuple(corrections)))
        finally:
            store.close()
    except sqlite3.Error as error:
        raise JournalError(
            f"takes no corrections: {error}",
            where=str(journal),
            remedy="Try again; if it goes on, check the file's rights and the disk.",
        ) from error
