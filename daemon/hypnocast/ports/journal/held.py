"""What the journal holds in memory while the disk refuses.

The memory is bounded. When it is full, the oldest batch is given up for each that comes: first
those whose events the broker has acknowledged, then the oldest of all. So the night goes on, what
is newest goes out and is kept, and what will never be on the disk is counted, reported and written
into the night as a note once the disk is back. Sessions, anchors and marks are never given up.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from hypnocast.core.timing.utc import instant
from hypnocast.core.wire import payloads
from hypnocast.errors import JournalError
from hypnocast.ports.journal.records import (
    Batch,
    Committed,
    EventDraft,
    MarkRecord,
    StoredEvent,
    StoredReply,
)
from hypnocast.ports.journal.store import REFUSALS, Store

HELD_BYTES: Final = 64 * 1024 * 1024
"""15 000 to 25 000 events: a night of 12 beds. Beyond that the oldest are given up."""

_BATCH_BYTES = 512


_TOO_LONG: Final = "the disk took nothing for too long"


@dataclass(slots=True)
class GivenUp:
    """Events of one session that will never be on the disk."""

    first: int
    """Epochs, the first and the last."""
    last: int
    count: int = 0
    unsent: int = 0
    """How many of them the broker had not acknowledged: nobody has them."""
    why: str = _TOO_LONG

    def add(self, epoch: int, *, sent: bool) -> None:
        """Count one more event."""
        self.first, self.last = min(self.first, epoch), max(self.last, epoch)
        self.count += 1
        self.unsent += not sent

    def __str__(self) -> str:
        return (
            f"{self.count} events of epochs {self.first} to {self.last} are lost to the journal, "
            f"for {self.why}; {self.count - self.unsent} of them had reached the broker"
        )


@dataclass(slots=True)
class Held:
    """Batches in the order in which they came, numbered on from what the disk has.

    Filled by the writing thread; other threads read it, hence the copies below.
    """

    heads: dict[str, int]
    """The newest sequence number of each bed."""
    limit: int = HELD_BYTES
    size: int = 0
    batches: list[Batch] = field(default_factory=list)
    events: dict[str, StoredEvent] = field(default_factory=dict)
    replies: dict[tuple[str, str], StoredReply] = field(default_factory=dict)
    delivered: set[tuple[str, int]] = field(default_factory=set)
    given_up: dict[str, GivenUp] = field(default_factory=dict)
    """Session → what of it was given up."""
    started: dict[str, int] = field(init=False)
    """The newest number of each bed that was called durable before."""

    def __post_init__(self) -> None:
        """Remember where it began."""
        self.started = dict(self.heads)

    def hold(self, batch: Batch, on_disk: dict[str, payloads.StageEvent]) -> Committed:
        """Keep a batch.

        ``on_disk`` are those of its events that the file holds already, and the terminal events of
        its pages. What the database would refuse is refused here: it could never be written.
        """
        heads = dict(self.heads)
        there = dict(on_disk)
        events: list[payloads.StageEvent] = []
        stored: list[StoredEvent] = []
        kept: list[EventDraft] = []
        for draft in batch.events:
            known = there.get(draft.event.id) or self._event(draft.event.id)
            if known is not None:
                events.append(known)
                continue
            event = draft.event
            terminal = payloads.event_id(event.session, event.epoch, 1)
            if event.revision == 0 and (terminal in there or terminal in self.events):
                raise JournalError(f"{event.id}: a terminal event is there already")
            event = msgspec.structs.replace(event, sequence=heads.get(event.bed, 0) + 1)
            heads[event.bed] = event.sequence
            events.append(event)
            there[event.id] = event
            kept.append(EventDraft(event, sequence=event.sequence))
            stored.append(
                StoredEvent(event.bed, event.sequence, event.id, msgspec.json.encode(event))
            )
        self.heads = heads
        self.events.update((row.id, row) for row in stored)
        self.replies.update(((reply.bed, reply.request), reply) for reply in batch.replies)
        self.batches.append(replace(batch, events=tuple(kept)))
        self.size += self._size_of(self.batches[-1])
        while self.size > self.limit and self._give_up_one():
            pass
        return Committed(events=tuple(events), stored=tuple(stored), durable=False)

    def _event(self, event_id: str) -> payloads.StageEvent | None:
        row = self.events.get(event_id)
        return None if row is None else msgspec.json.decode(row.payload, type=payloads.StageEvent)

    def _size_of(self, batch: Batch) -> int:
        payloads = [self.events[draft.event.id].payload for draft in batch.events]
        payloads += [reply.payload for reply in batch.replies]
        payloads += [carried.state for carried in batch.carried]
        return _BATCH_BYTES + 2 * sum(len(payload) for payload in payloads)

    def _give_up_one(self) -> bool:
        """Forget what can be forgotten of the oldest batch; False where nothing is left to."""
        weighty = [n for n, batch in enumerate(self.batches) if batch.events or batch.replies]
        if len(weighty) < 2:
            return False  # what has just come is not given up for itself
        delivered = (
            n for n in weighty[:-1] if all(map(self._is_delivered, self.batches[n].events))
        )
        oldest = next(delivered, weighty[0])
        batch = self.batches[oldest]
        self.size -= self._size_of(batch)
        for draft in batch.events:
            self._forget(draft.event)
        for reply in batch.replies:
            self.replies.pop((reply.bed, reply.request), None)
        if batch.sessions or batch.anchors or batch.marks or batch.corrections:
            self.batches[oldest] = replace(batch, pages=(), opinions=(), events=(), replies=())
            self.size += _BATCH_BYTES
        else:
            del self.batches[oldest]
        return True

    def _is_delivered(self, draft: EventDraft) -> bool:
        return (draft.event.bed, draft.event.sequence) in self.delivered

    def _forget(self, event: payloads.StageEvent) -> None:
        place = (event.bed, event.sequence)
        lost = self.given_up.setdefault(event.session, GivenUp(event.epoch, event.epoch))
        lost.add(event.epoch, sent=place in self.delivered)
        self.delivered.discard(place)
        del self.events[event.id]

    def of_bed(self, bed: str, after: int) -> tuple[StoredEvent, ...]:
        """Return a bed's held events after a sequence number, in their order."""
        rows = list(self.events.values())
        return tuple(row for row in rows if row.bed == bed and row.sequence > after)

    def waiting(self) -> Iterable[StoredEvent]:
        """Return the held events that the broker has not acknowledged."""
        rows = list(self.events.values())
        return [row for row in rows if (row.bed, row.sequence) not in self.delivered]

    def write_to(self, store: Store) -> tuple[Refused, ...]:
        """Write everything within the transaction that is open, each event under its number.

        A batch that the database refuses costs itself only; those are returned. What is lost for
        good is noted in its night.
        """
        refused: list[Refused] = []
        for batch in self.batches:
            try:
                with store.savepoint():
                    store.apply(batch)
            except REFUSALS as error:
                refused.append(Refused(batch, str(error)))
        store.start_sequences(self.heads.items())
        store.delivered(self.delivered)
        at = instant(time.time())
        lost = [(session, str(words)) for session, words in self.given_up.items()]
        lost += [note for one in refused for note in one.notes(self.delivered)]
        for session, words in lost:
            mark = MarkRecord(session, payloads.NightMark(at=at, kind="note", text=words))
            # A night that is not in the tables can hold no note.
            with suppress(*REFUSALS), store.savepoint():
                store.apply(Batch(marks=(mark,)))
        return tuple(refused)


@dataclass(frozen=True, slots=True)
class Refused:
    """A batch that the database always refuses, whatever the disk does."""

    batch: Batch
    why: str

    def notes(self, delivered: set[tuple[str, int]]) -> list[tuple[str, str]]:
        """Return what is lost, by session."""
        lost: dict[str, GivenUp] = {}
        for draft in self.batch.events:
            event = draft.event
            nothing = GivenUp(event.epoch, event.epoch, why=f"the database refuses it: {self.why}")
            counts = lost.setdefault(event.session, nothing)
            counts.add(event.epoch, sent=(event.bed, event.sequence) in delivered)
        if not lost:
            return [
                ("", f"a batch without events is lost, for the database refuses it: {self.why}")
            ]
        return [(session, str(counts)) for session, counts in lost.items()]
