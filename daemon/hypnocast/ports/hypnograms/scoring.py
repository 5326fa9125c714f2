"""What a person scored in one night, whatever file it came from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from hypnocast.core.types import PAGE_S, Stage
from hypnocast.errors import TapeError
from hypnocast.ports.hypnograms.stage_words import stage_of
from hypnocast.ports.recordings.recording import Annotation

Rules = Literal["AASM", "R&K"]

LONGEST_S = 7 * 86_400.0
"""A week: stages that reach further come from a wrong number, and not from a night."""

_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class ScoredSpan:
    """A stretch of time that was scored as one stage, or as none."""

    onset: float
    """Seconds after the file's time 0."""
    duration: float
    stage: Stage | None
    """None: scored as no stage (movement, artefact, unscored)."""


@dataclass(frozen=True, slots=True)
class Scoring:
    """A scored night as its file gives it."""

    format: str
    """Whose file it is, in words."""
    spans: tuple[ScoredSpan, ...]
    """In the order of the file."""
    rules: Rules = "AASM"
    start: datetime | None = None
    """When the file's time 0 was, local and zoneless; None where the file gives none."""
    clock_s: float | None = None
    """The time of day of time 0, in seconds, where the file gives no date."""
    lights_off: float | None = None
    """Seconds after the file's time 0."""
    lights_on: float | None = None
    notes: tuple[str, ...] = ()
    """What a reader should know: how page numbers were read, which scorer was."""

    @property
    def anchor(self) -> float:
        """Return when the first page begins; pages keep step with the first epoch scored."""
        return min((span.onset for span in self.spans), default=0.0) % PAGE_S

    @property
    def end(self) -> float:
        """Return where the last span ends."""
        return max((span.onset + span.duration for span in self.spans), default=0.0)

    def pages(self, anchor: float, epochs: int) -> tuple[Stage | None, ...]:
        """Lay the spans on a grid that begins at ``anchor`` s of the file's time.

        A page has the stage in force at its middle. Of epochs of 20 s that stage always holds
        20 of the page's 30 s or more.
        """
        return laid(self.spans, anchor=anchor, epochs=epochs)

    def behind(self, local: datetime) -> float | None:
        """Return by how many seconds a local time is later than time 0; None where it is unknown.

        A time of day without a date is understood as the one next to ``local``.
        """
        if self.start is not None:
            return (local - self.start).total_seconds()
        if self.clock_s is None:
            return None
        midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
        behind = (local - midnight).total_seconds() - self.clock_s
        return (behind + _DAY_S / 2) % _DAY_S - _DAY_S / 2


def laid(spans: Iterable[ScoredSpan], *, anchor: float, epochs: int) -> tuple[Stage | None, ...]:
    """Give each page of a grid the stage in force at its middle; later spans go first.

    What was scored as no stage removes nothing from a stage beside it.
    """
    pages: list[Stage | None] = [None] * epochs
    for span in spans:
        if span.stage is None:
            continue
        first = int(-((span.onset - anchor - PAGE_S / 2) // -PAGE_S))
        last = int(-((span.onset + span.duration - anchor - PAGE_S / 2) // -PAGE_S))
        for epoch in range(max(first, 0), min(last, epochs)):
            pages[epoch] = span.stage
    return tuple(pages)


def scored_pages(
    annotations: Iterable[Annotation], *, anchor: float, epochs: int
) -> tuple[Stage | None, ...]:
    """Lay the stages among a recording's annotations on a grid."""
    spans = [
        ScoredSpan(one.onset, one.duration or PAGE_S, stage_of(one.text)) for one in annotations
    ]
    return laid(spans, anchor=anchor, epochs=epochs)


def checked(scoring: Scoring, where: str) -> Scoring:
    """Refuse a scoring without a stage, and one that reaches beyond a week."""
    if not any(span.stage is not None for span in scoring.spans):
        raise TapeError(
            f"holds no sleep stage (read as {scoring.format})",
            where=where,
            remedy="Name the file with the hypnogram.",
        )
    far = max(max(abs(span.onset), abs(span.onset + span.duration)) for span in scoring.spans)
    if not far <= LONGEST_S:
        raise TapeError(f"its stages reach to {far / 3600:.3g} h", where=where)
    return scoring
