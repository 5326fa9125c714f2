"""What the simulator meant by each page, beside what the pack made of it.

The demo knows the truth, for it made the signals. It is published like a second opinion, so that
the terminal and the ward page show how often the pack is right on simulated people. This is no
accuracy: nobody slept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

from hypnocast.core.night.agreement import compare, parted
from hypnocast.core.timing.utc import UtcAnchor, instant
from hypnocast.core.types import PAGE_S
from hypnocast.core.wire.payloads import Beside, SecondOpinion, StageEvent, StageName
from hypnocast.simulate import SimulatedSource

NAME = "simulator"
OnPage = Callable[[StageEvent, StageName], None]
"""Gets every terminal event with the simulator's stage of its page."""


class ShownBed(Protocol):
    """A bed's place on the broker."""

    @property
    def stages(self) -> Sequence[StageName | None]:
        """What was published for each epoch of the night."""
        ...

    def beside(self, message: Beside, parted: Sequence[int]) -> None:
        """Publish second opinions, and the epochs on which any differs."""
        ...


class DemoTruth:
    """Watches the demo's events and publishes the simulator's stage of each page."""

    def __init__(self, sim: SimulatedSource, clock: UtcAnchor, on_page: OnPage | None) -> None:
        """Keep the simulator, its clock, and who else gets pages."""
        self._sim = sim
        self._clock = clock
        self._on_page = on_page
        self._stages: dict[str, list[StageName | None]] = {}
        self.shown: Callable[[str], ShownBed] | None = None
        """Where a bed is published; set when the ward is there."""

    def stage(self, event: StageEvent) -> StageName:
        """Return the stage that the simulator played at the middle of an event's page."""
        middle = datetime.fromisoformat(event.start).timestamp() + PAGE_S / 2
        since = middle - self._clock.utc(self._sim.clock_start)
        return self._sim.stage(event.bed, int(since // PAGE_S)).value

    def event(self, event: StageEvent) -> None:
        """Publish the simulator's stage of a page that has its verdict."""
        if event.status == "provisional":
            return
        true = self.stage(event)
        stages = self._stages.setdefault(event.bed, [])
        stages += [None] * (event.epoch + 1 - len(stages))
        stages[event.epoch] = true
        if self._on_page is not None:
            self._on_page(event, true)
        if self.shown is not None:
            bed = self.shown(event.bed)
            differing = parted(bed.stages, stages)
            bed.beside(self._beside(event, bed.stages, differing), differing)

    def _beside(
        self, event: StageEvent, ours: Sequence[StageName | None], differing: tuple[int, ...]
    ) -> Beside:
        stages = self._stages[event.bed]
        found = compare(ours, stages)
        opinion = SecondOpinion(
            pack=NAME,
            digest="",
            provider=None,
            epoch=event.epoch,
            stage=stages[event.epoch],
            reason=None,
            probabilities=None,
            review=event.epoch in differing,
            stages=tuple(stages),
            parted=differing,
            compared=found.pages,
            kappa=None if found.kappa is None else round(found.kappa, 4),
            shed=0,
        )
        return Beside(
            at=instant(time.time()),
            site=event.site,
            bed=event.bed,
            session=event.session,
            source=event.source,
            packs=(opinion,),
        )
