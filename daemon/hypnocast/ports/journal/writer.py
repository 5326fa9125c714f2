"""The journal's one writing thread: what waits together is written together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from hypnocast.errors import JournalError
from hypnocast.ports.durable_files import SyncPace
from hypnocast.ports.journal.files import JournalFiles
from hypnocast.ports.journal.records import Batch, Committed
from hypnocast.ports.journal.storage import JournalStorage
from hypnocast.ports.journal.store import Store
from hypnocast.ports.supervision import Supervisor
from hypnocast.ports.worker import Worker

_IDLE_S: Final = 2.0
"""After so long without work the write-ahead log is folded into the file."""

_HELD_S: Final = 1.0
"""The same while events are held in memory: the disk is tried again."""

DEADLINE_S: Final = 30.0
"""A disk may be slow over a sync."""

_GROUP: Final = 256
"""At most so many batches share one fsync, so that none waits for a crowd."""


@dataclass(frozen=True, slots=True)
class _Job:
    batch: Batch
    future: Future[Committed]


@dataclass(frozen=True, slots=True)
class _Chore:
    """Something else to be done to the tables, in a transaction of its own."""

    work: Callable[[Store], int]
    future: Future[int]


class JournalWriter:
    """Has what waits written in one transaction, and answers everyone. Never dies."""

    def __init__(self, files: JournalFiles, *, on_anew: Callable[[], None]) -> None:
        """Open the tables; ``on_anew`` is called when a new file has replaced the old one."""
        self._where = str(files.path)
        self.storage = JournalStorage(files, on_anew=on_anew)
        self.pace = SyncPace("the journal")
        self._changed = threading.Condition()
        self._jobs: list[_Job] = []
        self._chores: list[_Chore] = []
        self._delivered: list[tuple[str, int]] = []
        self._closing = False
        self._worker: Worker | None = None

    # --- called from other threads ------------------------------------------------------------

    def start(self, supervisor: Supervisor) -> None:
        """Begin to write, on a thread that is watched."""
        self._worker = supervisor.thread(
            "journal", self._run, deadline_s=DEADLINE_S, on_failure="restart"
        )

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
        if self._worker is not None and self._worker.thread is not None:
            self._worker.thread.join()

    def _refuse_if_closed(self) -> None:
        if self._closing:
            raise JournalError("the journal is closed", where=self._where)

    # --- the thread ---------------------------------------------------------------------------

    def _run(self, worker: Worker) -> None:
        """Write until closed."""
        while self._round(worker):
            pass
        with self._guarded(worker):
            self.storage.close()

    def _round(self, worker: Worker) -> bool:
        storage = self.storage
        with self._changed:
            pause = _IDLE_S if storage.held is None else _HELD_S
            worker.idle()
            self._changed.wait_for(self._has_work, timeout=pause)
            worker.beat()
            jobs, self._jobs = self._jobs[:_GROUP], self._jobs[_GROUP:]
            chores, self._chores = self._chores, []
            delivered, self._delivered = self._delivered, []
            if self._closing and not jobs and not chores and not delivered:
                return False
        jobs = [job for job in jobs if job.future.set_running_or_notify_cancel()]
        with self._guarded(worker), self.pace.timed():
            storage.return_to_disk()
        if jobs or delivered:
            with self._guarded(worker, *jobs):
                self._write(jobs, delivered)
        for chore in chores:
            if chore.future.set_running_or_notify_cancel():
                with self._guarded(worker, chore):
                    chore.future.set_result(storage.work(chore.work))
        with self._guarded(worker), self.pace.timed():
            if jobs:
                storage.fold_if_long()
            else:
                storage.fold()
        return True

    def _has_work(self) -> bool:
        return bool(self._closing or self._jobs or self._chores or self._delivered)

    def _write(self, jobs: Sequence[_Job], delivered: Sequence[tuple[str, int]]) -> None:
        with self.pace.timed():
            outcomes = self.storage.write([job.batch for job in jobs], delivered)
        for job, outcome in zip(jobs, outcomes, strict=True):
            if isinstance(outcome, Committed):
                job.future.set_result(outcome)
            else:
                job.future.set_exception(outcome)

    @contextmanager
    def _guarded(self, worker: Worker, *waiting: _Job | _Chore) -> Iterator[None]:
        """Whatever goes wrong within: who waits gets an answer, and the thread goes on."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - without this thread no event is ever written
            if not isinstance(error, JournalError):
                worker.failed(error, doing=f"a turn of {self._where}")
                error = JournalError(f"failed: {error}", where=self._where)
            for one in waiting:
                if not one.future.done():
                    one.future.set_exception(error)
