"""What experts wrote, in every form that reaches a lab, as one stage per 30-s page.

R&K and AASM differ in deep sleep and in movement time. The merging is this table and nothing
else: S1 is N1, S2 is N2, S3 and S4 are N3, movement time is a page without a stage. Epochs of
20 s are laid on 30-s pages by the stage in force at the middle of a page; that stage always
holds 20 of the 30 s or more.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal
from xml.etree import ElementTree as ET

from hypnocast.core.types import PAGE_S, Stage
from hypnocast.errors import TapeError
from hypnocast.ports.recordings.edf_file import EdfFile
from hypnocast.ports.recordings.recording import Annotation, scored_pages, stage_of

Rules = Literal["AASM", "R&K"]
Stages = tuple[Stage | None, ...]

RK_TO_AASM = MappingProxyType(
    {
        "W": Stage.W,
        "S1": Stage.N1,
        "S2": Stage.N2,
        "S3": Stage.N3,
        "S4": Stage.N3,
        "R": Stage.R,
        "MT": None,
    }
)
"""Rechtschaffen & Kales to AASM, as every reader here merges."""

_NO_STAGE = frozenset(
    {"", "?", "u", "mt", "m", "-1", "9", "unscored", "unknown", "artifact", "artefact", "movement"}
    | {"movement time", "withheld", "none", "n/a", "nan", "sleep stage ?", "indeterminate"}
)
_RK = re.compile(r"(?:sleep\s*stage|stage|s)[\s:_-]*[1-4](?:\s*sleep)?", re.IGNORECASE)
_NSRR = MappingProxyType(
    {
        "0": RK_TO_AASM["W"],
        "1": RK_TO_AASM["S1"],
        "2": RK_TO_AASM["S2"],
        "3": RK_TO_AASM["S3"],
        "4": RK_TO_AASM["S4"],
        "5": RK_TO_AASM["R"],
        "6": RK_TO_AASM["MT"],
        "9": None,
    }
)
"""The codes of NSRR and of Compumedics Profusion."""
_ISRUC = MappingProxyType({"0": Stage.W, "1": Stage.N1, "2": Stage.N2, "3": Stage.N3, "5": Stage.R})
_MAX_XML = 64 << 20
_MAX_PAGES = 7 * 2880
"""A week: more is a wrong number, and not a night."""


@dataclass(frozen=True, slots=True)
class ExpertScoring:
    """One expert's night on 30-s pages."""

    stages: Stages
    rules: Rules
    anchor: float = 0.0
    """Seconds after the recording's beginning at which the first page begins."""
    lights_off: float | None = None
    """Seconds after the recording's beginning."""
    lights_on: float | None = None
    oddities: tuple[str, ...] = ()


def stage_word(word: str, where: str) -> Stage | None:
    """Read a stage as people write it; None for what is scored as no stage."""
    if word.strip().casefold() in _NO_STAGE:
        return None
    stage = stage_of(word)
    if stage is None:
        raise TapeError(
            f"{word.strip()!r} is no sleep stage",
            where=where,
            remedy="Write W, N1, N2, N3, R, an R&K stage, or ? for none.",
        )
    return stage


def edf_scoring(path: Path) -> ExpertScoring:
    """Read the stages in the annotations of an EDF+ or BDF+ file."""
    return scoring_of(edf_annotations(EdfFile(path)), str(path))


def edf_annotations(file: EdfFile) -> tuple[Annotation, ...]:
    """Give the annotations of an EDF+ file; HMC writes the channel behind ``@@``."""
    return tuple(
        Annotation(tal.onset, tal.duration, tal.text.partition("@@")[0].strip())
        for tal in file.annotations()
        if tal.text
    )


def scoring_of(
    annotations: Sequence[Annotation], where: str, *, shift: float = 0.0
) -> ExpertScoring:
    """Lay annotated stages on pages.

    Pages keep step with the first epoch scored, which need not begin where the recording does.
    ``shift`` is how many seconds the annotations' zero lies after the recording's.
    """
    moved = [Annotation(a.onset + shift, a.duration, a.text) for a in annotations]
    staged = [one for one in moved if stage_of(one.text) is not None]
    if not staged:
        raise TapeError(
            "holds no sleep stages among its annotations",
            where=where,
            remedy="Name the file with the hypnogram.",
        )
    anchor = min(one.onset for one in staged) % PAGE_S
    ends = max(one.onset + (one.duration or PAGE_S) for one in staged)
    pages = _pages(ends - anchor, where)
    lights = {
        kind: next((a.onset for a in moved if a.text.casefold() == kind), None)
        for kind in ("lights off", "lights on")
    }
    odd = list(_unlike_30_s(staged))
    if shift:
        odd.append(f"its scoring begins {shift:+g} s from its signals")
    return ExpertScoring(
        stages=scored_pages(staged, anchor=anchor, epochs=pages),
        rules="R&K" if any(_RK.fullmatch(one.text.strip()) for one in staged) else "AASM",
        anchor=anchor,
        lights_off=lights["lights off"],
        lights_on=lights["lights on"],
        oddities=tuple(odd),
    )


