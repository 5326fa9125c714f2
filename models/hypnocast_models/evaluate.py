"""Judging any pack on scored nights, on the stream the daemon would emit."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hypnocast.core.types import STAGES, FloatArray, Role
from hypnocast.stagers.local import LocalStager
from hypnocast.stagers.pack import Pack
from hypnocast_models import figures
from hypnocast_models.data import Recording
from hypnocast_models.figures import Scored
from hypnocast_models.stream import Streamed, stream_night


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a pack made of some nights."""

    nights: list[Streamed]
    seconds: float

    @property
    def scored(self) -> list[Scored]:
        """The nights as they would be published."""
        return [night.scored for night in self.nights]

    @property
    def unfiltered(self) -> list[Scored]:
        """The same opinions, each page for itself."""
        return [_alone(night) for night in self.nights]


def evaluate(
    pack: Pack,
    recordings: Sequence[Recording],
    *,
    gain: float = 1.0,
    min_coverage: float | None = None,
    role: Role = Role.F4,
    threads: int = 1,
    advance: Callable[[int], None] = lambda _: None,
) -> Evaluation:
    """Stage nights with a pack, one after another."""
    stager = LocalStager(pack, "cpu", threads=threads)
    begun = time.monotonic()
    nights = [
        stream_night(
            recording,
            pack,
            stager,
            role=role,
            gain=gain,
            min_coverage=min_coverage,
            advance=advance,
        )
        for recording in recordings
    ]
    stager.close()
    return Evaluation(nights, time.monotonic() - begun)


def summarise(nights: Sequence[Scored]) -> dict[str, Any]:
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
        "subjects": {s.rsplit("/", 1)[1]: round(k, 3) for s, k in by_subject.items()},
        "worst_subject": round(min(by_subject.values()), 3),
        "nights": {
            n.night.rsplit("/", 1)[1]: round(figures.kappa(figures.pooled([n])), 3) for n in nights
        },
        "risk_coverage": risk_table(nights),
    }


def risk_table(nights: Sequence[Scored]) -> list[dict[str, float]]:
    """Give confidence threshold, share of pages above it, and their error rate."""
    thresholds, kept, risk = figures.risk_coverage(nights)
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


def rounded(interval: figures.Interval) -> list[float]:
    """Give value, low and high with four digits."""
    return [round(v, 4) for v in (interval.value, interval.low, interval.high)]


def _alone(night: Streamed) -> Scored:
    chances: FloatArray = np.exp(night.log_probabilities)
    there = ~np.isnan(chances).any(axis=1)
    best = np.where(there, np.nan_to_num(chances, nan=0.0).argmax(axis=1), -1)
    scored = night.scored
    return Scored(scored.night, scored.subject, scored.expert, best, chances)
