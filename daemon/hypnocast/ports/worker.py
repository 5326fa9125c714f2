"""One worker: a thread, a pool or a task with a pulse, whose failures are caught and counted."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Literal

import structlog

FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 10.0
"""Shorter than any deadline of the watchdog: a worker that never beats is found standing still."""

STEADY_S: Final = 10.0
"""How long a failure is reported; a worker that ran longer restarts after the shortest pause."""

SLOW_S: Final = 5.0
"""A worker with a deadline that was busy for so long without a beat is reported as slow."""

_KINDS_OF_ERROR: Final = 16
"""How many different errors of one worker are kept apart in the log."""

WorkerState = Literal["running", "pausing", "ended", "failed"]
"""``pausing``: failed and about to be restarted. ``failed``: it will not be restarted."""

OnFailure = Literal["stay", "restart", "pass"]
"""What follows a failure that the worker's own code did not catch.

``stay``: the worker is over, and that is reported until the daemon ends.
``restart``: it runs again after a pause.
``pass``: it is over and soon forgotten; for short work that somebody tries again.
"""

_log = structlog.get_logger("supervision")


@dataclass(frozen=True, slots=True)
class WorkerHealth:
    """How a worker does at one moment."""

    name: str
    state: WorkerState
    beats: int
    """Differs from look to look as long as the worker gets something done."""
    busy: bool
    """Whether it has anything to do."""
    deadline_s: float | None
    """How long it may be busy without a beat; None: as long as it needs."""
    failures: int
    restarts: int
    problem: str
    """What is wrong now, in one line; empty while it is well."""


class Worker:
    """What runs reports here; its owner and the supervisor read. Any thread may read."""

    def __init__(self, name: str, deadline_s: float | None, on_failure: OnFailure) -> None:
        """Use :class:`~hypnocast.ports.supervision.Supervisor`."""
        self.name = name
        self.state: WorkerState = "running"
        self.failures = 0
        self.restarts = 0
        self.thread: threading.Thread | None = None
        self.task: asyncio.Task[None] | None = None
        self._deadline_s = deadline_s
        self._on_failure = on_failure
        self._beats = 0
        self._beat_at = time.monotonic()
        self._idle = False
        self._failed_at = float("-inf")
        self._last_error = ""
        self._logged: dict[str, int] = {}
        self._stopping = threading.Event()
        self._restarts_in_a_row = 0
        self._began = time.monotonic()

    # --- what the worker's own code says ---------------------------------------------------------

    def beat(self) -> None:
        """Show that something was done and more is to do."""
        self._beats += 1
        self._beat_at = time.monotonic()
        self._idle = False

    def idle(self) -> None:
        """Show that everything was done: waiting for work is not standing still."""
        self._beats += 1
        self._idle = True

    def failed(self, error: BaseException, *, doing: str = "") -> None:
        """Count a failure that the worker goes on after, and log it the first time."""
        self.failures += 1
        self._failed_at = time.monotonic()
        words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        self._last_error = " ".join(f"{doing}: {words}".removeprefix(": ").split())[:300]
        if len(self._logged) >= _KINDS_OF_ERROR and self._last_error not in self._logged:
            self._logged.clear()
        seen = self._logged[self._last_error] = self._logged.get(self._last_error, 0) + 1
        if seen == 1:
            _log.error("a worker failed", worker=self.name, error=self._last_error, exc_info=error)
        elif seen in (10, 100, 1000, 10_000):
            _log.error("a worker fails again", worker=self.name, error=self._last_error, times=seen)

    @property
    def stopping(self) -> bool:
        """Whether the worker was asked to stop."""
        return self._stopping.is_set()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait in a thread; return at once, and True, when the worker is asked to stop."""
        return self._stopping.wait(seconds)

    # --- what its owner says ---------------------------------------------------------------------

    def request_stop(self) -> None:
        """Let the worker end soon, and not be restarted."""
        self._stopping.set()

    def stop(self, timeout_s: float | None = None) -> bool:
        """Let a thread end and wait for it; return whether it has ended."""
        self.request_stop()
        if self.thread is None or self.thread is threading.current_thread():
            return True
        self.thread.join(timeout_s)
        return not self.thread.is_alive()

    @property
    def over(self) -> bool:
        """Whether nothing more is to be reported of the worker."""
        passed = self.state == "failed" and self._on_failure == "pass"
        return self.state == "ended" or (passed and self._failed_long_ago)

    def health(self) -> WorkerHealth:
        """Return how the worker does."""
        return WorkerHealth(
            name=self.name,
            state=self.state,
            beats=self._beats,
            busy=not self._idle and not self.over,
            deadline_s=self._deadline_s,
            failures=self.failures,
            restarts=self.restarts,
            problem=self._problem(),
        )

    @property
    def _failed_long_ago(self) -> bool:
        return time.monotonic() - self._failed_at >= STEADY_S

    def _problem(self) -> str:
        if self.state == "pausing":
            return f"{self.name} is started again after: {self._last_error}"
        if self.state == "failed" and self._on_failure == "stay":
            return f"{self.name} has ended: {self._last_error}"
        if not self._failed_long_ago:
            return f"{self.name}: {self._last_error}"
        still_s = time.monotonic() - self._beat_at
        if self._deadline_s is not None and not self._idle and still_s > SLOW_S:
            return f"{self.name}: nothing done for more than {SLOW_S:g} s"
        return ""

    # --- running ---------------------------------------------------------------------------------

    def run_in_thread(self, run: Callable[[Worker], None]) -> None:
        """Be the thread's target."""
        while True:
            self._begin()
            try:
                run(self)
            except Exception as error:  # noqa: BLE001 - no thread ends of an error that nobody sees
                pause = self._after(error)
            else:
                self.state = "ended"
                return
            if pause is None:
                return
            if self.wait(pause):
                self.state = "ended"
                return

    async def run_in_task(self, run: Callable[[Worker], Coroutine[Any, Any, None]]) -> None:
        """Be the task's coroutine; what ends the worker for good is raised."""
        while True:
            self._begin()
            try:
                await run(self)
            except asyncio.CancelledError:
                self.state = "ended"
                raise
            except Exception as error:
                pause = self._after(error)
                if pause is None:
                    raise
            else:
                self.state = "ended"
                return
            await asyncio.sleep(pause)

    def _begin(self) -> None:
        if self.state == "pausing":
            self.restarts += 1
        self.state = "running"
        self._began = time.monotonic()

    def _after(self, error: Exception) -> float | None:
        """Return how long to pause before the next run; None: there is none."""
        if isinstance(error, BrokenPipeError) and self._on_failure == "stay":
            # Nobody reads standard output any more. It is raised to who awaits, and no fault.
            self.state = "failed"
            return None
        self.failed(error)
        if self._on_failure != "restart" or self.stopping:
            self.state = "failed"
            return None
        self.state = "pausing"
        lasted = time.monotonic() - self._began
        self._restarts_in_a_row = 0 if lasted >= STEADY_S else self._restarts_in_a_row + 1
        pause: float = FIRST_PAUSE_S * 2 ** min(self._restarts_in_a_row, 10)
        return min(LONGEST_PAUSE_S, pause)
