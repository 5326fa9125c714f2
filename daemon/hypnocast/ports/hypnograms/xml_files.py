"""Scorings in XML: the NSRR's, Profusion's, Philips' .rml, Polysmith's OpenXDF, Wonambi's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from xml.etree import ElementTree as ET

from hypnocast.core.types import PAGE_S, Stage
from hypnocast.errors import TapeError
from hypnocast.ports.hypnograms.scoring import ScoredSpan, Scoring
from hypnocast.ports.hypnograms.stage_words import SCHEMES, read_word

_NSRR = SCHEMES["nsrr"]


def read_xml(text: str, path: Path) -> Scoring:
    """Read a scoring in XML by its root."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise TapeError("declares entities, which no scoring does", where=str(path))
    try:
        root = ET.fromstring(text)  # noqa: S314 - no declarations (above), bounded in length
    except (ET.ParseError, ValueError) as error:
        raise TapeError(f"is no well-formed XML ({error})", where=str(path)) from None
    read = _READERS.get(_tag(root))
    if read is None:
        raise TapeError(
            f"begins with <{_tag(root)}>, which is no scoring that is known",
            where=str(path),
            remedy=f"Read are {', '.join(f'<{name}>' for name in _READERS)}.",
        )
    return read(root, path)


def _tag(node: ET.Element) -> str:
    """Return a node's name without its namespace."""
    return node.tag.rpartition("}")[2]


def _all(node: ET.Element, *names: str) -> Iterator[ET.Element]:
    """Give the nodes along a path of names, whatever their namespace."""
    if not names:
        yield node
        return
    for child in node:
        if _tag(child) == names[0]:
            yield from _all(child, *names[1:])


def _text(node: ET.Element, *names: str) -> str:
    found = next(_all(node, *names), None)
    return "" if found is None else (found.text or "").strip()


def _number(text: str, what: str, path: Path) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) < float("inf"):
        raise TapeError(f"{text.strip()!r} is no number for {what}", where=str(path))
    return value


def _moment(text: str) -> datetime | None:
    """Read an ISO time; what follows the microseconds and the zone is left out."""
    head, _, fraction = text.partition(".")
    digits = "".join(c for c in fraction[:6] if c.isdigit())
    try:
        return datetime.fromisoformat(
            f"{head[:19]}.{digits.ljust(6, '0')}" if digits else head[:19]
        )
    except ValueError:
        return None


def _epoch_length(text: str, path: Path) -> float:
    length = _number(text or f"{PAGE_S}", "EpochLength", path)
    if not 1.0 <= length <= 120.0:
        raise TapeError(f"gives {text!r} as the length of an epoch", where=str(path))
    return length


def _coded(code: str, codes: Mapping[str, Stage | None], path: Path) -> Stage | None:
    if code not in codes:
        raise TapeError(f"stage code {code!r} is not one of NSRR's", where=str(path))
    return codes[code]


# --- NSRR and Profusion ---------------------------------------------------------------------------


def _profusion(root: ET.Element, path: Path) -> Scoring:
    length = _epoch_length(_text(root, "EpochLength"), path)
    codes = [(page.text or "").strip() or "9" for page in _all(root, "SleepStages", "SleepStage")]
    spans = tuple(
        ScoredSpan(k * length, length, _coded(code, _NSRR, path)) for k, code in enumerate(codes)
    )
    return Scoring("Profusion XML", spans, "R&K")


def _nsrr(root: ET.Element, path: Path) -> Scoring:
    spans = []
    for event in _all(root, "ScoredEvents", "ScoredEvent"):
        if not _text(event, "EventType").startswith("Stages"):
            continue
        _, bar, code = _text(event, "EventConcept").rpartition("|")
        word = None if bar else read_word(code)
        stage = word.stage if word is not None else _coded(code.strip(), _NSRR, path)
        start = _number(_text(event, "Start"), "Start", path)
        lasts = _number(_text(event, "Duration") or f"{PAGE_S}", "Duration", path)
        spans.append(ScoredSpan(start, lasts or PAGE_S, stage))
    return Scoring("NSRR XML", tuple(spans), "R&K")


# --- Philips Sleepware G3 and Alice ---------------------------------------------------------------


