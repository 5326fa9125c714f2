"""Supervision: no thread and no long-lived task ends, hangs or fails unseen.

Every one of them is a *worker* of one :class:`Supervisor`. A worker shows a pulse (``beat``),
its failures are caught, logged once each and counted, and where it may be restarted it is, after
a growing pause. The watchdog asks the supervisor who has made no progress for too long;
``daemon/state``, Prometheus and ``doctor`` ask it what is wrong and how often.

    def watch(worker: Worker) -> None:
        while not worker.wait(1.0):          # True once the worker is asked to stop
            worker.beat()
            ...

    worker = supervisor.thread("lsl-watcher", watch, deadline_s=20.0, on_failure="restart")
    ...
    worker.stop(timeout_s=5.0)
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from hypnocast.ports.worker import OnFailure, Worker, WorkerHealth

T = TypeVar("T")
P = ParamSpec("P")


class WorkerPool(ThreadPoolExecutor):
    """A pool of threads for short work. Whoever submits gets the result, or the error."""

    def __init__(self, worker: Worker, threads: int, remember: Callable[[], None]) -> None:
        """Use :meth:`Supervisor.pool`."""
        super().__init__(threads, thread_name_prefix=worker.name, initializer=remember)
        self._worker = worker
        self._counting = threading.Lock()
        self.waiting = 0
        """Work that waits or is being done."""
        worker.idle()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Queue work; the pool is busy until all of it is done."""
        with self._counting:
            future = super().submit(fn, *args, **kwargs)
            self.waiting += 1
            self._worker.beat()
        future.add_done_callback(self._done)
        return future

    def forget(self, fn: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Queue work that nobody waits for: if it fails, that is counted and reported."""
        self.submit(fn, *args, **kwargs).add_done_callback(self._forgotten)

    def _forgotten(self, future: Future[object]) -> None:
        if not future.cancelled() and (error := future.exception()) is not None:
            self._worker.failed(error)

    def _done(self, _: Future[Any]) -> None:
        with self._counting:
            self.waiting -= 1
            if self.waiting:
                self._worker.beat()
            else:
                self._worker.idle()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - concurrent.futures' signature
        """End once the work is done."""
        super().shutdown(wait, cancel_futures=cancel_futures)
        self._worker.state = "ended"


class Supervisor:
    """Starts threads, pools and tasks, and knows all that run. Any thread may ask it."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self._lock = threading.Lock()
        self._workers: list[Worker] = []
        self._pool_threads: set[threading.Thread] = set()
        self._past: dict[str, tuple[int, int]] = {}
        """Failures and restarts of workers that are over."""

    # --- starting --------------------------------------------------------------------------------

    def thread(
        self,
        name: str,
        run: Callable[[Worker], None],
        *,
        deadline_s: float | None = None,
        on_failure: OnFailure = "stay",
    ) -> Worker:
        """Start a thread that runs ``run``.

        The watchdog ends the process when the thread is busy without a beat for longer than
        ``deadline_s``, or is over for good though it has one. A name is no place for an id: what
        is counted is counted by name.
        """
        worker = Worker(name, deadline_s, on_failure)
        worker.thread = threading.Thread(
            target=worker.run_in_thread, args=(run,), name=name, daemon=True
        )
        self._add(worker)
        worker.thread.start()
        return worker

    def task(
        self,
        name: str,
        run: Callable[[Worker], Coroutine[Any, Any, None]],
        *,
        deadline_s: float | None = None,
        on_failure: OnFailure = "stay",
    ) -> asyncio.Task[None]:
        """Start a task, under the same rules; what ends it for good is raised to who awaits it."""
        worker = Worker(name, deadline_s, on_failure)
        worker.task = asyncio.create_task(worker.run_in_task(run), name=name)
        worker.task.add_done_callback(_seen)
        self._add(worker)
        return worker.task

    def pool(self, name: str, threads: int, *, deadline_s: float | None = None) -> WorkerPool:
        """Return a pool of threads; its pulse is the work it finishes."""

        def remember() -> None:
            with self._lock:
                self._pool_threads.add(threading.current_thread())

        worker = Worker(name, deadline_s, "stay")
        self._add(worker)
        return WorkerPool(worker, threads, remember)

    def _add(self, worker: Worker) -> None:
        with self._lock:
            self._forget_over()
            self._workers.append(worker)

    def _forget_over(self) -> None:
        """Keep the counts of workers that are over, not the workers: openers come all night."""
        for worker in [each for each in self._workers if each.over]:
            self._workers.remove(worker)
            failures, restarts = self._past.get(worker.name, (0, 0))
            self._past[worker.name] = (failures + worker.failures, restarts + worker.restarts)
        self._pool_threads = {thread for thread in self._pool_threads if thread.is_alive()}

    # --- asking ----------------------------------------------------------------------------------

    def health(self) -> tuple[WorkerHealth, ...]:
        """Return how every worker does that is not over."""
        with self._lock:
            self._forget_over()
            return tuple(worker.health() for worker in self._workers)

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong now, a line each."""
        lines = (health.problem for health in self.health())
        return tuple(dict.fromkeys(line for line in lines if line))

    def counts(self) -> dict[str, tuple[int, int]]:
        """Return failures and restarts by the worker's name, those that are over included."""
        with self._lock:
            self._forget_over()
            counts = dict(self._past)
            for worker in self._workers:
                failures, restarts = counts.get(worker.name, (0, 0))
                counts[worker.name] = (failures + worker.failures, restarts + worker.restarts)
            return counts

    def knows(self, one: threading.Thread | asyncio.Task[Any]) -> bool:
        """Return whether a thread or task is one of the workers that run."""
        with self._lock:
            self._forget_over()
            mine: set[object] = {*self._pool_threads}
            mine.update(worker.thread for worker in self._workers)
            mine.update(worker.task for worker in self._workers)
            return one in mine


def _seen(task: asyncio.Task[Any]) -> None:
    """Retrieve a failure: it was logged and counted where it happened."""
    if not task.cancelled():
        task.exception()
