"""Commands in, replies out: strictly read, bounded, and done once however often they come."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import structlog

from hypnocast.core.budget import Budget
from hypnocast.core.timing.utc import instant
from hypnocast.core.wire import commands, payloads
from hypnocast.core.wire.commands import CatchUp, Command, Explain, PageCommand, Reply
from hypnocast.errors import HypnocastError
from hypnocast.ports.journal.journal import Journal
from hypnocast.ports.journal.records import Batch, StoredReply
from hypnocast.ports.journal.store import decode_event

log = structlog.get_logger(__name__)

Handle = Callable[[str, Command], Awaitable[Reply]]
"""Obeys a command at a bed. What it cannot obey it raises as a :class:`HypnocastError`."""

SendReply = Callable[[str, bytes], None]

COMMAND_BYTES: Final = 8 * 1024
_BURST: Final = 20
_PER_SECOND: Final = 2.0
"""Of commands that act, and as many of questions: who leafs through pages holds up no lights."""

_READ_BURST: Final = 100
_READ_PER_SECOND: Final = 10.0
"""Of messages that are looked at, whatever they are."""

_LOGGED: Final = 20
_QUEUE: Final = 16
_CATCH_UP_BYTES: Final = 512 * 1024
_HANDLE_S: Final = 30.0
_LAST_SEQUENCE: Final = (1 << 63) - 1
"""SQLite counts no further."""

_QUESTIONS = (CatchUp, Explain, PageCommand)
"""Change nothing: their answers are not kept, and a repeat is simply answered again."""


class CommandInbox:
    """Accepts the commands of all beds. A bed's commands are obeyed one after the other."""

    def __init__(self, journal: Journal, handle: Handle, send_reply: SendReply) -> None:
        """Keep who obeys, and who sends the replies."""
        self._journal = journal
        self._handle = handle
        self._send_reply = send_reply
        self._queues: dict[tuple[str, bool], asyncio.Queue[bytes]] = {}
        self._read: dict[str, Budget] = {}
        self._budgets: dict[tuple[str, bool], Budget] = {}
        self._new_queues: asyncio.Queue[tuple[str, asyncio.Queue[bytes]]] = asyncio.Queue()
        self.refused = 0
        """Commands that had no room."""
        self.ignored: dict[str, int] = {}
        """Why commands were not looked at → how many."""

    def receive(self, bed: str, payload: bytes, *, retained: bool) -> None:
        """Look at a message on a command topic; never blocks, never raises."""
        if retained:
            # Whoever retains a command would have it obeyed again at every reconnection.
            self._ignore(bed, "retained")
            return
        now = time.monotonic()
        if not self._read.setdefault(bed, Budget(_READ_BURST, _READ_PER_SECOND)).spend(now):
            self._ignore(bed, "too_many")
            return
        if len(payload) > COMMAND_BYTES:
            self._refuse(bed, "", f"a command has at most {COMMAND_BYTES} bytes")
            return
        try:
            command = commands.decode_command(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            request, name = _named_in(payload)
            self._refuse(bed, request, f"no command: {error}", name)
            return
        question = isinstance(command, _QUESTIONS)
        budget = self._budgets.setdefault((bed, question), Budget(_BURST, _PER_SECOND))
        if not budget.spend(now):
            self._ignore(bed, "too_many")
            return
        queue = self._queue(bed, question=question)
        try:
            queue.put_nowait(payload)
        except asyncio.QueueFull:
            self.refused += 1
            name = commands.command_name(command)
            self._refuse(bed, command.request, "too many commands wait; try again", name)

    @property
    def waiting(self) -> int:
        """Commands that wait for those before them."""
        return sum(queue.qsize() for queue in self._queues.values())

    def _ignore(self, bed: str, why: str) -> None:
        times = self.ignored[why] = self.ignored.get(why, 0) + 1
        if times <= _LOGGED or times % 1000 == 0:  # a flood must not fill the log as well
            log.warning("command ignored", bed=bed, why=why, times=times)

    def _refuse(self, bed: str, request: str, why: str, command: str = "") -> None:
        log.warning("command refused", bed=bed, request=request, command=command, why=why)
        reply = Reply(request=request, command=command, ok=False, error=why)
        self._send_reply(bed, payloads.encode(reply))

    def _queue(self, bed: str, *, question: bool) -> asyncio.Queue[bytes]:
        """Give questions a queue of their own: a slow answer must not hold up ``lights_off``."""
        key = (bed, question)
        if key not in self._queues:
            self._queues[key] = asyncio.Queue(_QUEUE)
            self._new_queues.put_nowait((bed, self._queues[key]))
        return self._queues[key]

    async def run(self) -> None:
        """Obey, whether there is a connection or not, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                bed, queue = await self._new_queues.get()
                group.create_task(self._work(bed, queue))

    async def _work(self, bed: str, queue: asyncio.Queue[bytes]) -> None:
        while True:
            payload = await queue.get()
            command = commands.decode_command(payload)
            try:
                answer = await self._answer(bed, command, payload)
            except HypnocastError as error:
                answer = payloads.encode(_failed(command, str(error)))
            except TimeoutError:
                answer = payloads.encode(_failed(command, f"no answer within {_HANDLE_S:.0f} s"))
            except Exception as error:  # one bad command must not deafen a bed
                log.exception("command failed", bed=bed, request=command.request)
                answer = payloads.encode(
                    _failed(command, f"internal fault: {type(error).__name__}")
                )
            self._send_reply(bed, answer)

    async def _answer(self, bed: str, command: Command, payload: bytes) -> bytes:
        if isinstance(command, CatchUp):
            return await self._catch_up(bed, command)
        if isinstance(command, _QUESTIONS):
            async with asyncio.timeout(_HANDLE_S):
                return payloads.encode(await self._handle(bed, command))
        digest = command_digest(payload)
        known = await self._journal.reply(bed, command.request)
        if known is not None:
            if known.command_digest != digest:
                return payloads.encode(
                    _failed(command, "this request id was used for another command before")
                )
            return known.payload
        async with asyncio.timeout(_HANDLE_S):
            reply = await self._handle(bed, command)
        answer = payloads.encode(reply)
        if reply.ok:
            await self._journal.commit(
                Batch(replies=(StoredReply(bed, command.request, digest, answer, _now()),))
            )
        return answer

    async def _catch_up(self, bed: str, command: CatchUp) -> bytes:
        since = min(command.since, _LAST_SEQUENCE)
        rows = await self._journal.events(bed, since, command.limit + 1)
        events: list[payloads.StageEvent] = []
        size = 0
        for row in rows[: command.limit]:
            size += len(row.payload)
            if events and size > _CATCH_UP_BYTES:
                break
            events.append(decode_event(row.payload))
        return payloads.encode(
            Reply(
                request=command.request,
                command=commands.command_name(command),
                ok=True,
                session=events[-1].session if events else None,
                events=tuple(events),
                more=len(events) < len(rows),
            )
        )


def command_digest(payload: bytes) -> str:
    """Return what distinguishes a repeated command from another with the same request id."""
    command = commands.decode_command(payload)
    return hashlib.sha256(msgspec.json.encode(command)).hexdigest()


def _failed(command: Command, why: str) -> Reply:
    return Reply(
        request=command.request, command=commands.command_name(command), ok=False, error=why
    )


def _named_in(payload: bytes) -> tuple[str, str]:
    """Find request id and command in what is no valid command, so that its sender knows it."""
    try:
        loose = msgspec.json.decode(payload, type=dict[str, object])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return "", ""
    words = (loose.get("request", ""), loose.get("command", ""))
    request, command = (word[:64] if isinstance(word, str) else "" for word in words)
    return request, command


def _now() -> str:
    return instant(time.time())
