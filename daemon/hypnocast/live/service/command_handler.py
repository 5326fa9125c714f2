"""What people ask of the beds: done, and durable before it is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Literal, TypeVar

from hypnocast.core.night.session import Phase
from hypnocast.core.wire import commands
from hypnocast.errors import CommandError
from hypnocast.live.bed.bed_pipeline import BedPipeline
from hypnocast.live.bed.signal_thread import SignalThread
from hypnocast.live.explaining.past_pages import PastPages

T = TypeVar("T")

_EXAMPLE = "2027-01-31T23:05:00+01:00"

Durable = Callable[[str], Awaitable[None]]
"""Returns once everything that happened at a bed so far is in the journal."""

Known = Callable[[str, str], Awaitable[bool]]
"""Returns whether a bed ever had a session."""


class CommandHandler:
    """Obeys the commands of all beds."""

    def __init__(
        self,
        signal_thread: SignalThread,
        durable: Durable,
        known: Known,
        past: PastPages | None,
        accept_streams: Callable[[str], bool],
    ) -> None:
        """Keep who does it, who knows when it is durable, and who answers of past pages.

        ``accept_streams`` accepts who sends a bed's streams; it returns whether any was doubtful.
        """
        self._accept_streams = accept_streams
        self._signal_thread = signal_thread
        self._durable = durable
        self._known = known
        self._past = past

    async def obey(self, bed: str, command: commands.Command) -> commands.Reply:
        """Obey a command at a bed."""
        match command:
            case commands.StartSession():
                phase = Phase(command.phase)
                session = await self._do(
                    bed, lambda pipeline, now: pipeline.sessions.start(command.subject, phase, now)
                )
                return _done(command, session.id)
            case commands.EndSession():
                return await self._end_session(bed, command)
            case commands.LightsOff() | commands.LightsOn():
                return await self._mark_lights(bed, command)
            case commands.Note():
                return await self._note(bed, command)
            case commands.AcceptStream():
                return await self._accept_stream(bed, command)
            case commands.PageCommand() | commands.Explain() if self._past is not None:
                return await self._past.answer(bed, command)
            case _:
                raise CommandError(
                    "this daemon keeps no pictures of past pages",
                    where=f"bed {bed}",
                    remedy="Use hypnocast why on the tape.",
                )

    async def _end_session(self, bed: str, command: commands.EndSession) -> commands.Reply:
        """End a session; one that has ended already is fine, one that never was is refused."""
        ended = await self._do(
            bed, lambda pipeline, now: pipeline.sessions.end(command.session, now)
        )
        if not ended and not await self._known(bed, command.session):
            raise CommandError(
                f"there never was a session {command.session}",
                where=f"bed {bed}",
                remedy="The session that runs is on the bed's status topic.",
            )
        return _done(command, command.session)

    async def _note(self, bed: str, command: commands.Note) -> commands.Reply:
        at = None if command.at is None else _utc(command.at)

        def note(pipeline: BedPipeline, now: float) -> None:
            pipeline.sessions.expect(command.session)
            pipeline.sessions.note(at, command.text, now)

        await self._do(bed, note)
        return _done(command, command.session)

    async def _accept_stream(self, bed: str, command: commands.AcceptStream) -> commands.Reply:
        def accept(pipeline: BedPipeline, now: float) -> None:
            pipeline.sessions.expect(command.session)
            if not self._accept_streams(bed):
                raise CommandError(
                    "no stream comes from elsewhere",
                    where=f"bed {bed}",
                    remedy="Look at the bed's problems.",
                )
            pipeline.sessions.note(None, "the lab accepts who sends the streams now", now)

        await self._do(bed, accept)
        return _done(command, command.session)

    async def _mark_lights(
        self, bed: str, command: commands.LightsOff | commands.LightsOn
    ) -> commands.Reply:
        at = None if command.at is None else _utc(command.at)
        to: Literal["off", "on"] = "off" if isinstance(command, commands.LightsOff) else "on"

        def mark(pipeline: BedPipeline, now: float) -> None:
            pipeline.sessions.expect(command.session)
            pipeline.sessions.lights(to, at, now)

        await self._do(bed, mark)
        return _done(command, command.session)

    async def _do(self, bed: str, act: Callable[[BedPipeline, float], T]) -> T:
        done = await asyncio.wrap_future(self._signal_thread.post(bed, act))
        await self._durable(bed)
        return done


def _done(command: commands.Command, session: str) -> commands.Reply:
    name = commands.command_name(command)
    return commands.Reply(request=command.request, command=name, ok=True, session=session)


def _utc(at: str) -> float:
    try:
        parsed = datetime.fromisoformat(at)
    except ValueError as error:
        raise CommandError(
            f"{at!r} is no time: {error}", where="at", remedy=f"Write it as ISO 8601: {_EXAMPLE}."
        ) from None
    if parsed.tzinfo is None:
        raise CommandError(
            f"{at!r} has no time zone", where="at", remedy=f"End it in Z or an offset: {_EXAMPLE}."
        )
    try:
        return parsed.timestamp()
    except (OverflowError, OSError) as error:
        raise CommandError(
            f"{at!r} is no time: {error}", where="at", remedy="Give a day and hour there are."
        ) from None
