"""Running an experiment: see, fit, judge, keep. What is kept is not done again.

A results folder has ``seen/`` (what each arm sees of each night, sound or damaged) and
``judged/`` (log-probabilities of each arm, fold and seed); both are filled file by file. A file's
name holds a digest of all that it depends on, so that another recipe or pack is judged anew and
nothing else is.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from hypnocast.core.pictures.recipe import builtin
from hypnocast.core.types import FloatArray
from hypnocast.errors import ConfigError
from hypnocast.stagers.packs.pack import load_pack
from hypnocast_models.experiments.jobs import (
    SOUND,
    Job,
    See,
    StagePart,
    TestCondition,
    Trial,
    work_off,
)
from hypnocast_models.experiments.plan import Arm, Data, Experiment
from hypnocast_models.experiments.simulated import SIMULATED, simulated_nights
from hypnocast_models.readers.datasets import FoundRecording, find_nights
from hypnocast_models.readers.material import without_subjects
from hypnocast_models.taught import warn_of_taught


@dataclass(frozen=True, eq=False)
class JudgedStretch:
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


def conditions(plan: Experiment) -> list[TestCondition]:
    """Give every damaged state of an experiment."""
    if plan.corruption is None:
        return []
    return [
        TestCondition(f"{kind}-{share:g}", kind, share)
        for kind in plan.corruption.kinds
        for share in plan.corruption.shares
        if share > 0
    ]


def chosen_nights(data: Data, root: Path) -> list[FoundRecording]:
    """Find the nights that an experiment is about."""
    if data.kind == SIMULATED:
        return simulated_nights(data.subjects)
    found = without_subjects(find_nights(root / data.folder, data.kind), data.without)
    subjects = list(dict.fromkeys(night.subject for night in found))
    kept = set(subjects[: data.subjects] if data.subjects else subjects)
    nights: list[FoundRecording] = []
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


def steps(plan: Experiment, root: Path, packs: Path = Path()) -> int:
    """Count what there is to do, for a progress bar."""
    bench = _Bench(plan, root, Path(), packs)
    return len(bench.looks()) + len(bench.trials())


def taught_arms(plan: Experiment, root: Path, packs: Path = Path()) -> list[str]:
    """Give a line for each pack of a plan that is to judge people whom it was taught on."""
    bench = _Bench(plan, root, Path(), packs)
    lines: list[str] = []
    for arm in plan.arm:
        judged: dict[Path, set[str]] = {}
        for one in bench.stagings(arm) if arm.family == "pack" else ():
            judged.setdefault(one.pack, set()).add(one.night.subject)
        for folder, subjects in judged.items():
            lines += warn_of_taught(load_pack(folder).manifest, subjects)
    return list(dict.fromkeys(lines))


def run_experiment(
    plan: Experiment,
    root: Path,
    out: Path,
    advance: Callable[[int], None] = lambda _: None,
    *,
    packs: Path = Path(),
    workers: int = 1,
) -> list[JudgedStretch]:
    """Run all of an experiment that is not done yet, and give every judgement.

    ``packs`` is where the packs of a plan lie.
    """
    _same_experiment(plan, out)
    bench = _Bench(plan, root, out, packs)
    work_off(bench.looks(), workers, advance)
    work_off(bench.trials(), workers, advance)
    return list(bench.judgements())


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
    """Which pieces an experiment has, and where each leaves its file."""

    def __init__(self, plan: Experiment, root: Path, out: Path, packs: Path) -> None:
        self.plan, self.root, self.out, self.packs = plan, root, out, packs
        self.nights = chosen_nights(plan.data, root)
        self.others = chosen_nights(plan.cross, root) if plan.cross is not None else []
        subjects = sorted({night.subject for night in self.nights})
        if len(subjects) < plan.folds:
            raise ConfigError(
                f"{len(subjects)} subjects cannot be dealt to {plan.folds} folds", where="folds"
            )
        self.fold = fold_of_each(subjects, plan.folds)

    def looks(self) -> list[Job]:
        """Give all that is seen or staged page by page."""
        jobs: dict[Path, Job] = {}
        for arm in self.plan.arm:
            if arm.family == "pack":
                jobs |= {one.path: one for one in self.stagings(arm)}
                continue
            seen = [self._see(arm, night, one) for one in self._tests(arm) for night in self.nights]
            for one in [*seen, *(self._cross(arm, night) for night in self.others)]:
                jobs.setdefault(one.path, one)
        return list(jobs.values())

    def trials(self) -> list[Job]:
        """Give all that is trained."""
        return [trial for arm in self.plan.arm for _, trial in self._trials(arm)]

    def judgements(self) -> Iterator[JudgedStretch]:
        """Read what was judged, in the order of the plan."""
        for arm in self.plan.arm:
            if arm.family == "pack":
                yield from map(_staged(arm.name), self.stagings(arm))
            for name, trial in self._trials(arm):
                for one, path in trial.judged:
                    condition = "cross" if name == "all" else one.condition.name
                    seen = one.load()
                    with np.load(path) as kept:
                        yield JudgedStretch(
                            arm.name, condition, trial.seed, seen.night, seen.subject,
                            seen.stages, kept["log"], kept["prior"], kept["transitions"],
                        )  # fmt: skip

    def _trials(self, arm: Arm) -> Iterator[tuple[str, Trial]]:
        if arm.family == "pack":
            return
        sound = [self._see(arm, night, TestCondition()) for night in self.nights]
        for seed in self.plan.seeds:
            for fold in range(self.plan.folds):
                test = [
                    self._see(arm, night, one)
                    for one in self._tests(arm)
                    for night in self.nights
                    if self.fold[night.subject] == fold
                ]
                train = [one for one in sound if self.fold[one.night.subject] != fold]
                yield f"fold{fold}", self._trial(arm, seed, f"fold{fold}", train, test)
            if self.others:
                test = [self._cross(arm, night) for night in self.others]
                yield "all", self._trial(arm, seed, "all", sound, test)

    def _trial(
        self, arm: Arm, seed: int, name: str, train: Sequence[See], test: Sequence[See]
    ) -> Trial:
        key = _digest(arm, builtin(arm.recipe).digest)
        place = self.out / "judged" / f"{key}-{arm.name}-{name}-s{seed}"
        files = tuple((one, place / f"{one.night.name}-{one.condition.name}.npz") for one in test)
        return Trial(arm, seed, tuple(train), files)

    def _tests(self, arm: Arm) -> list[TestCondition]:
        """Give the states in which an arm is judged."""
        wanted = self.plan.corruption
        if wanted is None or arm.name not in wanted.arms:
            return [TestCondition()]
        return [TestCondition(), TestCondition("sound-0"), *conditions(self.plan)]

    def _data(self, condition: TestCondition) -> Data:
        """Return how much of a night is used: of damaged ones less."""
        wanted = self.plan.corruption
        if wanted is None or condition.name == SOUND:
            return self.plan.data
        return msgspec.structs.replace(self.plan.data, pages=wanted.pages or self.plan.data.pages)

    def _see(self, arm: Arm, night: FoundRecording, condition: TestCondition) -> See:
        return self._seen(arm, night, self._data(condition), condition)

    def _cross(self, arm: Arm, night: FoundRecording) -> See:
        assert self.plan.cross is not None  # noqa: S101 - there are others only of another data set
        return self._seen(arm, night, self.plan.cross, TestCondition("cross"))

    def _seen(self, arm: Arm, night: FoundRecording, data: Data, condition: TestCondition) -> See:
        what = (arm.family, arm.recipe, arm.channels, arm.grey, self.plan.mains_hz, data.pages)
        key = _digest(what, builtin(arm.recipe).digest)
        file = f"{key}-{data.folder or data.kind}-{night.name}-{condition.name}.npz"
        path = self.out / "seen" / file
        return See(night, data, condition, self.plan.mains_hz, path, arm)

    def stagings(self, arm: Arm) -> Iterator[StagePart]:
        for fold in range(self.plan.folds):
            folder = self.packs / arm.pack.replace("{fold}", str(fold))
            digest = load_pack(folder).digest
            for night in self.nights:
                if self.fold[night.subject] != fold:
                    continue
                for condition in self._tests(arm):
                    data = self._data(condition)
                    key = _digest(digest, data.pages, self.plan.mains_hz)
                    file = f"{key}-{arm.name}-{night.name}-{condition.name}.npz"
                    path = self.out / "judged" / file
                    yield StagePart(night, data, condition, self.plan.mains_hz, path, folder)


def _staged(arm: str) -> Callable[[StagePart], JudgedStretch]:
    """Give what reads a pack's judgement: it decides itself."""

    def read(one: StagePart) -> JudgedStretch:
        with np.load(one.path) as kept:
            return JudgedStretch(
                arm, one.condition.name, 0, one.night.name, one.night.subject,
                kept["stages"], kept["log"], np.full(5, 0.2), np.full((5, 5), 0.2), decides=True,
            )  # fmt: skip

    return read


def _digest(*what: object) -> str:
    return hashlib.sha256(repr(what).encode()).hexdigest()[:10]