def _rml(root: ET.Element, path: Path) -> Scoring:
    notes: tuple[str, ...] = ()
    stagings = list(_all(root, "ScoringData", "StagingData", "UserStaging"))
    if not stagings:
        stagings = list(_all(root, "ScoringData", "StagingData", "MachineStaging"))
        notes = ("its stages are the machine's: it has no staging by a user",)
    marks = sorted(
        (_number(stage.get("Start", ""), "Start", path), stage.get("Type", ""))
        for staging in stagings[:1]
        for stage in staging.iter()
        if _tag(stage) == "Stage"
    )
    session = next(_all(root, "Acquisition", "Sessions", "Session"), root)
    duration = _text(session, "Duration")
    end = _number(duration, "Duration", path) if duration else 0.0
    ends = [start for start, _ in marks[1:]]
    if marks:
        ends.append(max(end, marks[-1][0] + PAGE_S) if end else marks[-1][0] + PAGE_S)
    spans = []
    for (start, kind), until in zip(marks, ends, strict=True):
        word = read_word(kind)
        if word is None:
            raise TapeError(f"{kind!r} at {start:g} s is no sleep stage", where=str(path))
        spans.append(ScoredSpan(start, until - start, word.stage))
    start_time = _moment(_text(session, "RecordingStart"))
    return Scoring("Philips .rml", tuple(spans), "AASM", start=start_time, notes=notes)


# --- Nihon Kohden Polysmith -----------------------------------------------------------------------


def _openxdf(root: ET.Element, path: Path) -> Scoring:
    length = _epoch_length(
        next((node.text or "" for node in root.iter() if _tag(node) == "EpochLength"), ""), path
    )
    began = next(
        (m for n in root.iter() if _tag(n) == "StartTime" and (m := _moment(n.text or ""))), None
    )
    scorers = [
        (_text(node, "FirstName"), stages)
        for node in root.iter()
        if (stages := list(_all(node, "SleepStages", "SleepStage")))
    ]
    people = [one for one in scorers if one[0].casefold() != "polysmith"]
    name, stages = (people or scorers or [("", [])])[0]
    spans, rk = [], False
    for page in stages:
        epoch = _number(_text(page, "EpochNumber"), "EpochNumber", path)
        text = _text(page, "Stage")
        if epoch != int(epoch) or epoch < 1:
            raise TapeError(f"{epoch:g} is no number of an epoch (from 1)", where=str(path))
        word = read_word(text)
        if word is None:
            where = f"{path}, epoch {epoch:g}"
            raise TapeError(f"{text!r} is no sleep stage", where=where)
        spans.append(ScoredSpan((epoch - 1) * length, length, word.stage))
        rk |= text == "4"
    notes = _who(name, len(people or scorers))
    return Scoring(
        "Polysmith OpenXDF", tuple(spans), "R&K" if rk else "AASM", start=began, notes=notes
    )


def _who(name: str, count: int) -> tuple[str, ...]:
    return (f"it has {count} scorers; taken is the first, {name!r}",) if count > 1 else ()


# --- Wonambi --------------------------------------------------------------------------------------


def _wonambi(root: ET.Element, path: Path) -> Scoring:
    raters = list(_all(root, "rater"))
    spans = []
    for epoch in _all(raters[0], "stages", "epoch") if raters else ():
        start = _number(_text(epoch, "epoch_start"), "epoch_start", path)
        end = _number(_text(epoch, "epoch_end"), "epoch_end", path)
        text = _text(epoch, "stage")
        word = read_word(text)
        if word is None or end <= start:
            raise TapeError(f"{text!r} at {start:g} s is no sleep stage", where=str(path))
        spans.append(ScoredSpan(start, end - start, word.stage))
    notes = _who(raters[0].get("name", "") if raters else "", len(raters))
    start_time = _moment(_text(root, "dataset", "start_time"))
    return Scoring("Wonambi XML", tuple(spans), "AASM", start=start_time, notes=notes)


_READERS: Mapping[str, Callable[[ET.Element, Path], Scoring]] = MappingProxyType(
    {
        "PSGAnnotation": _nsrr,
        "CMPStudyConfig": _profusion,
        "PatientStudy": _rml,
        "OpenXDF": _openxdf,
        "annotations": _wonambi,
    }
)
