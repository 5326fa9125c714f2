"""Tables of stages: CSV and TSV with a header, BIDS events, Luna's and Noxturnal's, plain lists.

A table with times is a list of events: what is no stage there is another event, and is passed
over. A table without times has a row a page: what is no stage there is a typing error, and is
named by its line.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

from hypnocast.core.types import PAGE_S, Stage
from hypnocast.errors import TapeError
from hypnocast.ports.hypnograms.event_tables import read_events
from hypnocast.ports.hypnograms.lists import read_list
from hypnocast.ports.hypnograms.scoring import ScoredSpan, Scoring
from hypnocast.ports.hypnograms.stage_words import is_digit, read_word
from hypnocast.ports.hypnograms.table_cells import (
    USE,
    Columns,
    TableReader,
    cell_at,
    moment,
    not_a_stage,
    words_of,
)

_STAGES = (
    *("stage", "sleep stage", "sleepstage", "sleep stages", "stages", "hypnogram", "trial type"),
    *("stage hum", "human stage", "schlafstadium", "stadium", "stade", "annotation"),
    *("description", "event", "event name", "ereignis", "événement", "evenement", "class"),
    *("value", "label", "score", "scoring", "event type"),
)
_ONSETS = ("onset", "recording onset", "start time", "startzeit", "heure de début", "start")
_CLOCKS = (
    *("time", "clock time", "zeit", "uhrzeit", "heure", "begin", "beginn", "timestamp"),
    *("time stamp", "datetime", "date time", "zeitstempel", "horodatage"),
)
_EPOCHS = ("epoch", "epoch number", "epoch no", "epoch #", "epoche", "époque", "page")
_DURATIONS = ("duration", "dauer", "durée", "duree")
_ENDS = ("end", "stop", "end time", "endzeit", "heure de fin", "ende")
_LUNA_COLUMNS = 6
_LONGEST_NAME = 200
"""Of a column's name; to look for brackets in a longer cell could take for ever."""
_FAR = 100
"""An epoch's number may lie so many times beyond the count of rows."""


def read_table(text: str, path: Path, scheme: str | None) -> Scoring:
    """Read a table by its header, or a list of one stage a line."""
    lines = text.splitlines()
    skipped = 0
    while skipped < len(lines) and (not lines[skipped].strip() or lines[skipped].startswith("#")):
        skipped += 1
    first = lines[skipped] if skipped < len(lines) else ""
    delimiter = max("\t;,", key=first.count)
    try:
        source = io.StringIO("\n".join(lines[skipped:]))
        rows = list(csv.reader(source, delimiter=delimiter))
    except csv.Error as error:
        raise TapeError(f"is no table: {error}", where=str(path)) from None
    if (
        skipped
        and rows
        and _names_columns(comment := _cells_of_comment(lines[skipped - 1]), rows[0])
    ):
        rows, skipped = [comment, *rows], skipped - 1
    head = [_name(cell) for cell in rows[0]] if rows else []
    places = [head.index(name) for name in _STAGES if name in head]
    if not places and _is_luna(rows):
        columns = Columns(stage=0, onset=3, epoch=None, duration=None, end=4)
        return read_events(rows, columns, TableReader(path, skipped + 1), scheme)
    if not places:
        return read_list(rows, TableReader(path, skipped + 1), scheme)
    body, line = rows[1:], skipped + 2
    stage = next((at for at in places if _holds_stages(body, at)), places[0])
    columns = Columns(
        stage,
        _onset(head, body, stage),
        _find(head, _EPOCHS, but=stage),
        _find(head, _DURATIONS, but=stage),
        _find(head, _ENDS, but=stage),
    )
    if columns.onset is not None:
        return read_events(body, columns, TableReader(path, line), scheme)
    return _paged(body, columns, TableReader(path, line), scheme)


def _cells_of_comment(line: str) -> list[str]:
    """Return the names in the last comment over a table, as MNE writes them."""
    return [cell.strip() for cell in line.lstrip("# ").split(",")] if line.startswith("#") else []


def _names_columns(names: Sequence[str], row: Sequence[str]) -> bool:
    return len(names) == len(row) > 1 and any(_name(name) in _STAGES for name in names)


def _is_luna(rows: Sequence[Sequence[str]]) -> bool:
    """Whether these are rows of Luna's .annot file without its line of names."""
    return bool(rows) and all(len(row) == _LUNA_COLUMNS for row in rows if any(row))


def _name(cell: str) -> str:
    short = cell.lstrip("\ufeff").strip().strip('"')[:_LONGEST_NAME]
    bare = re.sub(r"[\[(].*?[\])]", "", short).casefold()
    return re.sub(r"[\s_]+", " ", bare).strip()


def _find(head: Sequence[str], names: Sequence[str], *, but: int) -> int | None:
    return next((head.index(n) for n in names if n in head and head.index(n) != but), None)


def _onset(head: Sequence[str], rows: Sequence[Sequence[str]], stage: int) -> int | None:
    """Return the column of times, which every row with a stage has filled."""
    staged = [row for row in rows if cell_at(row, stage)]
    for name in (*_ONSETS, *_CLOCKS):
        at = head.index(name) if name in head else stage
        if at != stage and all(cell_at(row, at) for row in staged):
            return at
    return None


def _holds_stages(rows: Sequence[Sequence[str]], column: int) -> bool:
    for row in rows:
        if column < len(row):
            word = read_word(row[column])
            if is_digit(row[column]) or (word is not None and word.stage is not None):
                return True
    return False


def _paged(
    rows: Sequence[Sequence[str]], columns: Columns, reader: TableReader, scheme: str | None
) -> Scoring:
    words = words_of([cell_at(row, columns.stage) for row in rows], scheme, str(reader.path))
    found: dict[int, Stage | None] = {}
    rk, page = False, 0
    for number, row in enumerate(rows):
        if not any(cell.strip() for cell in row):
            continue
        text = reader.cell(number, row, columns.stage)
        if moment(text) is not None:
            continue
        cell = words(text)
        if cell is None:
            raise reader.fault(number, not_a_stage(text), USE)
        epoch = page
        if columns.epoch is not None:
            epoch = _whole(reader, number, reader.cell(number, row, columns.epoch))
        if epoch < 0 or epoch in found:
            raise reader.fault(number, f"epoch {epoch} comes twice or is negative")
        found[epoch], page, rk = cell.stage, page + 1, rk or cell.rk
    last = max(found, default=0)
    if last > _FAR * max(len(found), 1):
        raise TapeError(f"epoch {last} lies far beyond the others", where=str(reader.path))
    shift, notes = _counted_from(found, numbered=columns.epoch is not None)
    spans = tuple(ScoredSpan(PAGE_S * (at - shift), PAGE_S, s) for at, s in found.items())
    return Scoring("a table of pages", spans, "R&K" if rk else "AASM", notes=notes)


def _counted_from(found: dict[int, Stage | None], *, numbered: bool) -> tuple[int, tuple[str, ...]]:
    """Return the number of the first page: 1 where the rows are 1, 2, 3 … without a hole."""
    if not numbered or 0 in found or 1 not in found:
        return 0, ()
    if set(found) == set(range(1, len(found) + 1)) and len(found) > 1:
        return 1, ("its epochs are counted from 1: epoch 1 is the first page",)
    return 0, ("its epochs are taken to be counted from 0",)


def _whole(reader: TableReader, row: int, text: str) -> int:
    value = reader.seconds(row, text, "an epoch")
    if value != int(value):
        raise reader.fault(row, f"{text!r} is no number of an epoch")
    return int(value)
