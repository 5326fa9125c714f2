"""Draws the pages of one bed and sends each with its session and its timings."""

from __future__ import annotations

import time
from collections.abc import Callable

from hypnocast.core.night.session import Session
from hypnocast.core.pages.page_builder import PageBuilder
from hypnocast.core.pages.rolling_windows import RollingWindows
from hypnocast.core.types import PAGE_S, Gap, Page, Reason
from hypnocast.live.bed.bed_updates import ClosedPage, Glimpsed, Item, Timings
from hypnocast.live.bed.page_drawing import DrawingSettings, PageDrawing

_BY_ABSENCE = (Reason.LOW_COVERAGE, Reason.MISSING_CHANNEL)
"""Why a page is a gap that the daemon itself missed for the most part."""


class PageSender:
    """Draws and sends the pages of one bed."""

    def __init__(self, settings: DrawingSettings, send: Callable[[Item], None]) -> None:
        """Keep how pages are drawn, and where they go."""
        self._settings = settings
        self._send = send
        self._drawing = PageDrawing(settings)
        self._windows = RollingWindows(settings.hop_s) if settings.hop_s is not None else None
        self._doubtful: tuple[str, int] | None = None
        self._resumed_at: tuple[str, int] | None = None
        """The session that was resumed, and the page in which that was."""

    def begin(self) -> None:
        """Begin another night."""
        self._drawing.begin()

    def resume(self, session: Session, epoch: int) -> None:
        """Note in which page a session was resumed: the daemon missed a part of it."""
        self._resumed_at = (session.id, epoch)

    def review(self, session: Session, epoch: int) -> None:
        """Have a page reviewed by people, however sure the model is."""
        self._doubtful = (session.id, epoch)

    def send_missed(self, session: Session, epoch: int) -> None:
        """Send a page that passed while the daemon was down."""
        self._send(ClosedPage(session, Gap(epoch, Reason.DAEMON_DOWN), Timings()))

    def send_page(self, page: Page, session: Session, now: float, *, over: bool) -> None:
        """Draw a page, or find why not; ``over``: the session ended in the middle of it."""
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
        goes_on = page if self._settings.beside else None
        review = (session.id, page.epoch) == self._doubtful
        self._send(ClosedPage(session, outcome, timings, evidence, goes_on, review))

    def send_glimpse(
        self,
        builder: PageBuilder,
        session: Session | None,
        now: float,
        utc_of: Callable[[float], float],
    ) -> None:
        """Draw the last 30 s, where a rolling verdict is due."""
        if self._windows is None or session is None or builder.anchor is None:
            return
        tail_s, grace_s = builder.needs.tail_s, self._settings.grace_s
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
        self._send(Glimpsed(session, utc_of(end), outcome, drawn_ms))
