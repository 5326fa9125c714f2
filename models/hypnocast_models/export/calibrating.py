"""Fitting a pack's calibration on nights that its model was not taught on.

Fitted are the temperature, a forward filter with the transitions of those nights, and how much a
page's own evidence counts in it. The fit is judged by leaving subjects out: everybody
is judged by numbers that were fitted on the others.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from hypnocast.core.types import STAGES, Opinion
from hypnocast.core.verdicts.calibration import Calibration
from hypnocast.core.verdicts.decider import Decider, NightState
from hypnocast.errors import CommandError
from hypnocast.stagers.base import Stager
from hypnocast.stagers.packs.files import MANIFEST
from hypnocast.stagers.packs.pack import Pack
from hypnocast_models.compare import figures
from hypnocast_models.compare.figures import ScoredPages
from hypnocast_models.export.packing import check_empty, write_pack
from hypnocast_models.export.sequence import HeldOutNight, fit_temperature, fit_transitions
from hypnocast_models.readers.material import Material
from hypnocast_models.staging.night import stage_night
from hypnocast_models.taught import taught_subjects

POWERS = (0.25, 0.5, 0.75, 1.0)
"""Exponents of a page's own evidence that are tried."""


@dataclass(frozen=True)
class Fit:
    """What was fitted, and what it is worth on subjects that it was not fitted on."""

    calibration: Calibration
    before: figures.Interval
    after: figures.Interval
    error_before: float
    error_after: float

    def __str__(self) -> str:
        return (
            f"κ {self.before} as it was, {self.after} calibrated on others; "
            f"calibration error {self.error_before:.3f}, {self.error_after:.3f}"
        )


def held_out(
    pack: Pack,
    nights: Sequence[Material],
    stager: Stager,
    mains_hz: int = 50,
    advance: Callable[[int], None] = lambda _pages: None,
) -> list[HeldOutNight]:
    """Let a pack's model look at nights; refuse people whom it was taught on."""
    known = sorted({night.subject for night in nights} & taught_subjects(pack.manifest))
    if known:
        raise CommandError(
            f"the model was taught on {', '.join(known)}: what is fitted on them is too sure",
            where="calibrate",
            remedy="Name held-out people with --subject.",
        )
    seen = []
    for night in nights:
        staged = stage_night(night, pack, stager, mains_hz=mains_hz, advance=advance)
        stages = np.array([-1 if s is None else STAGES.index(s) for s in night.stages], np.int64)
        seen.append(HeldOutNight(night.subject, staged.log_probabilities, stages))
    return seen


def fit_calibration(pack: Pack, nights: Sequence[HeldOutNight]) -> Fit:
    """Fit on all nights, and judge by leaving every subject out in turn."""
    subjects = sorted({night.subject for night in nights})
    if len(subjects) < 2:
        raise CommandError(
            "a calibration needs the nights of two people or more",
            where="calibrate",
            remedy="One person alone cannot say how it does on another.",
        )
    before = [_decided(night, pack.manifest.calibration) for night in nights]
    after = []
    for subject in subjects:
        numbers = _fit([night for night in nights if night.subject != subject])
        after += [_decided(night, numbers) for night in nights if night.subject == subject]
    calibration = _fit(nights)
    sure = figures.review_threshold([_decided(night, calibration) for night in nights])
    return Fit(
        msgspec.structs.replace(calibration, review_below=round(sure, 4)),
        figures.bootstrap(before),
        figures.bootstrap(after),
        figures.calibration_error(before),
        figures.calibration_error(after),
    )


def write_calibrated(pack: Pack, fit: Fit, folder: Path, version: str, nights: str) -> Pack:
    """Write the pack anew, with its calibration and the figures that belong to it."""
    check_empty(folder)
    shutil.copytree(
        pack.folder, folder, ignore=shutil.ignore_patterns(MANIFEST), dirs_exist_ok=True
    )
    facts = msgspec.to_builtins(pack.manifest)
    for written_anew in ("format", "files"):
        del facts[written_anew]
    facts |= {"version": version, "calibration": msgspec.to_builtins(fit.calibration)}
    interval = fit.after
    metric = {
        "name": "kappa",
        "value": round(interval.value, 4),
        "on": f"{nights}; calibrated on the other subjects of them",
    }
    if not np.isnan(interval.low):
        metric |= {"low": round(interval.low, 4), "high": round(interval.high, 4)}
    facts["metrics"] = [*facts.get("metrics", ()), metric]
    return write_pack(folder, facts)


def _fit(nights: Sequence[HeldOutNight]) -> Calibration:
    temperature = fit_temperature(nights)
    counts = np.ones(len(STAGES))
    for night in nights:
        np.add.at(counts, night.stages[night.stages >= 0], 1)
    w, n1, n2, n3, r = (round(float(share), 6) for share in counts / counts.sum())
    chain = fit_transitions(nights)
    tried = [
        Calibration(
            temperature=round(temperature, 4),
            prior=(w, n1, n2, n3, r),
            sequence=msgspec.structs.replace(chain, emission_power=power),
        )
        for power in POWERS
    ]
    return max(
        tried, key=lambda one: figures.kappa(figures.pooled([_decided(n, one) for n in nights]))
    )


def _decided(night: HeldOutNight, calibration: Calibration) -> ScoredPages:
    """Decide a night by a calibration, page by page; of it the pages that the expert staged."""
    decider, state = Decider(calibration), NightState()
    pages = len(night.stages)
    ours = np.full(pages, -1, np.int64)
    chances = np.full((pages, len(STAGES)), np.nan)
    for epoch, row in enumerate(night.log_probabilities):
        if np.isnan(row).any():
            state, _ = decider.withhold(state, epoch)
            continue
        state, staged = decider.step(state, Opinion(epoch, row, "cpu"))
        ours[epoch], chances[epoch] = STAGES.index(staged.stage), staged.probabilities
    known = night.stages >= 0
    return ScoredPages("", night.subject, night.stages[known], ours[known], chances[known])
