"""What any model has to beat: gradient boosting on band powers, with the pages before.

It sees what the small pack sees, the samples of a page and of the pages before it, and never a
page to come: log band powers and Hjorth's figures of the page and of its four predecessors, and
the same measured against the night so far.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hypnocast.core.types import STAGES, FloatArray
from hypnocast_models.data.recordings import ScoredRecording

BANDS_HZ = (
    (0.5, 2.0),
    (2.0, 4.0),
    (4.0, 6.0),
    (6.0, 8.0),
    (8.0, 10.0),
    (10.0, 12.0),
    (12.0, 14.0),
    (14.0, 16.0),
    (16.0, 20.0),
    (20.0, 25.0),
    (25.0, 35.0),
)
LAGS = range(1, 5)
"""Pages before that it sees."""


def signal_features(recording: ScoredRecording) -> FloatArray:
    """Give (pages, features) of each page alone."""
    from scipy.signal import welch

    rows = recording.rows - recording.rows.mean(axis=1, keepdims=True)
    window = round(2 * recording.rate)
    hertz, density = welch(rows, recording.rate, nperseg=min(window, rows.shape[1]), axis=1)
    powers = [density[:, (hertz >= low) & (hertz < high)].mean(axis=1) for low, high in BANDS_HZ]
    slope = np.diff(rows, axis=1)
    bend = np.diff(slope, axis=1)
    spread, spread_slope, spread_bend = (x.std(axis=1) + 1e-6 for x in (rows, slope, bend))
    shape = [
        np.log(spread),
        np.log(spread_slope / spread),
        np.log(spread_bend / spread_slope),
        np.log(np.ptp(rows, axis=1) + 1e-6),
        (rows**4).mean(axis=1) / spread**4,
    ]
    return np.stack([*(np.log(power + 1e-3) for power in powers), *shape], axis=1)


def baseline_features(recording: ScoredRecording) -> FloatArray:
    """Give (pages, features) with the pages before, and against the night so far."""
    now = signal_features(recording)
    seen = np.arange(1, len(now) + 1)[:, None]
    mean = np.cumsum(now, axis=0) / seen
    spread = np.sqrt(np.maximum(np.cumsum(now**2, axis=0) / seen - mean**2, 1e-4))
    relative = (now - mean) / spread
    before = [np.vstack([np.repeat(now[:1], k, axis=0), now[:-k]]) for k in LAGS]
    relative_before = [np.vstack([np.repeat(relative[:1], k, axis=0), relative[:-k]]) for k in LAGS]
    return np.hstack([now, relative, *before, *relative_before])


def fit_and_judge(
    train: list[ScoredRecording], test: list[ScoredRecording], seed: int
) -> list[FloatArray]:
    """Fit on some nights, and give log-probabilities (pages, 5) for each of others."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(
        learning_rate=0.06, max_iter=250, min_samples_leaf=40, l2_regularization=1.0,
        random_state=seed,
    )  # fmt: skip
    stages: NDArray[np.uint8] = np.concatenate([r.stages for r in train])
    model.fit(np.vstack([baseline_features(r) for r in train]), stages)
    out = []
    for recording in test:
        shares = np.full((len(recording.stages), len(STAGES)), 1e-6)
        shares[:, model.classes_] = model.predict_proba(baseline_features(recording))
        out.append(np.log(np.maximum(shares, 1e-6)))
    return out
