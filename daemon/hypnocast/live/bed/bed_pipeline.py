"""One bed between its streams and its pictures: session, grid, quality, drawing.

Lives on the signal thread's thread. Everything that happens leaves it as an :data:`~.traced.Item`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from hypnocast.core.montage.choice import Montage
from hypnocast.core.night.marks import MarkMeaning
from hypnocast.core.night.session import (
    Moment,
    Phase,
    Session,
    SessionChange,
    SessionKeeper,
    SessionPlan,
)
from hypnocast.core.pages.page_builder import PageBuilder
from hypnocast.core.pages.rolling_windows import RollingWindows
from hypnocast.core.timing.decisions import WHOLE_PAGE_S, Anchored, Decision, cut_short
from hypnocast.core.types import (
    PAGE_S,
    Arrival,
    Gap,
    Mark,
    Page,
    Reason,
    StreamHeader,
)
from hypnocast.errors import CommandError
from hypnocast.live.bed.bed_updates import Changed, Glimpsed, Item, Noted, Timings, TracedPage
from hypnocast.live.bed.markers import Markers
from hypnocast.live.bed.page_drawing import PageDrawing, PageTrace
from hypnocast.live.bed.signal_health import see
from hypnocast.live.bed.stream_intake import ChangeTape, Decided, StreamIntake

SETTLE_S = 3.0
"""How long a session that begins by itself waits for the bed's other streams to show up."""

HEALTH_EVERY_S = 2.0
_BY_ABSENCE = (Reason.LOW_COVERAGE, Reason.MISSING_CHANNEL)
"""What a page looks like that the daemon itself missed for the most part."""


