"""One site, followed over MQTT."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Final, Self

import msgspec

from hypnocast.client.gaps import Sequences
from hypnocast.core.wire.commands import (
    CatchUp,
    Command,
    EndSession,
    LightsOff,
    LightsOn,
    Note,
    Reply,
    StartSession,
)
from hypnocast.core.wire.notices import Notice
from hypnocast.core.wire.payloads import BedStatus, Night, StageEvent
from hypnocast.dashboard.feed import BrokerLink, Feed, ended
from hypnocast.dashboard.ward import Incoming, bed_of
from hypnocast.errors import BrokerError, CommandError
from hypnocast.ports.mqtt.settings import BrokerSettings

TOPICS: Final = tuple(
    f"bed/+/{leaf}" for leaf in ("events", "stage", "status", "night", "notice", "reply")
)
MOST_WAITING: Final = 4096
"""Events that may wait for whoever reads them. What has no room is asked for again later."""

MOST_NOTICES: Final = 64
"""Notices that may wait; of those that nobody reads the oldest is let go."""

CATCH_UP_AT_ONCE: Final = 200
_PATIENCE_S: Final = 15.0
_AGAIN_S: Final = 1.0


class HypnocastClient:
    """Follows the beds of a site, whatever the network does meanwhile."""

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 1883,
        *,
        site: str = "lab",
        root: str = "hypnocast",
        broker: BrokerSettings | None = None,
        since: dict[str, int] | None = None,
    ) -> None:
        """Prepare a client of a site.

        ``broker`` holds more of the broker than its address: TLS, login. ``since`` names for each
        bed the last ``sequence`` that this program has worked off, to go on from there.
        """
        settings = broker or BrokerSettings(host=host, port=port)
        self._feed = Feed(settings, f"{root}/{site}", on_message=self._receive, topics=TOPICS)
        self._sequences = Sequences(since)
        self._events: asyncio.Queue[StageEvent] = asyncio.Queue(MOST_WAITING)
        self._notices: asyncio.Queue[Notice] = asyncio.Queue(MOST_NOTICES)
        self._running: asyncio.Task[None] | None = None
        self.status: dict[str, BedStatus] = {}
        """The newest status of every bed."""
        self.stages: dict[str, StageEvent] = {}
        """The newest event of every bed."""
        self.nights: dict[str, Night] = {}
        """The night so far of every bed."""
        self.unreadable = 0
        """Messages that broke the contract, and were passed over."""

    async def __aenter__(self) -> Self:
        """Begin to follow; a broker that is not there yet is waited for."""
        self._running = asyncio.create_task(self._feed.run(), name="hypnocast client")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the broker."""
        if self._running is not None:
            await ended(self._running)

    @property
    def link(self) -> BrokerLink:
        """Whether the broker answers, and what is wrong if not."""
        return self._feed.link

    async def events(self) -> AsyncIterator[StageEvent]:
        """Give every event of every bed, each bed's in order, none twice, none left out.

        What was missed is asked for with ``catch_up`` before anything later is given.
        """
        while True:
            event = await self._events.get()
            while not self._sequences.is_repeat(event):
                if self._sequences.is_next(event):
                    self._sequences.give(event)
                    yield event
                    break
                for missed in await self._missed(event):
                    if not self._sequences.is_repeat(missed):
                        self._sequences.give(missed)
                        yield missed

    async def notices(self) -> AsyncIterator[Notice]:
        """Give every notice that comes from now on: a rule of the lab's own was met at a bed.

        What came while nobody listened is in the night's marks, and is not given here: a late
        notice would have somebody act on a stage that is over.
        """
        newest: dict[tuple[str, str], str] = {}
        while True:
            notice = await self._notices.get()
            place = (notice.bed, notice.rule)
            if newest.get(place) != notice.id:  # else the broker's repeat
                newest[place] = notice.id
                yield notice

    async def _missed(self, event: StageEvent) -> tuple[StageEvent, ...]:
        """Return what comes after the newest event given; wait for a daemon that does not answer.

        A journal that no longer has it (it was begun anew) gives what it has, or nothing: then the
        event itself comes next.
        """
        since = self._sequences.given(event.bed) or 0
        asked = CatchUp(request=_request(), since=since, limit=CATCH_UP_AT_ONCE)
        while True:
            try:
                reply = await self._feed.ask(event.bed, asked, patience_s=_PATIENCE_S)
            except BrokerError:
                await asyncio.sleep(_AGAIN_S)
                continue
            return reply.events or (event,)

    # --- commands ------------------------------------------------------------------------------

    async def start_session(self, bed: str, subject: str | None = None) -> str:
        """Begin a night for the next person; return the session's id."""
        reply = await self.command(bed, StartSession(request=_request(), subject=subject))
        return reply.session or ""

    async def end_session(self, bed: str, session: str) -> None:
        """End a session."""
        await self.command(bed, EndSession(request=_request(), session=session))

    async def lights(self, bed: str, session: str, *, on: bool, at: str | None = None) -> None:
        """Mark lights on or off, now or at a time (ISO 8601 with a zone)."""
        kind = LightsOn if on else LightsOff
        await self.command(bed, kind(request=_request(), session=session, at=at))

    async def note(self, bed: str, session: str, text: str, at: str | None = None) -> None:
        """Put a note into the night."""
        await self.command(bed, Note(request=_request(), session=session, text=text, at=at))

    async def command(self, bed: str, command: Command) -> Reply:
        """Send any command; :class:`CommandError` where it is refused."""
        reply = await self._feed.ask(bed, command, patience_s=_PATIENCE_S)
        if not reply.ok:
            raise CommandError(reply.error or "refused", where=f"bed {bed}")
        return reply

    # --- what comes ----------------------------------------------------------------------------

    def _receive(self, message: Incoming) -> None:
        bed, leaf = bed_of(message.topic), message.topic.rpartition("/")[2]
        if bed is None or not message.payload:
            return
        try:
            self._keep(bed, leaf, message.payload)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            self.unreadable += 1

    def _keep(self, bed: str, leaf: str, payload: bytes) -> None:
        match leaf:
            case "events" | "stage":
                event = msgspec.json.decode(payload, type=StageEvent)
                if leaf == "stage":
                    self.stages[bed] = event
                if not self._events.full():
                    self._events.put_nowait(event)
            case "notice":
                if self._notices.full():
                    self._notices.get_nowait()
                self._notices.put_nowait(msgspec.json.decode(payload, type=Notice))
            case "status":
                self.status[bed] = msgspec.json.decode(payload, type=BedStatus)
            case "night":
                self.nights[bed] = msgspec.json.decode(payload, type=Night)


def _request() -> str:
    return secrets.token_hex(8)
