"""Draining the outbox: each bed in its order, many under way, gone only when acknowledged."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from hypnocast.core.wire.topics import Topics
from hypnocast.errors import BrokerError, JournalError
from hypnocast.ports.journal.journal import Journal
from hypnocast.ports.journal.records import StoredEvent
from hypnocast.ports.mqtt.client import Attributes, Client

log = structlog.get_logger(__name__)

_WINDOW: Final = 10
"""Events under way at once, over all beds: half of what the client sends without an answer, so
that a state finds a place beside any backlog."""

_CHUNK: Final = 100
_FRESH: Final = 64
_REFUSED_S: Final = 5.0


class Outbox:
    """Sends what the journal has in its outbox, and marks there what has arrived."""

    def __init__(self, journal: Journal, topics: Topics) -> None:
        """Follow the journal's news."""
        self._journal = journal
        self._topics = topics
        self._beds: dict[str, _Bed] = {}
        self._grown = asyncio.Event()
        self._unsubscribe: Callable[[], None] = journal.subscribe(self._news)
        self.refused: dict[str, str] = {}
        """Topic → why the broker refused an event."""

    def close(self) -> None:
        """Follow no longer."""
        self._unsubscribe()

    def _news(self, rows: tuple[StoredEvent, ...]) -> None:
        for row in rows:
            bed = self._bed(row.bed)
            bed.fresh.append(row)
            bed.news.set()

    def _bed(self, name: str) -> _Bed:
        if name not in self._beds:
            self._beds[name] = _Bed(name)
            self._grown.set()
        return self._beds[name]

    async def drain(self, client: Client) -> None:
        """Send for as long as the connection lasts.

        While the disk cannot be read, events wait; states go out meanwhile.
        """
        while True:
            try:
                await self._drain_beds(client)
            except* JournalError as errors:
                log.warning("outbox cannot be read", error=str(errors.exceptions[0]))
            await asyncio.sleep(_REFUSED_S)

    async def _drain_beds(self, client: Client) -> None:
        for name in await self._journal.waiting():
            self._bed(name)
        window = asyncio.Semaphore(_WINDOW)
        draining: set[str] = set()
        async with asyncio.TaskGroup() as group:
            while True:
                self._grown.clear()
                for bed in list(self._beds.values()):
                    if bed.name not in draining:
                        draining.add(bed.name)
                        group.create_task(self._drain_bed(bed, client, window))
                await self._grown.wait()

    async def _drain_bed(self, bed: _Bed, client: Client, window: asyncio.Semaphore) -> None:
        topic = self._topics.events(bed.name)
        while True:
            attempt = _Attempt(bed, self._journal, window)
            while not attempt.is_over():
                for row in await self._next(bed, attempt.position):
                    await window.acquire()
                    if attempt.is_over():
                        window.release()
                        break
                    answer = client.send(topic, row.payload, attributes=attributes(row))
                    attempt.sent(row, answer)
                    answer.add_done_callback(lambda answer: self._answered(topic, answer))
            await asyncio.sleep(_REFUSED_S)

    def _answered(self, topic: str, answer: asyncio.Future[None]) -> None:
        error = None if answer.cancelled() else answer.exception()
        if error is None:
            self.refused.pop(topic, None)
        else:
            self.refused[topic] = str(error)

    async def _next(self, bed: _Bed, position: int) -> tuple[StoredEvent, ...]:
        """Return what follows ``position``: what was just committed, or what lies on the disk."""
        bed.news.clear()
        while bed.fresh and bed.fresh[0].sequence <= position:
            bed.fresh.popleft()
        if bed.fresh and bed.fresh[0].sequence == position + 1:
            return (bed.fresh.popleft(),)
        rows = await self._journal.outbox(bed.name, position, _CHUNK)
        if not rows:
            await bed.news.wait()
        return rows


class _Bed:
    """What is remembered of a bed from one connection to the next."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.news = asyncio.Event()
        self.fresh: deque[StoredEvent] = deque(maxlen=_FRESH)
        self.acknowledged = 0


class _Attempt:
    """A run of events sent one after the other. After a refusal nothing later counts."""

    def __init__(self, bed: _Bed, journal: Journal, window: asyncio.Semaphore) -> None:
        self._bed = bed
        self._journal = journal
        self._window = window
        self._under_way: dict[int, None] = {}
        self.position = bed.acknowledged
        self._refused = False

    def is_over(self) -> bool:
        """Whether the broker refused an event, so that those after it must wait."""
        return self._refused

    def sent(self, row: StoredEvent, answer: asyncio.Future[None]) -> None:
        self.position = row.sequence
        self._under_way[row.sequence] = None
        answer.add_done_callback(lambda answer: self._answered(row.sequence, answer))

    def _answered(self, sequence: int, answer: asyncio.Future[None]) -> None:
        self._window.release()
        if answer.cancelled() or self._refused:
            return
        if isinstance(answer.exception(), BrokerError):
            self._refused = True
            self._bed.news.set()
            return
        del self._under_way[sequence]
        self._bed.acknowledged = next(iter(self._under_way), self.position + 1) - 1
        self._journal.acknowledge(self._bed.name, sequence)


class _Envelope(msgspec.Struct, frozen=True):
    """The few keys of an event that are repeated outside of it."""

    id: str
    site: str
    bed: str
    session: str
    epoch: int
    end: str


_envelopes = msgspec.json.Decoder(_Envelope)


def attributes(row: StoredEvent) -> Attributes:
    """Return an event's CloudEvents attributes."""
    event = _envelopes.decode(row.payload)
    return (
        ("specversion", "1.0"),
        ("id", event.id),
        ("source", f"hypnocast/{event.site}/bed/{event.bed}"),
        ("type", "hypnocast.stage.1"),
        ("subject", f"{event.session}/{event.epoch}"),
        ("time", event.end),
        ("sequence", str(row.sequence)),
    )
