"""The daemon put together: one source, one judge, one journal, one broker, any number of beds."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import structlog

from hypnocast import __version__
from hypnocast.app.board import Board, House
from hypnocast.app.desk import Desk, Kit
from hypnocast.app.events import instant
from hypnocast.app.homeassistant import discovery, discovery_topic
from hypnocast.app.nights.past import PastPages
from hypnocast.app.orders import Orders
from hypnocast.app.sources import Source
from hypnocast.app.traced import Item
from hypnocast.app.tracer import MakeBedside, Tracer
from hypnocast.core import wire
from hypnocast.core.session import LightsMark, Phase, Session
from hypnocast.core.topics import Topics
from hypnocast.errors import HypnocastError, JournalError
from hypnocast.ports.journal_reader import JournalReader, NightRecord
from hypnocast.ports.mqtt import Connected, MqttLink
from hypnocast.ports.mqtt_settings import BrokerSettings
from hypnocast.stagers.pack import Pack

STATE_EVERY_S = 30.0
REFRESH_S = 1.0
DRAIN_S = 10.0
"""How long a daemon that ends waits for the broker to acknowledge what is still to be sent."""

_log = structlog.get_logger("ward")


class Watcher(Protocol):
    """Wants to know of everything that becomes durable: a terminal view, metrics, a test."""

    def event(self, event: wire.StageEvent) -> None:
        """Take note of an event."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Everything a ward is made of."""

    source: Source
    pack: Pack
    kit: Kit
    topics: Topics
    node: str
    broker: BrokerSettings | None
    """None: nobody is told; what there is lies in the journal."""
    make_bedside: MakeBedside
    beds: tuple[str, ...] = ()
    """Shown from the beginning, whether anything is heard of them or not."""
    show_pages: bool = False
    boot_id: str = ""
    """Of this boot: sessions that run are taken up on the grid they had in it."""
    problems: Callable[[str], tuple[str, ...]] = lambda _: ()
    """What the source knows to be wrong with a bed."""
    watchers: tuple[Watcher, ...] = ()
    home_assistant: bool = False
    """Announce every bed as a device of Home Assistant."""
    past: PastPages | None = None
    """Keeps past pages and answers ``page`` and ``explain``; None: both are refused."""


