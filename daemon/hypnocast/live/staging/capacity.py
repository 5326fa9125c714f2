"""How long the model was measured to need, how many beds that serves, what the judge does now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hypnocast.core.types import PAGE_S
from hypnocast.stagers.pace import Pace
from hypnocast.stagers.packs.manifest import Context

LIVE_DEADLINE_S = 25.0
"""A page without an opinion so long after its close is ``withheld: too_late``."""

MOST_BEDS = 1000
"""More are not counted: signals and network would be the limit long before."""

MAX_ABANDONED = 2
"""Threads that hang and were left behind; with more of them the process has to begin anew."""

ROOM = 1.25
"""A second model is built where this many times the memory of the first is free."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """Times of the warm model and the memory it needed."""

    page_s: float
    each_s: float
    """For a page in a batch; 0 where a batch was too slow to be measured."""
    memory_bytes: int
    looks: int = 1
    """At each page: two where the pack looks at the page after."""

    @classmethod
    def of(cls, pace: Pace, memory_bytes: int, context: Context) -> Capacity:
        """Return what a warmed-up stager's pace means for a pack."""
        return cls(pace.page_s, pace.each_s, memory_bytes, 1 + context.after)

    @property
    def beds(self) -> int:
        """How many beds whose pages close together get their verdicts in time."""
        if self.page_s > LIVE_DEADLINE_S:
            return 0
        each_s = max(min(self.each_s or self.page_s, self.page_s) * self.looks, 1e-9)
        return max(1, min(MOST_BEDS, int(min(LIVE_DEADLINE_S, PAGE_S) / each_s)))

    def line(self) -> str:
        """Return it in one line."""
        look = "look" if self.looks > 1 else "page"
        batch = f", {self.each_s:.2g} s a {look} in a batch" if self.each_s else ""
        memory = f", {self.memory_bytes / 1e9:.1f} GB" if self.memory_bytes else ""
        serves = f"serves up to {self.beds} beds" if self.beds > 1 else f"serves {self.beds} bed"
        if self.beds == 0:
            serves = f"serves no bed: a page must be judged within {LIVE_DEADLINE_S:.0f} s"
        elif self.page_s * self.looks > LIVE_DEADLINE_S:
            serves += ", which gets one look a page instead of two"
        twice = ", two looks a page" if self.looks > 1 else ""
        return f"{self.page_s:.2g} s a {look} alone{batch}{twice}{memory}: {serves}"

    def beyond(self, beds: Sequence[str]) -> tuple[str, ...]:
        """Name the beds that will not always be served in time."""
        return tuple(beds[self.beds :])


@dataclass(frozen=True, slots=True)
class JudgeState:
    """What the judge has done and does now."""

    provider: str
    waiting: int
    judged: int
    failed: int
    rebuilt: int
    given_up: int
    """Looks that could not have been judged in time."""
    shed: int
    """Looks that had no room."""
    beats: int
    """Steps of the model that are done: differs from look to look while it works."""
    busy_s: float
    """How long the present batch has been running; 0 when idle."""
    allowed_s: float
    """How long a step of the model may last, by what was measured."""
    hung: bool
    """Whether the model hangs and cannot be replaced yet."""
    degraded: tuple[str, ...]


def room_problem(abandoned: int, free: int | None, model_bytes: int) -> str:
    """Return why no other model may be built beside one that hangs; empty where it may."""
    if abandoned > MAX_ABANDONED:
        return f"model: {abandoned} times it hung; the process has to begin anew"
    if free is not None and free < ROOM * model_bytes:
        need = f"{ROOM * model_bytes / 1e9:.1f} GB"
        return f"model: hangs; another needs {need}, free are {free / 1e9:.1f} GB"
    return ""
