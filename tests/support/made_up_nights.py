"""Made-up nights: five kinds of waves that any eye can distinguish, one for each stage."""

from __future__ import annotations

import numpy as np

from hypnocast_models.data import ScoredRecording

RHYTHMS = ((12.0, 10.0), (8.0, 5.0), (15.0, 13.0), (60.0, 1.0), (10.0, 20.0))
"""(µV, Hz) of each stage's wave."""


def night(
    pages: int, *, seed: int = 0, seconds: float = 30.0, subject: str = "subject00"
) -> ScoredRecording:
    rng = np.random.default_rng(seed)
    at = np.arange(round(seconds * 100)) / 100
    stages = np.repeat(rng.permutation(np.arange(pages) % 5), 3)[:pages].astype(np.uint8)
    rows = [
        RHYTHMS[s][0] * np.sin(2 * np.pi * RHYTHMS[s][1] * at) + rng.normal(0, 2, at.size)
        for s in stages
    ]
    return ScoredRecording(
        database="made-up",
        subject=subject,
        night=1,
        rate=100.0,
        channel="EEG C4-M1",
        rows=np.stack(rows),
        stages=stages,
        epochs=np.arange(pages),
    )