class BedPipeline:
    """The streams of one bed become pictures and gaps of one session after another."""

    def __init__(
        self,
        keeper: SessionKeeper,
        tracing: PageTrace,
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
        """Take the session keeper, how to trace, and where items go.

        ``decided`` sees what is decided about time, for the tape; ``change_tape`` begins a new
        one with what came lately. ``obey`` are the decisions of a tape that is replayed. Markers
        begin, change and end a night only where ``heeds`` says so of their stream.
        """
        self._marks = Markers(heeds)
        self._keeper = keeper
        self._tracing = tracing
        self._send = send
        self._utc_of = utc_of
        self._auto = auto
        script = list(obey) if obey is not None else None
        self._script = deque(d for d in script or () if isinstance(d, Anchored))
        self._cut_short = cut_short(script or ())
        self._obeying = script is not None
        self._drawing = PageDrawing(tracing)
        self._intake = StreamIntake(
            tracing, choose, decided=decided, change_tape=change_tape, obey=script
        )
        self._windows = RollingWindows(tracing.hop_s) if tracing.hop_s is not None else None
        self._flowing_since: float | None = None
        self._last_activity = float("-inf")
        self._next_health = float("-inf")
        self._next_health_wall = float("-inf")
        self._resumed_at: tuple[str, int] | None = None
        """The session that was taken up again, and the page in which that was."""
        self._last_epoch = -1
        self._now = 0.0

    @property
    def session(self) -> Session | None:
        """The session that runs."""
        return self._keeper.session

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

    # --- what arrives --------------------------------------------------------------------------

    def take(self, arrival: Arrival) -> None:
        """Take in whatever arrived."""
        self._intake.take(arrival)
        if isinstance(arrival, Mark):
            self._mark(arrival)

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
        if not self._obeying:
            self._announce(self._keeper.tick(self._moment(now)))
        self._trace(self._builder.close_due(now), now)
        self._glance(now)
        self._intake.tell_decisions()
        self._check_health(now)

    def finish(self) -> None:
        """End the session where the recording ends."""
        self.step(None)
        if self._obeying:
            self._trace(self._builder.end(self._now), self._now, over=True)
        session = self._keeper.session
        if session is not None:
            self._announce(self._keeper.end(session.id, self._moment(self._now), why="end of data"))
        self._intake.tell_decisions()

    # --- sessions ------------------------------------------------------------------------------

    def start(self, subject: str | None, phase: Phase, now: float) -> Session:
        """Begin a session by command."""
        self._announce(self._keeper.start(SessionPlan(subject, phase), self._on_the_wall(now)))
        session = self._keeper.session
        if session is None:
            raise CommandError("the session did not begin", remedy="Look at the daemon's log.")
        return session

    def end(self, session: str, now: float) -> bool:
        """End the named session by command; False where it no longer runs."""
        changes = self._keeper.end(session, self._moment(now))
        self._announce(changes)
        return bool(changes)

    def expect(self, session: str) -> None:
        """Refuse what is meant for a session that does not run."""
        running = self._keeper.session
        if running is None or running.id != session:
            raise CommandError(
                f"session {session} does not run",
                where=f"bed {self._keeper.bed}",
                remedy=f"The session that runs is {running.id if running else 'none'}.",
            )

    def note(self, at_utc: float | None, text: str, now: float) -> None:
        """Keep a note of the session that runs, of now or of a UTC."""
        at = self._keeper.when("the note", self._moment(now), at_utc)
        if self._keeper.session is not None:
            self._send(Noted(self._keeper.session, at, text))

    def lights(self, to: Literal["off", "on"], at_utc: float | None, now: float) -> None:
        """Mark the lights by command."""
        self._announce(self._keeper.lights(to, self._moment(now), at_utc=at_utc))

    def resume(self, stored: Session, *, next_epoch: int, last_seen_utc: float, now: float) -> None:
        """Go on with a session after the daemon was down; say what was missed."""
        moment = self._on_the_wall(now)
        resumed = self._keeper.resume(
            stored, moment, next_epoch=next_epoch, last_seen_utc=last_seen_utc
        )
        session = resumed.session
        if session.reanchored:
            why = "after a reboot the grid was found again by UTC"
            self._send(Changed(SessionChange("reanchored", session, why, moment)))
        for epoch in resumed.missed:
            self._send(TracedPage(session, Gap(epoch, Reason.DAEMON_DOWN), Timings()))
        if session.phase is Phase.ENDED:
            self._send(Changed(SessionChange("ended", session, "no streams", moment)))
        elif session.anchor_lsl is not None:
            self._builder.begin(session.anchor_lsl, first_epoch=resumed.first_epoch)
            self._resumed_at = (session.id, resumed.first_epoch)
            self._intake.tell_decisions()

    def _moment(self, local: float) -> Moment:
        """Return a moment on both clocks; within a session by the session's one mapping."""
        session = self._keeper.session
        if session is None or session.anchor_lsl is None or session.anchor_utc is None:
            return self._on_the_wall(local)
        return Moment(local, session.anchor_utc + (local - session.anchor_lsl))

    def _on_the_wall(self, local: float) -> Moment:
        """Return a moment as the host's clock is set now: whence the next session counts."""
        return Moment(local, self._utc_of(local))

    def _note_activity(self, now: float, *, newest: float) -> None:
        """Take note of samples; none came later than ``newest``, whatever it claims."""
        latest = self._latest_needed()
        if latest is None or self._obeying:
            return
        latest = min(latest, newest)
        if self._flowing_since is None:
            self._flowing_since = now
        if latest - self._last_activity < 1.0:
            return
        if self._auto and self._keeper.session is None and self._flowing_since + SETTLE_S > now:
            return
        first = self._last_activity == float("-inf")
        self._last_activity = latest
        at = self._first_common(now) if first and self._auto else latest
        self._announce(self._keeper.data_came(self._moment(at)))

    def _latest_needed(self) -> float | None:
        """Return the time of the newest sample that a needed channel has."""
        filled = self._builder.derivations
        streams = {
            filled[role].stream
            for group in self._tracing.needed
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

    def _mark(self, mark: Mark) -> None:
        local = self._builder.time_of(mark)
        session = self._keeper.session
        meaning = self._marks.meaning(mark, self._intake.headers.get(mark.stream))
        if meaning is None:
            text = self._marks.note(mark, self._intake.headers.get(mark.stream))
            if session is not None and text:
                self._send(Noted(session, self._moment(local).utc, text))
            return
        if meaning not in (MarkMeaning.LIGHTS_OFF, MarkMeaning.LIGHTS_ON):
            if self._obeying:
                return
            local = min(local, mark.arrived or local)  # no night begins after it was told
        try:
            self._act(meaning, self._moment(local))
        except CommandError as error:
            self._marks.refused(error, self._now)

    def _act(self, meaning: MarkMeaning, at: Moment) -> None:
        keeper, session = self._keeper, self._keeper.session
        match meaning:
            case MarkMeaning.LIGHTS_OFF | MarkMeaning.LIGHTS_ON:
                to: Literal["off", "on"] = "off" if meaning is MarkMeaning.LIGHTS_OFF else "on"
                if session is not None:
                    late = Moment(max(at.lsl, self._now), self._moment(max(at.lsl, self._now)).utc)
                    self._announce(keeper.lights(to, late, at_utc=at.utc))
            case MarkMeaning.START_SESSION:
                begun = self._on_the_wall(at.lsl)
                self._announce(keeper.start(SessionPlan(), begun, why="marker"))
            case MarkMeaning.END_SESSION:
                if session is not None:
                    self._announce(keeper.end(session.id, at, why="marker"))
            case _:
                phase = Phase(meaning.value)
                if session is None:
                    self._announce(keeper.start(SessionPlan(phase=phase), at, why="marker"))
                elif session.phase is not Phase.RECORDING:
                    self._announce(keeper.enter(phase, at, why="marker"))

    def _announce(self, changes: Iterable[SessionChange]) -> None:
        for change in changes:
            session = change.session
            if change.change == "ended" and not self._obeying:
                self._end_grid(session, change.at.lsl)
            self._send(Changed(change))
            begun = change.change in ("opened", "phase") and session.phase is Phase.RECORDING
            if begun and session.anchor_lsl is not None and not self._obeying:
                self._intake.begin(session.anchor_lsl)
                self._drawing.begin()
            self._intake.tell_decisions()

    def _end_grid(self, session: Session, at: float) -> None:
        if session.anchor_lsl is None:
            return
        into = (at - session.anchor_lsl) % PAGE_S
        if into < WHOLE_PAGE_S:
            at -= into
        for page in self._builder.end(at):
            self._trace_page(page, session, at, over=_ends_after(session, page.epoch, at))

    # --- pages ---------------------------------------------------------------------------------

    def _trace(self, pages: Iterable[Page], now: float, *, over: bool = False) -> None:
        for page in pages:
            if self._obeying:
                self._follow_script(page)
            session = self._keeper.session
            if session is not None:
                cut = (session.anchor_lsl, page.epoch) in self._cut_short
                cut = cut or (over and _ends_after(session, page.epoch, now))
                self._trace_page(page, session, now, over=cut)

    def _follow_script(self, page: Page) -> None:
        """Begin the session that the tape's live run had, where its pages begin."""
        session = self._keeper.session
        begins = session is None or (self._script and page.epoch <= self._last_epoch)
        if begins and self._script:
            anchored = self._script.popleft()
            at = Moment(anchored.anchor, self._utc_of(anchored.anchor))
            self._announce(self._keeper.start(SessionPlan(), at, why="tape"))
        self._last_epoch = page.epoch

    def _trace_page(self, page: Page, session: Session, now: float, *, over: bool) -> None:
        """Draw a page, or say why not; ``over``: the session ended in the middle of it."""
        began = time.perf_counter()
        outcome = self._drawing.draw(page, Reason.SESSION_END if over else None)
        missed = isinstance(outcome, Gap) and outcome.reason in _BY_ABSENCE
        if missed and (session.id, page.epoch) == self._resumed_at:
            outcome = Gap(page.epoch, Reason.DAEMON_DOWN, outcome.quality, outcome.channels)
        drawn_ms = (time.perf_counter() - began) * 1000.0
        closed = None
        if session.anchor_lsl is not None:
            closed = max(0.0, now - session.anchor_lsl - (page.epoch + 1) * PAGE_S) * 1000.0
        timings = Timings(closed, None if closed is None else closed + drawn_ms)
        evidence = self._drawing.measure(page, outcome)
        goes_on = page if self._tracing.beside else None
        self._send(TracedPage(session, outcome, timings, evidence, goes_on))

    def _glance(self, now: float) -> None:
        """Draw the last 30 s, where a rolling verdict is due."""
        session, builder = self._keeper.session, self._builder
        if self._windows is None or session is None or builder.anchor is None:
            return
        tail_s, grace_s = builder.needs.tail_s, self._tracing.grace_s
        end = self._windows.due(
            builder.anchor,
            now - tail_s,
            grace_s=grace_s,
            whole=lambda end: builder.passed(end + tail_s),
        )
        if end is None:
            return
        began = time.perf_counter()
        outcome = self._drawing.draw(builder.glance(end))
        drawn_ms = (now - end + time.perf_counter() - began) * 1000.0
        self._send(Glimpsed(session, self._moment(end).utc, outcome, drawn_ms))

    # --- health --------------------------------------------------------------------------------

    def _check_health(self, now: float) -> None:
        wall = time.monotonic()
        if now < self._next_health or wall < self._next_health_wall:
            return
        self._next_health = now + HEALTH_EVERY_S
        self._next_health_wall = wall + HEALTH_EVERY_S / 4
        self._send(
            see(
                self._builder,
                self._intake.headers,
                self._intake.montage,
                needed=self._tracing.needed,
                mains_hz=self._tracing.mains_hz,
                now=now,
                at_utc=self._moment(now).utc,
                also=self._marks.problems(now),
            )
        )


def _ends_after(session: Session, epoch: int, at: float) -> bool:
    """Tell whether a page was not over yet at a local time."""
    begun = session.anchor_lsl or 0.0
    return begun + (epoch + 1) * PAGE_S > at + WHOLE_PAGE_S
