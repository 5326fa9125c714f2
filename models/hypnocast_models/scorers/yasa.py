"""YASA beside us on the same nights, where it can run.

YASA sees the whole night before it stages its first page; Hypnocast never sees a page to come.
It wants versions of its own of numpy and friends, so it may live in an environment of its own;
this module needs nothing but it, numpy and the recordings.
"""

from __future__ import annotations

import importlib.util

import numpy as np
from numpy.typing import NDArray

from hypnocast.core.types import PAGE_S, Stage
from hypnocast.errors import InstallError
from hypnocast_models.data.recordings import ScoredRecording

STAGES = ("W", "N1", "N2", "N3", "R")


def stage_with_yasa(recording: ScoredRecording, gain: float = 1.0) -> NDArray[np.int64]:
    """Give YASA's stage of every row of a night of whole pages."""
    if importlib.util.find_spec("yasa") is None:
        raise InstallError(
            "yasa is not installed",
            where="yasa",
            remedy="Run `pip install yasa` in an environment of its own.",
        )
    import mne
    import yasa

    page = round(PAGE_S * recording.rate)
    night = np.zeros((int(recording.epochs.max()) + 1, page))
    night[recording.epochs] = recording.rows * gain
    info = mne.create_info(["C4"], recording.rate, "eeg", verbose="error")
    raw = mne.io.RawArray(night.reshape(1, -1) * 1e-6, info, verbose="error")
    predicted = yasa.SleepStaging(raw, eeg_name="C4").predict()
    names = getattr(predicted, "hypno", predicted)
    order = {"W": 0, "WAKE": 0, "N1": 1, "N2": 2, "N3": 3, "R": 4, "REM": 4}
    stages = np.array([order[str(name)] for name in names], dtype=np.int64)
    return stages[recording.epochs]


def written(name: str, recording: ScoredRecording, stages: NDArray[np.int64]) -> str:
    """Give a night that YASA staged as the CSV that `compare` reads; rows not in the file: ?."""
    from hypnocast_models.compare.hypnogram import ScoredHypnogram, write_hypnogram

    known = dict(zip(recording.epochs.tolist(), stages.tolist(), strict=True))
    written_of = tuple(
        Stage(STAGES[known[epoch]]) if epoch in known else None for epoch in range(max(known) + 1)
    )
    return write_hypnogram(ScoredHypnogram("YASA", name, recording.subject, written_of))
