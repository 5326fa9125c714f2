"""Judging any pack on scored nights, on the stream the daemon would emit."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from hypnocast.core.types import STAGES, FloatArray
from hypnocast.errors import CommandError
from hypnocast.stagers.base import Stager
from hypnocast.stagers.onnx.local import LocalStager
from hypnocast.stagers.packs.pack import Pack
from hypnocast_models.compare import figures
from hypnocast_models.compare.figures import ScoredPages
from hypnocast_models.data.pictures import PictureNight
from hypnocast_models.readers.material import Material
from hypnocast_models.readers.night import amplified
from hypnocast_models.staging.night import stage_night


@dataclass(frozen=True, eq=False)
class JudgedNight:
    """One night as the daemon would publish it; of it the pages that the expert staged."""

    scored: ScoredPages
    log_probabilities: FloatArray
    """(pages, 5) as the model gave them; NaN where withheld."""
    withheld: Mapping[str, int]
    """Reason → pages."""

    @property
    def unfiltered(self) -> ScoredPages:
        """The same opinions, each page for itself."""
        chances: FloatArray = np.exp(self.log_probabilities)
        there = ~np.isnan(chances).any(axis=1)
        best = np.where(there, np.nan_to_num(chances, nan=0.0).argmax(axis=1), -1)
        scored = self.scored
        return ScoredPages(scored.night, scored.subject, scored.expert, best, chances)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a pack made of some nights."""

    nights: list[JudgedNight]
    seconds: float

    @property
    def scored(self) -> list[ScoredPages]:
        """The nights as they would be published."""
        return [night.scored for night in self.nights]

    @property
    def unfiltered(self) -> list[ScoredPages]:
        """The same opinions, each page for itself."""
        return [night.unfiltered for night in self.nights]


def judge_night(
    night: Material,
    pack: Pack,
    stager: Stager,
    *,
    gain: float = 1.0,
    min_coverage: float | None = None,
    mains_hz: int = 50,
    advance: Callable[[int], None] = lambda _: None,
) -> JudgedNight:
    """Stage a night and lay it beside the expert's stages."""
    if isinstance(night, PictureNight) and gain != 1.0:
        raise CommandError(
            "pages that are kept as pictures have one gain",
            where="--gain",
            remedy="Give the recordings.",
        )
    staged = stage_night(
        night,
        pack,
        stager,
        min_coverage=min_coverage,
        mains_hz=mains_hz,
        change=partial(amplified, gain=gain),
        advance=advance,
    )
    pages = [epoch for epoch, stage in enumerate(night.stages) if stage is not None]
    chances = staged.hypnogram.probabilities
    assert chances is not None  # noqa: S101 - stage_night gives them
    scored = ScoredPages(
        night=night.name,
        subject=night.subject,
        expert=np.array([STAGES.index(night.stages[k]) for k in pages], np.int64),
        ours=staged.hypnogram.numbers[pages],
        probabilities=chances[pages],
    )
    reasons = Counter(staged.reasons[k] for k in pages if k in staged.reasons)
    return JudgedNight(scored, staged.log_probabilities[pages], reasons)


def evaluate(
    pack: Pack,
    nights: Sequence[Material],
    *,
    gain: float = 1.0,
    min_coverage: float | None = None,
    mains_hz: int = 50,
    threads: int = 1,
    advance: Callable[[int], None] = lambda _: None,
) -> Evaluation:
    """Stage nights with a pack, one after another."""
    stager = LocalStager(pack, "cpu", threads=threads)
    begun = time.monotonic()
    judged = [
        judge_night(
            night,
            pack,
            stager,
            gain=gain,
            min_coverage=min_coverage,
            mains_hz=mains_hz,
            advance=advance,
        )
        for night in nights
    ]
    stager.close()
    return Evaluation(judged, time.monotonic() - begun)


def summarise(nights: Sequence[ScoredPages]) -> dict[str, Any]:
    """Give every figure of some nights, pooled, by subject and by night."""
    table = figures.pooled(nights)
    subjects = sorted({night.subject for night in nights})
    by_subject = {
        subject: figures.kappa(figures.pooled([n for n in nights if n.subject == subject]))
        for subject in subjects
    }
    return {
        "pages": int(table.sum()),
        "coverage": round(figures.coverage(nights), 4),
        "kappa": rounded(figures.bootstrap(nights)),
        "accuracy": rounded(figures.bootstrap(nights, figures.accuracy)),
        "macro_f1": rounded(figures.bootstrap(nights, figures.macro_f1)),
        "stage_f1": dict(
            zip(
                (stage.value for stage in STAGES),
                (round(float(f), 3) for f in figures.stage_f1(table)),
                strict=True,
            )
        ),
        "calibration_error": round(figures.calibration_error(nights), 4),
        "confusion": table.tolist(),
        "subjects": {subject: round(k, 3) for subject, k in by_subject.items()},
        "worst_subject": round(min(by_subject.values()), 3),
        "nights": {n.night: round(figures.kappa(figures.pooled([n])), 3) for n in nights},
        "risk_coverage": risk_table(nights),
    }


def risk_table(nights: Sequence[ScoredPages]) -> list[dict[str, float]]:
    """Give confidence threshold, share of pages above it, and their error rate."""
    thresholds, kept, risk = figures.risk_coverage(nights)
    if not kept.size:
        return []  # every page was withheld
    marks = np.searchsorted(kept, np.linspace(0.5, kept[-1], 11) - 1e-9)
    marks = np.minimum(marks, kept.size - 1)
    return [
        {
            "review_below": round(float(thresholds[m]), 3),
            "kept": round(float(kept[m]), 3),
            "error": round(float(risk[m]), 3),
        }
        for m in marks
    ]


def rounded(interval: figures.Interval) -> list[float | None]:
    """Give value, low and high with four digits; None where there is none."""
    values = (interval.value, interval.low, interval.high)
    return [None if np.isnan(v) else round(v, 4) for v in values]
