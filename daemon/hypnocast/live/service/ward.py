"""The daemon put together: one source, one judge, one journal, one broker, any number of beds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

import structlog

from hypnocast.core.timing.utc import seconds_of
from hypnocast.core.wire import payloads
from hypnocast.core.wire.payloads import OutboxCounters
from hypnocast.core.wire.topics import Topics
from hypnocast.errors import JournalError
from hypnocast.live.bed.bed_updates import Item
from hypnocast.live.bed.signal_thread import MakePipeline, SignalThread
from hypnocast.live.bed.sources import ArrivalSource
from hypnocast.live.explaining.past_pages import PastPages
from hypnocast.live.publishing.bed_publisher import BedPublisher, LslStages, SiteStates
from hypnocast.live.publishing.bed_worker import BedParts, BedWorker
from hypnocast.live.publishing.home_assistant import discovery
from hypnocast.live.service.command_handler import CommandHandler
from hypnocast.live.service.daemon_status import degraded_of, state_of
from hypnocast.live.service.resumption import known_night, log_failure, session_of
from hypnocast.live.staging.second_opinion import BesideJudges
from hypnocast.ports.host_clock import HostClock
from hypnocast.ports.journal.reader import JournalReader
from hypnocast.ports.lsl.problems import StreamProblem
from hypnocast.ports.memory import free_bytes, memory_problem
from hypnocast.ports.metrics import MetricValue
from hypnocast.ports.mqtt.link import MqttLink
from hypnocast.ports.mqtt.link_states import Connected
from hypnocast.ports.mqtt.settings import BrokerSettings
from hypnocast.ports.supervision import Supervisor
from hypnocast.ports.worker import Worker
from hypnocast.stagers.packs.pack import Pack

STATE_EVERY_S = 30.0
REFRESH_S = 1.0
STATUS_S = 0.5
"""What is degraded is looked at so often, and published where it has changed."""
STATUS_DEADLINE_S = 20.0
"""Nothing it does waits for a disk, a model or a broker."""
COUNT_DEADLINE_S = 30.0
"""A disk may be slow over a question."""
DRAIN_S = 10.0
"""How long a daemon that ends waits for the broker to acknowledge what is still to be sent."""

_log = structlog.get_logger("ward")


class Watcher(Protocol):
    """Wants to know of everything that becomes durable: a terminal view, metrics, a test."""

    def event(self, event: payloads.StageEvent) -> None:
        """Handle an event."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class WardParts:
    """Everything a ward is made of."""

    source: ArrivalSource
    pack: Pack
    parts: BedParts
    topics: Topics
    node: str
    broker: BrokerSettings | None
    """None: nothing is published; everything is in the journal."""
    make_pipeline: MakePipeline
    beds: tuple[str, ...] = ()
    """Shown from the beginning, whether they appear or not."""
    show_pages: bool = False
    show_spectrum: bool = True
    lsl_stages: LslStages | None = None
    """Who sends stages over LSL."""
    boot_id: str = ""
    """Of this boot: sessions that run are resumed on the grid they had in it."""
    problems: Callable[[str], tuple[StreamProblem, ...]] = lambda _: ()
    """What the source knows to be wrong with a bed."""
    accept_streams: Callable[[str], bool] = lambda _: False
    """Takes the lab's word for who sends a bed's streams; whether it was asked for."""
    watchers: tuple[Watcher, ...] = ()
    home_assistant: bool = False
    """Announce every bed as a device of Home Assistant."""
    past: PastPages | None = None
    """Keeps past pages and answers ``page`` and ``explain``; None: both are refused."""
    supervisor: Supervisor = field(default_factory=Supervisor)
    """Of every thread and task."""
    disk_problems: Callable[[], tuple[str, ...]] = tuple
    """What is wrong with the disk, and with the tapes on it."""
    source_numbers: Callable[[], Iterable[MetricValue]] = tuple
    """What the source counts."""


