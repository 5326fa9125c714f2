"""Where on the head each source of the simulator is seen, and how strong it is in each stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from hypnocast.core.types import FloatArray, Stage
from hypnocast.simulate.person import Person

_SEEN = """
           Fpz    F3    F4    Cz    C3    C4    O1    O2    M1    M2    E1    E2 Chin1 Chin2   ECG
front      0.8  0.75  0.75  0.35  0.35  0.35   0.1   0.1  -0.1  -0.1  0.45  0.45     0     0     0
centre     0.2   0.3   0.3  0.75   0.7   0.7  0.25  0.25  -0.1  -0.1   0.1   0.1     0     0     0
back      0.05   0.1   0.1  0.25  0.25  0.25  0.75  0.75   0.1   0.1     0     0     0     0     0
delta      1.1     1     1  0.35  0.75  0.75  0.45  0.45  -0.1  -0.1   0.5   0.5     0     0     0
theta     0.35   0.8   0.8  1.05  0.95  0.95   0.7   0.7 -0.05 -0.05  0.35  0.35     0     0     0
alpha      0.2   0.3   0.3  0.45  0.45  0.45     1     1  0.06  0.06   0.1   0.1     0     0     0
sigma      0.3   0.8   0.8     1   0.9   0.9  0.35  0.35 -0.05 -0.05   0.2   0.2     0     0     0
beta       0.8   0.9   0.9   0.8   0.8   0.8   0.5   0.5   0.1   0.1   0.4   0.4     0     0     0
drift        1   0.8   0.8   0.4   0.5   0.5   0.3   0.3   0.1   0.1   0.9   0.6   0.1   0.1   0.2
chin         0     0     0     0     0     0     0     0     0     0     0     0  0.55 -0.45     0
slow       1.1     1     1   0.4   0.8   0.8   0.5   0.5 -0.12 -0.12   0.6   0.6  0.02  0.02     0
spindle   0.35  0.75  0.75  1.05     1     1  0.35  0.35 -0.05 -0.05   0.2   0.2     0     0     0
vertex    0.35   0.6   0.6   1.1  0.95  0.95   0.4   0.4  -0.1  -0.1   0.2   0.2     0     0     0
gaze         0   0.1  -0.1     0  0.05 -0.05     0     0  0.04 -0.04     1    -1     0     0     0
lids       1.1  0.35  0.35   0.1  0.12  0.12  0.03  0.03 -0.02 -0.02 -0.55  0.85     0     0     0
arousal    0.7   0.8   0.8   0.9   0.9   0.9     1     1   0.1   0.1   0.3   0.3     0     0     0
muscle       1   0.8   0.8   0.3   0.5   0.5   0.7   0.7   0.8   0.8   0.9   0.9     3  -2.2   1.5
sway       0.9   0.9     1   0.6   0.8   0.8   0.9     1   0.3   0.2   1.1   0.8   0.5   0.2   1.5
heart        0     0     0     0     0     0     0     0     1  -0.6     0     0   0.1   0.1     0
hum          1   1.2   0.8   0.9   1.1   0.7     1   1.3   0.5   0.4     1   0.8   0.9   0.7     1
"""
_HEAD, *_ROWS = (line.split() for line in _SEEN.strip().splitlines())

ELECTRODES: tuple[str, ...] = tuple(_HEAD)
"""Every electrode there is. ``ECG`` is a chest lead of its own, already a difference."""

SOURCES: tuple[str, ...] = tuple(row[0] for row in _ROWS)
"""What electrodes share. Beside these every electrode has noise and muscle of its own."""

_LOCAL: Mapping[str, float] = MappingProxyType(
    {"M1": 0.3, "M2": 0.3, "E1": 0.35, "E2": 0.35, "Chin1": 0.08, "Chin2": 0.08, "ECG": 0.3}
)
"""Share of the background that an electrode has for itself, where it is not an EEG electrode."""


@dataclass(frozen=True, slots=True)
class Levels:
    """RMS in µV of each enduring source on one page."""

    background: float
    delta: float
    theta: float
    alpha: float
    sigma: float
    beta: float
    muscle: float
    chin: float


_LEVELS = {
    #                 backgr delta theta alpha sigma beta muscle chin
    Stage.W: Levels(9.5, 4.0, 2.2, 0.25, 0.4, 3.0, 2.4, 1.0),
    Stage.N1: Levels(7.0, 2.5, 3.6, 0.4, 0.5, 2.4, 1.5, 0.55),
    Stage.N2: Levels(6.3, 10.5, 5.0, 0.25, 1.9, 0.75, 0.3, 0.4),
    Stage.N3: Levels(6.0, 18.0, 6.0, 0.3, 1.9, 0.5, 0.25, 0.34),
    Stage.R: Levels(6.8, 2.8, 4.4, 0.12, 0.3, 1.2, 0.25, 0.0),
}
"""Alpha as a share of the person's alpha (eyes open in W), chin as a share of the waking tone."""


def levels(person: Person, stage: Stage, *, eyes_closed: bool, mood: FloatArray) -> Levels:
    """Return how strong each source is on a page; ``mood`` is 8 numbers around 1 that vary it."""
    base = _LEVELS[stage]
    alpha = 1.0 if eyes_closed and stage is Stage.W else base.alpha
    busy = 1.0 if eyes_closed else 1.4
    chin = person.atonia if stage is Stage.R else base.chin
    gain = person.gain
    return Levels(
        background=gain * busy**0.5 * base.background * float(mood[0]),
        delta=gain * base.delta * float(mood[1]) * person.slow_wave_uv / 100.0,
        theta=gain * base.theta * float(mood[2]) * person.theta,
        alpha=alpha * person.alpha_uv * float(mood[3]),
        sigma=gain * base.sigma * float(mood[4]),
        beta=gain * base.beta * float(mood[5]),
        muscle=busy * base.muscle * float(mood[6]) * person.emg_uv / 14.0,
        chin=chin * person.emg_uv * float(mood[7]),
    )


def seen_by(electrode: str, person: Person) -> FloatArray:
    """Return how an electrode sees each of :data:`SOURCES`."""
    seen = np.array([float(row[1 + ELECTRODES.index(electrode)]) for row in _ROWS])
    heart, hum = SOURCES.index("heart"), SOURCES.index("hum")
    seen[heart] = 1.0 if electrode == "ECG" else seen[heart] * person.ecg_leak
    seen[hum] *= person.hum_uv
    return seen


def own_share(electrode: str) -> tuple[float, float]:
    """Return how much background and how much muscle an electrode has for itself."""
    return _LOCAL.get(electrode, 0.5), 0.3 if electrode in ("Chin1", "Chin2") else 0.8
