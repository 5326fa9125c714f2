"""How long the model was measured to need, and how many beds that serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hypnocast.core.types import PAGE_S
from hypnocast.stagers.pace import Pace

LIVE_DEADLINE_S = 25.0
"""A page without an opinion so long after its close is ``withheld: too_late``."""

MOST_BEDS = 1000
"""More are not counted: signals and network would be the limit long before."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """Times of the warm model and the memory it needed."""

    page_s: float
    each_s: float
    """For a page in a batch; 0 where a batch was too slow to be measured."""
    memory_bytes: int

    @classmethod
    def of(cls, pace: Pace, memory_bytes: int) -> Capacity:
        """Return what a warmed-up stager's pace means."""
        return cls(pace.page_s, pace.each_s, memory_bytes)

    @property
    def beds(self) -> int:
        """How many beds whose pages close together get their verdicts in time."""
        if self.page_s > LIVE_DEADLINE_S:
            return 0
        each_s = max(self.each_s or self.page_s, 1e-9)
        return max(1, min(MOST_BEDS, int(min(LIVE_DEADLINE_S, PAGE_S) / each_s)))

    def line(self) -> str:
        """Return it in one line."""
        batch = f", {self.each_s:.2g} s a page in a batch" if self.each_s else ""
        memory = f", {self.memory_bytes / 1e9:.1f} GB" if self.memory_bytes else ""
        serves = f"serves up to {self.beds} beds" if self.beds > 1 else f"serves {self.beds} bed"
        if self.beds == 0:
            serves = f"serves no bed: a page must be judged within {LIVE_DEADLINE_S:.0f} s"
        return f"{self.page_s:.2g} s a page alone{batch}{memory}: {serves}"

    def beyond(self, beds: Sequence[str]) -> tuple[str, ...]:
        """Name the beds that will not always be served in time."""
        return tuple(beds[self.beds :])
