"""One bed's arrivals: its page builder, the decisions about time, a tape a night."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from hypnocast.core.montage.choice import Montage
from hypnocast.core.pages.page_builder import PageBuilder
from hypnocast.core.pages.recent_arrivals import RecentArrivals
from hypnocast.core.timing.decisions import Decision
from hypnocast.core.types import (
    Arrival,
    StreamHeader,
    StreamOpened,
)
from hypnocast.live.bed.page_drawing import PageTrace

BEFORE_CONTEXT_S = 60.0
"""What a night's tape holds before its first page's context: clocks settle, jitter is learnt."""

Decided = Callable[[Sequence[Decision]], None]
ChangeTape = Callable[[Sequence[Arrival]], bool]


class StreamIntake:
    """Puts what arrives into the page builder, and tells the tape what was decided about time."""

    def __init__(
        self,
        tracing: PageTrace,
        choose: Callable[[Sequence[StreamHeader]], Montage],
        *,
        decided: Decided | None = None,
        change_tape: ChangeTape | None = None,
        obey: Iterable[Decision] | None = None,
    ) -> None:
        """Take how to trace and to choose a montage.

        The rest is told by :class:`~.bed_pipeline.BedPipeline`.
        """
        self._tracing = tracing
        self._choose = choose
        self._decided = decided
        self._change_tape = change_tape
        self._recently: RecentArrivals | None = None
        if change_tape is not None:
            self._recently = RecentArrivals(tracing.needs.context_s + BEFORE_CONTEXT_S)
        self.builder = self._new_builder(obey)
        self.headers: dict[str, StreamHeader] = {}
        self.montage: Montage | None = None
        """The montage chosen last."""

    def take(self, arrival: Arrival) -> None:
        """Take in whatever arrived; marks say nothing to a page builder."""
        if self._recently is not None:
            self._recently.take(arrival)
        self._hear(arrival)

    def begin(self, anchor: float) -> None:
        """Begin a night's grid, on a tape that a replay can read without any before it.

        Its counts and what it learnt of clocks and jitter must come from that tape alone. So live
        does as the replay will: it forgets, and hears again what the tape begins with.
        """
        recently = self._recently
        if recently is not None and self._change_tape is not None and not recently.whole:
            self.tell_decisions()
            told = recently.told()
            if self._change_tape(told):
                self.builder = self._new_builder()
                for arrival in told:
                    self._hear(arrival)
        self.builder.begin(anchor)

    def tell_decisions(self) -> None:
        """Let the tape have what was decided since the last time."""
        decisions = self.builder.take_decisions()
        if decisions and self._decided is not None:
            self._decided(decisions)

    def _hear(self, arrival: Arrival) -> None:
        if isinstance(arrival, StreamOpened):
            self.headers[arrival.header.key] = arrival.header
        self.builder.add(arrival)

    def _new_builder(self, obey: Iterable[Decision] | None = None) -> PageBuilder:
        tracing = self._tracing
        return PageBuilder(
            tracing.needs, choose=self._montage_for, grace_s=tracing.grace_s, obey=obey
        )

    def _montage_for(self, headers: Sequence[StreamHeader]) -> Montage:
        self.montage = self._choose(headers)
        return self.montage
