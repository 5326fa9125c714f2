"""What one bed hears: its headbox, the decisions about time that go to tape, a tape a night."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from hypnocast.app.easel import Tracing
from hypnocast.core.decisions import Decision
from hypnocast.core.headbox import Headbox
from hypnocast.core.lately import Lately
from hypnocast.core.montage import Montage
from hypnocast.core.types import (
    Arrival,
    Chunk,
    ClockReading,
    StreamHeader,
    StreamLost,
    StreamOpened,
)

BEFORE_CONTEXT_S = 60.0
"""What a night's tape holds before its first page's context: clocks settle, jitter is learnt."""

Decided = Callable[[Sequence[Decision]], None]
ChangeTape = Callable[[Sequence[Arrival]], bool]


class Hearing:
    """Puts what arrives into the headbox, and tells the tape what was decided about time."""

    def __init__(
        self,
        tracing: Tracing,
        choose: Callable[[Sequence[StreamHeader]], Montage],
        *,
        decided: Decided | None = None,
        change_tape: ChangeTape | None = None,
        obey: Iterable[Decision] | None = None,
    ) -> None:
        """Take how to trace and to choose a montage; see :class:`.bedside.Bedside` for the rest."""
        self._tracing = tracing
        self._choose = choose
        self._decided = decided
        self._change_tape = change_tape
        self._lately: Lately | None = None
        if change_tape is not None:
            self._lately = Lately(tracing.needs.context_s + BEFORE_CONTEXT_S)
        self.headbox = self._new_headbox(obey)
        self.headers: dict[str, StreamHeader] = {}
        self.montage: Montage | None = None
        """The montage chosen last."""

    def take(self, arrival: Arrival) -> None:
        """Take in whatever arrived; marks say nothing to a headbox."""
        if self._lately is not None:
            self._lately.take(arrival)
        self._hear(arrival)

    def begin(self, anchor: float) -> None:
        """Begin a night's grid, on a tape that a replay can read without any before it.

        Its counts and what it learnt of clocks and jitter must come from that tape alone. So live
        does as the replay will: it forgets, and hears again what the tape begins with.
        """
        lately = self._lately
        if lately is not None and self._change_tape is not None and not lately.whole:
            self.tell_decisions()
            told = lately.told()
            if self._change_tape(told):
                self.headbox = self._new_headbox()
                for arrival in told:
                    self._hear(arrival)
        self.headbox.begin(anchor)

    def tell_decisions(self) -> None:
        """Let the tape have what was decided since the last time."""
        decisions = self.headbox.take_decisions()
        if decisions and self._decided is not None:
            self._decided(decisions)

    def _hear(self, arrival: Arrival) -> None:
        match arrival:
            case Chunk():
                self.headbox.feed(arrival)
            case ClockReading():
                self.headbox.read_clock(arrival)
            case StreamOpened():
                self.headers[arrival.header.key] = arrival.header
                self.headbox.open(arrival)
            case StreamLost():
                self.headbox.lose(arrival)

    def _new_headbox(self, obey: Iterable[Decision] | None = None) -> Headbox:
        tracing = self._tracing
        return Headbox(tracing.needs, choose=self._montage_for, grace_s=tracing.grace_s, obey=obey)

    def _montage_for(self, headers: Sequence[StreamHeader]) -> Montage:
        self.montage = self._choose(headers)
        return self.montage
