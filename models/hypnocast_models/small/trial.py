"""The cross-validated trial: every fold's exported pack judges its unseen nights as a daemon would.

Results are kept night by night, so that an interrupted trial goes on where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hypnocast.stagers.onnx.local import LocalStager
from hypnocast.stagers.packs.pack import Pack, load_pack
from hypnocast_models.compare import figures
from hypnocast_models.compare.evaluate import judge_night, summarise
from hypnocast_models.compare.figures import ScoredPages
from hypnocast_models.data import ScoredRecording
from hypnocast_models.readers.night import ArrayNight
from hypnocast_models.scorers.beside import scored
from hypnocast_models.small.choose import choose
from hypnocast_models.small.crossval import calibrate_fold, fold_folder
from hypnocast_models.small.regimen import open_drawn_nights, recall
from hypnocast_models.small.ship import Shipment, provenance, ship
from hypnocast_models.small.sources import FOLDS, fold_of

MIN_COVERAGE = 0.15
"""Lowered for 5-s rows, which cover 17 % of their page; the pack that ships asks for more."""


def fold_pack(cache: Path, runs: Path, fold: int, commit: str) -> Pack:
    """Export the model of a fold with the calibration of that fold; once."""
    folder = runs / "packs" / f"fold{fold}"
    if (folder / "pack.toml").exists():
        return load_pack(folder)
    drawn_nights = open_drawn_nights(cache, "rows")
    choice = choose(runs, fold, drawn_nights)
    model = recall(fold_folder(runs, choice.trained, fold))
    calibration = calibrate_fold(runs, choice.trained, choice.weights, fold, drawn_nights)
    origin = provenance((), commit, f"fold {fold} of the cross-validation: not for use")
    pack, _ = ship(model, Shipment("0.0.0", calibration, origin), folder)
    return pack


def judge_fold(
    cache: Path,
    runs: Path,
    fold: int,
    nights: Sequence[ScoredRecording],
    *,
    gains: Sequence[float],
    commit: str,
    advance: Callable[[int], None] = lambda _: None,
) -> None:
    """Stage the nights of a fold at some gains with the pack that has not seen them."""
    pack = fold_pack(cache, runs, fold, commit)
    stager = LocalStager(pack, "cpu", threads=1)
    for gain in gains:
        for night in nights:
            if fold_of(night.subject) != fold:
                continue
            path = _path(runs, night, gain)
            if not path.exists():
                judged = judge_night(
                    ArrayNight(night), pack, stager, gain=gain, min_coverage=MIN_COVERAGE
                )
                path.parent.mkdir(parents=True, exist_ok=True)
                np.savez(
                    path,
                    ours=judged.scored.ours,
                    probabilities=judged.scored.probabilities,
                    raw=judged.log_probabilities,
                    withheld=json.dumps(judged.withheld),
                )
            advance(len(night.stages))
    stager.close()


def read_fold_nights(
    runs: Path, nights: Sequence[ScoredRecording], gain: float
) -> tuple[list[ScoredPages], list[ScoredPages]]:
    """Return the packs' verdicts, and their models' alone without any filter."""
    filtered, alone = [], []
    for night in nights:
        with np.load(_path(runs, night, gain)) as file:
            ours, probabilities, raw = file["ours"], file["probabilities"], file["raw"]
        filtered.append(scored(night, ours, probabilities))
        chances = np.exp(raw)
        there = ~np.isnan(raw).any(axis=1)
        best = np.where(there, np.nan_to_num(chances, nan=0.0).argmax(axis=1), -1)
        alone.append(scored(night, best, chances))
    return filtered, alone


def report(nights: Sequence[ScoredPages]) -> dict[str, Any]:
    """Give the figures of the trial: those of any evaluation, and every fold."""
    by_fold = {
        str(fold): [night for night in nights if fold_of(night.subject) == fold]
        for fold in range(FOLDS)
    }
    folds = {
        fold: round(figures.kappa(figures.pooled(some)), 3)
        for fold, some in by_fold.items()
        if some
    }
    return {**summarise(nights), "folds": folds}


def _path(runs: Path, night: ScoredRecording, gain: float) -> Path:
    return runs / "judged" / f"x{gain:g}" / f"{night.subject}-night{night.night}.npz"
