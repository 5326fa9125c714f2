"""The opinions of the packs beside on one bed's night: journaled, compared, published."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from hypnocast.core.night.agreement import compare, parted
from hypnocast.core.night.session import Session
from hypnocast.core.timing.utc import instant
from hypnocast.core.types import STAGES, FloatArray
from hypnocast.core.wire import payloads
from hypnocast.core.wire.payloads import StageName
from hypnocast.live.bed.bed_updates import Changed, ClosedPage
from hypnocast.live.staging.bed_stager import StagedEvent
from hypnocast.live.staging.carrying import Carried
from hypnocast.live.staging.judging import Judge
from hypnocast.live.staging.second_opinion import BesidePack, BesideStager
from hypnocast.live.staging.stage_events import probabilities_of
from hypnocast.ports.journal.journal import Journal
from hypnocast.ports.journal.records import Batch, BesideRecord, CarriedRecord
from hypnocast.ports.supervision import Supervisor
from hypnocast.ports.worker import Worker


class Shown(Protocol):
    """The bed's public face, as far as second opinions need it."""

    @property
    def stages(self) -> Sequence[StageName | None]:
        """The stage of the pack that speaks, epoch by epoch."""
        ...

    def beside(self, message: payloads.Beside, parted: Sequence[int]) -> None:
        """Show second opinions, and mark the epochs on which any parts for review."""
        ...


@dataclass(eq=False)
class _Beside:
    """What one pack has beside of the night."""

    stager: BesideStager
    stages: list[StageName | None] = field(default_factory=list)
    newest: BesideRecord | None = None
    provider: str | None = None

    async def run(self, _: Worker) -> None:
        await self.stager.run()

    def enter(self, record: BesideRecord) -> None:
        missing = record.epoch + 1 - len(self.stages)
        self.stages.extend([None] * max(0, missing))
        self.stages[record.epoch] = record.stage
        if self.newest is None or record.epoch >= self.newest.epoch:
            self.newest = record

    def forget(self) -> None:
        self.stages.clear()
        self.newest = self.provider = None


class SecondOpinions:
    """All packs beside at one bed."""

    def __init__(
        self,
        bed: str,
        packs: Sequence[BesidePack],
        *,
        speaking: Judge,
        journal: Journal,
        shown: Shown,
        live: bool,
    ) -> None:
        """Keep the packs, the judge that goes first, the journal, and where they are shown."""
        self._bed = bed
        self._journal = journal
        self._shown = shown
        self._live = live
        self._session: Session | None = None
        self._packs = [self._one(pack, speaking) for pack in packs]
        self._tasks: list[asyncio.Task[None]] = []

    def _one(self, pack: BesidePack, speaking: Judge) -> _Beside:
        async def emit(staged: StagedEvent) -> None:
            await self._emit(beside, staged)

        beside = _Beside(BesideStager(pack, speaking, emit, live=self._live))
        return beside

    def start(self, supervisor: Supervisor) -> None:
        """Begin to judge; a failure costs the page, never the night."""
        for beside in self._packs:
            name = f"beside {self._bed} {beside.stager.pack.name}"
            self._tasks.append(supervisor.task(name, beside.run, on_failure="restart"))

    def stop(self) -> None:
        """Leave what still waits."""
        for task in self._tasks:
            task.cancel()

    def event_durable(self, epoch: int) -> None:
        """Show what waits for the speaking pack: its verdict on a page is durable."""
        if any(
            beside.newest is not None and beside.newest.epoch >= epoch for beside in self._packs
        ):
            self._show()

    def add(self, item: ClosedPage | Changed) -> None:
        """Hand a page, or what became of the session, to every pack."""
        if isinstance(item, Changed):
            self._begin(item.change.session)
        for beside in self._packs:
            beside.stager.add(item)

    async def caught_up(self) -> None:
        """Wait for every pack, where a recording is judged that can wait."""
        if not self._live:
            for beside in self._packs:
                await beside.stager.caught_up()

    def resume(
        self,
        session: Session,
        records: Sequence[BesideRecord],
        carried: Mapping[str, Carried],
    ) -> None:
        """Go on with a session that the journal has."""
        self._begin(session)
        for beside in self._packs:
            digest = beside.stager.pack.digest
            own = [record for record in records if record.pack == digest]
            for record in own:
                beside.enter(record)
            beside.stager.resume(session, own, carried.get(digest))

    def _begin(self, session: Session) -> None:
        if self._session is None or self._session.id != session.id:
            for beside in self._packs:
                beside.forget()
        self._session = session

    async def _emit(self, beside: _Beside, staged: StagedEvent) -> None:
        event, pack = staged.event, beside.stager.pack
        if event.status == "provisional":
            return
        record = BesideRecord(
            session=event.session,
            epoch=event.epoch,
            pack=pack.digest,
            name=pack.name,
            stage=event.stage,
            reason=event.reason,
            probabilities=_vector(event.probabilities),
            log_probabilities=staged.log_probabilities,
            coverage=staged.coverage,
        )
        carried: tuple[CarriedRecord, ...] = ()
        if staged.carried is not None:
            carried = (CarriedRecord(event.session, pack.digest, event.epoch, staged.carried),)
        await self._journal.commit(Batch(beside=(record,), carried=carried))
        if self._session is not None and self._session.id == event.session:
            beside.enter(record)
            beside.provider = event.provider or beside.provider
            if len(self._shown.stages) > event.epoch:
                self._show()  # else with the verdict that it is compared with

    def _show(self) -> None:
        session = self._session
        if session is None:
            return
        terminal = self._shown.stages
        packs = tuple(
            _opinion(beside, terminal) for beside in self._packs if beside.newest is not None
        )
        message = payloads.Beside(
            at=instant(time.time()),
            site=session.site,
            bed=self._bed,
            session=session.id,
            source=session.source,
            packs=packs,
        )
        self._shown.beside(message, sorted({epoch for one in packs for epoch in one.parted}))


def _opinion(beside: _Beside, terminal: Sequence[StageName | None]) -> payloads.SecondOpinion:
    newest, pack = beside.newest, beside.stager.pack
    found = compare(terminal, beside.stages)
    differing = parted(terminal, beside.stages)
    chances = None if newest is None else newest.probabilities
    return payloads.SecondOpinion(
        pack=pack.name,
        digest=pack.digest,
        provider=beside.provider,
        epoch=None if newest is None else newest.epoch,
        stage=None if newest is None else newest.stage,
        reason=None if newest is None else newest.reason,
        probabilities=None if chances is None else probabilities_of(chances),
        review=newest is not None and newest.epoch in differing,
        stages=tuple(beside.stages),
        parted=differing,
        compared=found.pages,
        kappa=None if found.kappa is None else round(found.kappa, 4),
        shed=beside.stager.shed,
    )


def _vector(chances: payloads.StageProbabilities | None) -> FloatArray | None:
    if chances is None:
        return None
    return np.array([getattr(chances, stage.value) for stage in STAGES])