class Ward:
    """Runs all beds until the source ends or it is stopped."""

    def __init__(self, plan: Plan) -> None:
        """Put the parts together; nothing runs yet."""
        self._plan = plan
        self.judge = plan.kit.judge
        self.journal = plan.kit.journal
        self.tracer = Tracer(plan.source, plan.make_bedside, self._deliver)
        self.orders = Orders(self.tracer, self._durable, plan.past)
        self.link = MqttLink(plan.broker, plan.topics, plan.node, self.journal, self.orders.obey)
        self._house = House(
            topics=plan.topics,
            node=plan.node,
            source=plan.source.kind,
            pack=f"{plan.pack.manifest.name} {plan.pack.manifest.version}",
            show_pages=plan.show_pages,
            done=self._event_done,
            problems=plan.problems,
        )
        self.desks: dict[str, Desk] = {}
        self.boards: dict[str, Board] = {}
        self._desk_tasks: dict[str, asyncio.Task[None]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._began = time.monotonic()
        self._stop = asyncio.Event()
        self._failure: BaseException | None = None
        """Of a desk."""
        self.ready = asyncio.Event()
        """Set once the model is warm and everything is read."""

    # --- life ----------------------------------------------------------------------------------

    def stop(self) -> None:
        """Let :meth:`run` end in good order. Sessions stay open and can be resumed."""
        self._stop.set()

    async def run(self) -> None:
        """Serve until the source ends or :meth:`stop`."""
        self._loop = asyncio.get_running_loop()
        for bed in self._plan.beds:
            self.desk(bed)
        await self._resume()
        link = asyncio.create_task(self.link.run(), name="mqtt")
        chores = asyncio.create_task(self._chores(), name="chores")
        try:
            # Samples are read, and taped, while the model warms up: it may take its time.
            self.tracer.start()
            await self.judge.start()
            self._log_capacity()
            self.ready.set()
            self._show_state()
            await self._until_over(link, chores)
        finally:
            self.tracer.stop()
            await self._finish_desks(chores)
            await self._drain(link)
            chores.cancel()
            self.link.stop()
            await asyncio.gather(link, chores, return_exceptions=True)
            self.judge.stop()
        for desk in self._desk_tasks.values():
            if desk.done() and not desk.cancelled():
                desk.result()  # one may have failed only while the others finished

    async def _until_over(self, *tasks: asyncio.Task[None]) -> None:
        """Wait for the end of the source or a stop; a part that fails is raised."""
        ended = asyncio.wrap_future(self.tracer.ended)
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

    def _desk_over(self, desk: asyncio.Task[None]) -> None:
        """End where a desk has failed: its bed would be served no longer."""
        if not desk.cancelled() and (error := desk.exception()) is not None:
            self._failure = self._failure or error
            self._stop.set()

    def _log_capacity(self) -> None:
        """Say what the warm model takes, and which beds are too many for it."""
        capacity, plan = self.judge.capacity, self._plan
        if capacity is None:
            return
        _log.info("the model is warm", model=plan.pack.manifest.name, takes=capacity.line())
        beyond = capacity.beyond(plan.beds)
        if beyond and plan.source.kind == "live":
            _log.error("these beds will not always be served in time", beds=list(beyond))

    async def _finish_desks(self, chores: asyncio.Task[None]) -> None:
        await asyncio.sleep(0)
        for desk in self.desks.values():
            desk.finish()
        # A recording that was read to its end has all its pages judged, however long that takes.
        whole = self._plan.source.kind != "live" and self.tracer.ended.done()
        until = time.monotonic() + DRAIN_S
        left: set[asyncio.Task[None]] = {*self._desk_tasks.values()}
        while left and not chores.done() and (whole or time.monotonic() < until):
            await asyncio.wait({*left, chores}, timeout=0.2, return_when=asyncio.FIRST_COMPLETED)
            left = {task for task in left if not task.done()}
        for board in self.boards.values():
            board.refresh_now()

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

    async def _chores(self) -> None:
        """Do what is to be done now and then."""
        state_at = time.monotonic() + STATE_EVERY_S
        while True:
            await asyncio.sleep(REFRESH_S)
            await self.judge.rebuild_if_stuck()
            for board in self.boards.values():
                board.tick()
            if time.monotonic() >= state_at:
                state_at += STATE_EVERY_S
                await self._publish_state()

    # --- beds ----------------------------------------------------------------------------------

    def _deliver(self, bed: str, item: Item) -> None:
        """Take an item on the tracer's thread, to the event loop."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._take, bed, item)

    def _take(self, bed: str, item: Item) -> None:
        if self._plan.past is not None:
            self._plan.past.keep(item)
        self.desk(bed).take(item)

    def desk(self, bed: str) -> Desk:
        """Return a bed's desk, set up when the bed is first heard of."""
        desk = self.desks.get(bed)
        if desk is None:
            board = Board(bed, self._house, self.link)
            desk = Desk(self._plan.kit, board)
            self.desks[bed], self.boards[bed] = desk, board
            working = asyncio.create_task(desk.run(), name=f"desk {bed}")
            working.add_done_callback(self._desk_over)
            self._desk_tasks[bed] = working
            board.refresh()
            if self._plan.home_assistant:
                self._announce(bed)
        return desk

    async def _durable(self, bed: str) -> None:
        await self.desk(bed).durable()

    def _announce(self, bed: str) -> None:
        plan = self._plan
        document = discovery(plan.topics, plan.node, bed, pages=plan.show_pages)
        topic = discovery_topic(plan.topics, bed)
        self.link.retain_bytes(topic, document, content_type="application/json")

    def _event_done(self, event: wire.StageEvent) -> None:
        if event.status != "provisional":
            self.tracer.page_done()
        for watcher in self._plan.watchers:
            watcher.event(event)

    # --- after a restart -----------------------------------------------------------------------

    async def _resume(self) -> None:
        """Take up the sessions that ran when the daemon went down."""
        if self._plan.source.kind != "live":
            return
        for record in await self.journal.read(JournalReader.open_sessions):
            if record.site != self._plan.topics.site or record.source != "live":
                continue
            await self._resume_one(record.id)

    async def _resume_one(self, session_id: str) -> None:
        def look(reader: JournalReader) -> NightRecord:
            return reader.night(session_id)

        night = await self.journal.read(look)
        evidence = await self.journal.read(lambda reader: reader.evidence(session_id))
        provisional = await self.journal.read(lambda reader: reader.provisional(session_id))
        session = _session_of(night, self._plan.boot_id)
        last = max((event.epoch for event in night.events), default=-1)
        seen = max([session.opened_utc, *(_utc(page.end) for page in night.events)])
        _log.info("session taken up again", bed=session.bed, session=session.id, epoch=last + 1)
        await self.desk(session.bed).resume(session, night, evidence, provisional)
        taken_up = self.tracer.post(
            session.bed,
            lambda bedside, now: bedside.resume(
                session, next_epoch=last + 1, last_seen_utc=seen, now=now
            ),
        )
        taken_up.add_done_callback(_complain)

    # --- the daemon's own state ----------------------------------------------------------------

    def _show_state(self) -> None:
        asyncio.ensure_future(self._publish_state())  # noqa: RUF006 - short, and nothing awaits it

    async def _publish_state(self) -> None:
        topic = self._plan.topics.daemon(self._plan.node)
        try:
            state = await self.state()
        except JournalError as error:
            # A journal that cannot be read for a moment ends no night: the next state says more.
            _log.warning("the daemon's state cannot be told", error=str(error))
            return
        self.link.retain(topic, state)

    async def state(self) -> wire.DaemonState:
        """Return how the daemon does."""
        plan, judge = self._plan, self.judge.state()
        counters: Counter[str] = Counter()
        for board in self.boards.values():
            counters.update(board.counts)
        counters.update({"judged": judge.judged, "failed": judge.failed, "rebuilt": judge.rebuilt})
        counters["given_up"] += judge.given_up
        now = time.time()
        condition = self.journal.condition
        degraded = (
            *judge.degraded,
            *(("journal_degraded",) if condition.health == "degraded" else ()),
            *(words for words in (condition.why, condition.lost) if words),
            *self.link.problems,
        )
        return wire.DaemonState(
            at=instant(now),
            site=plan.topics.site,
            node=plan.node,
            version=__version__,
            pack=plan.pack.manifest.name,
            pack_version=plan.pack.manifest.version,
            pack_digest=plan.pack.digest,
            recipe=plan.pack.recipe.name,
            provider=judge.provider,
            degraded=degraded,
            uptime_s=round(time.monotonic() - self._began, 1),
            beds=tuple(self.boards),
            counters=dict(counters),
            outbox=await self.journal.outbox_counters(datetime.fromtimestamp(now, UTC)),
        )


def _session_of(night: NightRecord, boot_id: str) -> Session:
    """Return a session as it stood in the journal, on the grid of this boot if it has one."""
    record = night.session
    anchor = night.anchors[-1] if night.anchors else None
    anchor = next((each for each in night.anchors if each.boot_id == boot_id), anchor)
    lights = tuple(
        LightsMark("off" if mark.kind == "lights_off" else "on", _utc(mark.at))
        for mark in night.marks
        if mark.kind in ("lights_off", "lights_on")
    )
    return Session(
        id=record.id,
        site=record.site,
        bed=record.bed,
        subject=record.subject,
        source=record.source,
        boot_id=anchor.boot_id if anchor is not None else "",
        opened_utc=_utc(record.opened),
        phase=Phase(record.phase),
        anchor_lsl=anchor.lsl_t0 if anchor is not None else None,
        anchor_utc=anchor.utc_t0 if anchor is not None else None,
        lights=lights,
    )


def _utc(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()


def _complain(taken_up: Future[None]) -> None:
    error = taken_up.exception()
    if isinstance(error, HypnocastError):
        _log.error("a session cannot be taken up again", error=str(error))
    elif error is not None:
        _log.error("a session cannot be taken up again", error=repr(error))
