"""Sessions and their phases: one recording of one person in one bed.

A :class:`SessionKeeper` holds one bed's session. It reads no clock and does nothing itself: its
caller reports what happened and when, and gets what changed. Stages exist only in ``recording``;
epoch 0 begins when that phase is first entered, and from then on the grid never moves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from math import ceil, floor
from typing import Literal

from hypnocast.core.types import LONGEST_NIGHT_S, PAGE_S, SourceKind
from hypnocast.errors import CommandError

SESSION_TIMEOUT_S = 5400.0
"""A session ends after this long without streams: people go to the bathroom."""

REARM_S = 60.0
"""After a night was ended by hand, the next begins by itself only once streams paused so long."""

MAX_LIGHTS = 500
"""Lights are marked a few times a night; a sender of markers that is broken, thousands of times."""

_FUTURE_S = 1.0
_PAST_S = 86400.0
"""A time given for a night lies no longer than this before it: else its date is a slip."""

Lights = Literal["on", "off", "unknown"]


class Phase(StrEnum):
    """What goes on in a session."""

    SETUP = "setup"
    CALIBRATION = "calibration"
    RECORDING = "recording"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Moment:
    """One moment on both clocks."""

    lsl: float
    utc: float
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class LightsMark:
    """Lights went off or on, at a UTC; perhaps reported only later."""

    to: Literal["off", "on"]
    at: float


@dataclass(frozen=True, slots=True)
class SessionPlan:
    """What is known of a session before it begins."""

    subject: str | None = None
    """A pseudonym."""
    phase: Phase = Phase.RECORDING


@dataclass(frozen=True, slots=True)
class Session:
    """A session at one moment."""

    id: str
    site: str
    bed: str
    subject: str | None
    source: SourceKind
    boot_id: str
    """The boot whose LSL clock ``anchor_lsl`` is on."""
    opened_utc: float
    phase: Phase
    anchor_lsl: float | None = None
    """Start of epoch 0; None before ``recording``."""
    anchor_utc: float | None = None
    ended_utc: float | None = None
    reanchored: bool = False
    """Whether a reboot in the middle made it necessary to find the grid again by UTC."""
    lights: tuple[LightsMark, ...] = ()

    def start_of(self, epoch: int) -> float:
        """Return the UTC at which a page starts: always anchor + 30 k."""
        if self.anchor_utc is None:
            msg = f"session {self.id} has no pages before its recording begins"
            raise ValueError(msg)
        return self.anchor_utc + PAGE_S * epoch

    def lights_at(self, utc: float) -> Lights:
        """Return whether the lights were on, by the newest mark not after a UTC."""
        state: Lights = "unknown"
        for mark in self.lights:
            if mark.at <= utc:
                state = mark.to
        return state


Change = Literal["opened", "phase", "lights", "reanchored", "ended"]


@dataclass(frozen=True, slots=True)
class SessionChange:
    """What became of a session."""

    change: Change
    session: Session
    why: str
    at: Moment
    lights: LightsMark | None = None
    """What was marked, where it was the lights."""


@dataclass(frozen=True, slots=True)
class Resumption:
    """What a daemon finds of a session when it comes back."""

    session: Session
    missed: range
    """Pages that passed while nobody watched: ``withheld: daemon_down``."""
    first_epoch: int
    """The page from which the page builder goes on."""


def session_id(site: str, bed: str, opened_utc: float, source: SourceKind) -> str:
    """Name a session: pseudonymous, the same for the same site, bed, start and source."""
    stamp = datetime.fromtimestamp(round(opened_utc, 3), UTC)
    name = f"{site}.{bed}.{stamp:%Y%m%dT%H%M%S}{stamp.microsecond // 1000:03d}Z"
    return name if source == "live" else f"{name}.{source}"


class SessionKeeper:
    """The sessions of one bed, one at a time.

    Every method gets the moment at which something happened and returns what changed, in
    order; most often nothing.
    """

    def __init__(
        self,
        site: str,
        bed: str,
        *,
        source: SourceKind,
        boot_id: str,
        auto: bool = False,
        timeout_s: float = SESSION_TIMEOUT_S,
    ) -> None:
        """Begin without a session."""
        self._site = site
        self._bed = bed
        self._source = source
        self._boot_id = boot_id
        self._auto = auto
        self._armed = auto
        self._timeout_s = timeout_s
        self._last_data: Moment | None = None
        self._session: Session | None = None
        self._begun: set[float] = set()
        """UTC at which sessions were opened; a night or two, seldom more."""

    @property
    def bed(self) -> str:
        """The bed whose sessions these are."""
        return self._bed

    @property
    def session(self) -> Session | None:
        """The session that runs."""
        return self._session

    # --- by command or marker ------------------------------------------------------------------

    def start(
        self, plan: SessionPlan, now: Moment, *, why: str = "command"
    ) -> tuple[SessionChange, ...]:
        """Begin a session for the next person; the one that runs ends here.

        Its mapping to UTC is that of ``now``; the one that ends does so by its own.
        """
        ended = self._end(self._by_its_own_clock(now), "next start")
        opened = self._moment_of_its_own(round(now.utc, 3))
        session = Session(
            id=session_id(self._site, self._bed, opened, self._source),
            site=self._site,
            bed=self._bed,
            subject=plan.subject,
            source=self._source,
            boot_id=self._boot_id,
            opened_utc=opened,
            phase=Phase.SETUP if plan.phase is Phase.ENDED else plan.phase,
        )
        self._session = _anchored(session, now)
        self._last_data = now
        return (*ended, SessionChange("opened", self._session, why, now))

    def _moment_of_its_own(self, utc: float) -> float:
        """Return a moment at which no other session was opened: it names the session.

        A host's clock that is set back comes to the same moment twice.
        """
        while utc in self._begun:
            utc = round(utc + 0.001, 3)
        self._begun.add(utc)
        return utc

    def enter(
        self, phase: Phase, now: Moment, *, why: str = "command"
    ) -> tuple[SessionChange, ...]:
        """Enter a phase. A recording only ends: its grid cannot stop and go on."""
        session = self._running(f"enter {phase}")
        if phase is Phase.ENDED:
            return self._end(now, why)
        if phase is session.phase:
            return ()
        if session.phase is Phase.RECORDING:
            raise CommandError(
                f"the recording runs; it cannot go back to {phase}",
                where=f"bed {self._bed}",
                remedy="End the session and start the next one.",
            )
        self._session = _anchored(replace(session, phase=phase), now)
        return (SessionChange("phase", self._session, why, now),)

    def end(self, session: str, now: Moment, *, why: str = "command") -> tuple[SessionChange, ...]:
        """End the named session; nothing happens where it no longer runs."""
        if self._session is None or self._session.id != session:
            return ()
        return self._end(now, why)

    def lights(
        self, to: Literal["off", "on"], now: Moment, *, at_utc: float | None = None
    ) -> tuple[SessionChange, ...]:
        """Mark lights off or on, now or (back-dated) at a UTC. Moves no page."""
        session = self._running(f"mark lights {to}")
        if len(session.lights) >= MAX_LIGHTS:
            raise CommandError(
                f"the lights were marked {MAX_LIGHTS} times in this session",
                where=f"bed {self._bed}",
                remedy="Look who marks them; start the next session.",
            )
        mark = LightsMark(to, self.when(f"lights {to}", now, at_utc))
        marks = sorted({*session.lights, mark}, key=lambda m: (m.at, m.to))
        self._session = replace(session, lights=tuple(marks))
        return (SessionChange("lights", self._session, f"lights {to}", now, mark),)

    def when(self, what: str, now: Moment, at_utc: float | None) -> float:
        """Return the UTC of something that was reported, refused where it cannot be.

        What was once recorded of a night cannot be undone.
        """
        at = now.utc if at_utc is None else at_utc
        wrong = ""
        if at > now.utc + _FUTURE_S:
            wrong = f"{what} lies {at - now.utc:.0f} s in the future"
        elif at < self._running(f"record {what}").opened_utc - _PAST_S:
            wrong = f"{what} lies more than a day before the session"
        if wrong:
            remedy = "Give a time of this night that has passed, or none for now."
            raise CommandError(wrong, where=f"bed {self._bed}", remedy=remedy)
        return at

    # --- by the streams ------------------------------------------------------------------------

    def data_came(self, now: Moment) -> tuple[SessionChange, ...]:
        """Note that samples of the bed's needed channels came."""
        ended = self.tick(now)
        self._last_data = now
        if self._session is None and self._armed:
            return (*ended, *self.start(SessionPlan(), now, why="auto"))
        return ended

    def tick(self, now: Moment) -> tuple[SessionChange, ...]:
        """Let time pass: end a session that has been without streams for too long.

        Call it before pages are closed up to ``now``: the session ends at the time-out, not when
        that was noticed.
        """
        if self._last_data is None:
            return ()
        if self._ran_too_long(now):
            changes = self._end(now, "the longest night there may be")
            self._armed = self._auto
            return changes
        silent = now.lsl - self._last_data.lsl
        if silent >= REARM_S and self._session is None:
            self._armed = self._auto
        if self._session is None or silent < self._timeout_s:
            return ()
        over = Moment(self._last_data.lsl + self._timeout_s, now.utc - (silent - self._timeout_s))
        changes = self._end(over, "no streams")
        self._armed = self._auto
        return changes

    # --- after a restart -----------------------------------------------------------------------

    def resume(
        self, stored: Session, now: Moment, *, next_epoch: int, last_seen_utc: float
    ) -> Resumption:
        """Go on with a session that ran when the daemon stopped.

        ``next_epoch`` is the first page without an event, ``last_seen_utc`` when the daemon was
        last known to run. On the same boot the grid is where it was; after a reboot the LSL clock
        began anew and the grid is found again by UTC, but never before it was last seen: a host
        may come back with a clock that is behind. A session that was left for longer than the
        time-out is over: it ended when it was last seen.
        """
        if stored.boot_id == self._boot_id:
            session, utc = stored, now.utc
            if stored.anchor_lsl is not None and stored.anchor_utc is not None:
                utc = stored.anchor_utc + (now.lsl - stored.anchor_lsl)
        else:
            session, utc = replace(stored, boot_id=self._boot_id), now.utc
            if stored.anchor_utc is not None:
                utc = max(now.utc, last_seen_utc)
                anchor_lsl = now.lsl - (utc - stored.anchor_utc)
                session = replace(session, anchor_lsl=anchor_lsl, reanchored=True)
        over = utc - last_seen_utc >= self._timeout_s
        upto = next_epoch
        if session.anchor_utc is not None:
            passed = (last_seen_utc if over else utc) - session.anchor_utc
            over = over or passed >= LONGEST_NIGHT_S
            passed = min(passed, LONGEST_NIGHT_S)
            upto = max(next_epoch, ceil(passed / PAGE_S) if over else floor(passed / PAGE_S))
        if over:
            session = replace(session, phase=Phase.ENDED, ended_utc=last_seen_utc)
        else:
            self._session = session
            self._last_data = now
        self._begun.add(session.opened_utc)
        return Resumption(session, range(next_epoch, upto), upto)

    # --- within --------------------------------------------------------------------------------

    def _running(self, what: str) -> Session:
        if self._session is None:
            raise CommandError(
                f"cannot {what}: no session runs",
                where=f"bed {self._bed}",
                remedy="Start one with start_session.",
            )
        return self._session

    def _ran_too_long(self, now: Moment) -> bool:
        session = self._session
        began = session.anchor_lsl if session is not None else None
        return began is not None and now.lsl - began >= LONGEST_NIGHT_S

    def _by_its_own_clock(self, now: Moment) -> Moment:
        """Return a moment by the mapping of the session that runs, if it has one."""
        session = self._session
        if session is None or session.anchor_lsl is None or session.anchor_utc is None:
            return now
        return Moment(now.lsl, session.anchor_utc + (now.lsl - session.anchor_lsl))

    def _end(self, at: Moment, why: str) -> tuple[SessionChange, ...]:
        if self._session is None:
            return ()
        ended = replace(self._session, phase=Phase.ENDED, ended_utc=round(at.utc, 3))
        self._session = None
        self._armed = False
        self._last_data = at
        return (SessionChange("ended", ended, why, at),)


def _anchored(session: Session, now: Moment) -> Session:
    """Fix the grid where the recording begins; on whole milliseconds, as events give them."""
    if session.phase is not Phase.RECORDING or session.anchor_lsl is not None:
        return session
    return replace(session, anchor_lsl=now.lsl, anchor_utc=round(now.utc, 3))
