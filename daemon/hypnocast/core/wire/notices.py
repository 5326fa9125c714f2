"""What is published where a rule of the lab's own is met."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from hypnocast.core.wire.page_facts import Share
from hypnocast.core.wire.payloads import (
    Epoch,
    Instant,
    Message,
    SourceName,
    StageName,
    TopicWord,
)


class Notice(Message, frozen=True, kw_only=True):
    """A rule of the lab's own was met: so many pages of a stage in a row. Not an alarm."""

    schema: Literal["hypnocast.notice/1"] = "hypnocast.notice/1"
    id: str
    """Deterministic: session, epoch, rule. A repeat carries the same id."""
    source: SourceName
    site: TopicWord
    bed: TopicWord
    session: str
    rule: str
    """The rule's name, as configured."""
    stage: StageName
    pages: Annotated[int, Meta(ge=1)]
    """How many pages in a row the rule asks for."""
    epoch: Epoch
    """The page that completed them."""
    start: Instant
    """When the first of them began."""
    end: Instant
    """When the last of them ended."""
    confidence: Share
    """Of the least sure of them."""
    research_use_only: Literal[True] = True
