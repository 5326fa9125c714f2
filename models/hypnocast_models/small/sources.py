"""The databases the small pack is made of: who they are owed to, and how they are split."""

from __future__ import annotations

from pathlib import Path

from hypnocast_models.data import ScoredRecording, open_recordings

SLEEP_EDF = "sleepedf20-5s"
UCDDB = "ucddb"
HYPNOGRAMS = "dod-scorers"
"""Hypnograms without signals: real transitions between whole pages."""
HELD_OUT = frozenset({"subject018"})
"""Of ucddb, the one whole night: looked at once, after the pack's digest was committed."""
LICENCE = "ODC-By-1.0"
_PHYSIONET = (
    "Goldberger et al., PhysioBank, PhysioToolkit and PhysioNet, Circulation 101(23):e215-e220 "
    "(2000)"
)
ATTRIBUTION = {
    SLEEP_EDF: (
        "B Kemp, AH Zwinderman, B Tuk, HAC Kamphuisen, JJL Oberyé, Analysis of a sleep-dependent "
        "neuronal feedback loop: the slow-wave microcontinuity of the EEG, IEEE-BME "
        f"47(9):1185-1194 (2000), Sleep-EDF Database Expanded v1.0.0; {_PHYSIONET}"
    ),
    UCDDB: (
        "St. Vincent's University Hospital / University College Dublin Sleep Apnea Database "
        f"v1.0.0; {_PHYSIONET}"
    ),
}
FOLDS = 4


def fold_of(subject: str) -> int:
    """Return the fold in which a subject is judged: its number, modulo the folds."""
    return int(subject.rsplit("subject", 1)[1]) % FOLDS


def open_sources(data: Path) -> tuple[list[ScoredRecording], list[ScoredRecording]]:
    """Open all nights that may be trained on."""
    return open_recordings(data / SLEEP_EDF), open_recordings(data / UCDDB, without=HELD_OUT)
