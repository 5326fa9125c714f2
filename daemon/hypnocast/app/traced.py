"""What the tracer hands to the event loop, in the order in which it happened."""

from __future__ import annotations

from dataclasses import dataclass

from hypnocast.core.types import Gap, Picture


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds after the page's end."""

    closed: float | None = None
    drawn: float | None = None
    judged: float | None = None
    journaled: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Traced:
    """A page of a recording session, drawn, or a gap."""

    bed: str
    session: str
    outcome: Picture | Gap
    timings: Timings

    @property
    def epoch(self) -> int:
        """The page's number."""
        return self.outcome.epoch
