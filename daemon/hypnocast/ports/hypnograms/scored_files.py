"""Nights that a person scored, read from the files that scoring software writes.

EDF+ with annotations, CSV or TSV (one row per page), the NSRR's XML and Profusion's. What is no
stage is passed over in EDF+ and XML, which hold much else; in a table it is a fault, named by
its line: a typing error must not become a page without a stage.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from xml.etree import ElementTree as ET

from hypnocast.core.types import PAGE_S, Stage
from hypnocast.errors import TapeError
from hypnocast.ports.recordings.edf_file import EdfFile
from hypnocast.ports.recordings.recording import Annotation, scored_pages, stage_of

_MOST_BYTES = 64 * 1024 * 1024
_CODES = MappingProxyType({0: "W", 1: "1", 2: "2", 3: "3", 4: "4", 5: "R"})
_STAGE_COLUMNS = ("stage", "trial_type", "sleep_stage", "hypnogram")
_NO_STAGE = frozenset({"", "?", "n/a", "na", "nan", "none", "unscored", "unknown", "u", "9"})
_MOMENTS = frozenset({"lights_off", "lights_on"})


@dataclass(frozen=True, slots=True)
class Scoring:
    """What a person scored."""

    stages: tuple[Annotation, ...]
    start: datetime | None
    """When the file's time 0 was, local and zoneless; None where it does not say."""

    def pages(self, anchor: float, epochs: int) -> tuple[Stage | None, ...]:
        """Lay the stages on a grid that begins at ``anchor`` s of the file's time."""
        return scored_pages(self.stages, anchor=anchor, epochs=epochs)


def read_scoring(path: Path) -> Scoring:
    """Read a scored night by what is in the file, not by its name."""
    try:
        with path.open("rb") as file:
            begin = file.read(256)
        size = path.stat().st_size
    except OSError as error:
        raise TapeError(
            f"cannot be opened ({error.strerror})",
            where=str(path),
            remedy="Name a file that can be read.",
        ) from error
    if begin[:8].strip() == b"0" or begin.startswith(b"\xffBIOSEMI"):
        scoring = _read_edf(path)
    else:
        if size > _MOST_BYTES:
            raise TapeError(f"has {size} bytes: this is no scoring", where=str(path))
        text = _text(path)
        scoring = _read_xml(text, path) if text.lstrip().startswith("<") else _table(text, path)
    if not scoring.stages:
        raise TapeError(
            "holds no sleep stage",
            where=str(path),
            remedy="Give EDF+ annotations, CSV with a column `stage`, NSRR or Profusion XML.",
        )
    return scoring


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise TapeError("is no text in UTF-8", where=str(path)) from None


def _read_edf(path: Path) -> Scoring:
    file = EdfFile(path)
    return Scoring(
        tuple(
            Annotation(tal.onset, tal.duration, tal.text)
            for tal in file.annotations()
            if stage_of(tal.text) is not None
        ),
        file.start,
    )


# --- XML --------------------------------------------------------------------------------------


def _read_xml(text: str, path: Path) -> Scoring:
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise TapeError("declares entities, which no scoring does", where=str(path))
    try:
        root = ET.fromstring(text)  # noqa: S314 - no declarations (above), bounded in size
        return Scoring(tuple(_xml_stages(root)), None)
    except (ET.ParseError, ValueError) as error:
        raise TapeError(f"is no scoring in XML: {error}", where=str(path)) from None


def _xml_stages(root: ET.Element) -> Iterator[Annotation]:
    length = _number(root.findtext("EpochLength") or PAGE_S)
    for number, page in enumerate(root.iterfind("SleepStages/SleepStage")):
        if (stage := _CODES.get(int(page.text or "9"))) is not None:
            yield Annotation(length * number, length, stage)
    for event in root.iterfind("ScoredEvents/ScoredEvent"):
        if (event.findtext("EventType") or "").startswith("Stages"):
            code = (event.findtext("EventConcept") or "|9").rpartition("|")[2]
            onset = _number(event.findtext("Start") or 0.0)
            if (stage := _CODES.get(int(code))) is not None:
                yield Annotation(onset, _number(event.findtext("Duration") or length), stage)


def _number(word: str | float) -> float:
    """Return a time or a length; ``nan`` and ``inf`` are none."""
    number = float(word)
    if not math.isfinite(number):
        raise ValueError(f"{word!r} is no time")
    return number


# --- tables -----------------------------------------------------------------------------------


def _table(text: str, path: Path) -> Scoring:
    first = text.partition("\n")[0]
    delimiter = max("\t;,", key=first.count)
    try:
        rows = list(csv.reader(io.StringIO(text), delimiter=delimiter))
    except csv.Error as error:
        raise TapeError(f"is no table: {error}", where=str(path)) from None
    head = [cell.strip().lower() for cell in rows[0]] if rows else []
    column = next((head.index(name) for name in _STAGE_COLUMNS if name in head), None)
    if column is None:
        return Scoring(tuple(_cells(rows, -1, None, None, line=1, path=path)), None)
    onset = next((head.index(name) for name in ("onset", "epoch") if name in head), None)
    scale = None if onset is None else (onset, 1.0 if head[onset] == "onset" else PAGE_S)
    length = head.index("duration") if "duration" in head and "onset" in head else None
    return Scoring(tuple(_cells(rows[1:], column, scale, length, line=2, path=path)), None)


def _cells(
    rows: Sequence[Sequence[str]],
    column: int,
    onset: tuple[int, float] | None,
    length: int | None,
    *,
    line: int,
    path: Path,
) -> Iterator[Annotation]:
    """Give the stages of a table; rows without an onset are pages in their order."""
    page = 0
    for number, row in enumerate(rows, start=line):
        if not any(cell.strip() for cell in row):
            continue
        try:
            word = row[column].strip()
            at = PAGE_S * page if onset is None else _number(row[onset[0]]) * onset[1]
            lasts = PAGE_S if length is None else _length(row[length])
        except (IndexError, ValueError):
            raise TapeError("has no stage or no time", where=f"{path}, line {number}") from None
        if word.lower() in _MOMENTS:
            continue
        page += 1
        if word.lower() in _NO_STAGE:
            continue
        if stage_of(word) is None:
            raise TapeError(
                f"{word!r} is no stage",
                where=f"{path}, line {number}",
                remedy="Use W, N1, N2, N3, R, or nothing.",
            )
        yield Annotation(at, lasts, word)


def _length(word: str) -> float:
    """Return how long a stage lasts; a page where the table does not say."""
    if word.strip().lower() in {"", "n/a"}:
        return PAGE_S
    seconds = _number(word)
    if seconds < 0:
        raise ValueError(f"{word!r} is no duration")
    return seconds or PAGE_S
