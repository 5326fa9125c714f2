"""A tape's decisions about time, ready to be obeyed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from hypnocast.core.timing.clock import ClockSegment
from hypnocast.core.timing.decisions import Anchored, Decision, Ended, PageClosed, StreamCut

GridDecision = Anchored | PageClosed | Ended
StreamDecision = ClockSegment | StreamCut


class TapeDecisions:
    """Decisions in the order in which they were made, the streams' own apart from the grid's."""

    def __init__(self, decisions: Iterable[Decision]) -> None:
        """Sort the decisions of a tape."""
        self._grid: deque[GridDecision] = deque()
        self._streams: dict[str, list[StreamDecision]] = {}
        for decision in decisions:
            if isinstance(decision, ClockSegment | StreamCut):
                self._streams.setdefault(decision.stream, []).append(decision)
            else:
                self._grid.append(decision)

    def __bool__(self) -> bool:
        return bool(self._grid)

    def of_stream(self, stream: str, seen: int) -> list[StreamDecision]:
        """Return what concerns a stream's samples from number ``seen`` on."""
        return [
            d
            for d in self._streams.get(stream, ())
            if (d.from_sample if isinstance(d, ClockSegment) else d.after_sample) >= seen
        ]

    def next_due(self, opened: int, stored: Mapping[str, int]) -> GridDecision | None:
        """Return the next decision about the grid, once the samples for it have come."""
        if not self._grid:
            return None
        first = self._grid[0]
        if isinstance(first, PageClosed) and (
            opened < first.opened
            or any(stored.get(key, -1) < count for key, count in first.samples.items())
        ):
            return None
        return self._grid.popleft()

    def until_end(self) -> list[GridDecision]:
        """Return what is left of the grid that runs: its samples are not going to come."""
        left: list[GridDecision] = []
        while self._grid and not isinstance(self._grid[0], Anchored):
            left.append(self._grid.popleft())
        return left
