"""Running an experiment: see, fit, judge, keep. What is kept is not done again.

A results folder has ``seen/`` (what each arm sees of each night, sound or damaged) and
``judged/`` (log-probabilities of each arm, fold and seed); both are filled file by file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from hypnocast.core.recipe import builtin
from hypnocast.core.types import STAGES, FloatArray, Page
from hypnocast.errors import ConfigError
from hypnocast.stagers.pack import load_pack
from hypnocast_models.experiments.corrupt import corrupt
from hypnocast_models.experiments.families import (
    Fitted,
    Seen,
    fit,
    only_channels,
    picture_features,
    signal_features,
    signal_rows,
)
from hypnocast_models.experiments.part import Part
from hypnocast_models.experiments.plan import Arm, Data, Experiment, Kind
from hypnocast_models.readers.datasets import Found, find_nights, open_night
from hypnocast_models.readers.night import ScoredNight
from hypnocast_models.staging import stage_night

SOUND = "sound"


@dataclass(frozen=True, eq=False)
class Judged:
    """One arm's judgement of one stretch of a night under one condition."""

    arm: str
    condition: str
    """``sound``, ``cross``, or ``<kind>-<share>``."""
    seed: int
    night: str
    subject: str
    stages: NDArray[np.int64]
    log_probabilities: FloatArray
    prior: FloatArray
    transitions: FloatArray
    decides: bool = False
    """Whether these are verdicts already: a pack's own."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A state of the test pages."""

    name: str = SOUND
    kind: Kind | None = None
    share: float = 0.0

    def change(self, page: Page, mains_hz: int) -> Page:
        """Bring a page into this state."""
        if self.kind is None or self.share == 0:
            return page
        return corrupt(page, self.kind, self.share, seed=1, mains_hz=mains_hz)


def conditions(plan: Experiment) -> list[Condition]:
    """Give every damaged state of an experiment."""
    if plan.corruption is None:
        return []
    return [
        Condition(f"{kind}-{share:g}", kind, share)
        for kind in plan.corruption.kinds
        for share in plan.corruption.shares
        if share > 0
    ]


def chosen_nights(data: Data, root: Path) -> list[Found]:
    """Find the nights that an experiment is about."""
    found = [n for n in find_nights(root / data.folder, data.kind) if n.subject not in data.without]
    subjects = list(dict.fromkeys(night.subject for night in found))
    kept = set(subjects[: data.subjects] if data.subjects else subjects)
    nights: list[Found] = []
    for night in found:
        of_subject = sum(one.subject == night.subject for one in nights)
        if night.subject in kept and of_subject < data.nights:
            nights.append(night)
    return nights


def fold_of_each(subjects: Sequence[str], folds: int) -> dict[str, int]:
    """Deal subjects to folds: by the number in their name, as the small pack's trial does.

    Where a name has no number, or a fold would stay empty, by their order.
    """
    numbers = [re.search(r"(\d+)$", subject) for subject in subjects]
    dealt = {s: int(n[1]) % folds for s, n in zip(subjects, numbers, strict=True) if n is not None}
    if len(dealt) == len(subjects) and len(set(dealt.values())) == folds:
        return dealt
    return {subject: place % folds for place, subject in enumerate(subjects)}


def steps(plan: Experiment, root: Path) -> int:
    """Count what there is to do, for a progress bar."""
    trained = sum(arm.family != "pack" for arm in plan.arm)
    nights = len(chosen_nights(plan.data, root))
    damaged = len(conditions(plan)) * len(plan.corruption.arms) if plan.corruption else 0
    cross = len(chosen_nights(plan.cross, root)) * trained if plan.cross else 0
    return nights * (len(plan.arm) + damaged) + cross


def run_experiment(
    plan: Experiment, root: Path, out: Path, advance: Callable[[int], None] = lambda _: None
) -> list[Judged]:
    """Run all of an experiment that is not done yet, and give every judgement."""
    _same_experiment(plan, out)
    bench = _Bench(plan, root, out, advance)
    judged: list[Judged] = []
    for arm in plan.arm:
        judged += list(bench.pack_arm(arm) if arm.family == "pack" else bench.trained_arm(arm))
    return judged


def _same_experiment(plan: Experiment, out: Path) -> None:
    kept, wanted = out / "experiment.json", msgspec.json.encode(plan)
    if kept.is_file() and kept.read_bytes() != wanted:
        raise ConfigError(
            "holds the results of another experiment",
            where=str(out),
            remedy="Choose another folder with --out.",
        )
    out.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(wanted)


