"""The stager of one bed: pages in, verdicts out, strictly in the order of the night.

It asks the judge as soon as a page is there and decides when the opinion comes, so that many
pages can be under way while every verdict still follows from the ones before it. A page whose
opinion does not come in time is withheld; a provisional page becomes terminal with what it has.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import structlog

from hypnocast.core.pictures.compressed import fold
from hypnocast.core.types import (
    FloatArray,
    Gap,
    Look,
    Opinion,
    Picture,
    Reason,
    Verdict,
    Withheld,
)
from hypnocast.core.verdicts.decider import Decider, NightState
from hypnocast.core.wire import payloads
from hypnocast.core.wire.notices import Notice
from hypnocast.errors import HypnocastError, TooLateError
from hypnocast.live.bed.bed_updates import ClosedPage, Timings
from hypnocast.live.staging.carrying import Carried, CarriedState
from hypnocast.live.staging.judging import Judge
from hypnocast.live.staging.stage_events import Origin, stage_event
from hypnocast.stagers.packs.manifest import Context

FOLD_AFTER_S = 10.0
"""Pictures are folded when the beds that closed together have their verdicts, not before."""

_log = structlog.get_logger("stager")


@dataclass(frozen=True, slots=True, eq=False)
class StagedEvent:
    """One event ready for the journal, with what the journal keeps beside it."""

    event: payloads.StageEvent
    log_probabilities: FloatArray | None
    """The opinion it follows from, so that the filter's state can be rebuilt."""
    picture: Picture | None
    journaled: Callable[[], float] | None = None
    """Milliseconds since the page's end, asked when the event is written."""
    carried: bytes | None = None
    """What a recurrent model carries over to the next page."""
    coverage: float = 1.0
    """How much of the page there was for the model to see."""
    notices: tuple[Notice, ...] = ()
    """Rules of the lab's own that the event meets: durable with it."""


@dataclass(slots=True, eq=False)
class AskedPage:
    """A page on its way: the drawn page, what was asked, until when an answer counts."""

    closed: ClosedPage
    first: asyncio.Future[Opinion] | None
    second_of_previous: asyncio.Future[Opinion] | None
    deadline: float
    arrived: float


@dataclass(slots=True, eq=False)
class _Provisional:
    asked: AskedPage
    opinion: Opinion


