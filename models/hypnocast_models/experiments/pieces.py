"""Which pieces an experiment has, and where each leaves its file.

A file's name holds a digest of all that it depends on, so that another recipe, pack or training is
done anew and nothing else is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from hypnocast.core.pictures.recipe import builtin
from hypnocast.core.types import Role
from hypnocast.errors import ConfigError
from hypnocast.stagers.packs.pack import load_pack
from hypnocast_models.experiments.archives import ChosenNight, fold_of_each, nights_of
from hypnocast_models.experiments.jobs import Job, NightPart, See, TestCondition, Trial
from hypnocast_models.experiments.pack_jobs import ExplainPart, StagePart
from hypnocast_models.experiments.plan import Arm, Data, Experiment
from hypnocast_models.experiments.tuned import TunedTrial, weights_digest
from hypnocast_models.readers.datasets import FoundRecording

ALL = "all"
"""The trial that learns from every archive that is dealt to folds, to be judged on the others."""
CROSS = "cross"
BEFORE_DAMAGE, ALL_CHANNELS = "sound-0", "all-channels"
"""Sound pages, as many as are damaged, or as many as lose channels."""


def damages(plan: Experiment) -> list[TestCondition]:
    """Give every damaged state of an experiment."""
    wanted = plan.corruption
    if wanted is None:
        return []
    return [
        TestCondition(f"{kind}-{share:g}", kind, share, pages=wanted.pages)
        for kind in wanted.kinds
        for share in wanted.shares
        if share > 0
    ]


def removals(plan: Experiment) -> list[TestCondition]:
    """Give every state of an experiment in which channels are missing."""
    wanted = plan.ablation
    if wanted is None:
        return []
    return [
        TestCondition(f"without-{'+'.join(roles)}", without=roles, pages=wanted.pages)
        for roles in wanted.without
    ]


class Pieces:
    """The pieces of one experiment."""

    def __init__(self, plan: Experiment, root: Path, out: Path, packs: Path) -> None:
        self.plan, self.root, self.out, self.packs = plan, root, out, packs
        self.nights = nights_of(plan.archives, root)
        self.others = nights_of(plan.others, root)
        self.subject = {self._key(one): one.subject for one in [*self.nights, *self.others]}
        subjects = sorted({night.subject for night in self.nights})
        if len(subjects) < plan.folds:
            raise ConfigError(
                f"{len(subjects)} subjects cannot be dealt to {plan.folds} folds", where="folds"
            )
        self.fold = fold_of_each(subjects, plan.folds)
        for arm in plan.arm:
            if arm.weights and not (packs / arm.weights / "config.json").is_file():
                raise ConfigError(
                    "there is no model in it (config.json)",
                    where=f"arm {arm.name}: weights {packs / arm.weights}",
                    remedy="Name where the plan's weights lie with --packs.",
                )

    def subject_of(self, one: NightPart) -> str:
        """Whose pages these are."""
        return self.subject[one.data.name, one.night.name]

    def looks(self) -> list[Job]:
        """Give all that is seen or staged page by page, and what is asked of packs."""
        jobs: dict[Path, Job] = {}
        for arm in self.plan.arm:
            if arm.family == "pack":
                jobs |= {one.path: one for one in self.stagings(arm)}
                jobs |= {one.path: one for one in self.pack_explanations(arm)}
            elif arm.family != "tuned":
                tests = [self._part(arm, n, one) for one in self._tests(arm) for n in self.nights]
                others = [self._part(arm, n, TestCondition(CROSS)) for n in self.others]
                for part in [*tests, *others]:
                    seen = self._see(arm, part)
                    jobs.setdefault(seen.path, seen)
        return list(jobs.values())

    def trials(self) -> list[Job]:
        """Give all that is trained."""
        trained = [trial for arm in self.plan.arm for _, trial in self.trials_of(arm)]
        return [*trained, *(trial for arm in self.plan.arm for _, trial in self.tuned_of(arm))]

    def trials_of(self, arm: Arm) -> Iterator[tuple[str, Trial]]:
        """Give the trials of an arm that learns from what it sees."""
        if arm.family not in ("net", "signal"):
            return
        for seed, name, train, test in self._splits(arm):
            seen = tuple((self._see(arm, part), path) for part, path in test)
            learnt = tuple(self._see(arm, part) for part in train)
            yield name, Trial(arm, seed, learnt, seen)

    def tuned_of(self, arm: Arm) -> Iterator[tuple[str, TunedTrial]]:
        """Give the trials of an arm that is fine-tuned."""
        if arm.family != "tuned":
            return
        weights, key = self.packs / arm.weights, self._arm_key(arm)
        archive = self.root / (self.plan.archives[0].folder if len(self.plan.archives) == 1 else "")
        for seed, name, train, test in self._splits(arm):
            place = self.out / "tuned" / f"{key}-{arm.name}-{name}-s{seed}"
            parts = [part for part, _ in test if part.condition == TestCondition()]
            explained = tuple(self._explain(place / "pack", place, one) for one in parts)
            yield name, TunedTrial(
                arm, seed, self.plan.mains_hz, archive, weights, place,
                tuple(train), tuple(test), explained if self._explains(arm) else (),
            )  # fmt: skip

    def stagings(self, arm: Arm) -> Iterator[StagePart]:
        """Give what a pack stages."""
        for folder, night in self._of_packs(arm):
            key = _digest(load_pack(folder).digest, arm.channels, self.plan.mains_hz)
            for condition in self._tests(arm):
                one = self._part(arm, night, condition)
                file = f"{key}-{one.data.pages}-{condition.pages}-{arm.name}-{one.file}"
                yield StagePart(*_fields(one), self.out / "judged" / file, folder)

    def pack_explanations(self, arm: Arm) -> Iterator[ExplainPart]:
        """Give what is asked of a pack."""
        if not self._explains(arm) or arm.family != "pack":
            return
        for folder, night in self._of_packs(arm):
            key = _digest(load_pack(folder).digest, arm.channels, self.plan.mains_hz)
            place = self.out / "judged" / f"{key}-{arm.name}"
            yield self._explain(folder, place, self._part(arm, night, TestCondition()))

    def _of_packs(self, arm: Arm) -> Iterator[tuple[Path, ChosenNight]]:
        for fold in range(self.plan.folds):
            folder = self.packs / arm.pack.replace("{fold}", str(fold))
            yield from ((folder, n) for n in self.nights if self.fold[n.subject] == fold)

    def _explains(self, arm: Arm) -> bool:
        return self.plan.explanation is not None and arm.name in self.plan.explanation.arms

    def _explain(self, pack: Path, place: Path, one: NightPart) -> ExplainPart:
        pages = self.plan.explanation.pages if self.plan.explanation is not None else 0
        path = place / f"explained-{pages}-{one.file}"
        return ExplainPart(*_fields(one), path, pack, pages)

    def _splits(
        self, arm: Arm
    ) -> Iterator[tuple[int, str, list[NightPart], list[tuple[NightPart, Path]]]]:
        """Give seed, name, what is learnt from and what is judged, of each training of an arm."""
        sound = {night: self._part(arm, night, TestCondition()) for night in self.nights}
        key = self._arm_key(arm)
        for seed in self.plan.seeds:
            splits = [
                (
                    f"fold{fold}",
                    [part for night, part in sound.items() if self.fold[night.subject] != fold],
                    [
                        self._part(arm, night, one)
                        for one in self._tests(arm)
                        for night in self.nights
                        if self.fold[night.subject] == fold
                    ],
                )
                for fold in range(self.plan.folds)
            ]
            if self.others:
                test = [self._part(arm, night, TestCondition(CROSS)) for night in self.others]
                splits.append((ALL, list(sound.values()), test))
            for name, train, judged in splits:
                place = self.out / "judged" / f"{key}-{arm.name}-{name}-s{seed}"
                yield seed, name, train, [(one, place / one.file) for one in judged]

    def _arm_key(self, arm: Arm) -> str:
        taught = weights_digest(self.packs / arm.weights) if arm.weights else ""
        return _digest(arm, builtin(arm.recipe).digest, taught)

    def _tests(self, arm: Arm) -> list[TestCondition]:
        """Give the states in which an arm is judged."""
        tests, plan = [TestCondition()], self.plan
        if plan.corruption is not None and arm.name in plan.corruption.arms:
            tests += [TestCondition(BEFORE_DAMAGE, pages=plan.corruption.pages), *damages(plan)]
        if plan.ablation is not None and arm.name in plan.ablation.arms:
            tests += [TestCondition(ALL_CHANNELS, pages=plan.ablation.pages), *removals(plan)]
        return tests

    def _part(self, arm: Arm, night: ChosenNight, condition: TestCondition) -> NightPart:
        return NightPart(night.found, night.data, condition, self.plan.mains_hz, arm.channels)

    def _see(self, arm: Arm, one: NightPart) -> See:
        pages = one.condition.pages or one.data.pages
        what = (arm.family, arm.recipe, arm.channels, arm.grey, one.mains_hz, pages)
        key = _digest(what, builtin(arm.recipe).digest)
        return See(*_fields(one), self.out / "seen" / f"{key}-{one.file}", arm)

    @staticmethod
    def _key(one: ChosenNight) -> tuple[str, str]:
        return one.data.name, one.found.name


def _fields(
    one: NightPart,
) -> tuple[FoundRecording, Data, TestCondition, int, tuple[Role, ...]]:
    return one.night, one.data, one.condition, one.mains_hz, one.roles


def _digest(*what: object) -> str:
    return hashlib.sha256(repr(what).encode()).hexdigest()[:10]
