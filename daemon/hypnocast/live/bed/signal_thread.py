"""The signal thread: one thread that turns what arrives into pictures.

Live it waits for no model, disk or broker. In replay and simulation it waits for the pages that
are under way, so that any speed gives the same result.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from hypnocast.live.bed.bed_pipeline import BedPipeline
from hypnocast.live.bed.bed_updates import ClosedPage, Item
from hypnocast.live.bed.sources import ArrivalSource
from hypnocast.ports.supervision import Supervisor
from hypnocast.ports.worker import Worker

T = TypeVar("T")
Deliver = Callable[[str, Item], None]
MakePipeline = Callable[[str, Callable[[Item], None]], BedPipeline]

MAX_UNDER_WAY = 48
"""Pages that a recorded source may be ahead of the journal."""

EVERY_BED_S = 0.05
"""How often a bed at which nothing comes is looked at."""

DEADLINE_S = 20.0
"""Live, the loop turns many times a second."""

EVERY_BED_TICKS = 8
"""And at the latest after so many ticks."""


class SignalThread:
    """Runs the pipelines of all beds on one thread."""

    def __init__(
        self, source: ArrivalSource, make: MakePipeline, deliver: Deliver, supervisor: Supervisor
    ) -> None:
        """Keep the source, how to make a pipeline, and who gets items, on the event loop."""
        self._source = source
        self._make = make
        self._deliver = deliver
        self._live = source.kind == "live"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pipelines: dict[str, BedPipeline] = {}
        self._posted: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._room = threading.Semaphore(MAX_UNDER_WAY)
        self._stopping = threading.Event()
        self._supervisor = supervisor
        self._worker: Worker | None = None
        self._ended: Future[None] = Future()
        self._moved: dict[str, BedPipeline] = {}
        """Beds with an arrival or a command since the last tick."""
        self._all_at = float("-inf")
        """When the next tick of every bed is due, on the source's clock."""
        self._ticks = 0
        self.beats = 0
        """Counts turns of the loop: a thread that hangs does not count."""
        self.pages: Counter[str] = Counter()
        """Pages handed over, bed by bed."""

    @property
    def ended(self) -> Future[None]:
        """Done when the source has ended; carries the error if the signal thread failed."""
        return self._ended

    def start(self) -> None:
        """Begin to read; items go to the event loop that runs now."""
        self._loop = asyncio.get_running_loop()
        self._worker = self._supervisor.thread(
            "drawing", self._run, deadline_s=DEADLINE_S if self._live else None
        )

    def stop(self) -> None:
        """Stop reading; what is under way is still delivered."""
        self._stopping.set()
        self._source.stop()
        self._room.release()
        if self._worker is not None:
            self._worker.stop(10.0)

    def page_done(self) -> None:
        """Note that a page has reached the journal."""
        self._room.release()

    def post(self, bed: str, act: Callable[[BedPipeline, float], T]) -> Future[T]:
        """Do something to a bed between two arrivals; it gets the pipeline and the local time."""
        answer: Future[T] = Future()

        def do() -> None:
            if not answer.set_running_or_notify_cancel():
                return  # whoever asked has given up
            try:
                pipeline = self.pipeline(bed)
                self._moved[bed] = pipeline
                answer.set_result(act(pipeline, self._source.now() or pipeline.now))
            except Exception as error:  # noqa: BLE001  (whoever asked gets it)
                answer.set_exception(error)

        self._posted.put(do)
        return answer

    def pipeline(self, bed: str) -> BedPipeline:
        """Return a bed's pipeline, made when it is first asked for."""
        pipeline = self._pipelines.get(bed)
        if pipeline is None:
            pipeline = self._make(bed, lambda item: self._hand_over(bed, item))
            self._pipelines[bed] = pipeline
        return pipeline

    def _hand_over(self, bed: str, item: Item) -> None:
        """Hand an item to the event loop; a recorded source waits for the journal first."""
        if isinstance(item, ClosedPage):
            self.pages[bed] += 1
            if not self._live and not self._stopping.is_set():
                self._room.acquire()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._deliver, bed, item)

    def _run(self, worker: Worker) -> None:
        try:
            self._read(worker)
        except Exception as error:
            self._ended.set_exception(error)
            raise
        self._ended.set_result(None)

    def _read(self, worker: Worker) -> None:
        for arrived in self._source.arrivals():
            self.beats += 1
            worker.beat()
            self._do_posted()
            if self._stopping.is_set():
                return
            if arrived is None:
                self._tick()
                continue
            bed, arrival = arrived
            pipeline = self.pipeline(bed)
            pipeline.add(arrival)
            if self._live:
                self._moved[bed] = pipeline
            else:
                pipeline.step(None)
        if self._stopping.is_set():
            return  # the source ended because it was stopped: its sessions go on
        for pipeline in self._pipelines.values():
            pipeline.finish()
        self._do_posted()

    def _tick(self) -> None:
        """Let time pass where something came or was done; now and then at every bed."""
        now, moved = self._source.now(), self._moved
        self._moved = {}
        self._ticks += 1
        if now is None or now >= self._all_at or self._ticks >= EVERY_BED_TICKS:
            self._all_at = (now or 0.0) + EVERY_BED_S
            self._ticks = 0
            moved = self._pipelines
        for pipeline in moved.values():
            pipeline.step(now)
            if pipeline.wants_reading:
                self._source.measure_soon()

    def _do_posted(self) -> None:
        while not self._posted.empty():
            self._posted.get()()
