"""The thread that reads all open streams, whatever happens to any of them."""

from __future__ import annotations

import queue
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from hypnocast.core.types import Arrival, StreamLost
from hypnocast.ports.lsl.live_stream import LiveStream, StreamState
from hypnocast.ports.supervision import Supervisor
from hypnocast.ports.worker import Worker

Sink = Callable[[str, Arrival], None]
"""Gets a bed's name and what arrived. Called by the reading thread only; must not wait."""

STILL_AFTER_S = 20.0
"""The reader turns many times a second."""

_log = structlog.get_logger("lsl")


@dataclass(frozen=True, slots=True)
class _Swap:
    old: LiveStream | None
    new: LiveStream | None
    why: str = ""


class ReaderThread:
    """Polls the streams it was given, every few milliseconds, until it is stopped."""

    def __init__(
        self, sink: Sink, *, clock: Callable[[], float], every_s: float, wake: Callable[[], None]
    ) -> None:
        """Keep the sink, the local LSL clock, and whom to wake when a stream has ended."""
        self._sink = sink
        self._clock = clock
        self._every = every_s
        self._wake = wake
        self._inbox: queue.SimpleQueue[_Swap] = queue.SimpleQueue()
        self._retired: queue.SimpleQueue[LiveStream] = queue.SimpleQueue()
        self._lives: list[LiveStream] = []
        self._worker: Worker | None = None
        self.turns = 0
        """Counts looks at all streams: a reader that hangs does not count."""
        self.sink_errors = 0
        """How often the sink raised; the arrival it raised for is lost to it."""

    def start(self, supervisor: Supervisor) -> None:
        """Begin to read, on a thread that is watched."""
        self._worker = supervisor.thread(
            "lsl-reader", self._run, deadline_s=STILL_AFTER_S, on_failure="restart"
        )

    def stop(self, timeout_s: float) -> None:
        """Stop reading after one last look at every stream."""
        if self._worker is not None:
            self._worker.stop(timeout_s)

    def add(self, live: LiveStream, *, instead_of: LiveStream | None = None) -> None:
        """Read a stream from now on, in place of another that is then drained and closed."""
        self._inbox.put(_Swap(instead_of, live, "replaced by a new outlet"))

    def drop(self, live: LiveStream) -> None:
        """Read a stream no longer."""
        self._inbox.put(_Swap(live, None))

    def retired(self) -> list[LiveStream]:
        """Return the streams that are no longer read and may be closed."""
        gone: list[LiveStream] = []
        while not self._retired.empty():
            gone.append(self._retired.get())
        return gone

    def _run(self, worker: Worker) -> None:
        while not worker.wait(self._every):
            worker.beat()
            self._read_inbox()
            for live in self._lives:
                if self._poll(live):
                    self._wake()
            self.turns += 1
        self._read_inbox()
        for live in self._lives:
            self._poll(live)

    def _read_inbox(self) -> None:
        while True:
            try:
                swap = self._inbox.get_nowait()
            except queue.Empty:
                return
            if swap.old is not None and swap.old in self._lives:
                self._poll(swap.old)
                self._lives.remove(swap.old)
                self._retired.put(swap.old)
                if swap.old.state is StreamState.OPEN and swap.new is not None:
                    lost = StreamLost(swap.old.header.key, self._clock(), swap.why)
                    self._deliver(swap.old.bed, lost)
            if swap.new is not None:
                self._lives.append(swap.new)

    def _poll(self, live: LiveStream) -> bool:
        """Read one stream; return whether it has just ended."""
        if live.state in (StreamState.LOST, StreamState.REFUSED):
            return False
        for arrival in live.poll(self._clock()):
            self._deliver(live.bed, arrival)
        return live.state in (StreamState.LOST, StreamState.REFUSED)

    def _deliver(self, bed: str, arrival: Arrival) -> None:
        try:
            self._sink(bed, arrival)
        except Exception:  # noqa: BLE001 - whatever fails downstream, reading goes on
            self.sink_errors += 1
            _log.exception("sink_failed", bed=bed, arrival=type(arrival).__name__)
