"""One bed's worker, in the event loop: what the signal thread hands over becomes events.

Items are worked off strictly in their order. The judge is asked the moment a page comes, so
that pages of many beds meet in one batch; everything after that waits its turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np
import structlog

from hypnocast.core.night.rules import StageRule, StageRuns
from hypnocast.core.night.session import Phase, Session
from hypnocast.core.quality import coverage_of
from hypnocast.core.timing.decisions import EarlierPage
from hypnocast.core.timing.utc import instant
from hypnocast.core.types import ChannelQuality, FloatArray, Opinion, Role
from hypnocast.core.verdicts.decider import Decider, NightState
from hypnocast.core.wire import payloads
from hypnocast.core.wire.page_facts import JudgedMontages
from hypnocast.live.bed.bed_updates import (
    Changed,
    ClosedPage,
    Glimpsed,
    Item,
    Noted,
    SignalsSeen,
    TracesSeen,
)
from hypnocast.live.bed.signal_health import Needed
from hypnocast.live.publishing.bed_publisher import BedPublisher
from hypnocast.live.publishing.second_opinions import SecondOpinions
from hypnocast.live.staging.bed_stager import AskedPage, BedStager, StagedEvent
from hypnocast.live.staging.carrying import Carried
from hypnocast.live.staging.committing import EventCommitter
from hypnocast.live.staging.judging import Judge
from hypnocast.live.staging.rolling import RollingStager
from hypnocast.live.staging.second_opinion import BesidePack
from hypnocast.live.staging.stage_events import Origin
from hypnocast.ports.journal.journal import Journal
from hypnocast.ports.journal.reader import NightRecord
from hypnocast.ports.journal.records import BesideRecord, Committed
from hypnocast.ports.supervision import Supervisor
from hypnocast.stagers.packs.manifest import Context

_log = structlog.get_logger("bed")


@dataclass(frozen=True, slots=True)
class EventOrigin:
    """What this daemon puts on every event of every bed."""

    site: str
    pack_digest: str
    recipe_digest: str
    review_below: float
    judged: JudgedMontages
    """What the pack was judged on."""

    def origin(self, session: Session) -> Origin:
        """Return what the events of a session have in common."""
        return Origin(
            site=self.site,
            bed=session.bed,
            session=session.id,
            subject=session.subject,
            source=session.source,
            start_utc=session.start_of(0),
            pack_digest=self.pack_digest,
            recipe_digest=self.recipe_digest,
            review_below=self.review_below,
            judged=self.judged,
        )


@dataclass(frozen=True, slots=True, eq=False)
class BedParts:
    """What every bed's worker works with."""

    journal: Journal
    judge: Judge
    decider: Decider
    context: Context
    needed: Needed
    """Which channels the pack needs: they decide how much of a page came."""
    stamp: EventOrigin
    deadline_s: float | None
    """How long after its close a page may wait for an opinion; None: without limit."""
    carries: bool = False
    """Whether the model hands something over from page to page."""
    beside: tuple[BesidePack, ...] = ()
    """Packs that give a second opinion."""
    rules_of: Callable[[str], Sequence[StageRule]] = lambda _: ()
    """The lab's own rules for a bed."""


@dataclass(frozen=True, slots=True, eq=False)
class KnownNight:
    """What the journal has of a session that goes on."""

    night: NightRecord
    evidence: Sequence[tuple[int, FloatArray | None]]
    """Epoch → the opinion that its terminal verdict follows from; None where it was withheld."""
    provisional: Sequence[tuple[payloads.StageEvent, FloatArray | None]]
    carried: Mapping[str, Carried]
    """Digest of a pack → what its model carried over."""
    beside: Sequence[BesideRecord]


EARLIER_PAGES = 240
"""So many pages back a verdict may rest on; what is further back counts for next to nothing."""

LEAST_LOG = -1000.0
"""JSON has no infinity."""


def _earlier(epoch: int, opinion: Opinion | None) -> EarlierPage:
    """Write down for a tape what was said of a page."""
    if opinion is None:
        return EarlierPage(epoch, None)
    rows = tuple(max(float(value), LEAST_LOG) for value in opinion.log_probabilities)
    return EarlierPage(epoch, rows, opinion.coverage)


def _opinion_on(page: EarlierPage) -> Opinion | None:
    """Read it back."""
    if page.log_probabilities is None:
        return None
    rows = np.asarray(page.log_probabilities, dtype=np.float64)
    return Opinion(page.epoch, rows, provider="", coverage=page.coverage)


_Work = AskedPage | Changed | Noted | asyncio.Future[None]
"""What waits its turn; a future is done when its turn has come and all before it is durable."""


