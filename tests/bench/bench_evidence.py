"""How well evidence is detected, by noise, and what it shows of real nights, by stage.

Run as ``python tests/bench/bench_evidence.py [DATA] [PLOT.png]`` from the project's folder.
``DATA`` is the folder that holds ``sleepedf20-5s``; without it only the simulator judges.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hypnocast.core.evidence.measures import measure
from hypnocast.core.types import STAGES, FloatArray, Role
from hypnocast_models.data import open_recordings
from support.detection import KINDS, trial

SEEDS = range(200, 208)
PAGES = 40
NOISE_UV = (0.0, 5.0, 10.0, 20.0)
ROWS_A_NIGHT = 300
SHOWN = ("spindles", "k_complexes", "slow_wave_share", "alpha_share")


def simulated() -> None:
    """Print precision and recall on simulated people of whom no threshold knows."""
    print(f"{len(SEEDS)} people, {len(SEEDS) * PAGES} pages; white noise added to every channel")
    for noise in NOISE_UV:
        found = trial(SEEDS, PAGES, noise)
        for kind, tally in found.tallies.items():
            print(
                f"{noise:4.0f} µV  {KINDS[kind]:<22} recall {tally.recall:.2f} "
                f"({tally.events} events)  precision {tally.precision:.2f} ({tally.detections})"
            )
        listed, measured = np.array(found.slow_wave_shares).T
        print(
            f"{noise:4.0f} µV  slow_wave_share        r {np.corrcoef(listed, measured)[0, 1]:.2f}, "
            f"mean error {np.mean(measured - listed):+.2f} ({listed.size} pages of N3)"
        )


def real(data: Path) -> dict[str, dict[str, FloatArray]]:
    """Measure real nights: one EEG, the first 5 s of each page; values by sign and stage."""
    found: dict[str, dict[str, list[float]]] = {s: {x.value: [] for x in STAGES} for s in SHOWN}
    for recording in open_recordings(data / "sleepedf20-5s"):
        if recording.night != 1:
            continue
        rows = np.linspace(0, len(recording.stages) - 1, ROWS_A_NIGHT).astype(int)
        for row in rows:
            evidence = measure(recording.page(int(row), 0.0, 0.0, Role.F4, 1.0))
            stage = STAGES[recording.stages[row]].value
            for sign in SHOWN:
                value = getattr(evidence, sign)
                if value is not None:
                    per_minute = 12.0 * len(value) if isinstance(value, tuple) else value
                    found[sign][stage].append(per_minute)
    return {s: {x: np.array(v) for x, v in by.items()} for s, by in found.items()}


def plot(found: dict[str, dict[str, FloatArray]], path: Path) -> None:
    """Draw the mean of each sign by stage, with intervals of pages drawn anew."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 2.8), layout="constrained", dpi=110)
    rng = np.random.default_rng(0)
    panels = figure.subplots(1, len(found))
    for axes, (sign, by_stage) in zip(panels, found.items(), strict=True):
        for place, values in enumerate(by_stage.values()):
            drawn = rng.choice(values, (500, values.size)).mean(axis=1)
            mean = float(values.mean())
            low, high = np.percentile(drawn, [2.5, 97.5])
            axes.bar(place, mean, color="C0", alpha=0.7)
            axes.errorbar([place], [mean], [[mean - low], [high - mean]], fmt="k", lw=1)
        axes.set_xticks(range(len(by_stage)), list(by_stage))
        unit = "a minute" if sign in ("spindles", "k_complexes") else "share of the page"
        axes.set_title(f"{sign.replace('_', ' ')}, {unit}", fontsize=8)
    figure.savefig(path)


def main() -> None:
    """Run both parts."""
    simulated()
    if len(sys.argv) > 1:
        found = real(Path(sys.argv[1]))
        for sign, by_stage in found.items():
            result = "  ".join(f"{s} {v.mean():.3f}" for s, v in by_stage.items())
            print(f"{sign:<18} {result}")
        print("pages: " + "  ".join(f"{s} {v.size}" for s, v in found[SHOWN[0]].items()))
        if len(sys.argv) > 2:
            plot(found, Path(sys.argv[2]))


if __name__ == "__main__":
    main()
