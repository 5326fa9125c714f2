"""One bed's arrivals: its page builder, the decisions about time, a tape a night."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from hypnocast.core.montage.choice import Montage
from hypnocast.core.montage.gear_channels import GearValues
from hypnocast.core.pages.page_builder import PageBuilder
from hypnocast.core.pages.recent_arrivals import RecentArrivals
from hypnocast.core.timing.decisions import Decision
from hypnocast.core.types import Arrival, Chunk, StreamHeader, StreamLost, StreamOpened
from hypnocast.live.bed.page_drawing import DrawingSettings

SETTLE_S = 3.0
"""How long a bed's other streams may take to show up: no night begins, no channel is lacking."""

BEFORE_CONTEXT_S = 60.0
"""What a night's tape holds before its first page's context: clocks settle, jitter is learnt."""

Decided = Callable[[Sequence[Decision]], None]
ChangeTape = Callable[[Sequence[Arrival]], bool]


class StreamIntake:
    """Puts what arrives into the page builder, and decisions about time onto the tape."""

    def __init__(
        self,
        settings: DrawingSettings,
        choose: Callable[[Sequence[StreamHeader]], Montage],
        *,
        decided: Decided | None = None,
        change_tape: ChangeTape | None = None,
        obey: Iterable[Decision] | None = None,
    ) -> None:
        """Keep what :class:`~.bed_pipeline.BedPipeline` was given."""
        self._settings = settings
        self._choose = choose
        self._decided = decided
        self._change_tape = change_tape
        self._recently: RecentArrivals | None = None
        if change_tape is not None:
            self._recently = RecentArrivals(settings.needs.context_s + BEFORE_CONTEXT_S)
        self.builder = self._new_builder(obey)
        self.headers: dict[str, StreamHeader] = {}
        self.gear = GearValues()
        self.montage: Montage | None = None
        """The montage chosen last."""

    def add(self, arrival: Arrival) -> None:
        """Add whatever arrived."""
        if self._recently is not None:
            self._recently.add(arrival)
        self._add(arrival)

    def begin(self, anchor: float) -> None:
        """Begin a night's grid, on a tape that a replay can read without any before it.

        Its counts and what it learnt of clocks and jitter must come from that tape alone. So the
        live run does as the replay will: it begins anew with the arrivals the tape begins with.
        """
        recently = self._recently
        if recently is not None and self._change_tape is not None and not recently.whole:
            self.write_decisions()
            arrivals = recently.arrivals()
            if self._change_tape(arrivals):
                self.builder = self._new_builder()
                for arrival in arrivals:
                    self._add(arrival)
        self.builder.begin(anchor)

    def write_decisions(self) -> None:
        """Write what was decided since the last time to the tape."""
        decisions = self.builder.pop_decisions()
        if decisions and self._decided is not None:
            self._decided(decisions)

    def _add(self, arrival: Arrival) -> None:
        match arrival:
            case StreamOpened():
                self.headers[arrival.header.key] = arrival.header
                self.gear.open(arrival.header)
            case StreamLost():
                self.gear.lose(arrival.stream)
            case Chunk():
                self.gear.add(arrival)
        self.builder.add(arrival)

    def _new_builder(self, obey: Iterable[Decision] | None = None) -> PageBuilder:
        settings = self._settings
        return PageBuilder(
            settings.needs, choose=self._montage_for, grace_s=settings.grace_s, obey=obey
        )

    def _montage_for(self, headers: Sequence[StreamHeader]) -> Montage:
        self.montage = self._choose(headers)
        return self.montage
