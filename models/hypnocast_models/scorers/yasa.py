"""YASA beside us on the same nights, where it can run.

YASA sees the whole night before it stages its first page; Hypnocast never sees a page to come.
It wants versions of its own of numpy and friends, so it may live in an environment of its own.
"""

from __future__ import annotations

import importlib.util
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hypnocast.core.types import Stage
from hypnocast.errors import InstallError
from hypnocast_models.data.recordings import ScoredRecording
from hypnocast_models.scorers import yasa_alone
from hypnocast_models.scorers.yasa_alone import stage_rows

STAGES = ("W", "N1", "N2", "N3", "R")


def stage_with_yasa(recording: ScoredRecording, gain: float = 1.0) -> NDArray[np.int64]:
    """Give YASA's stage of every row of a night of whole pages."""
    if importlib.util.find_spec("yasa") is None:
        raise InstallError(
            "yasa is not installed",
            where="yasa",
            remedy="Run `pip install yasa` in an environment of its own.",
        )
    return stage_rows(recording.rows * gain, recording.rate, recording.epochs)


def stage_in_environment(
    python: Path, recordings: Sequence[ScoredRecording], gain: float = 1.0
) -> list[NDArray[np.int64]]:
    """Let the YASA of another environment stage some nights; nothing else is needed there."""
    with tempfile.TemporaryDirectory(prefix="hypnocast-yasa-") as scratch:
        folder = Path(scratch)
        for at, night in enumerate(recordings):
            np.savez(
                folder / f"{at:05d}.npz",
                rows=night.rows * gain,
                rate=night.rate,
                epochs=night.epochs,
            )
        # Isolated: else the script's own folder is looked in first, and has a yasa.py too.
        command = [str(python), "-I", yasa_alone.__file__, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            why = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
            raise InstallError(
                f"YASA did not stage there: {why[0]}",
                where=str(python),
                remedy="Name the Python of an environment with `pip install yasa`.",
            )
        return [np.load(folder / f"{at:05d}.npy") for at in range(len(recordings))]


def written(name: str, recording: ScoredRecording, stages: NDArray[np.int64]) -> str:
    """Give a night that YASA staged as the CSV that `compare` reads; rows not in the file: ?."""
    from hypnocast_models.compare.hypnogram import ScoredHypnogram, write_hypnogram

    known = dict(zip(recording.epochs.tolist(), stages.tolist(), strict=True))
    written_of = tuple(
        Stage(STAGES[known[epoch]]) if epoch in known else None for epoch in range(max(known) + 1)
    )
    return write_hypnogram(ScoredHypnogram("YASA", name, recording.subject, written_of))
