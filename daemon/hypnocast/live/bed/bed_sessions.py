"""The sessions of one bed: begun, changed and ended by command, marker, streams or tape."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from hypnocast.core.night.marks import MarkMeaning
from hypnocast.core.night.session import (
    Moment,
    Phase,
    Session,
    SessionChange,
    SessionKeeper,
    SessionPlan,
)
from hypnocast.core.plain_text import plain
from hypnocast.core.timing.decisions import (
    WHOLE_PAGE_S,
    Anchored,
    Decision,
    EarlierPage,
    cut_short,
)
from hypnocast.core.types import PAGE_S, Mark, Page, StreamHeader, StreamOpened
from hypnocast.errors import CommandError
from hypnocast.live.bed.bed_updates import Changed, Item, Noted
from hypnocast.live.bed.markers import NOTE_CHARS, Markers
from hypnocast.live.bed.page_sender import PageSender
from hypnocast.live.bed.stream_intake import StreamIntake


class BedSessions:
    """Keeps the session of one bed, and its grid with it."""

    def __init__(
        self,
        keeper: SessionKeeper,
        intake: StreamIntake,
        pages: PageSender,
        send: Callable[[Item], None],
        *,
        utc_of: Callable[[float], float],
        heeds: Callable[[StreamHeader], bool],
        script: Sequence[Decision] | None,
    ) -> None:
        """Keep what to work with; ``script`` are the decisions of a tape that is replayed."""
        self._keeper = keeper
        self._intake = intake
        self._pages = pages
        self._send = send
        self._utc_of = utc_of
        self._marks = Markers(heeds)
        self.obeying = script is not None
        """Whether a tape decides about sessions."""
        self._script = deque(d for d in script or () if isinstance(d, Anchored))
        self._cut_short = cut_short(script or ())
        self._last_epoch = -1

    @property
    def running(self) -> Session | None:
        """The session that runs."""
        return self._keeper.session

    def moment(self, local: float) -> Moment:
        """Return a moment on both clocks; within a session by the session's one mapping."""
        session = self._keeper.session
        if session is None or session.anchor_lsl is None or session.anchor_utc is None:
            return self._on_the_wall(local)
        return Moment(local, session.anchor_utc + (local - session.anchor_lsl))

    # --- by command ----------------------------------------------------------------------------

    def start(self, subject: str | None, phase: Phase, now: float) -> Session:
        """Begin a session by command."""
        self._apply(self._keeper.start(SessionPlan(subject, phase), self._on_the_wall(now)))
        session = self._keeper.session
        if session is None:
            raise CommandError("the session did not begin", remedy="Look at the daemon's log.")
        return session

    def end(self, session: str, now: float, why: str = "command") -> bool:
        """End the named session; False where it no longer runs."""
        changes = self._keeper.end(session, self.moment(now), why=why)
        self._apply(changes)
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
        at = self._keeper.when("the note", self.moment(now), at_utc)
        if self._keeper.session is not None:
            self._send(Noted(self._keeper.session, at, text))

    def lights(self, to: Literal["off", "on"], at_utc: float | None, now: float) -> None:
        """Mark the lights by command."""
        self._apply(self._keeper.lights(to, self.moment(now), at_utc=at_utc))

    # --- by the streams ------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Let time pass: a session without streams ends after a while."""
        if not self.obeying:
            self._apply(self._keeper.tick(self.moment(now)))

    def data_came(self, at: float) -> None:
        """Note that a needed channel had a sample; a session may begin by it."""
        self._apply(self._keeper.data_came(self.moment(at)))

    def stream_opened(self, opened: StreamOpened) -> None:
        """Note a stream that comes from another outlet; of one from elsewhere the page is doubtful.

        Between sessions there is nothing to note.
        """
        session, change = self._keeper.session, opened.change
        if change is None or session is None:
            return
        if change.moved and session.anchor_lsl is not None:
            self._pages.review(session, int((opened.at - session.anchor_lsl) // PAGE_S))
        text = plain(f"{opened.header.key} {change.text}", NOTE_CHARS)
        self._send(Noted(session, self.moment(opened.at).utc, text, "stream"))

    def pages_closed(self, pages: Iterable[Page], now: float, *, over: bool = False) -> None:
        """Send pages as those of the session that runs; ``over``: no more samples will come."""
        for page in pages:
            if self.obeying:
                self._follow_script(page)
            session = self._keeper.session
            if session is not None:
                cut = (session.anchor_lsl, page.epoch) in self._cut_short
                cut = cut or (over and _ends_after(session, page.epoch, now))
                self._pages.send_page(page, session, now, over=cut)

    # --- by marker -----------------------------------------------------------------------------

    def mark(self, mark: Mark, now: float) -> None:
        """Do what a marker asks for, or keep it as a note."""
        local = self._intake.builder.time_of(mark)
        session = self._keeper.session
        header = self._intake.headers.get(mark.stream)
        meaning = self._marks.meaning(mark, header)
        if meaning is None:
            text = self._marks.note(mark, header)
            if session is not None and text:
                self._send(Noted(session, self.moment(local).utc, text))
            return
        if meaning not in (MarkMeaning.LIGHTS_OFF, MarkMeaning.LIGHTS_ON):
            if self.obeying:
                return
            local = min(local, mark.arrived or local)  # no night begins after its marker came
        try:
            self._act(meaning, self.moment(local), now)
        except CommandError as error:
            self._marks.refused(error, now)

    def marker_problems(self, now: float) -> tuple[str, ...]:
        """Return what went wrong recently with markers."""
        return self._marks.problems(now)

    def _act(self, meaning: MarkMeaning, at: Moment, now: float) -> None:
        keeper, session = self._keeper, self._keeper.session
        match meaning:
            case MarkMeaning.LIGHTS_OFF | MarkMeaning.LIGHTS_ON:
                to: Literal["off", "on"] = "off" if meaning is MarkMeaning.LIGHTS_OFF else "on"
                if session is not None:
                    late = self.moment(max(at.lsl, now))
                    self._apply(keeper.lights(to, late, at_utc=at.utc))
            case MarkMeaning.START_SESSION:
                begun = self._on_the_wall(at.lsl)
                self._apply(keeper.start(SessionPlan(), begun, why="marker"))
            case MarkMeaning.END_SESSION:
                if session is not None:
                    self._apply(keeper.end(session.id, at, why="marker"))
            case _:
                phase = Phase(meaning.value)
                if session is None:
                    self._apply(keeper.start(SessionPlan(phase=phase), at, why="marker"))
                elif session.phase is not Phase.RECORDING:
                    self._apply(keeper.enter(phase, at, why="marker"))

    # --- after a restart -----------------------------------------------------------------------

    def resume(
        self,
        stored: Session,
        *,
        next_epoch: int,
        last_seen_utc: float,
        now: float,
        before: tuple[EarlierPage, ...] = (),
    ) -> None:
        """Go on with a session after the daemon was down; send what was missed.

        ``before``: the newest pages there are, for the tape that begins now.
        """
        moment = self._on_the_wall(now)
        resumed = self._keeper.resume(
            stored, moment, next_epoch=next_epoch, last_seen_utc=last_seen_utc
        )
        session = resumed.session
        if session.reanchored:
            why = "after a reboot the grid was found again by UTC"
            self._send(Changed(SessionChange("reanchored", session, why, moment)))
        if resumed.missed:
            text = f"the daemon was down: pages {resumed.missed[0]} to {resumed.missed[-1]}"
            self._send(Noted(session, session.start_of(resumed.missed[0]), text, "gap"))
        for epoch in resumed.missed:
            self._pages.send_missed(session, epoch)
        if session.phase is Phase.ENDED:
            self._send(Changed(SessionChange("ended", session, "no streams", moment)))
        elif session.anchor_lsl is not None:
            first = resumed.first_epoch
            self._intake.builder.begin(session.anchor_lsl, first_epoch=first, before=before)
            self._pages.resume(session, resumed.first_epoch)
            self._intake.write_decisions()

    # --- within --------------------------------------------------------------------------------

    def _on_the_wall(self, local: float) -> Moment:
        """Return a moment as the host's clock is set now: the next session counts from it."""
        return Moment(local, self._utc_of(local))

    def _apply(
        self, changes: Iterable[SessionChange], before: tuple[EarlierPage, ...] = ()
    ) -> None:
        """Send what changed; the grid begins and ends with the recording."""
        for change in changes:
            session = change.session
            if change.change == "ended" and not self.obeying:
                self._end_grid(session, change.at.lsl)
            self._send(Changed(change, before))
            begun = change.change in ("opened", "phase") and session.phase is Phase.RECORDING
            if begun and session.anchor_lsl is not None and not self.obeying:
                self._intake.begin(session.anchor_lsl)
                self._pages.begin()
            self._intake.write_decisions()

    def _end_grid(self, session: Session, at: float) -> None:
        if session.anchor_lsl is None:
            return
        into = (at - session.anchor_lsl) % PAGE_S
        if into < WHOLE_PAGE_S:
            at -= into
        for page in self._intake.builder.end(at):
            over = _ends_after(session, page.epoch, at)
            self._pages.send_page(page, session, at, over=over)

    def _follow_script(self, page: Page) -> None:
        """Begin the session that the tape's live run had, where its pages begin."""
        session = self._keeper.session
        begins = session is None or (self._script and page.epoch <= self._last_epoch)
        if begins and self._script:
            anchored = self._script.popleft()
            at = Moment(anchored.anchor, self._utc_of(anchored.anchor))
            started = self._keeper.start(SessionPlan(), at, why="tape")
            self._apply(started, anchored.before)
        self._last_epoch = page.epoch


def _ends_after(session: Session, epoch: int, at: float) -> bool:
    """Return whether a page was not over yet at a local time."""
    begun = session.anchor_lsl or 0.0
    return begun + (epoch + 1) * PAGE_S > at + WHOLE_PAGE_S
