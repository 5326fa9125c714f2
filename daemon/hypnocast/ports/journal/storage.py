"""Where batches go, whatever the disk does: into the tables, or into memory until it is back.

After any failure that may have been a failed sync, nothing is called durable before the
write-ahead log was written anew (:mod:`~hypnocast.ports.journal.log`).
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import structlog

from hypnocast.core.wire.payloads import StageEvent, event_id
from hypnocast.errors import JournalError
from hypnocast.ports.journal.files import JournalFiles
from hypnocast.ports.journal.held import HELD_BYTES, Held, Refused
from hypnocast.ports.journal.log import Folded, folded_now, log_bytes, write_anew
from hypnocast.ports.journal.records import Batch, Committed, SessionRecord, timed
from hypnocast.ports.journal.store import REFUSALS, Store

_log = structlog.get_logger(__name__)

_RETRY_S: Final = 1.0
"""How often a disk that refused is tried again."""

_LOG_BYTES: Final = 16 * 1024 * 1024
"""A write-ahead log of this size is folded in without waiting for a quiet moment."""

_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

Health = Literal["durable", "reserve", "degraded"]
"""``reserve``: durable, on the room laid by for a full disk. ``degraded``: in memory only."""

Outcome = Committed | BaseException


@dataclass(frozen=True, slots=True)
class Condition:
    """How the journal does, in one word and in a sentence."""

    health: Health
    why: str = ""
    set_aside: Path | None = None
    """Where a damaged journal was moved, if one was."""
    lost: str = ""
    """What was given up for good: the disk refused for too long, or the database refuses it.
    Stays until the end."""
    refused: int = 0
    """Batches that the database refused after they had been kept in memory."""


class JournalStorage:
    """The tables, and the memory before them. Used by one thread."""

    def __init__(self, files: JournalFiles, *, on_anew: Callable[[], None]) -> None:
        """Open the tables; ``on_anew`` is called when a new file has replaced the old one."""
        self._files = files
        self._on_anew = on_anew
        self.store, aside = files.open_store()
        try:
            self.generation = self.store.generation
            select = self.store.connection.execute
            self._heads: dict[str, int] = dict(select("SELECT bed, last_sequence FROM beds"))
            running = select("SELECT * FROM sessions WHERE ended IS NULL").fetchall()
        except BaseException:
            self.store.close()
            raise
        why = f"the journal was damaged; it now lies at {aside}" if aside else ""
        self.condition = Condition("durable", why, aside)
        self._open: dict[str, SessionRecord] = {row[0]: SessionRecord(*row) for row in running}
        self.held: Held | None = None
        self._tried = 0.0
        self._folded: Folded | None = None
        if not files.lay_by_reserve():
            self.condition = replace(self.condition, health="reserve", why="the disk is full")

    @property
    def where(self) -> str:
        """The journal's path, for people."""
        return str(self._files.path)

    # --- writing ------------------------------------------------------------------------------

    def write(
        self, batches: Sequence[Batch], delivered: Sequence[tuple[str, int]]
    ) -> list[Outcome]:
        """Write all in one transaction, or hold it; return what became of each batch."""
        batches = [timed(batch) for batch in batches]
        outcomes: list[Outcome] | None = None
        for _ in range(3):  # as it is; after one remedy; after the other
            if self.held is not None:
                break
            try:
                outcomes = self._write_group(batches, delivered)
            except (sqlite3.Error, OSError) as error:
                self._cope(error)
            else:
                break
        if outcomes is None:
            self._degrade("the disk takes nothing")
            outcomes = self._hold(batches, delivered)
        for batch, outcome in zip(batches, outcomes, strict=True):
            if isinstance(outcome, Committed):
                self._remember(batch, outcome)
        return outcomes

    def _write_group(
        self, batches: Sequence[Batch], delivered: Sequence[tuple[str, int]]
    ) -> list[Outcome]:
        outcomes: list[Outcome] = []
        # An acknowledgement that is forgotten costs a repeat with the same id, no fsync.
        with self.store.transaction(synced=bool(batches)):
            for batch in batches:
                try:
                    with self.store.savepoint():
                        outcomes.append(self.store.apply(batch))
                except REFUSALS as error:
                    outcomes.append(JournalError(f"refuses a batch: {error}", where=self.where))
            self.store.delivered(delivered)
        return outcomes

    def _remember(self, batch: Batch, outcome: Committed) -> None:
        for event in outcome.stored:
            self._heads[event.bed] = event.sequence
        for session in batch.sessions:
            if session.ended is None:
                self._open[session.id] = session
            else:
                self._open.pop(session.id, None)

    def work(self, work: Callable[[Store], int]) -> int:
        """Do something else to the tables, in a transaction of its own."""
        if self.held is not None:
            raise JournalError(
                f"is degraded: {self.condition.why}",
                where=self.where,
                remedy="Try again once the disk is back.",
            )
        try:
            with self.store.transaction():
                return work(self.store)
        except (sqlite3.Error, OSError) as error:
            self._cope(error)
            raise JournalError(str(error), where=self.where) from error

    # --- when the disk fails ------------------------------------------------------------------

    def _cope(self, error: sqlite3.Error | OSError) -> None:
        _log.warning("journal write failed", journal=self.where, error=str(error))
        if _is_damage(error):
            self._begin_anew(str(error))
        elif not (_is_full(error) and self._use_reserve()):
            self._degrade(str(error))

    def _use_reserve(self) -> bool:
        if not self._files.give_up_reserve():
            return False
        why = "the disk is full; its reserve is in use"
        self.condition = replace(self.condition, health="reserve", why=why)
        return True

    def _begin_anew(self, error: str) -> None:
        """Move the damaged journal aside and let the nights that run go on in a new one."""
        try:
            self.store.close()
            aside = self._files.set_aside()
            self.store, _ = self._files.open_store()
            with self.store.transaction():
                self.store.start_sequences(self._heads.items())
                self.store.apply(Batch(sessions=tuple(self._open.values())))
        except (sqlite3.Error, OSError, JournalError) as second:
            self._degrade(f"{error}; a new journal cannot be begun: {second}")
            return
        self._folded = None
        self.generation = self.store.generation
        why = f"the journal was damaged ({error}); it now lies at {aside}"
        health: Health = "durable" if self.held is None else "degraded"
        self.condition = replace(self.condition, health=health, why=why, set_aside=aside)
        _log.error("journal begun anew", journal=self.where, why=why)
        self._on_anew()

    def _degrade(self, why: str) -> None:
        if self.held is not None:
            return
        self._tried = time.monotonic()
        self.held = Held(dict(self._heads), limit=HELD_BYTES)
        self.condition = replace(self.condition, health="degraded", why=why)
        _log.error("journal degraded: events are held in memory", journal=self.where, why=why)

    def _hold(
        self, batches: Sequence[Batch], delivered: Sequence[tuple[str, int]]
    ) -> list[Outcome]:
        assert self.held is not None  # noqa: S101 - _degrade has just made it
        outcomes: list[Outcome] = []
        for batch in batches:
            try:
                outcomes.append(self.held.hold(batch, self._on_disk(batch)))
            except JournalError as error:
                outcomes.append(error)
            except REFUSALS as error:
                outcomes.append(JournalError(f"refuses a batch: {error}", where=self.where))
        self.held.delivered.update(delivered)
        self._note_lost(self.held, ())
        return outcomes

    def _note_lost(self, held: Held, refused: Sequence[Refused]) -> None:
        lost = [f"{session}: {words}" for session, words in held.given_up.items()]
        lost += [
            f"{session}: {words}" if session else words
            for one in refused
            for session, words in one.notes(held.delivered)
        ]
        if not lost:
            return
        if not self.condition.lost:
            _log.error("events are lost to the journal", journal=self.where, what=lost)
        self.condition = replace(
            self.condition, lost="; ".join(lost), refused=self.condition.refused + len(refused)
        )

    def _on_disk(self, batch: Batch) -> dict[str, StageEvent]:
        """Return a batch's events that are written already, and the terminal ones of its pages."""
        found: dict[str, StageEvent] = {}
        for draft in batch.events:
            event = draft.event
            for name in {event.id, event_id(event.session, event.epoch, 1)}:
                try:
                    known = self.store.event_by_id(name)
                except sqlite3.Error:
                    # A disk that cannot be read either: the database distinguishes them on return.
                    return found
                if known is not None:
                    found[name] = known
        return found

    def return_to_disk(self, *, at_once: bool = False) -> None:
        """Try the disk again, once a second: write the log anew, then all that was held."""
        held = self.held
        now = time.monotonic()
        if held is None or (not at_once and now - self._tried < _RETRY_S):
            return
        self._tried = now
        try:
            # A connection whose sync failed is not to be trusted with what comes next.
            old, self.store = self.store, Store(self._files.path)
            old.close()
            with self.store.transaction():
                write_anew(self._files.path, self._files.descriptor, self._folded)
                self._check_heads()
                refused = held.write_to(self.store)
        except (sqlite3.Error, OSError, JournalError) as error:
            _log.info("journal still degraded", journal=self.where, error=str(error))
            if _is_damage(error):
                self._begin_anew(str(error))
            return
        self.held = None
        self._note_lost(held, refused)
        whole = self._files.lay_by_reserve()
        health: Health = "durable" if whole else "reserve"
        self.condition = replace(
            self.condition, health=health, why="" if whole else "the disk is full"
        )
        _log.info("journal durable again", journal=self.where, batches=len(held.batches))

    def _check_heads(self) -> None:
        """Refuse tables that have forgotten events which were called durable."""
        started = self.held.started if self.held is not None else {}
        for bed, number in started.items():
            if self.store.last_sequence(bed) < number:
                raise sqlite3.DatabaseError(f"events of {bed} are gone from the disk")

    # --- the write-ahead log ------------------------------------------------------------------

    def fold_if_long(self) -> None:
        """Fold the log into the file without waiting for a quiet moment, if it has grown long."""
        if log_bytes(self._files.path) > _LOG_BYTES:
            self.fold()

    def fold(self) -> None:
        """Fold the log into the file. A sync that fails here is reported as any other is."""
        if self.held is not None:
            return
        try:
            answer = self.store.fold()
        except sqlite3.Error as error:
            if _is_full(error):
                # No sync has failed: what was committed lies whole in the log.
                _log.warning("the log cannot be folded: the disk is full", journal=self.where)
                self._use_reserve()
            elif _code(error) != sqlite3.SQLITE_BUSY:
                self._cope(error)
            return
        self._folded = folded_now(self._files.path, answer)
        if self.condition.health == "reserve" and self._files.lay_by_reserve():
            self.condition = replace(self.condition, health="durable", why="")

    def close(self) -> None:
        """Write what is held if the disk allows it, fold the log, close the file."""
        self.return_to_disk(at_once=True)
        if self.held is not None:
            _log.error("events are lost: the disk took nothing", batches=len(self.held.batches))
        self.store.close()


def _code(error: BaseException) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _is_full(error: BaseException) -> bool:
    return _code(error) == sqlite3.SQLITE_FULL


def _is_damage(error: BaseException) -> bool:
    """Distinguish a file that is not as it was written from a disk that refuses."""
    ours = type(error) is sqlite3.DatabaseError and not _code(error)
    return ours or _code(error) in _DAMAGE