class BedWorker:
    """Works off what happens at one bed."""

    def __init__(self, parts: BedParts, publisher: BedPublisher) -> None:
        """Keep what to work with, and the publisher that shows the bed."""
        self._parts = parts
        self._publisher = publisher
        self._committer = EventCommitter(parts.journal, parts.stamp.pack_digest, self._durable)
        self._runs = StageRuns(parts.rules_of(publisher.bed))
        self._scorer = BedStager(
            parts.judge,
            parts.decider,
            parts.context,
            self._emit,
            deadline_s=parts.deadline_s,
            carries=parts.carries,
        )
        self._rolling = RollingStager(
            parts.judge, parts.decider, self._scorer, publisher.roll, publisher.counts
        )
        self._beside = SecondOpinions(
            publisher.bed,
            parts.beside,
            speaking=parts.judge,
            journal=parts.journal,
            shown=publisher,
            live=parts.deadline_s is not None,
        )
        self._work: asyncio.Queue[_Work | None] = asyncio.Queue()
        self.done = 0
        """Items worked off."""

    @property
    def waiting(self) -> int:
        """Items that wait to be worked off."""
        return self._work.qsize()

    def add(self, item: Item) -> None:
        """Queue what the signal thread hands over, or show it at once."""
        match item:
            case ClosedPage():
                self._work.put_nowait(self._scorer.ask(item))
            case SignalsSeen():
                self._publisher.seen(item)
            case TracesSeen():
                self._publisher.traces(item)
            case Glimpsed():
                self._rolling.add(item)
            case Changed() | Noted():
                self._work.put_nowait(item)

    async def run(self, supervisor: Supervisor) -> None:
        """Work until :meth:`finish`, and until all of it is durable."""
        self._beside.start(supervisor)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._committer.run())
                while (item := await self._work.get()) is not None:
                    await self._work_off(item)
                    self.done += 1
                await self._committer.finish()
        except ExceptionGroup as failed:
            # What went wrong fits into a line; a group of what went wrong does not.
            raise failed.exceptions[0] from failed
        finally:
            self._beside.stop()

    def finish(self) -> None:
        """Let :meth:`run` return once everything handed over so far is durable."""
        self._work.put_nowait(None)

    async def durable(self) -> None:
        """Return once everything handed over so far is durable."""
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._work.put_nowait(reached)
        await reached

    async def resume(self, session: Session, known: KnownNight) -> tuple[EarlierPage, ...]:
        """Go on with a session that the journal has: the filter's state is followed again.

        Returns the newest pages that it follows from.
        """
        night = known.night
        self._publisher.begin(session)
        self._publisher.recall(night)
        self._runs.recall(night.events)
        events = {event.epoch: event for event in night.events}
        past = [
            (epoch, None if opinion is None else self._opinion(events[epoch], opinion))
            for epoch, opinion in known.evidence
        ]
        state = self._parts.decider.rebuild(past)
        for event, log_probabilities in known.provisional:
            state = await self._settle(event, log_probabilities, state)
            if log_probabilities is not None:
                past.append((event.epoch, self._opinion(event, log_probabilities)))
        if session.anchor_utc is not None:
            origin = self._parts.stamp.origin(session)
            self._scorer.begin(origin, state, known.carried.get(origin.pack_digest))
            self._beside.resume(session, known.beside, known.carried)
        return tuple(_earlier(epoch, opinion) for epoch, opinion in past[-EARLIER_PAGES:])

    async def _settle(
        self, event: payloads.StageEvent, log_probabilities: FloatArray | None, state: NightState
    ) -> NightState:
        """Make a page terminal, as published, that was provisional when the daemon went down."""
        if log_probabilities is None:
            return state
        opinion = self._opinion(event, log_probabilities)
        state, staged = self._parts.decider.step(state, opinion)
        if staged.provisional:
            state, _ = self._parts.decider.settle(state)
        terminal = msgspec.structs.replace(
            event, id=payloads.event_id(event.session, event.epoch, 1), revision=1, status="final"
        )
        await self._emit(StagedEvent(terminal, log_probabilities, None))
        return state

    def _opinion(self, event: payloads.StageEvent, log_probabilities: FloatArray) -> Opinion:
        """Return the opinion of a page as it was before the daemon went down."""
        quality = {
            Role(role): ChannelQuality(report.coverage) for role, report in event.quality.items()
        }
        return Opinion(
            event.epoch,
            log_probabilities,
            provider=event.provider or "",
            coverage=coverage_of(quality, self._parts.needed),
        )

    async def _work_off(self, item: _Work) -> None:
        match item:
            case AskedPage():
                await self._scorer.score(item)
                self._beside.add(item.closed)
                await self._beside.caught_up()
            case Changed():
                await self._change(item)
                self._beside.add(item)
            case Noted():
                await self._mark(item.session.id, item.at_utc, item.kind, item.text)
            case asyncio.Future():
                await self._committer.reach(item)

    async def _change(self, changed: Changed) -> None:
        change, publisher = changed.change, self._publisher
        session = change.session
        match change.change:
            case "opened" | "phase":
                await self._committer.session(session, lambda: publisher.begin(session))
                if session.phase is Phase.RECORDING:
                    past = ((page.epoch, _opinion_on(page)) for page in changed.before)
                    state = self._parts.decider.rebuild(past)
                    self._scorer.begin(self._parts.stamp.origin(session), state)
                if change.change == "phase":
                    await self._mark(session.id, change.at.utc, "phase", session.phase.value)
            case "lights" if (lights := change.lights) is not None:
                await self._committer.session(session, lambda: publisher.lights(session))
                kind: payloads.MarkKind = "lights_off" if lights.to == "off" else "lights_on"
                await self._mark(session.id, lights.at, kind, change.why)
            case "reanchored":
                _log.warning(change.why, bed=session.bed, session=session.id)
                await self._committer.session(session)
                await self._mark(session.id, change.at.utc, "note", change.why)
            case "ended":
                await self._scorer.end()
                await self._committer.session(session, lambda: publisher.end(session))

    async def _mark(self, session: str, at_utc: float, kind: payloads.MarkKind, text: str) -> None:
        mark = payloads.NightMark(at=instant(at_utc), kind=kind, text=text)
        await self._committer.mark(session, mark, lambda: self._publisher.mark(mark))

    async def _emit(self, scored: StagedEvent) -> None:
        """Hand an event over, with the notices of the rules that it meets."""
        await self._committer.emit(replace(scored, notices=self._runs.add(scored.event)))

    def _durable(self, scored: StagedEvent, committed: Committed) -> None:
        self._publisher.event(scored, committed)
        for notice in scored.notices:
            self._publisher.notice(notice)
        self._beside.event_durable(scored.event.epoch)