class BedStager:
    """Stages the pages of one session after another at one bed."""

    def __init__(
        self,
        judge: Judge,
        decider: Decider,
        context: Context,
        emit: Callable[[StagedEvent], Awaitable[None]],
        *,
        deadline_s: float | None,
        carries: bool = False,
    ) -> None:
        """Keep who judges, how to decide, and where events go; no deadline in replay.

        ``carries``: the model hands something over from page to page.
        """
        self._judge = judge
        self._decider = decider
        self._context = context
        self._emit = emit
        self._deadline_s = deadline_s
        self._state = NightState()
        self._origin: Origin | None = None
        self._provisional: _Provisional | None = None
        self._recent: deque[Picture | None] = deque(maxlen=context.before + 1)
        self._last_asked: int | None = None
        self._last_withheld: int | None = None
        self._carried = CarriedState(judge) if carries else None
        self._folding = False
        """Whether pictures are to be folded soon."""

    def ask(self, closed: ClosedPage) -> AskedPage:
        """Ask what there is to ask of a page, the moment it is there."""
        now = time.monotonic()
        deadline = now + self._deadline_s if self._deadline_s is not None else float("inf")
        picture = closed.outcome if isinstance(closed.outcome, Picture) else None
        if self._last_asked is not None and closed.epoch != self._last_asked + 1:
            self._recent.clear()
        second = self._ask_second(picture, deadline)
        self._last_asked = closed.epoch
        self._recent.append(picture)
        if self._context.before > 1 and not self._folding:
            self._folding = True
            asyncio.get_running_loop().call_later(FOLD_AFTER_S, self._fold, closed.epoch)
        first = None
        if picture is not None:
            after = (None,) * self._context.after
            look = self._look(after)
            if self._carried is not None:
                first = self._carried.ask(closed.session.id, look, until=deadline)
            else:
                urgent = self._context.after == 0
                first = self._judge.ask(look, urgent=urgent, until=deadline, asker=self)
                if self._deadline_s is not None and self._judge.reads_ahead:
                    self._judge.read_ahead(look)
        return AskedPage(closed, first, second, deadline, now)

    def _fold(self, asked: int) -> None:
        """Keep what the next pages look back at in less memory; a fast replay is past it."""
        self._folding = False
        if self._last_asked != asked:
            return
        for place, picture in enumerate(self._recent):
            if picture is not None:
                self._recent[place] = fold(picture)

    def _ask_second(
        self, picture: Picture | None, deadline: float
    ) -> asyncio.Future[Opinion] | None:
        waits_for_this = bool(self._context.after and self._recent and self._recent[-1])
        if picture is None or not waits_for_this:
            return None
        if self._last_withheld == self._last_asked:
            return None  # it was judged too late, or not at all: there is nothing to conclude
        return self._judge.ask(self._look((picture,)), until=deadline, second=True, asker=self)

    def _look(self, after: tuple[Picture | None, ...]) -> Look:
        missing = self._context.before + 1 - len(self._recent)
        return Look(
            pictures=(*(None,) * missing, *self._recent, *after), center=self._context.before
        )

    @property
    def origin(self) -> Origin | None:
        """What the events of the session that runs have in common."""
        return self._origin

    @property
    def state(self) -> NightState:
        """What is known of the night so far."""
        return self._state

    def beside(self, picture: Picture) -> Look:
        """Return a look at a window between page closes, with the pages before it."""
        before = list(self._recent)[:-1] if self._recent else []
        missing = (None,) * (self._context.before - len(before))
        after = (None,) * self._context.after
        carried = None
        if self._carried is not None and self._origin is not None:
            carried = self._carried.before(self._origin.session, picture.epoch)
        return Look((*missing, *before, picture, *after), self._context.before, carried)

    def begin(self, origin: Origin, state: NightState, carried: Carried | None = None) -> None:
        """Begin a session, or go on with one from what was rebuilt for it."""
        self._origin = origin
        self._state = state
        self._last_withheld = None
        if self._carried is not None and carried is not None:
            self._carried.resume(carried)
        self._provisional = None

    async def score(self, asked: AskedPage) -> None:
        """Wait for the opinions on a page and emit the verdicts that follow."""
        outcome = asked.closed.outcome
        if isinstance(outcome, Gap):
            await self._withhold(asked, outcome.reason)
            return
        if self._provisional is not None:
            await self._conclude(asked)
        opinion = await self._answer(asked.first, asked.deadline)
        if not isinstance(opinion, Opinion):
            await self._withhold(asked, opinion)
            return
        self._state, staged = self._decider.step(self._state, opinion)
        if staged.provisional:
            self._provisional = _Provisional(asked, opinion)
        await self._publish(staged, asked, opinion)

    async def end(self) -> None:
        """Make what is still provisional terminal: no page comes after it."""
        await self._settle()
        self._origin = None

    async def _conclude(self, following: AskedPage) -> None:
        waiting = self._provisional
        if waiting is None:
            return
        opinion = await self._answer(following.second_of_previous, following.deadline)
        if not isinstance(opinion, Opinion):
            await self._settle()
            return
        self._provisional = None
        self._state, staged = self._decider.step(self._state, opinion)
        await self._publish(staged, waiting.asked, opinion)

    async def _settle(self) -> None:
        waiting = self._provisional
        if waiting is None:
            return
        self._provisional = None
        self._state, staged = self._decider.settle(self._state)
        await self._publish(staged, waiting.asked, waiting.opinion)

    async def _withhold(self, asked: AskedPage, reason: Reason) -> None:
        await self._settle()
        epoch = asked.closed.epoch
        self._last_withheld = epoch
        self._state, _ = self._decider.withhold(self._state, epoch)
        await self._publish(Withheld(epoch, reason), asked, None)

    async def _answer(
        self, question: asyncio.Future[Opinion] | None, deadline: float
    ) -> Opinion | Reason:
        if question is None:
            return Reason.NO_MODEL
        left = None if deadline == float("inf") else max(0.0, deadline - time.monotonic())
        try:
            return await asyncio.wait_for(question, left)
        except (TimeoutError, TooLateError):
            return Reason.TOO_LATE
        except HypnocastError as error:
            _log.warning("no opinion on a page", error=str(error))
            return Reason.NO_MODEL

    async def _publish(self, verdict: Verdict, asked: AskedPage, opinion: Opinion | None) -> None:
        origin, closed = self._origin, asked.closed
        if origin is None or origin.session != closed.session.id:
            msg = f"page {closed.epoch} of {closed.session.id} belongs to no session that runs"
            raise RuntimeError(msg)
        outcome = closed.outcome
        clock = _clock(closed.timings, asked.arrived)
        judged = clock() if opinion is not None and clock is not None else None
        lights = closed.session.lights_at(closed.session.start_of(closed.epoch))
        timings = replace(closed.timings, judged=judged)
        event = stage_event(
            origin,
            verdict,
            outcome,
            timings,
            lights,
            evidence=closed.evidence,
            review=closed.review,
        )
        kept = opinion.log_probabilities if opinion is not None else None
        picture = outcome if isinstance(outcome, Picture) else None
        carried = opinion.carried if opinion is not None else None
        coverage = opinion.coverage if opinion is not None else 1.0
        await self._emit(StagedEvent(event, kept, picture, clock, carried, coverage))


def _clock(closed: Timings, arrived: float) -> Callable[[], float] | None:
    """Return what counts the milliseconds since the page's end, from now on."""
    base = closed.drawn
    if base is None:
        return None
    return lambda: round(base + (time.monotonic() - arrived) * 1000.0, 1)
