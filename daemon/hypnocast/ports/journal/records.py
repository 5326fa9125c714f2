"""What the journal keeps, as it is handed over and handed back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec

from hypnocast.core.types import FloatArray, PageSpectrum
from hypnocast.core.wire.payloads import (
    NightMark,
    PhaseName,
    ReasonName,
    SourceName,
    StageEvent,
    StageName,
)


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """One recording of one person in one bed. Committed again whenever something of it changes."""

    id: str
    bed: str
    site: str
    subject: str | None
    source: SourceName
    opened: str
    """When the session was opened, as every ``Instant`` in UTC."""
    phase: PhaseName = "setup"
    start: str | None = None
    """When epoch 0 began; None before ``recording``."""
    ended: str | None = None


@dataclass(frozen=True, slots=True)
class ClockAnchor:
    """Where a session's epoch 0 lies on the LSL clock of one boot, and in UTC."""

    session: str
    boot_id: str
    lsl_t0: float
    utc_t0: float
    """Seconds since 1970."""
    recorded: str


class PageDetail(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is remembered of a page beside its picture's digest."""

    spectrum: PageSpectrum | None = None


@dataclass(frozen=True, slots=True)
class PageRecord:
    """That a page closed, and what is to be remembered of it."""

    session: str
    epoch: int
    closed: str
    picture: str | None
    """Digest of the picture; None for a gap."""
    detail: bytes = b"{}"
    """A :class:`PageDetail` as JSON."""


@dataclass(frozen=True, slots=True, eq=False)
class OpinionRecord:
    """The model's answer, before calibration and filtering: the decider is rebuilt from it."""

    session: str
    epoch: int
    revision: int
    pack: str
    provider: str
    log_probabilities: FloatArray
    """(5,)."""


@dataclass(frozen=True, slots=True)
class CarriedRecord:
    """What a recurrent model carries over; of each session and pack the newest is kept."""

    session: str
    pack: str
    epoch: int
    state: bytes


@dataclass(frozen=True, slots=True, eq=False)
class BesideRecord:
    """The answer of a pack beside for a page: its second opinion."""

    session: str
    epoch: int
    pack: str
    """Digest."""
    name: str
    """Name and version."""
    stage: StageName | None
    reason: ReasonName | None
    probabilities: FloatArray | None
    """(5,) after calibration and filtering."""
    log_probabilities: FloatArray | None
    """(5,) as the model gave them: its decider is rebuilt from it."""
    coverage: float
    """How much of the page there was for it to see."""


@dataclass(frozen=True, slots=True)
class EventDraft:
    """An event to be written. Its sequence number is given by the journal."""

    event: StageEvent
    journaled: Callable[[], float] | None = None
    """Asked just before the event is written, from the journal's thread: the milliseconds since
    the page's end, for ``timing.journaled``."""
    sequence: int = 0
    """The number that an event was given while it was held in memory; 0: the journal gives one."""


@dataclass(frozen=True, slots=True)
class MarkRecord:
    """A marker or note of a session."""

    session: str
    mark: NightMark


@dataclass(frozen=True, slots=True)
class StoredReply:
    """The answer a command got. A repeat of the request gets it again, and does nothing."""

    bed: str
    request: str
    command_digest: str
    """SHA-256 of the command's bytes, to distinguish a repeat from a request id used twice."""
    payload: bytes
    created: str


@dataclass(frozen=True, slots=True)
class Correction:
    """A scorer's own stage for a page. It is kept beside the event, which never changes."""

    session: str
    epoch: int
    stage: StageName
    scorer: str
    at: str
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Batch:
    """Everything that becomes durable together, or not at all."""

    sessions: tuple[SessionRecord, ...] = ()
    anchors: tuple[ClockAnchor, ...] = ()
    pages: tuple[PageRecord, ...] = ()
    opinions: tuple[OpinionRecord, ...] = ()
    events: tuple[EventDraft, ...] = ()
    marks: tuple[MarkRecord, ...] = ()
    replies: tuple[StoredReply, ...] = ()
    corrections: tuple[Correction, ...] = ()
    carried: tuple[CarriedRecord, ...] = ()
    beside: tuple[BesideRecord, ...] = ()


def timed(batch: Batch) -> Batch:
    """Note when the events are written: once, so that another try writes the same bytes."""
    drafts = tuple(
        EventDraft(
            msgspec.structs.replace(
                draft.event,
                timing=msgspec.structs.replace(draft.event.timing, journaled=draft.journaled()),
            )
        )
        if draft.journaled is not None
        else draft
        for draft in batch.events
    )
    return replace(batch, events=drafts)


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as it was written, byte for byte as it is sent."""

    bed: str
    sequence: int
    id: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Committed:
    """What became of a batch."""

    events: tuple[StageEvent, ...]
    """The batch's events with their sequence numbers. Where the journal already held an event
    with that id, the one it held: an event once published never changes."""
    stored: tuple[StoredEvent, ...]
    """Only those that are new, as they go to the outbox."""
    durable: bool
    """False while the journal is degraded: kept in memory, openly not promised."""
