"""What an experiment is made of: pieces that leave a file each, and can be done side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hypnocast.core.pictures.recipe import builtin
from hypnocast.core.types import STAGES, Page, Role
from hypnocast_models.experiments.corrupt import corrupt
from hypnocast_models.experiments.families import (
    ArmInput,
    fit,
    picture_features,
    signal_features,
    signal_rows,
)
from hypnocast_models.experiments.part import Part
from hypnocast_models.experiments.plan import Arm, Data, Kind
from hypnocast_models.experiments.simulated import SIMULATED, SimulatedScoredNight
from hypnocast_models.readers.datasets import FoundRecording, open_night
from hypnocast_models.readers.night import ScoredNight

SOUND = "sound"


@dataclass(frozen=True, slots=True)
class TestCondition:
    """A state of the test pages."""

    name: str = SOUND
    kind: Kind | None = None
    share: float = 0.0
    without: tuple[Role, ...] = ()
    """Channels that are taken away."""
    pages: int = 0
    """So many of each night in a row; 0 for as many as the data has."""

    def change(self, page: Page, mains_hz: int) -> Page:
        """Bring a page into this state."""
        if self.without:
            left = {r: s for r, s in page.signals.items() if r not in self.without}
            page = replace(page, signals=left)
        if self.kind is None or self.share == 0:
            return page
        return corrupt(page, self.kind, self.share, seed=1, mains_hz=mains_hz)


class Job(Protocol):
    """A piece of work that is done once its files are there."""

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do."""
        ...

    def run(self) -> None:
        """Do what is left."""
        ...


def work_off(jobs: Sequence[Job], workers: int, advance: Callable[[int], None]) -> None:
    """Do all jobs that are not done, so many side by side; the first failure ends it."""
    left = [job for job in jobs if not job.done]
    advance(len(jobs) - len(left))
    if workers == 1 or len(left) < 2:
        for job in left:
            job.run()
            advance(1)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        under_way = [pool.submit(job.run) for job in left]
        try:
            for one in as_completed(under_way):
                one.result()
                advance(1)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


@dataclass(frozen=True)
class NightPart:
    """So many pages of a night under a condition, and what is shown of them."""

    night: FoundRecording
    data: Data
    condition: TestCondition
    mains_hz: int
    roles: tuple[Role, ...]
    """The only channels; empty for all."""

    def part(self) -> Part:
        """Open the night, or simulate it, and take its pages."""
        found = self.night
        whole: ScoredNight
        whole = (
            SimulatedScoredNight(found.name) if found.dataset == SIMULATED else open_night(found)
        )
        return Part.of(whole, self.condition.pages or self.data.pages, self.roles)

    @property
    def file(self) -> str:
        """Name it, so that no other part of the experiment has the name."""
        archive = self.data.name.replace("/", "_")
        return f"{archive}-{self.night.name}-{self.condition.name}.npz"

    def change(self, page: Page) -> Page:
        """Bring a page into the condition."""
        return self.condition.change(page, self.mains_hz)


def experts_of(part: Part) -> NDArray[np.int64]:
    """Give (experts, pages): every expert's stages."""
    rows = [[-1 if s is None else STAGES.index(s) for s in one.stages] for one in part.scorings]
    return np.array(rows, np.int64)


@dataclass(frozen=True)
class _Kept(NightPart):
    """What is made of it once, and kept in a file."""

    path: Path

    @property
    def done(self) -> bool:
        """Whether it was made."""
        return self.path.is_file()


@dataclass(frozen=True)
class See(_Kept):
    """Give what an arm sees of a night under a condition."""

    arm: Arm

    def run(self) -> None:
        """Draw or measure every page."""
        night = self.part()
        keep(self.path, features=self._features(night), experts=experts_of(night))

    def load(self) -> ArmInput:
        """Give what was seen."""
        with np.load(self.path) as kept:
            return ArmInput(self.night.name, self.night.subject, kept["features"], kept["experts"])

    def _features(self, night: ScoredNight) -> NDArray[np.float32]:
        arm, mains, recipe = self.arm, self.mains_hz, builtin(self.arm.recipe)
        cut = (night.page(k, recipe.context_s, recipe.tail_s) for k in range(len(night.stages)))
        if arm.family == "net":
            return np.stack([picture_features(self.change(page), arm, mains) for page in cut])
        sound = list(cut)
        width = signal_rows(sound)[0].shape[1]
        return signal_features([self.change(page) for page in sound], width)


@dataclass(frozen=True)
class Trial:
    """Train an arm on some nights and let it judge others."""

    arm: Arm
    seed: int
    train: tuple[See, ...]
    judged: tuple[tuple[See, Path], ...]

    @property
    def done(self) -> bool:
        """Whether every night was judged."""
        return all(path.is_file() for _, path in self.judged)

    def run(self) -> None:
        """Fit, and judge what is left."""
        fitted = fit(self.arm, [one.load() for one in self.train], self.seed)
        for one, path in self.judged:
            if not path.is_file():
                seen = one.load()
                keep(
                    path,
                    log=fitted.judge(seen),
                    prior=fitted.prior,
                    transitions=fitted.transitions,
                    experts=seen.experts,
                )


def keep(path: Path, **arrays: Any) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}")
    try:
        with part.open("wb") as file:
            np.savez_compressed(file, **arrays)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
