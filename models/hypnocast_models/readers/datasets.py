"""The data sets: where each keeps its signals and its stages, and what its labels mean.

Where the knowledge of each format comes from is written in docs/research.md.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from hypnocast.core.types import PAGE_S
from hypnocast.errors import CommandError, TapeError
from hypnocast.ports.hypnograms.scored_files import read_edf_scoring
from hypnocast.ports.hypnograms.text_files import read_text
from hypnocast.ports.recordings.edf_file import EdfFile
from hypnocast_models.data.pictures import holds_pictures
from hypnocast_models.data.recordings import open_recording
from hypnocast_models.readers.night import (
    ArrayNight,
    EdfNight,
    ScoredNight,
    first_there,
    need,
)
from hypnocast_models.readers.scoring import ExpertScoring, expert_scoring, scoring_of


@dataclass(frozen=True, slots=True)
class FoundRecording:
    """A recording of a data set: where it lies. Nothing of it is opened yet."""

    dataset: str
    name: str
    subject: str
    signals: Path


@dataclass(frozen=True, slots=True)
class Dataset:
    """How one data set is read."""

    name: str
    about: str
    find: Callable[[Path], Iterator[tuple[str, str, Path]]]
    """Give (name, subject, signals) of each recording under a folder."""
    score: Callable[[Path, EdfFile], tuple[ExpertScoring, ...]]
    alias: Mapping[str, str] = field(default_factory=dict)
    units: Callable[[Path], Mapping[str, str]] = lambda _: {}


def find_nights(root: Path, kind: str = "") -> list[FoundRecording]:
    """Find the recordings of a local copy; ``kind`` names the data set where it is not plain."""
    if not root.is_dir():
        raise CommandError("is no folder", where=str(root))
    if kind and kind not in DATASETS:
        raise CommandError(
            f"there is no reader {kind!r}", remedy=f"There are {', '.join(DATASETS)}."
        )
    for name in [kind] if kind else DATASETS:
        found = [FoundRecording(name, *one) for one in DATASETS[name].find(root)]
        if found:
            return sorted(found, key=lambda one: one.name)
    raise CommandError(
        "holds no recordings that a reader knows",
        where=str(root),
        remedy=f"There are readers for {', '.join(DATASETS)}.",
    )


def open_night(
    found: FoundRecording, *, scored: bool = True, scoring: Path | None = None
) -> ScoredNight:
    """Open a recording with its stages; what is wrong is raised as one clear line.

    ``scoring`` names the file with the stages. Without ``scored`` a recording that nobody scored
    is a night of pages without a stage.
    """
    if found.dataset == ARRAYS:
        return ArrayNight(open_recording(found.signals))
    dataset = DATASETS[found.dataset]
    file = EdfFile(found.signals)
    if not file.signals or not file.records:
        raise TapeError("holds no signals", where=str(found.signals))
    if scoring is not None:
        scorings: tuple[ExpertScoring, ...] = (expert_scoring(scoring),)
    else:
        try:
            scorings = dataset.score(found.signals, file)
        except TapeError as error:
            if scored:
                raise
            pages = int(file.records * file.record_s // PAGE_S)
            odd = (f"has no stages: {error.what}",)
            scorings = (ExpertScoring((None,) * pages, "AASM", oddities=odd),)
    units = dataset.units(found.signals)
    return EdfNight(found.name, found.subject, file, scorings, dataset.alias, units)


# --- where files lie ------------------------------------------------------------------------------


def _sleep_edf(root: Path) -> Iterator[tuple[str, str, Path]]:
    for path in root.rglob("*-PSG.edf"):
        if re.match(r"S[CT][47]\d{3}", path.name):
            yield path.name[:6], path.name[:5], path


def _mass(root: Path) -> Iterator[tuple[str, str, Path]]:
    for path in root.rglob("* PSG.edf"):
        name = path.name.removesuffix(" PSG.edf")
        yield name, name, path


def _hmc(root: Path) -> Iterator[tuple[str, str, Path]]:
    for path in root.rglob("SN*.edf"):
        if re.fullmatch(r"SN\d+\.edf", path.name):
            yield path.stem, path.stem, path


def _shhs(root: Path) -> Iterator[tuple[str, str, Path]]:
    for path in root.rglob("shhs*.edf"):
        named = re.fullmatch(r"shhs\d-(\d+)", path.stem)
        if named is not None:
            yield path.stem, named[1], path


def _isruc(root: Path) -> Iterator[tuple[str, str, Path]]:
    for path in root.rglob("*.rec"):
        parts = path.relative_to(root).parent.parts or (path.stem,)
        # Subgroup II has two sessions of each subject: …/subject/session/session.rec
        sessions = len(parts) > 1 and parts[-1].isdigit() and parts[-2].isdigit()
        yield "-".join(parts), "-".join(parts[:-1] if sessions else parts), path


def _bids(root: Path) -> Iterator[tuple[str, str, Path]]:
    for ending in ("edf", "bdf"):
        for path in root.rglob(f"sub-*_eeg.{ending}"):
            name = path.stem.removesuffix("_eeg")
            yield name, name.partition("_")[0], path


def _plain(root: Path) -> Iterator[tuple[str, str, Path]]:
    for ending in ("edf", "bdf", "EDF", "BDF"):
        for path in root.rglob(f"*.{ending}"):
            if not path.stem.lower().endswith(("hypnogram", "base", "_sleepscoring")):
                yield path.stem, path.stem, path


def _arrays(root: Path) -> Iterator[tuple[str, str, Path]]:
    for path in root.glob("*.npz"):
        if holds_pictures(path):
            continue
        yield path.stem, path.stem.partition("-night")[0], path


# --- where stages lie -----------------------------------------------------------------------------


def _beside(signals: EdfFile, scoring: Path) -> tuple[ExpertScoring, ...]:
    """Read a second EDF+ file whose clock may begin at another time."""
    file = EdfFile(scoring)
    shift = 0.0
    if signals.start is not None and file.start is not None:
        shift = (file.start - signals.start).total_seconds()
    return (scoring_of(read_edf_scoring(file), shift=shift),)


def _sleep_edf_stages(path: Path, signals: EdfFile) -> tuple[ExpertScoring, ...]:
    there = sorted(path.parent.glob(f"{path.name[:7]}*-Hypnogram.edf"))
    missing = path.with_name(f"{path.name[:7]}?-Hypnogram.edf")
    return _beside(signals, there[0] if there else need(missing, "its hypnogram"))


def _mass_stages(path: Path, signals: EdfFile) -> tuple[ExpertScoring, ...]:
    base = path.with_name(path.name.replace(" PSG.edf", " Base.edf"))
    return _beside(signals, need(base, "its Base file with the stages"))


def _hmc_stages(path: Path, signals: EdfFile) -> tuple[ExpertScoring, ...]:
    scored = path.with_name(f"{path.stem}_sleepscoring.edf")
    if scored.is_file():
        return _beside(signals, scored)
    return (expert_scoring(need(scored.with_suffix(".txt"), "its sleep scoring")),)


def _shhs_stages(path: Path, _: EdfFile) -> tuple[ExpertScoring, ...]:
    name = f"{path.stem}-nsrr.xml"
    parts = path.parts
    places = [path.with_name(name)]
    if "edfs" in parts:
        root, visit = Path(*parts[: parts.index("edfs")]), path.parent.name
        places.insert(0, root / "annotations-events-nsrr" / visit / name)
        profusion = f"{path.stem}-profusion.xml"
        places.append(root / "annotations-events-profusion" / visit / profusion)
    return (expert_scoring(first_there(places, "its XML with the stages")),)


def _isruc_stages(path: Path, _: EdfFile) -> tuple[ExpertScoring, ...]:
    first = need(path.with_name(f"{path.stem}_1.txt"), "the first expert's scoring")
    second = path.with_name(f"{path.stem}_2.txt")
    experts = [first, second] if second.is_file() else [first]
    return tuple(expert_scoring(expert, scheme="isruc") for expert in experts)


def _bids_stages(path: Path, _: EdfFile) -> tuple[ExpertScoring, ...]:
    events = need(path.with_name(path.stem.removesuffix("_eeg") + "_events.tsv"), "its events.tsv")
    return (expert_scoring(events),)


def _bids_units(path: Path) -> Mapping[str, str]:
    table = path.with_name(path.stem.removesuffix("_eeg") + "_channels.tsv")
    if not table.is_file():
        return {}
    rows = csv.DictReader(read_text(table).splitlines(), delimiter="\t")
    return {
        row["name"]: row["units"]
        for row in rows
        if row.get("name") and row.get("units") not in (None, "", "n/a")
    }


def _plain_stages(path: Path, signals: EdfFile) -> tuple[ExpertScoring, ...]:
    for ending in ("-Hypnogram", "_hypnogram", "_sleepscoring"):
        for form in (path.suffix, ".edf"):
            beside = path.with_name(path.stem + ending + form)
            if beside.is_file():
                return _beside(signals, beside)
    for ending in ("-Hypnogram", "_hypnogram", "_sleepscoring", "_stages", ""):
        for form in (".csv", ".tsv", ".txt", ".xml"):
            beside = path.with_name(path.stem + ending + form)
            if beside.is_file():
                return (expert_scoring(beside),)
    return (scoring_of(read_edf_scoring(signals)),)


def _no_stages(path: Path, _: EdfFile) -> tuple[ExpertScoring, ...]:
    raise TapeError("is an EDF file in a data set of arrays", where=str(path))


ARRAYS = "npz"
_ALL = (
    Dataset("bids", "BIDS: sub-…_eeg.edf with events.tsv", _bids, _bids_stages, units=_bids_units),
    Dataset(
        "sleep-edf",
        "Sleep-EDF Expanded: …-PSG.edf with …-Hypnogram.edf, R&K",
        _sleep_edf,
        _sleep_edf_stages,
    ),
    Dataset(
        "mass",
        "MASS: … PSG.edf with … Base.edf; SS1 and SS3 in 30 s, SS2, SS4 and SS5 in 20 s",
        _mass,
        _mass_stages,
        MappingProxyType({"EOG Left Horiz": "EOG Left", "EOG Right Horiz": "EOG Right"}),
    ),
    Dataset("hmc", "HMC: SN001.edf with SN001_sleepscoring, AASM", _hmc, _hmc_stages),
    Dataset(
        "shhs",
        "SHHS: edfs/… with annotations-events-nsrr/…, R&K",
        _shhs,
        _shhs_stages,
        MappingProxyType(
            {"EEG": "EEG C4-A1", "EMG": "EMG Chin"}
            | dict.fromkeys(("EEG(sec)", "EEG (sec)", "EEG sec", "EEG2", "EEG 2"), "EEG C3-A2")
        ),
    ),
    Dataset(
        "isruc",
        "ISRUC: 1.rec with 1_1.txt and 1_2.txt of two experts, AASM",
        _isruc,
        _isruc_stages,
        MappingProxyType({"X1": "EMG Chin", "X2": "ECG"}),
    ),
    Dataset(ARRAYS, "arrays: subjectNN.npz, one EEG", _arrays, _no_stages),
    Dataset(
        "edf", "EDF+ or BDF+ with stages in its annotations or beside it", _plain, _plain_stages
    ),
)
DATASETS: Mapping[str, Dataset] = MappingProxyType({one.name: one for one in _ALL})
"""By name, in the order in which a folder is tried."""
