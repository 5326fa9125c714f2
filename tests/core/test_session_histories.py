"""Histories of the session keeper, against a model of ten lines.

The model knows the session that runs, its first page's time on the steady clock, and when samples
came last. Clock steps, restarts and reboots come at any time.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field, replace
from typing import Literal

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hypnocast.core.night.session import (
    Moment,
    Phase,
    Session,
    SessionChange,
    SessionKeeper,
    SessionPlan,
)
from hypnocast.core.types import PAGE_S
from hypnocast.errors import CommandError

TIMEOUT_S = 900.0
HISTORIES = int(os.environ.get("HYPNOCAST_HISTORIES", "100"))


@dataclass
class KeeperModel:
    """What must be true of the bed, whatever the keeper does inside."""

    running: str | None = None
    phase: Phase = Phase.ENDED
    anchor: tuple[float, float] | None = None
    """Of page 0, on the steady clock of this boot and in UTC."""
    data_at: float | None = None
    ended: set[str] = field(default_factory=set)


class SessionHistories(RuleBasedStateMachine):
    """Commands, samples, silence, clock steps, restarts and reboots in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.lsl = 5_000.0
        self.utc = 1_763_676_000.0
        self.boot = 1
        self.model = KeeperModel()
        self.next_epoch = 0
        self.keeper = self.a_keeper()

    def a_keeper(self) -> SessionKeeper:
        return SessionKeeper(
            "lab", "bed1", source="live", boot_id=f"boot-{self.boot}", timeout_s=TIMEOUT_S
        )

    @property
    def now(self) -> Moment:
        return Moment(self.lsl, self.utc)

    def follow(self, changes: tuple[SessionChange, ...]) -> None:
        """Follow the changes as whoever writes the journal does."""
        for change in changes:
            session = change.session
            if change.change == "ended":
                assert session.id == self.model.running, "only what runs can end"
                assert session.id not in self.model.ended, "and once"
                self.model.ended.add(session.id)
                self.model.running, self.model.anchor = None, None
            elif change.change == "opened":
                assert self.model.running is None, "one at a time"
                assert session.id not in self.model.ended, "a night of its own"
                self.model.running, self.next_epoch = session.id, 0
            self.model.phase = session.phase
            if session.phase is Phase.RECORDING and self.model.anchor is None:
                assert session.anchor_lsl is not None
                assert session.anchor_utc is not None
                self.model.anchor = (session.anchor_lsl, session.anchor_utc)

    @rule(seconds=st.floats(0.01, 400.0))
    def time_passes(self, seconds: float) -> None:
        self.lsl += seconds
        self.utc += seconds
        silent = None if self.model.data_at is None else self.lsl - self.model.data_at
        was = self.model.running
        self.follow(self.keeper.tick(self.now))
        if was is not None and silent is not None:
            over = silent >= TIMEOUT_S
            assert (self.model.running is None) == over, "a silent bed's night ends, no other's"

    @rule()
    def samples_come(self) -> None:
        self.follow(self.keeper.data_came(self.now))
        self.model.data_at = self.lsl
        if self.model.anchor is not None:
            passed = self.lsl - self.model.anchor[0]
            self.next_epoch = max(self.next_epoch, int(passed // PAGE_S))

    @rule(by=st.sampled_from([-7200.0, -1.0, 0.5, 3600.0]))
    def clock_is_set(self, by: float) -> None:
        self.utc += by

    @rule(phase=st.sampled_from([Phase.SETUP, Phase.CALIBRATION, Phase.RECORDING]))
    def start(self, phase: Phase) -> None:
        self.lsl, self.utc = self.lsl + 1.0, self.utc + 1.0
        self.follow(self.keeper.start(SessionPlan(phase=phase), self.now))
        self.model.data_at = self.lsl

    @precondition(lambda self: self.model.running is not None)
    @rule(phase=st.sampled_from([Phase.SETUP, Phase.CALIBRATION, Phase.RECORDING]))
    def enter(self, phase: Phase) -> None:
        back = self.model.phase is Phase.RECORDING and phase is not Phase.RECORDING
        try:
            self.follow(self.keeper.enter(phase, self.now))
        except CommandError:
            assert back, "only a recording's grid refuses"
        else:
            assert not back, "a recording cannot go back"

    @rule(whose=st.sampled_from(["mine", "another's"]))
    def end(self, whose: str) -> None:
        name = self.model.running if whose == "mine" and self.model.running else "lab.bed1.other"
        running = self.model.running
        self.follow(self.keeper.end(name, self.now))
        assert (self.model.running is None) == (whose == "mine" or running is None)
        if running is not None and whose == "mine":
            self.model.data_at = self.lsl

    @precondition(lambda self: self.model.running is not None)
    @rule(to=st.sampled_from(["off", "on"]), back_s=st.floats(-5.0, 600.0))
    def lights(self, to: Literal["off", "on"], back_s: float) -> None:
        anchor = self.model.anchor
        with contextlib.suppress(CommandError):
            self.follow(self.keeper.lights(to, self.now, at_utc=self.utc - back_s))
        assert self.model.anchor == anchor, "lights move no page"

    @precondition(lambda self: self.model.running is not None)
    @rule(down_s=st.floats(0.1, 1200.0), reboots=st.booleans())
    def daemon_is_killed(self, down_s: float, reboots: bool) -> None:
        stored = self.keeper.session
        assert stored is not None
        seen = self.utc
        if stored.anchor_utc is not None and stored.anchor_lsl is not None:
            seen = stored.anchor_utc + (self.lsl - stored.anchor_lsl)
        self.lsl, self.utc = self.lsl + down_s, self.utc + down_s
        if reboots:
            self.boot += 1
            self.lsl = 10.0
        self.keeper = self.a_keeper()
        found = self.keeper.resume(stored, self.now, next_epoch=self.next_epoch, last_seen_utc=seen)
        self.check_resumption(stored, found.session, found.missed, found.first_epoch)

    def check_resumption(
        self, stored: Session, session: Session, missed: range, first: int
    ) -> None:
        assert replace(session, anchor_lsl=None, boot_id="", reanchored=False, ended_utc=None,
                       phase=stored.phase) == replace(
            stored, anchor_lsl=None, boot_id="", reanchored=False, ended_utc=None
        ), "the same night"  # fmt: skip
        assert missed.start == self.next_epoch, "no page without an event"
        assert missed.stop == first, "and none with two"
        self.next_epoch = first
        self.model.data_at = self.lsl
        if session.phase is Phase.ENDED:
            self.model.ended.add(session.id)
            self.model.running, self.model.anchor = None, None
        elif session.anchor_lsl is not None and session.anchor_utc is not None:
            self.model.anchor = (session.anchor_lsl, session.anchor_utc)

    @invariant()
    def the_keeper_holds_what_the_model_holds(self) -> None:
        session = self.keeper.session
        assert (session.id if session is not None else None) == self.model.running
        if session is not None:
            assert session.phase is self.model.phase
            if self.model.anchor is not None:
                assert (session.anchor_lsl, session.anchor_utc) == self.model.anchor, "one grid"


TestSessionHistories = SessionHistories.TestCase
TestSessionHistories.settings = settings(
    max_examples=HISTORIES, stateful_step_count=40, deadline=None
)