def nsrr_scoring(path: Path) -> ExpertScoring:
    """Read the stages of an NSRR or a Profusion XML file."""
    root = _xml(path)
    if root.tag == "CMPStudyConfig":
        codes = [stage.text or "" for stage in root.iterfind("./SleepStages/SleepStage")]
        length = _number(root.findtext("EpochLength") or "30", "EpochLength", path)
        spans = [(k * length, length, code.strip()) for k, code in enumerate(codes)]
    else:
        spans = list(_nsrr_events(root, path))
    if not spans:
        raise TapeError("holds no sleep stages", where=str(path), remedy="Is it an NSRR XML?")
    marks = []
    for start, duration, code in spans:
        if code not in _NSRR:
            raise TapeError(f"stage code {code!r} is not one of NSRR's", where=str(path))
        stage = _NSRR[code]
        marks.append(Annotation(start, duration, "?" if stage is None else stage.value))
    pages = _pages(max(m.onset + (m.duration or PAGE_S) for m in marks), str(path))
    return ExpertScoring(scored_pages(marks, anchor=0.0, epochs=pages), "R&K")


def digits_scoring(path: Path) -> ExpertScoring:
    """Read ISRUC's text: a line a page, 0 W, 1 N1, 2 N2, 3 N3, 5 R."""
    stages: list[Stage | None] = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        code = line.strip()
        if not code:
            continue
        if code not in _ISRUC:
            raise TapeError(f"{code!r} is not one of 0, 1, 2, 3, 5", where=f"{path}, line {number}")
        stages.append(_ISRUC[code])
    if not stages:
        raise TapeError("holds no sleep stages", where=str(path))
    return ExpertScoring(tuple(stages), "AASM")


def table_annotations(
    path: Path, *, onset: str, duration: str, text: str, delimiter: str
) -> tuple[Annotation, ...]:
    """Read annotations from a table with a line of names (HMC's text, BIDS' events)."""
    rows = csv.DictReader(read_text(path).splitlines(), delimiter=delimiter)
    names = {name.strip(): name for name in rows.fieldnames or ()}
    for wanted in (onset, text):
        if wanted not in names:
            raise TapeError(f"has no column {wanted!r}", where=str(path))
    found = []
    for number, row in enumerate(rows, start=2):
        where = f"{path}, line {number}"
        length = (row[names[duration]] if duration in names else "") or ""
        found.append(
            Annotation(
                _number(row[names[onset]] or "", onset, where),
                None if length.strip() in {"", "n/a"} else _number(length, duration, where),
                (row[names[text]] or "").partition("@@")[0].strip(),
            )
        )
    return tuple(found)


def read_text(path: Path) -> str:
    """Read a text file of a data set."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise TapeError(f"cannot be opened ({error.strerror})", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise TapeError("is not a text file in UTF-8", where=str(path)) from error


def _unlike_30_s(staged: Iterable[Annotation]) -> tuple[str, ...]:
    odd = sorted(
        {
            one.duration
            for one in staged
            if one.duration is not None and (one.duration % PAGE_S) > 1e-6
        }
    )
    return (f"scored in epochs of {', '.join(f'{d:g}' for d in odd[:3])} s",) if odd else ()


def _pages(seconds: float, where: str) -> int:
    pages = int(seconds // PAGE_S)
    if pages > _MAX_PAGES:
        raise TapeError(f"its stages reach to {seconds / 3600:.0f} h", where=where)
    return pages


def _number(text: str, what: str, where: object) -> float:
    try:
        return float(text)
    except ValueError:
        raise TapeError(f"{text.strip()!r} is no number for {what}", where=str(where)) from None


def _xml(path: Path) -> ET.Element:
    text = read_text(path)
    if len(text) > _MAX_XML or "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise TapeError("is no NSRR XML (too large, or with declarations)", where=str(path))
    try:
        root = ET.fromstring(text)  # noqa: S314 - no declarations (above), bounded in length
    except ET.ParseError as error:
        raise TapeError(f"is no well-formed XML ({error})", where=str(path)) from error
    if root.tag not in ("PSGAnnotation", "CMPStudyConfig"):
        raise TapeError(f"begins with <{root.tag}>, not <PSGAnnotation>", where=str(path))
    return root


def _nsrr_events(root: ET.Element, path: Path) -> Iterator[tuple[float, float, str]]:
    for event in root.iterfind("./ScoredEvents/ScoredEvent"):
        if (event.findtext("EventType") or "").partition("|")[0] != "Stages":
            continue
        code = (event.findtext("EventConcept") or "").rpartition("|")[2].strip()
        start = _number(event.findtext("Start") or "", "Start", path)
        yield start, _number(event.findtext("Duration") or "", "Duration", path), code
