"""One bed between its streams and its pictures.

Runs on the signal thread. Everything that happens leaves it as an
:data:`~.bed_updates.Item`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from hypnocast.core.montage.choice import Montage
from hypnocast.core.night.session import SessionKeeper
from hypnocast.core.pages.moving_traces import MovingTraces
from hypnocast.core.pages.page_builder import PageBuilder
from hypnocast.core.timing.decisions import Decision
from hypnocast.core.types import Arrival, Mark, StreamHeader, StreamOpened
from hypnocast.live.bed.bed_sessions import BedSessions
from hypnocast.live.bed.bed_updates import Item, TracesSeen
from hypnocast.live.bed.page_drawing import DrawingSettings
from hypnocast.live.bed.page_sender import PageSender
from hypnocast.live.bed.signal_health import HealthReports
from hypnocast.live.bed.stream_intake import SETTLE_S, ChangeTape, Decided, StreamIntake


class BedPipeline:
    """The streams of one bed become pictures and gaps of one session after another."""

    def __init__(
        self,
        keeper: SessionKeeper,
        drawing: DrawingSettings,
        choose: Callable[[Sequence[StreamHeader]], Montage],
        send: Callable[[Item], None],
        *,
        utc_of: Callable[[float], float],
        auto: bool,
        decided: Decided | None = None,
        change_tape: ChangeTape | None = None,
        obey: Iterable[Decision] | None = None,
        heeds: Callable[[StreamHeader], bool] = lambda _: True,
    ) -> None:
        """Keep the session keeper, how pages are drawn, and where items go.

        ``decided`` gets what is decided about time, for the tape; ``change_tape`` begins a new
        one with what came last. ``obey`` are the decisions of a tape that is replayed. Markers
        begin, change and end a night only where ``heeds`` allows it to their stream.
        """
        script = list(obey) if obey is not None else None
        self._drawing = drawing
        self._send = send
        self._auto = auto
        self._intake = StreamIntake(
            drawing, choose, decided=decided, change_tape=change_tape, obey=script
        )
        self._pages = PageSender(drawing, send)
        self.sessions = BedSessions(
            keeper, self._intake, self._pages, send, utc_of=utc_of, heeds=heeds, script=script
        )
        self._traces = MovingTraces() if drawing.traces else None
        self._health = HealthReports(drawing.needed, drawing.mains_hz, send)
        self._flowing_since: float | None = None
        self._last_activity = float("-inf")
        self._now = 0.0

    @property
    def _builder(self) -> PageBuilder:
        return self._intake.builder

    @property
    def wants_reading(self) -> bool:
        """Whether samples wait for their sender's clock to be measured."""
        return bool(self._builder.wants_reading)

    @property
    def now(self) -> float:
        """How far time has come for this bed, on the local LSL clock."""
        return self._now

    def add(self, arrival: Arrival) -> None:
        """Add whatever arrived."""
        self._intake.add(arrival)
        if isinstance(arrival, Mark):
            self.sessions.mark(arrival, self._now)
        elif isinstance(arrival, StreamOpened):
            self.sessions.stream_opened(arrival)

    def step(self, now: float | None) -> None:
        """Let time pass: live to the local clock, else as far as the data have come."""
        if now is None:
            now = self._builder.watermark
            if now is None:
                return
            self._note_activity(now, newest=float("inf"))
        else:
            self._note_activity(now, newest=now)
        self._now = now
        self.sessions.tick(now)
        self.sessions.pages_closed(self._builder.close_due(now), now)
        self._pages.send_glimpse(
            self._builder, self.sessions.running, now, lambda at: self.sessions.moment(at).utc
        )
        if self._traces is not None and (cut := self._traces.cut(self._builder, now)):
            self._send(TracesSeen(self.sessions.moment(cut[0]).utc, cut[1]))
        self._intake.write_decisions()
        if self._health.due(now):
            at_utc, also = self.sessions.moment(now).utc, self.sessions.marker_problems(now)
            self._health.send(self._intake, now, at_utc, also)

    def finish(self) -> None:
        """End the session where the recording ends."""
        self.step(None)
        if self.sessions.obeying:
            self.sessions.pages_closed(self._builder.end(self._now), self._now, over=True)
        session = self.sessions.running
        if session is not None:
            self.sessions.end(session.id, self._now, why="end of data")
        self._intake.write_decisions()

    def _note_activity(self, now: float, *, newest: float) -> None:
        """Note that samples came; none is later than ``newest``, whatever it claims."""
        latest = self._latest_needed()
        if latest is None or self.sessions.obeying:
            return
        latest = min(latest, newest)
        if self._flowing_since is None:
            self._flowing_since = now
        if latest - self._last_activity < 1.0:
            return
        if self._auto and self.sessions.running is None and self._flowing_since + SETTLE_S > now:
            return
        first = self._last_activity == float("-inf")
        self._last_activity = latest
        at = self._first_common(now) if first and self._auto else latest
        self.sessions.data_came(at)

    def _latest_needed(self) -> float | None:
        """Return the time of the newest sample that a needed channel has."""
        filled = self._builder.derivations
        streams = {
            filled[role].stream
            for group in self._drawing.needed
            for role in group
            if role in filled
        }
        latest = [
            state.latest
            for state in self._builder.states()
            if state.stream in streams and state.latest is not None
        ]
        return max(latest, default=None)

    def _first_common(self, now: float) -> float:
        """Return when all streams that fill a role had begun; no later than now."""
        since = self._builder.all_since
        return now if since is None else min(since, now)
