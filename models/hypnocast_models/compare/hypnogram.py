"""Hypnograms from wherever they come: files, experts, packs, journals.

What is read here is one scorer's stages of one night on 30-s pages. A page without a stage is
None, whatever the reason: unscored by the expert, withheld by the daemon.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from hypnocast.core.types import PAGE_S, STAGES, FloatArray, Stage
from hypnocast.errors import CommandError, TapeError
from hypnocast.ports.journal.reader import JournalReader, NightRecord
from hypnocast.ports.recordings.edf_file import EdfFile
from hypnocast.ports.recordings.recording import utc_of
from hypnocast_models.data.recordings import open_recording
from hypnocast_models.readers.night import ArrayNight
from hypnocast_models.readers.scoring import (
    digits_scoring,
    edf_scoring,
    nsrr_scoring,
    read_text,
    stage_word,
)

_FILES = {".csv", ".tsv", ".txt", ".edf", ".bdf", ".xml", ".npz"}
_TAILS = re.compile(
    r"(?:[-_ ](?:hypnogram|base|psg|sleepscoring|nsrr|profusion|stages|eeg|events))+$",
    re.IGNORECASE,
)
_SUBJECT = re.compile(r"^(sub-[^_]+|.+?)(?:[-_](?:ses|night|n)[-_]?\d+)?(?:_.*)?$")
_SLEEP_EDF = re.compile(r"^((?:SC4|ST7)\d\d)(\d)[A-Z]?.?$")
"""Set, person, night, recorder, and a letter that differs between signals and scoring."""


@dataclass(frozen=True, eq=False)
class ScoredHypnogram:
    """One scorer's night."""

    scorer: str
    night: str
    """By this name nights of several scorers are matched."""
    subject: str
    stages: tuple[Stage | None, ...]
    start: datetime | None = None
    """UTC of the first page, where it is known."""
    probabilities: FloatArray | None = None
    """(pages, 5), NaN where there is no stage; None where the scorer gives none."""

    @property
    def numbers(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """The stages as places in :data:`STAGES`, −1 where there is none."""
        return np.array([-1 if s is None else STAGES.index(s) for s in self.stages], np.int64)


def night_name(path: Path) -> str:
    """Give what a file's night is called: its name without what says it is a hypnogram."""
    name = _TAILS.sub("", path.stem)
    known = _SLEEP_EDF.match(name)
    return known[1] + known[2] if known is not None else name


def subject_name(night: str) -> str:
    """Whose night it is, as far as the name tells; nights of one person are not independent."""
    found = _SLEEP_EDF.match(night) or _SUBJECT.match(night)
    return found[1] if found is not None else night


def read_scorer(source: str, scorer: str = "", timezone: str = "UTC") -> dict[str, ScoredHypnogram]:
    """Read all nights of a scorer: a file, a folder of files, or ``journal.sqlite[#session]``."""
    text, _, session = source.partition("#")
    path = Path(text)
    name = scorer or source
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix.lower() in _FILES)
        if not files:
            raise CommandError("holds no hypnograms", where=source)
        nights = [read_hypnogram(p, name, timezone) for p in files]
    elif _is_journal(path):
        nights = _journal_nights(path, session, name)
    else:
        nights = [read_hypnogram(path, name, timezone)]
    found: dict[str, ScoredHypnogram] = {}
    for night in nights:
        if night.night in found:
            raise CommandError(
                f"has two hypnograms called {night.night!r}",
                where=source,
                remedy="Keep one scorer in one folder.",
            )
        found[night.night] = night
    return found


def read_hypnogram(path: Path, scorer: str = "", timezone: str = "UTC") -> ScoredHypnogram:
    """Read one file: CSV, EDF+ annotations, NSRR or Profusion XML, or ISRUC's digits."""
    night = night_name(path)
    plain = ScoredHypnogram(scorer or path.stem, night, subject_name(night), ())
    match path.suffix.lower():
        case ".xml":
            return replace(plain, stages=nsrr_scoring(path).stages)
        case ".edf" | ".bdf":
            begun, scoring = EdfFile(path).start, edf_scoring(path)
            start = None if begun is None else utc_of(begun, timezone)
            if start is not None:
                start += timedelta(seconds=scoring.anchor)
            return replace(plain, stages=scoring.stages, start=start)
        case ".csv" | ".tsv" | ".txt":
            return _from_table(path, plain)
        case ".npz":
            return replace(plain, stages=ArrayNight(open_recording(path)).stages)
    raise TapeError(
        "is no hypnogram by its name",
        where=str(path),
        remedy="CSV, EDF+, NSRR XML, ISRUC's text and arrays (.npz) are read.",
    )


def from_journal(night: NightRecord, scorer: str) -> ScoredHypnogram:
    """Take a journal's night: of each page its terminal verdict."""
    last = {event.epoch: event for event in night.events if event.revision == 1}
    pages = max(last, default=-1) + 1
    probabilities = np.full((pages, len(STAGES)), np.nan)
    stages: list[Stage | None] = [None] * pages
    for epoch, event in last.items():
        stages[epoch] = None if event.stage is None else Stage(event.stage)
        if event.probabilities is not None:
            shares = event.probabilities
            probabilities[epoch] = [shares.W, shares.N1, shares.N2, shares.N3, shares.R]
    begun = night.session.start
    return ScoredHypnogram(
        scorer,
        night.session.id,
        night.session.subject or night.session.id,
        tuple(stages),
        None if begun is None else datetime.fromisoformat(begun),
        probabilities,
    )


