"""What an experiment is made of: pieces that leave a file each, and can be done side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hypnocast.core.pictures.recipe import builtin
from hypnocast.core.types import STAGES, Page
from hypnocast.stagers.base import Stager
from hypnocast.stagers.packs.pack import Pack, load_pack
from hypnocast_models.experiments.corrupt import corrupt
from hypnocast_models.experiments.families import (
    ArmInput,
    fit,
    only_channels,
    picture_features,
    signal_features,
    signal_rows,
)
from hypnocast_models.experiments.part import Part
from hypnocast_models.experiments.plan import Arm, Data, Kind
from hypnocast_models.experiments.simulated import SIMULATED, SimulatedScoredNight
from hypnocast_models.readers.datasets import FoundRecording, open_night
from hypnocast_models.readers.night import ScoredNight
from hypnocast_models.staging.night import stage_night

SOUND = "sound"


@dataclass(frozen=True, slots=True)
class TestCondition:
    """A state of the test pages."""

    name: str = SOUND
    kind: Kind | None = None
    share: float = 0.0

    def change(self, page: Page, mains_hz: int) -> Page:
        """Bring a page into this state."""
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
class _OfNight:
    """What is made of a night under a condition, once, and kept in a file."""

    night: FoundRecording
    data: Data
    condition: TestCondition
    mains_hz: int
    path: Path

    @property
    def done(self) -> bool:
        """Whether it was made."""
        return self.path.is_file()

    def part(self) -> Part:
        """Open the night, or simulate it, and keep so many pages of it."""
        found = self.night
        whole: ScoredNight
        whole = (
            SimulatedScoredNight(found.name) if found.dataset == SIMULATED else open_night(found)
        )
        return Part.of(whole, self.data.pages)


@dataclass(frozen=True)
class See(_OfNight):
    """Give what an arm sees of a night under a condition."""

    arm: Arm

    def run(self) -> None:
        """Draw or measure every page."""
        night = self.part()
        stages = np.array([-1 if s is None else STAGES.index(s) for s in night.stages])
        keep(self.path, features=self._features(night), stages=stages)

    def load(self) -> ArmInput:
        """Give what was seen."""
        with np.load(self.path) as kept:
            return ArmInput(self.night.name, self.night.subject, kept["features"], kept["stages"])

    def _features(self, night: ScoredNight) -> NDArray[np.float32]:
        arm, mains, recipe = self.arm, self.mains_hz, builtin(self.arm.recipe)
        cut = (night.page(k, recipe.context_s, recipe.tail_s) for k in range(len(night.stages)))
        if arm.family == "net":
            changed = (self.condition.change(page, mains) for page in cut)
            return np.stack([picture_features(page, arm, mains) for page in changed])
        sound = [only_channels(page, arm) for page in cut]
        width = signal_rows(sound)[0].shape[1]
        return signal_features([self.condition.change(page, mains) for page in sound], width)


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
                log = fitted.judge(one.load())
                keep(path, log=log, prior=fitted.prior, transitions=fitted.transitions)


@dataclass(frozen=True)
class StagePart(_OfNight):
    """Let a pack stage a night under a condition."""

    pack: Path

    def run(self) -> None:
        """Stage it as the daemon would, whatever its coverage."""
        pack, stager = _open(self.pack)
        part = self.part()
        change = partial(self.condition.change, mains_hz=self.mains_hz)
        staged = stage_night(
            part, pack, stager, min_coverage=0.0, change=change, mains_hz=self.mains_hz
        )
        chances = staged.hypnogram.probabilities
        assert chances is not None  # noqa: S101 - stage_night gives them
        stages = [-1 if s is None else STAGES.index(s) for s in part.stages]
        keep(self.path, log=np.log(np.maximum(chances, 1e-6)), stages=stages)


@lru_cache(maxsize=1)
def _open(pack: Path) -> tuple[Pack, Stager]:
    from hypnocast.stagers.onnx.local import LocalStager

    loaded = load_pack(pack)
    return loaded, LocalStager(loaded, "cpu", threads=1)


def keep(path: Path, **arrays: Any) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}")
    with part.open("wb") as file:
        np.savez_compressed(file, **arrays)
    part.replace(path)
