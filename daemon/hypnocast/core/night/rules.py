"""Rules of the lab's own: so many pages of one stage in a row. Pure.

A rule is met by the page that completes the run. A run that goes on does not meet it again; the
next run does. Everything follows from the terminal events alone, so a daemon that comes back has
the same runs as before.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from hypnocast.core.timing.utc import instant, seconds_of
from hypnocast.core.types import PAGE_S
from hypnocast.core.wire.notices import Notice
from hypnocast.core.wire.payloads import NightMark, StageEvent, StageName


@dataclass(frozen=True, slots=True)
class StageRule:
    """A number of pages of one stage in a row, each at least so sure."""

    name: str
    stage: StageName
    pages: int
    confidence: float = 0.0


def pages_of(minutes: float) -> int:
    """Return how many whole pages a time needs."""
    return max(1, math.ceil(minutes * 60.0 / PAGE_S))


@dataclass(slots=True)
class _Run:
    rule: StageRule
    pages: int = 0
    least: float = 1.0
    """The least sure page of the run."""

    def add(self, event: StageEvent) -> Notice | None:
        """Count a page; the notice where it completes the run."""
        sure = event.confidence or 0.0
        if event.stage != self.rule.stage or sure < self.rule.confidence:
            self.pages, self.least = 0, 1.0
            return None
        self.pages += 1
        self.least = min(self.least, sure)
        return self._notice(event) if self.pages == self.rule.pages else None

    def _notice(self, event: StageEvent) -> Notice:
        rule = self.rule
        return Notice(
            id=f"{event.session}/{event.epoch}/{rule.name}",
            source=event.source,
            site=event.site,
            bed=event.bed,
            session=event.session,
            rule=rule.name,
            stage=rule.stage,
            pages=rule.pages,
            epoch=event.epoch,
            start=instant(seconds_of(event.start) - PAGE_S * (rule.pages - 1)),
            end=event.end,
            confidence=self.least,
        )


@dataclass(slots=True)
class StageRuns:
    """Follows the terminal events of one bed, in their order."""

    rules: Sequence[StageRule]
    _runs: list[_Run] = field(init=False)
    _at: tuple[str, int] = ("", -1)
    """Session and epoch of the newest event."""

    def __post_init__(self) -> None:
        """Begin without a run."""
        self._runs = [_Run(rule) for rule in self.rules]

    def add(self, event: StageEvent) -> tuple[Notice, ...]:
        """Return the notices of the rules that this event meets."""
        session, epoch = self._at
        if event.revision == 0 or (event.session == session and event.epoch <= epoch):
            return ()
        if (event.session, event.epoch) != (session, epoch + 1):
            self._runs = [_Run(rule) for rule in self.rules]
        self._at = (event.session, event.epoch)
        met = (run.add(event) for run in self._runs)
        return tuple(notice for notice in met if notice is not None)

    def recall(self, events: Iterable[StageEvent]) -> None:
        """Follow the events of a night that goes on; their notices were published before."""
        for event in events:
            self.add(event)


def mark_of(notice: Notice) -> NightMark:
    """Return a notice as the night keeps it."""
    return NightMark(at=notice.end, kind="notice", text=notice.rule)
