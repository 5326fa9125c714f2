"""From scored pages to the journal: in order, many at once, and what follows once durable."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np

from hypnocast.core.night.rules import mark_of
from hypnocast.core.night.session import Session
from hypnocast.core.timing.utc import instant
from hypnocast.core.wire.payloads import NightMark
from hypnocast.live.staging.bed_stager import StagedEvent
from hypnocast.ports.journal.journal import Journal
from hypnocast.ports.journal.records import (
    Batch,
    CarriedRecord,
    ClockAnchor,
    Committed,
    EventDraft,
    MarkRecord,
    OpinionRecord,
    PageDetail,
    PageRecord,
    SessionRecord,
)

IN_FLIGHT = 16
"""Batches of one bed that may wait for the disk at once; together they share its syncs."""

Durable = Callable[[StagedEvent, Committed], None]


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    done: asyncio.Task[Committed]
    then: Callable[[Committed], None] | None


class EventCommitter:
    """Hands one bed's batches to the journal in order and calls back when each is durable."""

    def __init__(self, journal: Journal, pack_digest: str, durable: Durable) -> None:
        """Keep the journal, and what to call when an event has become durable."""
        self._journal = journal
        self._pack = pack_digest
        self._durable = durable
        self._waiting: asyncio.Queue[_Waiting | asyncio.Future[None] | None] = asyncio.Queue(
            IN_FLIGHT
        )

    async def run(self) -> None:
        """Call back for durable batches, in order, until :meth:`finish`."""
        while (waiting := await self._waiting.get()) is not None:
            if isinstance(waiting, asyncio.Future):
                if not waiting.done():
                    waiting.set_result(None)
                continue
            committed = await waiting.done
            if waiting.then is not None:
                waiting.then(committed)
            del waiting, committed  # a page's picture would stay until the next page comes

    async def reach(self, reached: asyncio.Future[None]) -> None:
        """Set a future once everything handed over so far is durable."""
        await self._waiting.put(reached)

    async def finish(self) -> None:
        """Let :meth:`run` end after everything handed over so far."""
        await self._waiting.put(None)

    async def commit(self, batch: Batch, then: Callable[[Committed], None] | None = None) -> None:
        """Hand a batch over; waits only while too many are under way."""
        task = asyncio.ensure_future(self._journal.commit(batch))
        await self._waiting.put(_Waiting(task, then))

    async def emit(self, scored: StagedEvent) -> None:
        """Hand an event over, with what the journal keeps beside it."""
        event = scored.event
        opinions: tuple[OpinionRecord, ...] = ()
        if scored.log_probabilities is not None:
            record = OpinionRecord(
                event.session,
                event.epoch,
                event.revision,
                self._pack,
                event.provider or "",
                np.asarray(scored.log_probabilities, dtype=np.float64),
            )
            opinions = (record,)
        seen = scored.picture.spectrum if scored.picture is not None else None
        page = PageRecord(
            event.session,
            event.epoch,
            _now(),
            event.digests.picture,
            msgspec.json.encode(PageDetail(spectrum=seen)),
        )
        draft = EventDraft(event, scored.journaled)
        carried: tuple[CarriedRecord, ...] = ()
        if scored.carried is not None:
            carried = (CarriedRecord(event.session, self._pack, event.epoch, scored.carried),)
        batch = Batch(
            pages=(page,),
            opinions=opinions,
            events=(draft,),
            marks=tuple(MarkRecord(event.session, mark_of(one)) for one in scored.notices),
            carried=carried,
        )
        await self.commit(batch, lambda committed: self._durable(scored, committed))

    async def session(self, session: Session, then: Callable[[], None] | None = None) -> None:
        """Write a session as it is, with its anchor; ``then`` follows once it is durable."""
        anchors: tuple[ClockAnchor, ...] = ()
        if session.anchor_lsl is not None and session.anchor_utc is not None:
            anchor = ClockAnchor(
                session.id, session.boot_id, session.anchor_lsl, session.anchor_utc, _now()
            )
            anchors = (anchor,)
        batch = Batch(sessions=(session_record(session),), anchors=anchors)
        await self.commit(batch, None if then is None else lambda _: then())

    async def mark(self, session: str, mark: NightMark, then: Callable[[], None]) -> None:
        """Write a marker or note; ``then`` follows once it is durable."""
        await self.commit(Batch(marks=(MarkRecord(session, mark),)), lambda _: then())


def session_record(session: Session) -> SessionRecord:
    """Return a session as the journal keeps it."""
    return SessionRecord(
        id=session.id,
        bed=session.bed,
        site=session.site,
        subject=session.subject,
        source=session.source,
        opened=instant(session.opened_utc),
        phase=session.phase.value,
        start=None if session.anchor_utc is None else instant(session.anchor_utc),
        ended=None if session.ended_utc is None else instant(session.ended_utc),
    )


def _now() -> str:
    return instant(time.time())
