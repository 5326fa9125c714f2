"""The journal's one writing thread: group commit, and what to do when the disk fails."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import structlog

from hypnocast.core.wire import StageEvent
from hypnocast.errors import JournalError
from hypnocast.ports.journal_files import JournalFiles
from hypnocast.ports.journal_held import HELD_BYTES, Held
from hypnocast.ports.journal_records import Batch, Committed, Session
from hypnocast.ports.journal_store import Store

log = structlog.get_logger(__name__)

_IDLE_S: Final = 2.0
"""After so long without work the write-ahead log is folded into the file."""

_RETRY_S: Final = 1.0
"""How often a disk that took nothing is tried again."""

_GROUP: Final = 256
"""At most so many batches share one fsync, so that none waits for a crowd."""

_LOG_BYTES: Final = 16 * 1024 * 1024
"""A write-ahead log of this size is folded in without waiting for a quiet moment."""

_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_REFUSALS: Final = (sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError)

Health = Literal["durable", "reserve", "degraded"]
"""``reserve``: durable, on the room laid by for a full disk. ``degraded``: in memory only."""


@dataclass(frozen=True, slots=True)
class Condition:
    """How the journal does, in one word and in a sentence."""

    health: Health
    why: str = ""
    set_aside: Path | None = None
    """Where a damaged journal was moved, if one was."""
    lost: str = ""
    """What was given up for good while the disk took nothing for too long; stays until the end."""


@dataclass(frozen=True, slots=True)
class _Job:
    batch: Batch
    future: Future[Committed]


@dataclass(frozen=True, slots=True)
class _Chore:
    """Something else to be done to the tables, in a transaction of its own."""

    work: Callable[[Store], int]
    future: Future[int]


class JournalWriter(threading.Thread):
    """Takes what waits, writes it in one transaction, tells everyone. Never dies of the disk."""

    def __init__(self, files: JournalFiles, *, on_anew: Callable[[], None]) -> None:
        """Open the tables; ``on_anew`` is called when a new file has taken the old one's place."""
        super().__init__(name="journal", daemon=True)
        self._files = files
        self._on_anew = on_anew
        self._store, aside = files.open_store()
        why = f"the journal was damaged; it now lies at {aside}" if aside else ""
        self.condition = Condition("durable", why, aside)
        self.generation = self._store.generation
        select = self._store.connection.execute
        self._heads: dict[str, int] = dict(select("SELECT bed, last_sequence FROM beds"))
        running = select("SELECT * FROM sessions WHERE ended IS NULL")
        self._open: dict[str, Session] = {row[0]: Session(*row) for row in running}
        self.held: Held | None = None
        self._tried = 0.0
        self._changed = threading.Condition()
        self._jobs: list[_Job] = []
        self._chores: list[_Chore] = []
        self._delivered: list[tuple[str, int]] = []
        self._closing = False
        self.rounds = 0
        """Counts turns of the thread, at least one in 2 s; one that hangs does not count."""
        if not files.lay_by_reserve():
            self.condition = replace(self.condition, health="reserve", why="the disk is full")

    # --- called from other threads ------------------------------------------------------------

    def submit(self, batch: Batch) -> Future[Committed]:
        """Queue a batch; the future resolves once it is durable, or held."""
        future: Future[Committed] = Future()
        with self._changed:
            self._refuse_if_closed()
            self._jobs.append(_Job(batch, future))
            self._changed.notify()
        return future

    def chore(self, work: Callable[[Store], int]) -> Future[int]:
        """Queue work on the tables, done between two groups of batches."""
        future: Future[int] = Future()
        with self._changed:
            self._refuse_if_closed()
            self._chores.append(_Chore(work, future))
            self._changed.notify()
        return future

    def delivered(self, bed: str, sequence: int) -> None:
        """Note that the broker has acknowledged an event."""
        with self._changed:
            self._delivered.append((bed, sequence))
            self._changed.notify()

    def close(self) -> None:
        """Write what waits, fold the log into the file, end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self.join()

    def _refuse_if_closed(self) -> None:
        if self._closing:
            raise JournalError("the journal is closed", where=str(self._files.path))

    # --- the thread ---------------------------------------------------------------------------

    def run(self) -> None:
        """Write until closed."""
        while self._round():
            self.rounds += 1
        if self.held is not None:
            self._return_to_disk(at_once=True)
        self._store.close()

    def _round(self) -> bool:
        with self._changed:
            self._changed.wait_for(self._has_work, timeout=_IDLE_S if self.held is None else 1.0)
            jobs, self._jobs = self._jobs[:_GROUP], self._jobs[_GROUP:]
            chores, self._chores = self._chores, []
            delivered, self._delivered = self._delivered, []
            if self._closing and not jobs and not chores and not delivered:
                return False
        jobs = [job for job in jobs if job.future.set_running_or_notify_cancel()]
        if self.held is not None:
            self._return_to_disk()
        if jobs or delivered:
            self._write(jobs, delivered)
        for chore in chores:
            self._do(chore)
        if not jobs or self._log_is_long():
            self._fold()
        return True

    def _has_work(self) -> bool:
        return bool(self._closing or self._jobs or self._chores or self._delivered)

    def _write(self, jobs: Sequence[_Job], delivered: Sequence[tuple[str, int]]) -> None:
        outcomes: list[Committed | BaseException] | None = None
        for _ in range(3):  # as it is; after one remedy; after the other
            if self.held is not None:
                break
            try:
                outcomes = self._write_group(jobs, delivered)
            except sqlite3.Error as error:
                self._cope(error)
            else:
                break
        if outcomes is None:
            self._degrade("the disk takes nothing")
            outcomes = self._hold(jobs, delivered)
        for job, outcome in zip(jobs, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                job.future.set_exception(outcome)
            else:
                self._remember(job.batch, outcome)
                job.future.set_result(outcome)

    def _write_group(
        self, jobs: Sequence[_Job], delivered: Sequence[tuple[str, int]]
    ) -> list[Committed | BaseException]:
        outcomes: list[Committed | BaseException] = []
        # An acknowledgement that is forgotten costs a repeat with the same id, no fsync.
        with self._store.transaction(synced=bool(jobs)):
            for job in jobs:
                try:
                    with self._store.savepoint():
                        outcomes.append(self._store.apply(job.batch))
                except _REFUSALS as error:
                    outcomes.append(JournalError(f"refuses a batch: {error}", where=self._where))
            self._store.delivered(delivered)
        return outcomes

    @property
    def _where(self) -> str:
        return str(self._files.path)

    def _remember(self, batch: Batch, outcome: Committed) -> None:
        for event in outcome.stored:
            self._heads[event.bed] = event.sequence
        for session in batch.sessions:
            if session.ended is None:
                self._open[session.id] = session
            else:
                self._open.pop(session.id, None)

    def _do(self, chore: _Chore) -> None:
        if not chore.future.set_running_or_notify_cancel():
            return
        try:
            with self._store.transaction():
                done = chore.work(self._store)
        except sqlite3.Error as error:
            chore.future.set_exception(JournalError(str(error), where=self._where))
        else:
            chore.future.set_result(done)

    # --- when the disk fails ------------------------------------------------------------------

    def _cope(self, error: sqlite3.Error) -> None:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        log.warning("journal write failed", journal=self._where, error=str(error))
        if code in _DAMAGE:
            self._begin_anew(str(error))
        elif code == sqlite3.SQLITE_FULL and self._files.give_up_reserve():
            self.condition = replace(
                self.condition, health="reserve", why="the disk is full; its reserve is in use"
            )
        else:
            self._degrade(str(error))

    def _begin_anew(self, error: str) -> None:
        """Move the damaged journal aside and let the nights that run go on in a new one."""
        try:
            self._store.close()
            aside = self._files.set_aside()
            self._store, _ = self._files.open_store()
            with self._store.transaction():
                self._store.start_sequences(self._heads.items())
                self._store.apply(Batch(sessions=tuple(self._open.values())))
        except (sqlite3.Error, OSError, JournalError) as second:
            self._degrade(f"{error}; a new journal cannot be begun: {second}")
            return
        self.generation = self._store.generation
        why = f"the journal was damaged ({error}); it now lies at {aside}"
        self.condition = replace(self.condition, health="durable", why=why, set_aside=aside)
        log.error("journal begun anew", journal=self._where, why=why)
        self._on_anew()

    def _degrade(self, why: str) -> None:
        if self.held is not None:
            return
        self._tried = time.monotonic()
        self.held = Held(dict(self._heads), limit=HELD_BYTES)
        self.condition = replace(self.condition, health="degraded", why=why)
        log.error("journal degraded: events are held in memory", journal=self._where, why=why)

    def _hold(
        self, jobs: Sequence[_Job], delivered: Sequence[tuple[str, int]]
    ) -> list[Committed | BaseException]:
        assert self.held is not None  # noqa: S101 - _degrade has just made it
        outcomes: list[Committed | BaseException] = []
        for job in jobs:
            try:
                outcomes.append(self.held.take(job.batch, self._on_disk(job.batch)))
            except JournalError as error:
                outcomes.append(error)
        self.held.delivered.update(delivered)
        self._tell_lost(self.held)
        return outcomes

    def _tell_lost(self, held: Held) -> None:
        if not held.given_up:
            return
        lost = "; ".join(f"{session}: {told}" for session, told in held.given_up.items())
        if not self.condition.lost:
            log.error("memory is full: the oldest events are given up", journal=self._where)
        self.condition = replace(self.condition, lost=lost)

    def _on_disk(self, batch: Batch) -> dict[str, StageEvent]:
        found: dict[str, StageEvent] = {}
        for draft in batch.events:
            try:
                known = self._store.event_by_id(draft.event.id)
            except sqlite3.Error:
                # A disk that cannot be read either: the database tells the two apart on return.
                return found
            if known is not None:
                found[known.id] = known
        return found

    def _return_to_disk(self, *, at_once: bool = False) -> None:
        held = self.held
        now = time.monotonic()
        if held is None or (not at_once and now - self._tried < _RETRY_S):
            return
        self._tried = now
        try:
            # A connection whose fsync failed is not to be trusted with what comes next.
            fresh = Store(self._files.path)
        except (sqlite3.Error, JournalError):
            return
        self._store.close()
        self._store = fresh
        try:
            with self._store.transaction():
                held.write_to(self._store)
        except sqlite3.Error as error:
            log.info("journal still degraded", journal=self._where, error=str(error))
            return
        self.held = None
        whole = self._files.lay_by_reserve()
        self.condition = replace(self.condition, health="durable" if whole else "reserve", why="")
        log.info("journal durable again", journal=self._where, batches=len(held.batches))
        if self.condition.lost:
            log.error("events are lost", journal=self._where, what=self.condition.lost)

    # --- the write-ahead log ------------------------------------------------------------------

    def _log_is_long(self) -> bool:
        wal = self._files.path.with_name(self._files.path.name + "-wal")
        return wal.exists() and wal.stat().st_size > _LOG_BYTES

    def _fold(self) -> None:
        if self.held is not None:
            return
        try:
            self._store.checkpoint()
            if self.condition.health == "reserve" and self._files.lay_by_reserve():
                self.condition = replace(self.condition, health="durable", why="")
        except (sqlite3.Error, OSError) as error:
            log.warning("journal checkpoint failed", journal=self._where, error=str(error))
