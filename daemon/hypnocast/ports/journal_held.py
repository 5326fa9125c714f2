"""What the journal holds in memory while the disk takes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from hypnocast.core import wire
from hypnocast.errors import JournalError
from hypnocast.ports.journal_records import Batch, Committed, EventDraft, StoredEvent, StoredReply
from hypnocast.ports.journal_store import Store, numbered

HELD_BYTES: Final = 64 * 1024 * 1024
"""About 30 000 events: a day of 12 beds. Beyond that a commit is refused, nothing is dropped."""

_BATCH_BYTES = 512


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

    def take(self, batch: Batch, on_disk: dict[str, wire.StageEvent]) -> Committed:
        """Keep a batch; ``on_disk`` are those of its events that the file holds already."""
        if self.size >= self.limit:
            raise JournalError(
                f"the disk takes nothing and {self.size >> 20} MiB are held in memory: full",
                remedy="Free space on the journal's disk.",
            )
        heads = dict(self.heads)
        events: list[wire.StageEvent] = []
        stored: list[StoredEvent] = []
        kept: list[EventDraft] = []
        for draft in batch.events:
            known = on_disk.get(draft.event.id) or self._event(draft.event.id)
            if known is not None:
                events.append(known)
                continue
            event = draft.event
            if wire.event_id(event.session, event.epoch, 1) in self.events:
                raise JournalError(f"{event.id}: a terminal event is there already")
            event = numbered(draft, heads.get(event.bed, 0) + 1)
            heads[event.bed] = event.sequence
            events.append(event)
            kept.append(EventDraft(event))
            stored.append(
                StoredEvent(event.bed, event.sequence, event.id, msgspec.json.encode(event))
            )
        self.heads = heads
        self.events.update((row.id, row) for row in stored)
        self.replies.update(((reply.bed, reply.request), reply) for reply in batch.replies)
        self.batches.append(replace(batch, events=tuple(kept)))
        self.size += _BATCH_BYTES + 2 * sum(len(row.payload) for row in stored)
        self.size += sum(len(reply.payload) for reply in batch.replies)
        return Committed(events=tuple(events), stored=tuple(stored), durable=False)

    def _event(self, event_id: str) -> wire.StageEvent | None:
        row = self.events.get(event_id)
        return None if row is None else msgspec.json.decode(row.payload, type=wire.StageEvent)

    def of_bed(self, bed: str, after: int) -> tuple[StoredEvent, ...]:
        """Return a bed's held events after a sequence number, in their order."""
        rows = list(self.events.values())
        return tuple(row for row in rows if row.bed == bed and row.sequence > after)

    def waiting(self) -> Iterable[StoredEvent]:
        """Return the held events that the broker has not acknowledged."""
        rows = list(self.events.values())
        return [row for row in rows if (row.bed, row.sequence) not in self.delivered]

    def write_to(self, store: Store) -> None:
        """Write everything within the transaction that is open."""
        for batch in self.batches:
            store.apply(batch)
        store.delivered(self.delivered)