def write_hypnogram(hypnogram: ScoredHypnogram, statuses: Mapping[int, str] | None = None) -> str:
    """Give a hypnogram as CSV, as :func:`read_hypnogram` reads it back."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(["epoch", "stage", "reason", "start", *(s.value for s in STAGES)])
    for epoch, stage in enumerate(hypnogram.stages):
        chances = [] if hypnogram.probabilities is None else hypnogram.probabilities[epoch]
        shown = ["" if np.isnan(p) else f"{p:.6f}" for p in chances] or [""] * len(STAGES)
        begun = hypnogram.start.isoformat() if epoch == 0 and hypnogram.start else ""
        reason = (statuses or {}).get(epoch, "")
        table.writerow([epoch, "?" if stage is None else stage.value, reason, begun, *shown])
    return out.getvalue()


def align(
    reference: ScoredHypnogram, other: ScoredHypnogram
) -> tuple[ScoredHypnogram, ScoredHypnogram, int]:
    """Bring two scorers' nights to common pages; give both, and how many pages fell away.

    Where both know when they began, pages are matched by time (a page of the other counts for
    the page that holds its middle), else by their number.
    """
    shift = pages_behind(reference, other)
    first = max(0, shift)
    last = min(len(reference.stages), shift + len(other.stages))
    if last <= first:
        raise CommandError(
            f"{reference.scorer} and {other.scorer} have no page in common",
            where=reference.night,
            remedy="Are both of the same night? --timezone tells where an EDF's clock hung.",
        )
    lost = len(reference.stages) + len(other.stages) - 2 * (last - first)
    return cut(reference, first, last), cut(other, first - shift, last - shift), lost


def pages_behind(reference: ScoredHypnogram, other: ScoredHypnogram) -> int:
    """Give the page of the reference that another scorer's first page is, by time or by number."""
    if reference.start is None or other.start is None:
        return 0
    return round((other.start - reference.start).total_seconds() / PAGE_S)


def cut(hypnogram: ScoredHypnogram, first: int, last: int) -> ScoredHypnogram:
    """Give the pages from ``first`` to before ``last`` alone, without a time."""
    chances = hypnogram.probabilities
    return replace(
        hypnogram,
        stages=hypnogram.stages[first:last],
        probabilities=None if chances is None else chances[first:last],
        start=None,
    )


def _is_journal(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(15) == b"SQLite format 3"
    except OSError as error:
        raise CommandError(f"cannot be opened ({error.strerror})", where=str(path)) from error


def _journal_nights(path: Path, session: str, scorer: str) -> list[ScoredHypnogram]:
    with JournalReader(path) as journal:
        chosen = [session] if session else [night.id for night in journal.nights()]
        return [from_journal(journal.night(each), scorer) for each in chosen]


def _from_table(path: Path, plain: ScoredHypnogram) -> ScoredHypnogram:
    text = read_text(path)
    lines = text.splitlines()
    head = lines[0].casefold() if lines else ""
    if "stage" not in head:
        if path.suffix.lower() == ".txt" and set(text.split()) <= set("01235"):
            return replace(plain, stages=digits_scoring(path).stages)
        words = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
        stages = tuple(stage_word(word, f"{path}, line {number}") for number, word in words)
        if not stages:
            raise TapeError("holds no sleep stages", where=str(path))
        return replace(plain, stages=stages)
    delimiter = "\t" if "\t" in head else ";" if ";" in head else ","
    rows = list(csv.DictReader(io.StringIO(text.replace("\r\n", "\n")), delimiter=delimiter))
    named = [{(k or "").strip().casefold(): (v or "") for k, v in r.items()} for r in rows]
    return _from_rows(path, plain, named)


def _from_rows(
    path: Path, plain: ScoredHypnogram, rows: Sequence[Mapping[str, str]]
) -> ScoredHypnogram:
    found: dict[int, Stage | None] = {}
    chances: dict[int, list[float]] = {}
    start = None
    for number, row in enumerate(rows):
        where = f"{path}, line {number + 2}"
        try:
            epoch = int(row.get("epoch") or number)
            shares = [float(row.get(s.value.casefold()) or "nan") for s in STAGES]
            begun = row.get("start", "").strip()
            if begun and number == 0:
                start = datetime.fromisoformat(begun)
        except ValueError as error:
            raise TapeError(str(error), where=where) from error
        if epoch < 0 or epoch in found:
            raise TapeError(f"epoch {epoch} comes twice or is negative", where=where)
        found[epoch] = stage_word(row.get("stage", ""), where)
        chances[epoch] = shares
    if not found:
        raise TapeError("holds no sleep stages", where=str(path))
    pages = max(found) + 1
    if pages > 100 * len(found):
        raise TapeError(f"epoch {pages - 1} lies far beyond the others", where=str(path))
    table = np.full((pages, len(STAGES)), np.nan)
    for epoch, shares in chances.items():
        table[epoch] = shares
    return replace(
        plain,
        stages=tuple(found.get(epoch) for epoch in range(pages)),
        start=None if start is None else start.replace(tzinfo=start.tzinfo or UTC),
        probabilities=None if np.isnan(table).all() else table,
    )
