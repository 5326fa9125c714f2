"""What is published for screens that show the signals themselves, moving."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from hypnocast.core.wire.payloads import Instant, Message, SourceName, TopicWord

Tenths = Annotated[int, Meta(ge=-10_000_000, le=10_000_000)]
Column = Annotated[tuple[Tenths | None, ...], Meta(min_length=1, max_length=64)]


class TraceColumns(Message, frozen=True, kw_only=True):
    """One channel over a second, as it came: unfiltered, in tenths of a µV, null where nothing."""

    low: Column
    """The lowest value in each column."""
    high: Column


class Traces(Message, frozen=True, kw_only=True):
    """The newest second of a bed's channels, for people's eyes; never journaled."""

    schema: Literal["hypnocast.traces/1"] = "hypnocast.traces/1"
    source: SourceName
    site: TopicWord
    bed: TopicWord
    start: Instant
    """When the first column begins."""
    seconds: Annotated[float, Meta(gt=0.0, le=10.0)]
    channels: Annotated[dict[str, TraceColumns], Meta(max_length=16)]
    """Role → its columns, evenly over the seconds."""
    research_use_only: Literal[True] = True
