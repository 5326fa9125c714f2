"""Tuned arms: a vision-language model, fine-tuned on a plan's folds and exported into a pack.

Each step leaves its result and is not done again: the run folder of the fine-tuning, which goes on
from its own checkpoints, then the pack, then ``tuned.json``, which says how both came about.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from hypnocast.core.pictures.recipe import builtin
from hypnocast.core.types import FloatArray
from hypnocast.ports.durable_files import replace_file
from hypnocast.stagers.packs.pack import load_pack
from hypnocast_models.experiments.families import chances_of
from hypnocast_models.experiments.jobs import NightPart, experts_of, keep
from hypnocast_models.experiments.pack_jobs import ExplainPart, open_pack
from hypnocast_models.experiments.plan import Arm, training_changes
from hypnocast_models.readers.material import Material
from hypnocast_models.staging.night import stage_night
from hypnocast_models.tune.recipe import read_training

FACTS = "tuned.json"
_VERSION = "0.1.0"


@dataclass(frozen=True)
class TunedTrial:
    """Fine-tune on some nights, export, and let the pack judge and explain others."""

    arm: Arm
    seed: int
    mains_hz: int
    archive: Path
    """Where the nights lie, for the pack's provenance."""
    weights: Path
    place: Path
    """Folder of the run, the pack and what is known of them."""
    train: tuple[NightPart, ...]
    judged: tuple[tuple[NightPart, Path], ...]
    explained: tuple[ExplainPart, ...]

    @property
    def done(self) -> bool:
        """Whether every night was judged, and explained."""
        judged = all(path.is_file() for _, path in self.judged)
        return judged and all(one.done for one in self.explained)

    @property
    def pack(self) -> Path:
        """Where the pack lies once it is made."""
        return self.place / "pack"

    def run(self) -> None:
        """Do what is left."""
        parts = [one.part() for one in self.train]
        if not (self.place / FACTS).is_file():
            self._tune(parts)
        prior, transitions = chances_of([experts_of(part)[0] for part in parts])
        for one, path in self.judged:
            if not path.is_file():
                self._judge(one, path, prior, transitions)
        for explained in self.explained:
            if not explained.done:
                explained.run()

    def facts(self) -> dict[str, Any]:
        """Say how the pack came about."""
        facts: dict[str, Any] = msgspec.json.decode((self.place / FACTS).read_bytes())
        return facts

    def _tune(self, parts: Sequence[Material]) -> None:
        from hypnocast_models.export.label import plain_label
        from hypnocast_models.tune.deliver import deliver
        from hypnocast_models.tune.session import TuningSession, cast_of
        from hypnocast_models.tune.trainer import LOG

        began = time.monotonic()
        training = read_training(self.arm.training, training_changes(self.arm, self.seed))
        run, made = self.place / "run", self.place / "pack.part"
        session = TuningSession(self.weights, training)
        session.train(self.archive, cast_of(parts, training), run, mains_hz=self.mains_hz)
        tuned = time.monotonic()
        shutil.rmtree(made, ignore_errors=True)
        said: list[str] = []
        name = self.arm.name.replace("+", "-")
        recipe = builtin(self.arm.recipe)
        label = plain_label(name, _VERSION, recipe, weights=run / "weights")
        deliver(run / "weights", label, made, progress=said.append)
        shutil.rmtree(self.pack, ignore_errors=True)
        made.replace(self.pack)
        steps = [json.loads(line) for line in (run / LOG).read_text().splitlines()]
        losses = [row["loss"] for row in steps if "loss" in row]
        facts = {
            "weights": self.weights.name,
            "training": self.arm.training,
            "steps": training.total_steps,
            "taught": sorted({night.subject for night in parts}),
            "losses": [losses[0], losses[-1]],
            "export": said,
            "digest": load_pack(self.pack).digest,
            "seconds": [round(tuned - began, 1), round(time.monotonic() - tuned, 1)],
        }
        text = msgspec.json.format(msgspec.json.encode(facts), indent=1)
        replace_file(self.place / FACTS, text, mode=0o666)

    def _judge(
        self, one: NightPart, path: Path, prior: FloatArray, transitions: FloatArray
    ) -> None:
        part = one.part()
        pack, stager = open_pack(self.pack)
        staged = stage_night(
            part, pack, stager, min_coverage=0.0, change=one.change, mains_hz=self.mains_hz
        )
        log = staged.log_probabilities
        keep(path, log=log, prior=prior, transitions=transitions, experts=experts_of(part))


@lru_cache
def weights_digest(weights: Path) -> str:
    """Digest weights, once for all folds and seeds."""
    from hypnocast_models.tune.run_folder import digest_of_weights

    return digest_of_weights(weights)


def tuned_row(trial: TunedTrial, fold: str) -> list[object]:
    """Give a line of the table of tuned models."""
    facts = trial.facts()
    first, last = facts["losses"]
    parity = next((line for line in facts["export"] if "parity" in line), "")
    bound = parity.rpartition("|")[2].partition(",")[0]
    return [
        trial.arm.name, fold, trial.seed, facts["weights"], facts["training"], facts["steps"],
        len(facts["taught"]), f"{first:.3f} → {last:.3f}", bound.strip(),
        facts["digest"][:19], *(f"{seconds:.0f}" for seconds in facts["seconds"]),
    ]  # fmt: skip


def mean_falls(trials: Sequence[ExplainPart]) -> tuple[FloatArray, FloatArray]:
    """Give (5, roles): mean fall of a stage's probability; and (5,): on how many pages."""
    falls, stages = [], []
    for one in trials:
        with np.load(one.path) as kept:
            falls.append(kept["falls"])
            stages.append(kept["stages"])
    every, of = np.concatenate(falls), np.concatenate(stages)
    pages = np.array([(of == place).sum() for place in range(5)], np.float64)
    means = np.full((5, every.shape[1]), np.nan)
    for place in range(5):
        rows = every[of == place]
        there = np.isfinite(rows).any(axis=0)
        if rows.size:
            means[place, there] = np.nanmean(rows[:, there], axis=0)
    return means, pages
