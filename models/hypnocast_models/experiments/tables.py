"""From judgements to tables: figures with intervals over subjects, and paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hypnocast.core.types import STAGES
from hypnocast_models.compare.measures import (
    FIGURES,
    Table,
    bootstrap_table,
    paired_difference,
    table_of,
)
from hypnocast_models.experiments.jobs import SOUND
from hypnocast_models.experiments.look_ahead import WHOLE_NIGHT, follow
from hypnocast_models.experiments.pieces import ALL_CHANNELS, BEFORE_DAMAGE, CROSS, removals
from hypnocast_models.experiments.plan import Experiment
from hypnocast_models.experiments.run import JudgedStretch

ALONE = "each page alone"
LOOKS = {
    ALONE: None,
    "causal": 0,
    "one page ahead": 1,
    "whole night": WHOLE_NIGHT,
}
"""Ways to decide, by how many later pages they know."""
REPORTED = ("kappa", "balanced_accuracy", "accuracy", "macro_f1")
Row = list[object]


def decided(one: JudgedStretch, look: str) -> NDArray[np.int64]:
    """Give the stages that a way to decide makes of an arm's judgement; −1 where there is none.

    A pack decides itself: what it published is kept, whatever the way.
    """
    ahead = LOOKS[look]
    known = ~np.isnan(one.log_probabilities.sum(axis=1))
    if ahead is None or one.decides:
        shares = np.nan_to_num(one.log_probabilities)
    else:
        shares = follow(one.log_probabilities, one.prior, one.transitions, ahead)
    return np.where(known, shares.argmax(axis=1), -1).astype(np.int64)


def tables(
    judged: Sequence[JudgedStretch], arm: str, condition: str, look: str, archive: str = ""
) -> dict[str, Table]:
    """Count pages by subject, all seeds together; ``archive`` names the only one that counts."""
    found: dict[str, Table] = {}
    for one in judged:
        if one.arm == arm and one.condition == condition and archive in ("", one.archive):
            counted = table_of(one.stages, decided(one, look))
            found[one.subject] = found.get(one.subject, np.zeros_like(counted)) + counted
    return {subject: table for subject, table in found.items() if table.sum()}


def arms_table(plan: Experiment, judged: Sequence[JudgedStretch]) -> list[Row]:
    """Give the figures of every arm on sound pages, each way to decide."""
    rows: list[Row] = []
    for arm in plan.arm:
        for look in LOOKS if arm.family != "pack" else ("causal",):
            counted = tables(judged, arm.name, SOUND, look)
            rows.append(
                [arm.name, look, *(bootstrap_table(counted, FIGURES[name]) for name in REPORTED)]
            )
    return rows


def differences_table(plan: Experiment, judged: Sequence[JudgedStretch]) -> list[Row]:
    """Give each arm minus the first, and each way to decide minus the causal one."""
    rows: list[Row] = []
    first = plan.arm[0].name
    base = tables(judged, first, SOUND, "causal")
    for arm in plan.arm:
        mine = tables(judged, arm.name, SOUND, "causal")
        if arm.name != first:
            gap = [paired_difference(mine, base, FIGURES[name]) for name in REPORTED]
            rows.append([f"{arm.name} minus {first}, causal", *gap])
        for look in LOOKS if arm.family != "pack" else ():
            if look != "causal":
                other = tables(judged, arm.name, SOUND, look)
                gap = [paired_difference(other, mine, FIGURES[name]) for name in REPORTED]
                rows.append([f"{arm.name}: {look} minus causal", *gap])
    return rows


def corruption_table(plan: Experiment, judged: Sequence[JudgedStretch]) -> list[Row]:
    """Give balanced accuracy under each damage, how much of it is lost, and what is withheld.

    Pages alone. What is withheld counts as wrong.
    """
    rows: list[Row] = []
    if plan.corruption is None:
        return rows
    figure = FIGURES["balanced_accuracy"]
    for name in plan.corruption.arms:
        sound = tables(judged, name, BEFORE_DAMAGE, ALONE)
        rows.append([name, "none", 0.0, bootstrap_table(sound, figure), "", _withheld(sound)])
        for kind in plan.corruption.kinds:
            for share in plan.corruption.shares:
                if share > 0:
                    hurt = tables(judged, name, f"{kind}-{share:g}", ALONE)
                    lost = paired_difference(hurt, sound, figure)
                    measured = bootstrap_table(hurt, figure)
                    rows.append([name, kind, share, measured, lost, _withheld(hurt)])
    return rows


def ablation_table(plan: Experiment, judged: Sequence[JudgedStretch]) -> list[Row]:
    """Give balanced accuracy without some channels, how much of it is lost, and what is withheld.

    Pages alone, by models that were taught with all their channels. What is withheld counts as
    wrong.
    """
    rows: list[Row] = []
    figure = FIGURES["balanced_accuracy"]
    for name in plan.ablation.arms if plan.ablation is not None else ():
        whole = tables(judged, name, ALL_CHANNELS, ALONE)
        rows.append([name, "none", bootstrap_table(whole, figure), "", _withheld(whole)])
        for condition in removals(plan):
            left = tables(judged, name, condition.name, ALONE)
            lost = paired_difference(left, whole, figure)
            gone = ", ".join(condition.without)
            rows.append([name, gone, bootstrap_table(left, figure), lost, _withheld(left)])
    return rows


def archives_table(plan: Experiment, judged: Sequence[JudgedStretch]) -> list[Row]:
    """Give the figures of every arm in each archive of several, on sound pages, causally."""
    archives = [data.name for data in plan.archives]
    rows: list[Row] = []
    for arm in plan.arm if len(archives) > 1 else ():
        for archive in archives:
            counted = tables(judged, arm.name, SOUND, "causal", archive)
            rows.append(
                [arm.name, archive, *(bootstrap_table(counted, FIGURES[name]) for name in REPORTED)]
            )
    return rows


def _withheld(counted: Mapping[str, Table]) -> float:
    """Give the share of scored pages that got no stage."""
    whole = np.sum(list(counted.values()), axis=0)
    return float(whole[:, len(STAGES)].sum() / whole.sum())


def cross_table(plan: Experiment, judged: Sequence[JudgedStretch]) -> list[Row]:
    """Give the figures of arms trained on one data set and judged on each of the others.

    What is withheld counts as wrong.
    """
    rows: list[Row] = []
    for arm in plan.arm:
        for data in plan.others:
            counted = tables(judged, arm.name, CROSS, ALONE, data.name)
            if not counted:
                continue
            whole = np.sum(list(counted.values()), axis=0)
            there = ", ".join(
                f"{s.value} {n}" for s, n in zip(STAGES, whole.sum(axis=1), strict=True)
            )
            figures = (bootstrap_table(counted, FIGURES[name]) for name in REPORTED)
            rows.append([arm.name, data.name, *figures, _withheld(counted), there])
    return rows