class Ward:
    """Runs all beds until the source ends or it is stopped."""

    def __init__(self, plan: WardParts) -> None:
        """Put the parts together; nothing runs yet."""
        self._plan = plan
        self.judge = plan.parts.judge
        self._beside = BesideJudges(plan.parts.beside, plan.supervisor)
        self.journal = plan.parts.journal
        self.supervisor = plan.supervisor
        self.source, self.source_numbers = plan.source, plan.source_numbers
        self.signal_thread = SignalThread(
            plan.source, plan.make_pipeline, self._deliver, self.supervisor
        )
        self.command_handler = CommandHandler(
            self.signal_thread,
            self._durable,
            self._knows_session,
            plan.past,
            plan.accept_streams,
        )
        self.link = MqttLink(
            plan.broker,
            plan.topics,
            plan.node,
            self.journal,
            self.command_handler.obey,
            supervisor=self.supervisor,
        )
        self._site = SiteStates(
            topics=plan.topics,
            node=plan.node,
            source=plan.source.kind,
            pack=f"{plan.pack.manifest.name} {plan.pack.manifest.version}",
            show_pages=plan.show_pages,
            show_spectrum=plan.show_spectrum,
            done=self._event_done,
            problems=plan.problems,
            judged=plan.parts.stamp.judged,
            lsl=plan.lsl_stages,
        )
        self.workers: dict[str, BedWorker] = {}
        self.publishers: dict[str, BedPublisher] = {}
        self._bed_tasks: dict[str, asyncio.Task[None]] = {}
        self._began = time.monotonic()
        self.outbox = OutboxCounters(waiting=0, oldest_s=None, sent=0)
        """What waits for the broker, as it was last counted."""
        self.host_clock = HostClock()
        self._uncounted = ""
        """Why the outbox cannot be counted."""
        self._memory = ""
        """Why memory is short."""
        self._stop = asyncio.Event()
        self._failure: BaseException | None = None
        """Of a bed_worker."""
        self.ready = asyncio.Event()
        """Set once the model is warm and everything is read."""

    # --- life ----------------------------------------------------------------------------------

    def stop(self) -> None:
        """Let :meth:`run` end in good order. Sessions stay open and can be resumed."""
        self._stop.set()

    async def run(self) -> None:
        """Serve until the source ends or :meth:`stop`."""
        for bed in self._plan.beds:
            self.worker_of(bed)
        await self._resume()
        link = self.link.start()
        care = self.supervisor.task("model care", self._care_for_model)
        others = [care, self._again("outbox count", self._count_outbox_again, COUNT_DEADLINE_S)]
        try:
            # Samples are read, and taped, while the model warms up: it may be slow.
            self.signal_thread.start()
            await self.judge.start(self.supervisor)
            self._log_capacity()
            self.ready.set()
            others.append(self.supervisor.task("packs beside", lambda _: self._beside.start()))
            others.append(self._again("status", self._show_status, STATUS_DEADLINE_S))
            await self._until_over(link, care)
        finally:
            await asyncio.to_thread(self.signal_thread.stop)
            await self._finish_workers(care)
            await self._drain(link)
            for task in others:
                task.cancel()
            self.link.stop()
            await asyncio.gather(link, *others, return_exceptions=True)
            self.judge.stop()
            self._beside.stop()
        for bed_worker in self._bed_tasks.values():
            if bed_worker.done() and not bed_worker.cancelled():
                bed_worker.result()  # one may have failed only while the others finished

    def _again(
        self, name: str, run: Callable[[Worker], Coroutine[Any, Any, None]], deadline_s: float
    ) -> asyncio.Task[None]:
        """Start what turns for ever, and turns again after a failure."""
        task = self.supervisor.task
        return task(name, run, deadline_s=deadline_s, on_failure="restart")

    async def _until_over(self, *tasks: asyncio.Task[None]) -> None:
        """Wait for the end of the source or a stop; a part that fails is raised."""
        ended = asyncio.wrap_future(self.signal_thread.ended)
        stopped = asyncio.create_task(self._stop.wait())
        parts: set[asyncio.Future[object]] = {ended, stopped, *tasks}  # type: ignore[arg-type]  # futures of several results
        try:
            while not {ended, stopped} - parts:
                done, parts = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
                for part in done:
                    if not part.cancelled():
                        part.result()
            if self._failure is not None:
                raise self._failure
        finally:
            stopped.cancel()

    def _bed_over(self, bed_worker: asyncio.Task[None]) -> None:
        """End where a bed's worker has failed: its bed would be served no longer."""
        if not bed_worker.cancelled() and (error := bed_worker.exception()) is not None:
            self._failure = self._failure or error
            self._stop.set()

    def _log_capacity(self) -> None:
        """Log how long the warm model needs, and which beds are too many for it."""
        plan = self._plan
        capacity = self.judge.capacity(plan.pack.manifest.context)
        if capacity is None:
            return
        _log.info("the model is warm", model=plan.pack.manifest.name, takes=capacity.line())
        beyond = capacity.beyond(plan.beds)
        if beyond and plan.source.kind == "live":
            _log.error("these beds will not always be served in time", beds=list(beyond))

    async def _finish_workers(self, care: asyncio.Task[None]) -> None:
        await asyncio.sleep(0)
        for bed_worker in self.workers.values():
            bed_worker.finish()
        # A recording that was read to its end has all its pages judged, however long that lasts.
        whole = self._plan.source.kind != "live" and self.signal_thread.ended.done()
        until = time.monotonic() + DRAIN_S
        left: set[asyncio.Task[None]] = {*self._bed_tasks.values()}
        while left and not care.done() and (whole or time.monotonic() < until):
            await asyncio.wait({*left, care}, timeout=0.2, return_when=asyncio.FIRST_COMPLETED)
            left = {task for task in left if not task.done()}
        for publisher in self.publishers.values():
            publisher.refresh_now()

    async def _drain(self, link: asyncio.Task[None]) -> None:
        """Give the broker a moment to acknowledge what is left; the rest stays in the outbox."""
        deadline = time.monotonic() + DRAIN_S
        while (
            not link.done()
            and isinstance(self.link.state, Connected)
            and time.monotonic() < deadline
        ):
            if not await self.journal.waiting():
                return
            await asyncio.sleep(0.02)

    async def _show_status(self, worker: Worker) -> None:
        """Publish how beds and daemon do: when that changes, and now and then."""
        state_at = tick_at = time.monotonic()
        shown: tuple[str, ...] = ()
        while True:
            self.host_clock.look()
            self._memory = memory_problem(free_bytes())
            now, degraded = time.monotonic(), self.degraded()
            if now >= state_at or degraded != shown:
                shown, state_at = degraded, now + STATE_EVERY_S
                self.link.retain(self._plan.topics.daemon(self._plan.node), self.state())
            if now >= tick_at:
                tick_at = now + REFRESH_S
                for publisher in self.publishers.values():
                    publisher.tick()
            worker.beat()
            await asyncio.sleep(STATUS_S)

    async def _care_for_model(self, _: Worker) -> None:
        """Build a model that hangs anew; where that cannot be, the ward ends and begins anew."""
        while True:
            await asyncio.sleep(REFRESH_S)
            await self.judge.rebuild_if_stuck()
            await self._beside.rebuild_if_stuck()

    async def _count_outbox_again(self, worker: Worker) -> None:
        while True:
            await self.count_outbox()
            worker.beat()
            await asyncio.sleep(REFRESH_S)

    async def count_outbox(self) -> None:
        """Count what waits for the broker; a disk that cannot be read leaves the last count."""
        try:
            self.outbox = await self.journal.outbox_counters(datetime.now(UTC))
        except JournalError as error:
            if not self._uncounted:
                _log.warning("the outbox cannot be counted", error=str(error))
            self._uncounted = f"the outbox cannot be counted: {error}"
        else:
            self._uncounted = ""

    # --- beds ----------------------------------------------------------------------------------

    def _deliver(self, bed: str, item: Item) -> None:
        """Give a bed's worker what the signal thread found."""
        if self._plan.past is not None:
            self._plan.past.keep(item)
        self.worker_of(bed).add(item)

    def worker_of(self, bed: str) -> BedWorker:
        """Return a bed's worker, set up when the bed first appears."""
        bed_worker = self.workers.get(bed)
        if bed_worker is None:
            publisher = BedPublisher(bed, self._site, self.link)
            bed_worker = BedWorker(self._plan.parts, publisher)
            self.workers[bed], self.publishers[bed] = bed_worker, publisher
            working = self.supervisor.task(f"bed {bed}", lambda _: bed_worker.run(self.supervisor))
            working.add_done_callback(self._bed_over)
            self._bed_tasks[bed] = working
            publisher.refresh()
            if self._plan.home_assistant:
                self._announce(bed)
        return bed_worker

    def session_of(self, bed: str) -> str | None:
        """Return the id of the session that runs at a bed; may be asked from any thread."""
        publisher = self.publishers.get(bed)
        session = None if publisher is None else publisher.session
        return None if session is None else session.id

    async def _knows_session(self, bed: str, session: str) -> bool:
        record = await self.journal.read(lambda reader: reader.session(session))
        return record is not None and record.bed == bed

    async def _durable(self, bed: str) -> None:
        await self.worker_of(bed).durable()

    def _announce(self, bed: str) -> None:
        plan = self._plan
        document = discovery(plan.topics, plan.node, bed, pages=plan.show_pages)
        topic = plan.topics.discovery(bed)
        self.link.retain_bytes(topic, document, content_type="application/json")

    def _event_done(self, event: payloads.StageEvent) -> None:
        if event.status != "provisional":
            self.signal_thread.page_done()
        for watcher in self._plan.watchers:
            watcher.event(event)

    # --- after a restart -----------------------------------------------------------------------

    async def _resume(self) -> None:
        """Resume the sessions that ran when the daemon went down."""
        if self._plan.source.kind != "live":
            return
        for record in await self.journal.read(JournalReader.open_sessions):
            if record.site != self._plan.topics.site or record.source != "live":
                continue
            await self._resume_one(record.id)

    async def _resume_one(self, session_id: str) -> None:
        known = await self.journal.read(lambda reader: known_night(reader, session_id))
        night, session = known.night, session_of(known.night, self._plan.boot_id)
        last = max((event.epoch for event in night.events), default=-1)
        seen = max([session.opened_utc, *(seconds_of(page.end) for page in night.events)])
        _log.info("session taken up again", bed=session.bed, session=session.id, epoch=last + 1)
        before = await self.worker_of(session.bed).resume(session, known)
        taken_up = self.signal_thread.post(
            session.bed,
            lambda pipeline, now: pipeline.sessions.resume(
                session, next_epoch=last + 1, last_seen_utc=seen, now=now, before=before
            ),
        )
        taken_up.add_done_callback(log_failure)

    # --- the daemon's own state ----------------------------------------------------------------

    def degraded(self) -> tuple[str, ...]:
        """Return what is not as it should be, a line each."""
        disk = self._plan.disk_problems()
        more = (self._uncounted, *disk, self._memory, *self._beside.degraded)
        return degraded_of(self, more)

    def state(self) -> payloads.DaemonState:
        """Return how the daemon does; waits for nothing, so that it can be read at any time."""
        return state_of(self, self._plan, uptime_s=time.monotonic() - self._began)
