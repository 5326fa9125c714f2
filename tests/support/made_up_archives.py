"""Small archives in the form of the public ones: every stage a rhythm of its own, EOG and EMG."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, time
from pathlib import Path
from types import MappingProxyType

import edfio
import numpy as np

from hypnocast.core.types import PAGE_S, FloatArray

RATE = 128.0
RHYTHMS = {"W": (15.0, 10.0), "N1": (8.0, 5.0), "N2": (18.0, 13.0), "N3": (70.0, 1.0), "R": (9, 20)}
"""(µV, Hz) of each stage's EEG."""
STAGES = tuple(RHYTHMS)


def stages_of(pages: int, seed: int) -> list[str]:
    """Give a night in which every stage occurs, three pages of one at a time."""
    rng = np.random.default_rng([seed, 7])
    order = [STAGES[k] for k in rng.permutation(5)]
    return [order[(page // 3) % 5] for page in range(pages)]


def second_expert(stages: Sequence[str]) -> list[str]:
    """Give somebody who enters every new stage a page late."""
    return [stages[max(0, k - 1)] if k % 6 == 0 else stage for k, stage in enumerate(stages)]


def channel(label: str, stages: Sequence[str], seed: int) -> FloatArray:
    """Give the µV of one channel of a night, by its label."""
    rng = np.random.default_rng([seed, *label.encode()])
    at = np.arange(round(len(stages) * PAGE_S * RATE)) / RATE
    name = label.upper()
    page = [np.full(round(PAGE_S * RATE), k) for k in range(len(stages))]
    of = np.concatenate(page).astype(int)
    if "EMG" in name or "CHIN" in name or name.startswith("X1"):
        tone = {"W": 20.0, "N1": 8.0, "N2": 6.0, "N3": 4.0, "R": 1.5}
        muscle: FloatArray = rng.normal(0, 1, at.size) * np.array([tone[s] for s in stages])[of]
        return muscle
    if any(word in name for word in ("EOG", "LOC", "ROC", "E1", "E2")):
        left = any(word in name for word in ("LEFT", "LOC", "E1", "(L)"))
        both = 25 * np.sin(2 * np.pi * 0.25 * at) * np.array([s == "W" for s in stages])[of]
        rapid = (
            90 * np.sign(np.sin(2 * np.pi * 0.4 * at)) * np.array([s == "R" for s in stages])[of]
        )
        eye: FloatArray = both + (rapid if left else -rapid) + rng.normal(0, 4, at.size)
        return eye
    size = np.array([RHYTHMS[s][0] for s in stages])[of]
    hertz = np.array([RHYTHMS[s][1] for s in stages])[of]
    brain: FloatArray = size * np.sin(2 * np.pi * hertz * at) + rng.normal(0, 3, at.size)
    return brain


def write_edf(
    path: Path, labels: Sequence[str], stages: Sequence[str], seed: int, notes: Sequence[str] = ()
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    signals = [
        edfio.EdfSignal(
            channel(label, stages, seed).clip(-490, 490),
            RATE,
            label=label,
            physical_dimension="uV",
            physical_range=(-500, 500),
        )
        for label in labels
    ]
    edfio.Edf(
        signals,
        recording=edfio.Recording(startdate=date(2024, 3, 1)),
        starttime=time(22, 0, 0),
        data_record_duration=1 if signals else None,
        annotations=[
            edfio.EdfAnnotation(k * PAGE_S, PAGE_S, f"Sleep stage {word}")
            for k, word in enumerate(notes)
        ],
    ).write(path)
    return path


def _edf(root: Path, seed: int, stages: list[str]) -> None:
    labels = ("F4-M1", "C4-M1", "O2-M1", "E1-M2", "E2-M2", "Chin1-Chin2")
    write_edf(root / f"lab{seed}.edf", labels, stages, seed, stages)


def _bids(root: Path, seed: int, stages: list[str]) -> None:
    folder = root / f"sub-{seed:02d}/eeg"
    path = write_edf(
        folder / f"sub-{seed:02d}_task-sleep_eeg.edf",
        ("F4-M1", "C4-M1", "O2-M1", "E1-M2", "E2-M2", "EMG Chin"),
        stages,
        seed,
    )
    rows = [f"{k * 30}\t30\t{stage}" for k, stage in enumerate(stages)]
    text = "\n".join(["onset\tduration\tstage_hum", *rows])
    path.with_name(f"sub-{seed:02d}_task-sleep_events.tsv").write_text(text)


def _sleep_edf(root: Path, seed: int, stages: list[str]) -> None:
    labels = ("EEG Fpz-Cz", "EEG Pz-Oz", "EOG horizontal")
    write_edf(root / f"SC4{seed:02d}1E0-PSG.edf", labels, stages, seed)
    words = [{"N1": "1", "N2": "2", "N3": "4"}.get(stage, stage) for stage in stages]
    write_edf(root / f"SC4{seed:02d}1EH-Hypnogram.edf", (), stages, seed, words)


def _mass(root: Path, seed: int, stages: list[str]) -> None:
    eeg = ("EEG F4-CLE", "EEG C4-CLE", "EEG O2-CLE")
    labels = (*eeg, "EOG Left Horiz", "EOG Right Horiz", "EMG Chin1", "EMG Chin2")
    write_edf(root / f"01-03-{seed:04d} PSG.edf", labels, stages, seed)
    words = [{"N1": "1", "N2": "2", "N3": "3"}.get(stage, stage) for stage in stages]
    write_edf(root / f"01-03-{seed:04d} Base.edf", (), stages, seed, words)


def _hmc(root: Path, seed: int, stages: list[str]) -> None:
    labels = ("EEG F4-M1", "EEG C4-M1", "EEG O2-M1", "EMG chin", "EOG E1-M2", "EOG E2-M2")
    write_edf(root / f"SN{seed:03d}.edf", labels, stages, seed)
    write_edf(root / f"SN{seed:03d}_sleepscoring.edf", (), stages, seed, stages)


def _shhs(root: Path, seed: int, stages: list[str]) -> None:
    labels = ("EEG(sec)", "EEG", "EOG(L)", "EOG(R)", "EMG")
    write_edf(root / f"edfs/shhs1/shhs1-{200000 + seed}.edf", labels, stages, seed)
    code = {"W": "Wake|0", "N1": "Stage 1 sleep|1", "N2": "Stage 2 sleep|2"}
    code |= {"N3": "Stage 3 sleep|3", "R": "REM sleep|5"}
    events = "".join(
        "<ScoredEvent><EventType>Stages|Stages</EventType>"
        f"<EventConcept>{code[stage]}</EventConcept><Start>{k * 30}</Start>"
        "<Duration>30</Duration></ScoredEvent>"
        for k, stage in enumerate(stages)
    )
    folder = root / "annotations-events-nsrr/shhs1"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"shhs1-{200000 + seed}-nsrr.xml").write_text(
        "<PSGAnnotation><EpochLength>30</EpochLength>"
        f"<ScoredEvents>{events}</ScoredEvents></PSGAnnotation>"
    )


def _isruc(root: Path, seed: int, stages: list[str]) -> None:
    labels = ("F3-A2", "C3-A2", "O1-A2", "F4-A1", "C4-A1", "O2-A1", "LOC-A2", "ROC-A1", "X1")
    path = write_edf(root / f"{seed}/{seed}.edf", labels, stages, seed)
    path.rename(path.with_suffix(".rec"))
    code = {"W": "0", "N1": "1", "N2": "2", "N3": "3", "R": "5"}
    for expert, found in ((1, stages), (2, second_expert(stages))):
        text = "\n".join(code[stage] for stage in found)
        path.with_name(f"{seed}_{expert}.txt").write_text(text)


def _npz(root: Path, seed: int, stages: list[str]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    samples = channel("EEG F4-M1", stages, seed).reshape(len(stages), -1)
    np.savez(
        root / f"subject{seed:02d}.npz",
        x=np.rint(samples * 50).astype(np.int16),
        y=np.array([STAGES.index(stage) for stage in stages]),
        fs=RATE,
        scale_uV=0.02,
        channel="F4-M1",
    )


ARCHIVES: Mapping[str, Callable[[Path, int, list[str]], None]] = MappingProxyType(
    {
        "bids": _bids,
        "sleep-edf": _sleep_edf,
        "mass": _mass,
        "hmc": _hmc,
        "shhs": _shhs,
        "isruc": _isruc,
        "npz": _npz,
        "edf": _edf,
    }
)
"""By the name of the reader that is to know them."""


def make_archive(kind: str, root: Path, people: int = 2, pages: int = 15) -> Path:
    """Write an archive of some people, numbered from 1."""
    for seed in range(1, people + 1):
        ARCHIVES[kind](root, seed, stages_of(pages, seed))
    return root
