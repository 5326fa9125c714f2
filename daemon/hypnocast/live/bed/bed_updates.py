"""What the signal thread hands to the event loop, bed by bed, in the order in which it happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from hypnocast.core.montage.gear_channels import GearSeen
from hypnocast.core.night.session import Session, SessionChange
from hypnocast.core.pages.aligned_stream import AlignedStreamState
from hypnocast.core.pages.moving_traces import Envelope
from hypnocast.core.timing.decisions import EarlierPage
from hypnocast.core.types import Derivation, Flag, Gap, Page, Picture, Role, StreamHeader
from hypnocast.core.wire.page_facts import Evidence


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds after the page's end."""

    closed: float | None = None
    drawn: float | None = None
    judged: float | None = None
    journaled: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ClosedPage:
    """A page of a recording session, drawn, or a gap."""

    session: Session
    outcome: Picture | Gap
    timings: Timings
    evidence: Evidence | None = None
    """What was measured on the page, where that is wanted."""
    page: Page | None = None
    """The page itself, where packs beside are to see it too."""
    review: bool = False
    """Whether people should look at it, however sure the model is."""

    @property
    def epoch(self) -> int:
        """The page's number."""
        return self.outcome.epoch


@dataclass(frozen=True, slots=True)
class Changed:
    """Something became of the bed's session."""

    change: SessionChange
    before: tuple[EarlierPage, ...] = ()
    """Pages of the night before the first of a tape that is replayed."""


@dataclass(frozen=True, slots=True)
class Noted:
    """Something to remember of the night that changes nothing."""

    session: Session
    at_utc: float
    text: str
    kind: Literal["note", "gap", "stream"] = "note"
    """A gap: pages over which nobody watched. A stream: it comes from another outlet."""


@dataclass(frozen=True, slots=True)
class ChannelSeen:
    """How one channel has done in the last seconds."""

    derivation: Derivation
    unit: str | None
    flags: frozenset[Flag]


@dataclass(frozen=True, slots=True)
class SignalsSeen:
    """How a bed's signals do; sent now and then."""

    at_utc: float
    streams: tuple[tuple[StreamHeader, AlignedStreamState | None], ...]
    """Every stream there was; without a state where it fills no role."""
    channels: Mapping[Role, ChannelSeen]
    ready: bool
    """Whether every needed role is filled and carries samples."""
    problems: tuple[str, ...]
    late_samples: int
    local: float
    """The local LSL clock at the time."""
    gear: tuple[GearSeen, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Glimpsed:
    """The 30 s before some moment between two page closes, drawn, or why they are not."""

    session: Session
    end_utc: float
    outcome: Picture | Gap
    drawn_ms: float
    """Milliseconds from the window's end until it was drawn."""


@dataclass(frozen=True, slots=True, eq=False)
class TracesSeen:
    """The newest second of every channel, for screens that show them moving."""

    start_utc: float
    channels: Mapping[Role, Envelope]


Item = ClosedPage | Changed | Noted | SignalsSeen | Glimpsed | TracesSeen
