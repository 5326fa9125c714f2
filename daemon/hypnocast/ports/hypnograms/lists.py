"""Tables without a line of names: a stage a line, alone or behind a number, a time or two.

With one column there is no doubt. With more, the others must be a count of pages, or times, or an
onset and a duration; a column that is none of these might hold the stages as well as the last one.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from hypnocast.core.types import PAGE_S
from hypnocast.ports.hypnograms.clock_times import read_clock
from hypnocast.ports.hypnograms.event_tables import read_events
from hypnocast.ports.hypnograms.scoring import ScoredSpan, Scoring
from hypnocast.ports.hypnograms.stage_words import is_digit, read_word
from hypnocast.ports.hypnograms.table_cells import (
    USE,
    Columns,
    TableReader,
    not_a_stage,
    words_of,
)

_CLOSE_S = 0.05


def read_list(rows: Sequence[Sequence[str]], reader: TableReader, scheme: str | None) -> Scoring:
    """Read rows by what stands in them."""
    filled = [[cell.strip() for cell in row] for row in rows if any(map(str.strip, row))]
    widths = {len(row) for row in filled}
    if len(widths) == 1 and (width := widths.pop()) > 1:
        timed = _timed(filled, width)
        if timed is not None:
            return read_events(rows, timed, reader, scheme)
        if not _counts([row[0] for row in filled]):
            raise _nameless(filled, reader)
    return _stage_a_line(rows, reader, scheme)


def _timed(rows: Sequence[Sequence[str]], width: int) -> Columns | None:
    """Return the columns of rows that begin with a time, or with an onset and a duration."""
    stage = width - 1
    if all(":" in row[0] and read_clock(row[0]) is not None for row in rows):
        return Columns(stage, onset=0, epoch=None, duration=None, end=None)
    onsets, lengths = _numbers(rows, 0), _numbers(rows, 1)
    if width == 3 and onsets is not None and lengths is not None:
        ends = [at + length for at, length in zip(onsets, lengths, strict=True)]
        if all(length > 0 for length in lengths) and all(
            abs(end - at) < _CLOSE_S for end, at in zip(ends, onsets[1:], strict=False)
        ):
            return Columns(stage, onset=0, epoch=None, duration=1, end=None)
    return None


def _numbers(rows: Sequence[Sequence[str]], column: int) -> list[float] | None:
    try:
        return [float(row[column]) for row in rows]
    except ValueError:
        return None


def _counts(cells: Sequence[str]) -> bool:
    """Whether a column counts pages, or the seconds at which they begin."""
    try:
        numbers = [float(cell) for cell in cells]
    except ValueError:
        return False
    steps = {round(after - before, 3) for before, after in itertools.pairwise(numbers)}
    return steps <= {1.0} or steps <= {PAGE_S}


def _nameless(rows: Sequence[Sequence[str]], reader: TableReader) -> Exception:
    first = rows[0]
    if not any(is_digit(cell) or read_word(cell) is not None for cell in first):
        named = ", ".join(map(repr, first[:6]))
        what = f"none of its columns is known to hold stages ({named})"
    else:
        what = "has several columns and no line of names: which holds the stages is not known"
    return reader.fault(0, what, "Name the column: a first line such as onset,duration,stage.")


def _stage_a_line(
    rows: Sequence[Sequence[str]], reader: TableReader, scheme: str | None
) -> Scoring:
    """Read one stage a line, as YASA, Profusion's text, Luna's .eannot and ISRUC have it."""
    cells = [row[-1] if row else "" for row in rows]
    words = words_of([one for one in cells if one.strip()], scheme, str(reader.path))
    spans: list[ScoredSpan] = []
    rk = False
    for number, cell in enumerate(cells):
        if not cell.strip():
            continue
        read = words(cell)
        if read is None:
            raise reader.fault(number, not_a_stage(cell), USE)
        rk |= read.rk
        spans.append(ScoredSpan(PAGE_S * len(spans), PAGE_S, read.stage))
    return Scoring("a list of stages", tuple(spans), "R&K" if rk else "AASM")
