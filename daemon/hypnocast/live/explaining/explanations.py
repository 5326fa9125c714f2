"""Explanations: what a page's stage rests on, asked of the model behind everything urgent."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from hypnocast.core.evidence.occlusion import (
    StageBasis,
    channel_looks,
    channel_rests,
    patch_falls,
    patch_looks,
)
from hypnocast.core.pictures.recipe import Recipe
from hypnocast.core.types import STAGES, FloatArray, Look, Opinion, Stage
from hypnocast.core.wire import payloads
from hypnocast.live.staging.questions import STUDIES_AT_ONCE

if TYPE_CHECKING:
    from hypnocast.live.staging.judging import Judge
    from hypnocast.stagers.base import Stager

Depth = Literal["channels", "patches"]


def explain_channels(stager: Stager, recipe: Recipe, look: Look, stage: Stage) -> StageBasis:
    """Blank each channel and see what becomes of the stage."""
    judged = _judge(stager, channel_looks(look, recipe))
    return channel_rests(stage, look, recipe, judged)


def explain_patches(stager: Stager, recipe: Recipe, look: Look, stage: Stage) -> StageBasis:
    """Blank each channel and each patch of the page."""
    judged = _judge(stager, channel_looks(look, recipe))
    patches = _judge(stager, patch_looks(look, recipe))
    rests = channel_rests(stage, look, recipe, judged)
    return replace(rests, patches=patch_falls(stage, judged[0], patches))


async def explain(
    judge: Judge, recipe: Recipe, look: Look, stage: Stage, depth: Depth = "channels"
) -> StageBasis:
    """Explain in the daemon, a few looks at a time, each behind every verdict that waits."""

    async def ask(looks: Sequence[Look]) -> list[FloatArray]:
        judged: list[FloatArray] = []
        for first in range(0, len(looks), STUDIES_AT_ONCE):
            asked = [judge.study(look) for look in looks[first : first + STUDIES_AT_ONCE]]
            judged += [_probabilities(opinion) for opinion in await asyncio.gather(*asked)]
        return judged

    channels = await asyncio.to_thread(channel_looks, look, recipe)
    judged = await ask(channels)
    rests = channel_rests(stage, look, recipe, judged)
    if depth == "channels":
        return rests
    patches = await ask(await asyncio.to_thread(patch_looks, look, recipe))
    return replace(rests, patches=patch_falls(stage, judged[0], patches))


def explanation(
    epoch: int, rests: StageBasis, reasons: Opinion | None = None
) -> payloads.Explanation:
    """Return an explanation as it crosses MQTT, with the model's own reasons if there are any."""
    return payloads.Explanation(
        epoch=epoch,
        stage=rests.stage.value,
        sentence=rests.sentence,
        probability=rests.probability,
        channels={role.value: fall for role, fall in rests.channels.items()},
        alone=rests.alone,
        patches=rests.patches,
        rationale=None if reasons is None else reasons.rationale,
        rules=None if reasons is None else reasons.rules,
    )


def reasons_alone(stage: Stage, reasons: Opinion) -> payloads.Explanation:
    """Return an explanation that is no more than the model's own reasons."""
    return payloads.Explanation(
        epoch=reasons.epoch,
        stage=stage.value,
        sentence=reasons.rationale or "",
        probability=float(_probabilities(reasons)[STAGES.index(stage)]),
        channels={},
        alone={},
        patches=None,
        rationale=reasons.rationale,
        rules=reasons.rules,
    )


def _judge(stager: Stager, looks: Sequence[Look]) -> list[FloatArray]:
    return [_probabilities(opinion) for opinion in stager.judge(looks)]


def _probabilities(opinion: Opinion) -> FloatArray:
    return np.exp(opinion.log_probabilities)
