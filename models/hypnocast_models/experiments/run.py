"""Running an experiment: see, train, judge, explain, keep. What is kept is not done again.

A results folder has ``seen/`` (what each arm sees of each night, sound or damaged), ``tuned/`` (the
runs and packs of fine-tuned models, and what their stages rest on) and ``judged/``
(log-probabilities of each arm, fold and seed); all are filled file by file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from hypnocast.core.types import FloatArray
from hypnocast.errors import ConfigError
from hypnocast.ports.durable_files import replace_file
from hypnocast.stagers.packs.pack import load_pack
from hypnocast_models.experiments.jobs import NightPart, Trial, work_off
from hypnocast_models.experiments.pack_jobs import ExplainPart
from hypnocast_models.experiments.pieces import Pieces
from hypnocast_models.experiments.plan import Experiment
from hypnocast_models.experiments.tuned import TunedTrial, tuned_row
from hypnocast_models.taught import warn_of_taught


@dataclass(frozen=True, eq=False)
class JudgedStretch:
    """One arm's judgement of one stretch of a night under one condition."""

    arm: str
    condition: str
    """``sound``, ``cross``, ``<kind>-<share>`` or ``without-<channels>``."""
    seed: int
    archive: str
    night: str
    subject: str
    experts: NDArray[np.int64]
    """(experts, pages); −1 where an expert gave none."""
    log_probabilities: FloatArray
    prior: FloatArray
    transitions: FloatArray
    decides: bool = False
    """Whether these are verdicts already: a pack's own."""

    @property
    def stages(self) -> NDArray[np.int64]:
        """The first expert's stages, by which it is judged."""
        first: NDArray[np.int64] = self.experts[0]
        return first


@dataclass(frozen=True, eq=False)
class Results:
    """All that came out of an experiment."""

    judged: Sequence[JudgedStretch]
    tuned: Sequence[list[object]]
    """A line for each model that was tuned."""
    explained: dict[str, list[ExplainPart]]
    """Arm → what its stages rest on, night by night."""


def steps(plan: Experiment, root: Path, packs: Path = Path()) -> int:
    """Count what there is to do, for a progress bar."""
    pieces = Pieces(plan, root, Path(), packs)
    return len(pieces.looks()) + len(pieces.trials())


def taught_arms(plan: Experiment, root: Path, packs: Path = Path()) -> list[str]:
    """Give a line for each pack of a plan that is to judge people whom it was taught on."""
    pieces = Pieces(plan, root, Path(), packs)
    lines: list[str] = []
    for arm in plan.arm:
        judged: dict[Path, set[str]] = {}
        for one in pieces.stagings(arm) if arm.family == "pack" else ():
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
) -> Results:
    """Run all of an experiment that is not done yet, and give every judgement.

    ``packs`` is where the packs and the weights of a plan lie.
    """
    pieces = Pieces(plan, root, out, packs)
    _same_experiment(plan, out)
    work_off(pieces.looks(), workers, advance)
    work_off(pieces.trials(), workers, advance)
    explained = {
        arm.name: [
            *pieces.pack_explanations(arm),
            *(one for _, trial in pieces.tuned_of(arm) for one in trial.explained),
        ]
        for arm in plan.arm
    }
    return Results(
        judged=list(_judgements(pieces)),
        tuned=[tuned_row(t, name) for arm in plan.arm for name, t in pieces.tuned_of(arm)],
        explained={name: jobs for name, jobs in explained.items() if jobs},
    )


def _same_experiment(plan: Experiment, out: Path) -> None:
    kept, wanted = out / "experiment.json", msgspec.json.encode(plan)
    if kept.is_file() and kept.read_bytes() != wanted:
        raise ConfigError(
            "holds the results of another experiment",
            where=str(out),
            remedy="Choose another folder with --out.",
        )
    out.mkdir(parents=True, exist_ok=True)
    replace_file(kept, wanted, mode=0o666)


def _judgements(pieces: Pieces) -> Iterator[JudgedStretch]:
    """Read what was judged, in the order of the plan."""
    for arm in pieces.plan.arm:
        trials: list[Trial | TunedTrial] = [trial for _, trial in pieces.trials_of(arm)]
        trials += [trial for _, trial in pieces.tuned_of(arm)]
        files: list[tuple[int, NightPart, Path]] = [
            (trial.seed, one, path) for trial in trials for one, path in trial.judged
        ]
        if arm.family == "pack":
            files = [(0, one, one.path) for one in pieces.stagings(arm)]
        for seed, one, path in files:
            with np.load(path) as kept:
                yield JudgedStretch(
                    arm.name, one.condition.name, seed, one.data.name, one.night.name,
                    pieces.subject_of(one), kept["experts"], kept["log"], kept["prior"],
                    kept["transitions"], decides=arm.family == "pack",
                )  # fmt: skip
