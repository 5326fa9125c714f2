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
from hypnocast.ports.hypnograms.scored_files import read_scoring
from hypnocast.ports.hypnograms.stage_words import read_word
from hypnocast.ports.hypnograms.text_files import read_text
from hypnocast.ports.journal.reader import JournalReader, NightRecord
from hypnocast.ports.recordings.recording import file_start
from hypnocast_models.data.recordings import open_recording
from hypnocast_models.readers.night import ArrayNight
from hypnocast_models.readers.scoring import scoring_of

_FILES = {".csv", ".tsv", ".txt", ".edf", ".bdf", ".xml", ".rml", ".annot", ".eannot", ".npz"}
"""By these endings hypnograms are found in a folder."""
_SHARES = tuple(stage.value.casefold() for stage in STAGES)
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
    notes: tuple[str, ...] = ()
    """What to know of how the file was read."""

    @property
    def numbers(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """The stages as places in :data:`STAGES`, −1 where there is none."""
        return np.array([-1 if s is None else STAGES.index(s) for s in self.stages], np.int64)


def night_name(path: Path) -> str:
    """Return the name of a file's night: its own name without the part for 'hypnogram'."""
    name = _TAILS.sub("", path.stem)
    known = _SLEEP_EDF.match(name)
    return known[1] + known[2] if known is not None else name


def subject_name(night: str) -> str:
    """Whose night it is, as far as the name shows; nights of one person are not independent."""
    found = _SLEEP_EDF.match(night) or _SUBJECT.match(night)
    return found[1] if found is not None else night


def read_scorer(
    source: str, scorer: str = "", timezone: str = "UTC", *, scheme: str | None = None
) -> dict[str, ScoredHypnogram]:
    """Read all nights of a scorer: a file, a folder of files, or ``journal.sqlite[#session]``."""
    text, _, session = source.partition("#")
    path = Path(text)
    name = scorer or source
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix.lower() in _FILES)
        if not files:
            raise CommandError("holds no hypnograms", where=source)
        nights = [read_hypnogram(p, name, timezone, scheme=scheme) for p in files]
    elif _is_journal(path):
        nights = _journal_nights(path, session, name)
    else:
        nights = [read_hypnogram(path, name, timezone, scheme=scheme)]
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


def read_hypnogram(
    path: Path, scorer: str = "", timezone: str = "UTC", *, scheme: str | None = None
) -> ScoredHypnogram:
    """Read one file: any that ``corrections`` reads, or arrays (``.npz``)."""
    night = night_name(path)
    plain = ScoredHypnogram(scorer or path.stem, night, subject_name(night), ())
    if path.suffix.lower() == ".npz":
        return replace(plain, stages=ArrayNight(open_recording(path)).stages)
    if (rows := _with_shares(path)) is not None:
        return _from_rows(path, plain, rows)
    scored = read_scoring(path, scheme=scheme)
    laid = scoring_of(scored)
    start = None if scored.start is None else file_start(scored.start, timezone)
    if start is not None:
        start += timedelta(seconds=laid.anchor)
    return replace(plain, stages=laid.stages, start=start, notes=scored.notes)


def _with_shares(path: Path) -> list[dict[str, str]] | None:
    """Return the rows of a table that gives a probability for each stage; None for any other."""
    if path.suffix.lower() not in {".csv", ".tsv", ".txt"}:
        return None
    text = read_text(path)
    head = text.partition("\n")[0].casefold()
    delimiter = max("\t;,", key=head.count)
    names = {name.strip().strip('"') for name in head.split(delimiter)}
    if not names.issuperset({"stage", *_SHARES}):
        return None
    rows = csv.DictReader(io.StringIO(text.replace("\r\n", "\n")), delimiter=delimiter)
    return [{(k or "").strip().casefold(): (v or "") for k, v in r.items()} for r in rows]


def from_journal(night: NightRecord, scorer: str) -> ScoredHypnogram:
    """Read a journal's night: of each page its terminal verdict."""
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
            remedy="Are both of the same night? --timezone names the zone of an EDF's clock.",
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
            shares = [float(row.get(name) or "nan") for name in _SHARES]
            begun = row.get("start", "").strip()
            if begun and number == 0:
                start = datetime.fromisoformat(begun)
        except ValueError as error:
            raise TapeError(str(error), where=where) from error
        if epoch < 0 or epoch in found:
            raise TapeError(f"epoch {epoch} comes twice or is negative", where=where)
        found[epoch] = _stage(row.get("stage", ""), where)
        chances[epoch] = shares
    if not found:
        raise TapeError("holds no sleep stages", where=str(path))
    pages = max(found) + 1
    if 0 not in found and set(found) == set(range(1, len(found) + 1)) and len(found) > 1:
        found = {epoch - 1: stage for epoch, stage in found.items()}
        chances = {epoch - 1: share for epoch, share in chances.items()}
        pages -= 1
        plain = replace(plain, notes=("its epochs are counted from 1",))
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


def _stage(text: str, where: str) -> Stage | None:
    word = read_word(text)
    if word is None:
        raise TapeError(f"{text.strip()!r} is no sleep stage", where=where)
    return word.stage
