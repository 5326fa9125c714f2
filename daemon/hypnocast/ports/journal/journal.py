"""The journal: everything Hypnocast must not lose, durable before it is published.

One thread writes; batches that wait together share one fsync. Another reads, so that a reader
never waits for the disk. An event enters the outbox in the transaction that makes it durable,
and leaves it when the broker has acknowledged it.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self, TypeVar

from hypnocast.core.timing.utc import instant, seconds_of
from hypnocast.core.wire.payloads import OutboxCounters
from hypnocast.errors import JournalError
from hypnocast.ports.journal.files import JournalFiles
from hypnocast.ports.journal.reader import JournalReader
from hypnocast.ports.journal.records import Batch, Committed, StoredEvent, StoredReply
from hypnocast.ports.journal.storage import Condition
from hypnocast.ports.journal.writer import DEADLINE_S, JournalWriter
from hypnocast.ports.supervision import Supervisor

T = TypeVar("T")
News = Callable[[tuple[StoredEvent, ...]], None]


class Journal:
    """The daemon's face of the journal: asynchronous, for one event loop."""

    def __init__(self, files: JournalFiles, supervisor: Supervisor) -> None:
        """Use :meth:`open`."""
        self._files = files
        self._stale = False
        """Whether a new file has replaced the one that is read."""
        self._writer = JournalWriter(files, on_anew=self._begun_anew)
        try:
            self._reader = JournalReader(files.path)
        except BaseException:
            self._writer.storage.store.close()
            raise
        self._reader_thread = supervisor.pool("journal-reader", 1, deadline_s=DEADLINE_S)
        self._news: list[News] = []
        self._sent = 0
        self._writer.start(supervisor)

    @classmethod
    def open(cls, path: Path, supervisor: Supervisor | None = None) -> Self:
        """Open the journal, or begin one; :class:`JournalError` where that cannot be.

        A damaged one is set aside and a new one begun: ``condition.set_aside`` is its place.
        Its threads are watched by ``supervisor``.
        """
        files = JournalFiles(path)
        try:
            return cls(files, supervisor or Supervisor())
        except BaseException as error:
            files.release()
            if isinstance(error, OSError | sqlite3.Error):
                raise JournalError(
                    f"cannot be opened: {error}",
                    where=str(path),
                    remedy="Check the disk: is it full, read-only, or failing?",
                ) from error
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Write what waits and let go of the files."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        # Who closes last folds the write-ahead log into the file, and only a writer can.
        self._reader_thread.shutdown()
        self._reader.close()
        self._writer.close()
        self._files.release()

    # --- how it does --------------------------------------------------------------------------

    @property
    def path(self) -> Path:
        """The SQLite file."""
        return self._files.path

    @property
    def generation(self) -> str:
        """An id that distinguishes this journal from one that was there before it."""
        return self._writer.storage.generation

    @property
    def condition(self) -> Condition:
        """Whether what is committed is durable, and if not, why."""
        return self._writer.storage.condition

    @property
    def slow(self) -> str:
        """A slow write a moment ago, in words; empty where there was none."""
        return self._writer.pace.problem

    @property
    def sent(self) -> int:
        """Events the broker has acknowledged."""
        return self._sent

    # --- writing ------------------------------------------------------------------------------

    async def commit(self, batch: Batch) -> Committed:
        """Return once the batch is durable (or held, where ``durable`` is False).

        Cancelling the caller does not withdraw the batch.
        """
        waiter = asyncio.wrap_future(self._writer.submit(batch))
        waiter.add_done_callback(self._report)
        return await asyncio.shield(waiter)

    def _report(self, waiter: asyncio.Future[Committed]) -> None:
        if waiter.cancelled() or waiter.exception() is not None:
            return
        stored = waiter.result().stored
        if stored:
            for news in self._news:
                news(stored)

    def subscribe(self, news: News) -> Callable[[], None]:
        """Call ``news`` in the event loop with all events just committed; return how to stop."""
        self._news.append(news)
        return lambda: self._news.remove(news)

    def acknowledge(self, bed: str, sequence: int) -> None:
        """Remove an event from the outbox: the broker has it."""
        self._sent += 1
        self._writer.delivered(bed, sequence)

    async def forget(self, *, keep_days: int, now: datetime) -> int:
        """Delete ended nights older than ``keep_days`` that owe the broker nothing; count them."""
        limit = instant((now - timedelta(days=keep_days)).timestamp())
        nights = 0
        while await asyncio.wrap_future(
            self._writer.chore(lambda store: store.forget_one_before(limit))
        ):
            nights += 1
        return nights

    # --- reading ------------------------------------------------------------------------------

    async def read(self, question: Callable[[JournalReader], T]) -> T:
        """Ask the tables something off the event loop: ``await journal.read(lambda r: …)``."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._reader_thread, lambda: question(self._current()))

    def _current(self) -> JournalReader:
        if self._stale:
            fresh = JournalReader(self._files.path)
            self._reader.close()
            self._reader, self._stale = fresh, False
        return self._reader

    def _begun_anew(self) -> None:
        self._stale = True

    async def events(self, bed: str, since: int = 0, limit: int = 200) -> tuple[StoredEvent, ...]:
        """Return a bed's events after a sequence number, those held in memory included."""
        rows = await self.read(lambda reader: reader.events(bed, since, limit))
        return self._with_held(bed, rows, since, limit)

    async def outbox(self, bed: str, after: int = 0, limit: int = 200) -> tuple[StoredEvent, ...]:
        """Return a bed's events that wait for the broker, in their order."""
        rows = await self.read(lambda reader: reader.outbox(bed, after, limit))
        held = self._writer.storage.held
        rows = self._with_held(bed, rows, after, limit)
        if held is None:
            return rows
        return tuple(row for row in rows if (bed, row.sequence) not in held.delivered)

    def _with_held(
        self, bed: str, rows: tuple[StoredEvent, ...], after: int, limit: int
    ) -> tuple[StoredEvent, ...]:
        held = self._writer.storage.held
        if held is None or len(rows) >= limit:
            return rows
        last = rows[-1].sequence if rows else after
        return (*rows, *held.of_bed(bed, last))[:limit]

    async def waiting(self) -> dict[str, int]:
        """Count the events of each bed that wait for the broker."""
        counts = await self.read(JournalReader.waiting)
        held = self._writer.storage.held
        for row in held.waiting() if held is not None else ():
            counts[row.bed] = counts.get(row.bed, 0) + 1
        return counts

    async def reply(self, bed: str, request: str) -> StoredReply | None:
        """Return the answer a request got, if it got one."""
        held = self._writer.storage.held
        if held is not None and (found := held.replies.get((bed, request))) is not None:
            return found
        return await self.read(lambda reader: reader.reply(bed, request))

    async def outbox_counters(self, now: datetime) -> OutboxCounters:
        """Return what waits for the broker, for the daemon's state."""
        waiting = sum((await self.waiting()).values())
        oldest = await self.read(JournalReader.oldest_waiting)
        age = None
        if oldest is not None:
            age = max(0.0, now.timestamp() - seconds_of(oldest))
        return OutboxCounters(waiting=waiting, oldest_s=age, sent=self._sent)