class _Bench:
    def __init__(
        self, plan: Experiment, root: Path, out: Path, advance: Callable[[int], None]
    ) -> None:
        self.plan, self.root, self.out, self.advance = plan, root, out, advance
        self.nights = chosen_nights(plan.data, root)
        subjects = sorted({night.subject for night in self.nights})
        if len(subjects) < plan.folds:
            raise ConfigError(
                f"{len(subjects)} subjects cannot be dealt to {plan.folds} folds", where="folds"
            )
        self.fold = fold_of_each(subjects, plan.folds)

    def trained_arm(self, arm: Arm) -> Iterator[Judged]:
        sound = [self.see(arm, night, self.plan.data, Condition()) for night in self.nights]
        damaged = self.damaged(arm)
        for seed in self.plan.seeds:
            for fold in range(self.plan.folds):
                fitted = partial(fit, arm, [s for s in sound if self.fold[s.subject] != fold], seed)
                trial = _Trial(arm, seed, f"fold{fold}", self.out, fitted)
                for seen in sound:
                    if self.fold[seen.subject] == fold:
                        yield trial.judge(seen, SOUND)
                for condition, seens in damaged.items():
                    for seen in seens:
                        if self.fold[seen.subject] == fold:
                            yield trial.judge(seen, condition)
            if self.plan.cross is not None:
                trial = _Trial(arm, seed, "all", self.out, partial(fit, arm, sound, seed))
                for night in chosen_nights(self.plan.cross, self.root):
                    seen = self.see(arm, night, self.plan.cross, Condition("cross"))
                    yield trial.judge(seen, "cross")

    def damaged(self, arm: Arm) -> dict[str, list[Seen]]:
        wanted = self.plan.corruption
        if wanted is None or arm.name not in wanted.arms:
            return {}
        data = msgspec.structs.replace(self.plan.data, pages=wanted.pages or self.plan.data.pages)
        return {
            one.name: [self.see(arm, night, data, one) for night in self.nights]
            for one in [Condition("sound-0"), *conditions(self.plan)]
        }

    def see(self, arm: Arm, found: Found, data: Data, condition: Condition) -> Seen:
        """Give what an arm sees of a night; drawn once and kept."""
        what = (arm.family, arm.recipe, arm.channels, arm.grey, self.plan.mains_hz, data.pages)
        key = hashlib.sha256(repr((what, builtin(arm.recipe).digest)).encode()).hexdigest()[:10]
        path = self.out / "seen" / f"{key}-{data.folder}-{found.name}-{condition.name}.npz"
        if not path.is_file():
            night = Part.of(open_night(found), data.pages)
            stages = np.array([-1 if s is None else STAGES.index(s) for s in night.stages])
            _keep(path, features=self._features(arm, night, condition), stages=stages)
        self.advance(1)
        with np.load(path) as kept:
            return Seen(found.name, found.subject, kept["features"], kept["stages"])

    def _features(self, arm: Arm, night: ScoredNight, condition: Condition) -> NDArray[np.float32]:
        recipe, mains = builtin(arm.recipe), self.plan.mains_hz
        cut = (night.page(k, recipe.context_s, recipe.tail_s) for k in range(len(night.stages)))
        if arm.family == "net":
            changed = (condition.change(page, mains) for page in cut)
            return np.stack([picture_features(page, arm, mains) for page in changed])
        sound = [only_channels(page, arm) for page in cut]
        width = signal_rows(sound)[0].shape[1]
        return signal_features([condition.change(page, mains) for page in sound], width)

    def pack_arm(self, arm: Arm) -> Iterator[Judged]:
        from hypnocast.stagers.local import LocalStager

        for fold in range(self.plan.folds):
            pack = load_pack(arm.pack.replace("{fold}", str(fold)))
            stager: LocalStager | None = None
            for night in self.nights:
                if self.fold[night.subject] != fold:
                    continue
                for condition in self._pack_conditions(arm):
                    pages = self.plan.data.pages
                    if self.plan.corruption is not None and condition.name != SOUND:
                        pages = self.plan.corruption.pages or pages
                    path = self.out / "judged" / f"{arm.name}-{night.name}-{condition.name}.npz"
                    if not path.is_file():
                        stager = stager or LocalStager(pack, "cpu", threads=1)
                        part = Part.of(open_night(night), pages)
                        change = partial(condition.change, mains_hz=self.plan.mains_hz)
                        staged = stage_night(
                            part, pack, stager, min_coverage=0.0, change=change,
                            mains_hz=self.plan.mains_hz,
                        )  # fmt: skip
                        chances = staged.hypnogram.probabilities
                        assert chances is not None  # noqa: S101 - stage_night gives them
                        stages = [-1 if s is None else STAGES.index(s) for s in part.stages]
                        _keep(path, log=np.log(np.maximum(chances, 1e-6)), stages=stages)
                    with np.load(path) as kept:
                        yield Judged(
                            arm.name, condition.name, 0, night.name, night.subject,
                            kept["stages"], kept["log"], np.full(5, 0.2), np.full((5, 5), 0.2),
                            decides=True,
                        )  # fmt: skip
                    self.advance(1)

    def _pack_conditions(self, arm: Arm) -> list[Condition]:
        wanted = self.plan.corruption
        if wanted is None or arm.name not in wanted.arms:
            return [Condition()]
        return [Condition(), Condition("sound-0"), *conditions(self.plan)]


class _Trial:
    """One trained model: fitted when it is first needed, and not where all is kept already."""

    def __init__(
        self, arm: Arm, seed: int, name: str, out: Path, make: Callable[[], Fitted]
    ) -> None:
        self.arm, self.seed, self.name, self.out, self._make = arm, seed, name, out, make
        self._fitted: Fitted | None = None

    def judge(self, seen: Seen, condition: str) -> Judged:
        file = f"{self.arm.name}-{self.name}-s{self.seed}-{seen.night}-{condition}.npz"
        path = self.out / "judged" / file
        if not path.is_file():
            if self._fitted is None:
                self._fitted = self._make()
            fitted = self._fitted
            _keep(path, log=fitted.judge(seen), prior=fitted.prior, transitions=fitted.transitions)
        with np.load(path) as kept:
            return Judged(
                self.arm.name, condition, self.seed, seen.night, seen.subject,
                seen.stages, kept["log"], kept["prior"], kept["transitions"],
            )  # fmt: skip


def _keep(path: Path, **arrays: Any) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}")
    with part.open("wb") as file:
        np.savez_compressed(file, **arrays)
    part.replace(path)
