"""A second opinion: one pack beside the one that speaks, at one bed.

It judges the same pages by the same steps, but only while the pack that speaks has nothing to do.
Where that is too seldom, its oldest pages are left out and counted: nobody waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from hypnocast.core.night.session import Phase, Session, SessionChange
from hypnocast.core.types import Gap, Opinion, Reason
from hypnocast.core.verdicts.decider import Decider, NightState
from hypnocast.errors import InferenceError
from hypnocast.live.bed.bed_updates import Changed, ClosedPage
from hypnocast.live.bed.page_drawing import DrawingSettings, PageDrawing
from hypnocast.live.staging.bed_stager import BedStager, StagedEvent
from hypnocast.live.staging.carrying import Carried
from hypnocast.live.staging.judging import Judge
from hypnocast.live.staging.stage_events import Origin
from hypnocast.ports.journal.records import BesideRecord
from hypnocast.ports.supervision import Supervisor
from hypnocast.stagers.packs.manifest import Context

MOST_WAITING = 8
"""Pages of a bed that wait; at one more the oldest is left out."""

QUIET_S = 0.05
"""How often it is checked whether the pack that speaks has something to do."""


@dataclass(frozen=True, slots=True, eq=False)
class BesidePack:
    """A pack that judges beside, and how."""

    name: str
    """Name and version."""
    digest: str
    judge: Judge
    decider: Decider
    context: Context
    trace: DrawingSettings
    origin: Callable[[Session], Origin]
    carries: bool


class BesideJudges:
    """The models of all packs beside: opened late, cared for, and never the end of a night."""

    def __init__(self, packs: Sequence[BesidePack], supervisor: Supervisor) -> None:
        """Keep the packs, and who supervises their threads."""
        self._judges = {pack.name: pack.judge for pack in packs}
        self._supervisor = supervisor

    @property
    def degraded(self) -> tuple[str, ...]:
        """What is not as it should be, a line each."""
        states = ((name, judge.state()) for name, judge in self._judges.items())
        return tuple(f"beside, {name}: {why}" for name, state in states for why in state.degraded)

    async def start(self) -> None:
        """Open the models, once the pack that speaks is ready."""
        for judge in self._judges.values():
            await judge.start_or_try_again(self._supervisor)

    async def rebuild_if_stuck(self) -> None:
        """Build a model that hangs anew, where there is room for another."""
        for judge in self._judges.values():
            with contextlib.suppress(InferenceError):  # it stays degraded, and shows so
                await judge.rebuild_if_stuck()

    def stop(self) -> None:
        """Let go of the models."""
        for judge in self._judges.values():
            judge.stop()


class BesideStager:
    """Judges one bed's pages with one pack beside."""

    def __init__(
        self,
        pack: BesidePack,
        speaking: Judge,
        emit: Callable[[StagedEvent], Awaitable[None]],
        *,
        live: bool,
    ) -> None:
        """Keep the pack, the judge that goes first, and where verdicts go.

        Unless ``live``, no page is left out: a recording waits.
        """
        self.pack = pack
        self._speaking = speaking
        self._live = live
        self._drawing = PageDrawing(pack.trace)
        self._stager = BedStager(
            pack.judge, pack.decider, pack.context, emit, deadline_s=None, carries=pack.carries
        )
        self._waiting: deque[ClosedPage | SessionChange] = deque()
        self._come = asyncio.Event()
        self._done = asyncio.Event()
        self._done.set()
        self.shed = 0
        """Pages left out."""

    def add(self, item: ClosedPage | Changed) -> None:
        """Queue a page, or what became of the session; never waits."""
        self._waiting.append(item.change if isinstance(item, Changed) else item)
        pages = [one for one in self._waiting if isinstance(one, ClosedPage)]
        if self._live and len(pages) > MOST_WAITING:
            self._waiting.remove(pages[0])
            self.shed += 1
        self._done.clear()
        self._come.set()

    async def caught_up(self) -> None:
        """Wait until nothing waits."""
        await self._done.wait()

    def resume(
        self, session: Session, records: Iterable[BesideRecord], carried: Carried | None
    ) -> None:
        """Go on with a session from what the journal has of this pack."""
        past = (
            (one.epoch, None if log is None else Opinion(one.epoch, log, "", coverage=one.coverage))
            for one in records
            for log in (one.log_probabilities,)
        )
        self._stager.begin(self.pack.origin(session), self.pack.decider.rebuild(past), carried)

    async def run(self) -> None:
        """Judge what comes, in its order."""
        while True:
            while not self._waiting:
                self._done.set()
                self._come.clear()
                await self._come.wait()
            await self._quiet()
            item = self._waiting.popleft()
            if isinstance(item, ClosedPage):
                await self._judge(item)
            else:
                await self._change(item)

    async def _quiet(self) -> None:
        while True:
            if not self._live or self._speaking.idle:
                return
            await asyncio.sleep(QUIET_S)

    async def _judge(self, closed: ClosedPage) -> None:
        if self._stager.origin is None or self._stager.origin.session != closed.session.id:
            return  # its beginning was before this daemon's, and is not known
        outcome, page = closed.outcome, closed.page
        ended = isinstance(outcome, Gap) and outcome.reason is Reason.SESSION_END
        if page is not None and not ended:
            outcome = await asyncio.to_thread(self._drawing.draw, page)
        asked = self._stager.ask(ClosedPage(closed.session, outcome, closed.timings))
        await self._stager.score(asked)

    async def _change(self, change: SessionChange) -> None:
        session = change.session
        if change.change in ("opened", "phase") and session.phase is Phase.RECORDING:
            self._stager.begin(self.pack.origin(session), NightState())
        elif change.change == "ended" and self._stager.origin is not None:
            await self._stager.end()
