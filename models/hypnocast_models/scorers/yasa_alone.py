"""YASA on arrays, with nothing of Hypnocast: it also runs in an environment that has only YASA.

``python yasa_alone.py FOLDER`` stages every ``*.npz`` of a folder (``rows`` in µV, ``rate``,
``epochs``) and writes its stages beside it, as ``.npy``: 0 W, 1 N1, 2 N2, 3 N3, 4 R.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PAGE_S = 30.0
_ORDER = {"W": 0, "WAKE": 0, "N1": 1, "N2": 2, "N3": 3, "R": 4, "REM": 4}


def stage_rows(
    rows: NDArray[np.float64], rate: float, epochs: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Give YASA's stage of every row of a night of whole pages; pages between them are flat."""
    import mne
    import yasa

    night = np.zeros((int(epochs.max()) + 1, round(PAGE_S * rate)))
    night[epochs] = rows
    info = mne.create_info(["C4"], rate, "eeg", verbose="error")
    raw = mne.io.RawArray(night.reshape(1, -1) * 1e-6, info, verbose="error")
    predicted = yasa.SleepStaging(raw, eeg_name="C4").predict()
    names = getattr(predicted, "hypno", predicted)
    stages = np.array([_ORDER[str(name)] for name in names], dtype=np.int64)
    return stages[epochs]


def main(folder: Path) -> None:
    """Stage every night of a folder."""
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as night:
            stages = stage_rows(night["rows"], float(night["rate"]), night["epochs"])
        np.save(path.with_suffix(".npy"), stages)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
