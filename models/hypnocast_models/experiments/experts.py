"""Arms beside the experts: how well each agrees with every one, and they with one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hypnocast.core.types import STAGES
from hypnocast_models.compare.comparison import Comparison, agree_on, compare, differences
from hypnocast_models.compare.figures import Interval
from hypnocast_models.compare.hypnogram import ScoredHypnogram
from hypnocast_models.compare.page import write_page
from hypnocast_models.experiments.jobs import SOUND
from hypnocast_models.experiments.plan import Experiment
from hypnocast_models.experiments.run import JudgedStretch
from hypnocast_models.experiments.tables import REPORTED, Row, decided

Nights = Mapping[str, ScoredHypnogram]


def experts_table(plan: Experiment, judged: Sequence[JudgedStretch]) -> list[Row]:
    """Give the agreement of every scorer with every expert, over the nights that two scored."""
    shared = [one for one in judged if len(one.experts) > 1]
    if not shared:
        return []
    experts = _experts(plan, shared)
    references = dict(experts)
    if len(experts) > 1:
        references["their consensus"] = agree_on(list(experts.values()))
    rows: list[Row] = []
    for name, nights in (*experts.items(), *_arms(plan, shared).items()):
        for against, reference in references.items():
            if name == against or (name in experts and against not in experts):
                continue  # an expert agrees with what is made of his own stages
            agreed = compare(reference, nights)
            rows.append([name, against, *(agreed.figures[figure] for figure in REPORTED)])
    return rows


def compare_arms(plan: Experiment, judged: Sequence[JudgedStretch], page: Path) -> None:
    """Write the page that ``compare`` writes: every arm, and the second expert, beside the first.

    Verdicts are the causal ones of the plan's first seed.
    """
    experts = _experts(plan, judged)
    first, *others = experts.values()
    scorers = dict(zip(list(experts)[1:], others, strict=True)) | _arms(plan, judged)
    found: list[Comparison] = [compare(first, nights) for nights in scorers.values()]
    paired: dict[str, Mapping[str, Interval]] = {
        f"{one} minus {two}": differences(first, scorers[one], scorers[two])
        for i, one in enumerate(scorers)
        for two in list(scorers)[i + 1 :]
        if set(scorers[one]) & set(scorers[two])
    }
    write_page(page, found, paired)


def _experts(plan: Experiment, judged: Sequence[JudgedStretch]) -> dict[str, Nights]:
    """Give every expert's nights; who scored fewer nights than the first has fewer."""
    sound = _sound(plan, judged, plan.arm[0].name)
    most = max(len(one.experts) for one in sound)
    return {
        f"expert {place + 1}": {
            _name(one): _hypnogram(one, f"expert {place + 1}", one.experts[place])
            for one in sound
            if place < len(one.experts)
        }
        for place in range(most)
    }


def _arms(plan: Experiment, judged: Sequence[JudgedStretch]) -> dict[str, Nights]:
    return {
        arm.name: {
            _name(one): _hypnogram(one, arm.name, decided(one, "causal"))
            for one in _sound(plan, judged, arm.name)
        }
        for arm in plan.arm
    }


def _sound(plan: Experiment, judged: Sequence[JudgedStretch], arm: str) -> list[JudgedStretch]:
    packs = {one.name for one in plan.arm if one.family == "pack"}
    seed = 0 if arm in packs else plan.seeds[0]  # a pack has none
    return [one for one in judged if (one.arm, one.condition, one.seed) == (arm, SOUND, seed)]


def _name(one: JudgedStretch) -> str:
    return f"{one.archive}/{one.night}"


def _hypnogram(one: JudgedStretch, scorer: str, numbers: NDArray[np.int64]) -> ScoredHypnogram:
    stages = tuple(None if number < 0 else STAGES[number] for number in numbers.tolist())
    return ScoredHypnogram(scorer, _name(one), one.subject, stages)
