"""Tables whose rows have times: events of a night, the stages among them."""

from __future__ import annotations

from collections.abc import Sequence

from hypnocast.core.types import PAGE_S
from hypnocast.ports.hypnograms.clock_times import RunningClock, read_clock
from hypnocast.ports.hypnograms.scoring import ScoredSpan, Scoring
from hypnocast.ports.hypnograms.stage_words import looks_like_a_stage
from hypnocast.ports.hypnograms.table_cells import (
    USE,
    Columns,
    TableReader,
    cell_at,
    moment,
    not_a_stage,
    words_of,
)

_WEEK = 7


def read_events(
    rows: Sequence[Sequence[str]], columns: Columns, reader: TableReader, scheme: str | None
) -> Scoring:
    """Read the stages among the events of a night; other events are passed over."""
    assert columns.onset is not None  # noqa: S101 - the caller looked
    words = words_of([cell_at(row, columns.stage) for row in rows], scheme, str(reader.path))
    clock = _Clock(day_first=_day_first([cell_at(row, columns.onset) for row in rows]))
    spans: list[ScoredSpan] = []
    lights: dict[str, float] = {}
    rk = False
    for number, row in enumerate(rows):
        if not any(cell.strip() for cell in row):
            continue
        text = reader.cell(number, row, columns.stage)
        cell = words(text)
        if (lit := moment(text)) is not None:
            at = _time(reader, number, reader.cell(number, row, columns.onset), clock)
            lights.setdefault(lit, at)
            continue
        if cell is None:
            if looks_like_a_stage(text):
                raise reader.fault(number, not_a_stage(text), USE)
            continue
        at = _time(reader, number, reader.cell(number, row, columns.onset), clock)
        lasts = _length(reader, number, row, columns, (at, clock))
        spans.append(ScoredSpan(at, lasts, cell.stage))
        rk |= cell.rk
    return Scoring(
        "a table of events",
        tuple(spans),
        "R&K" if rk else "AASM",
        start=clock.start,
        clock_s=clock.clock_s,
        lights_off=next((lights[k] for k in ("lights off", "lights out") if k in lights), None),
        lights_on=lights.get("lights on"),
    )


def _time(reader: TableReader, row: int, text: str, clock: _Clock) -> float:
    if (time := read_clock(text, day_first=clock.day_first)) is not None:
        return clock.since_first(time)
    return reader.seconds(row, text, "a time")


class _Clock(RunningClock):
    """A running clock that knows in which order its dates are written."""

    def __init__(self, *, day_first: bool) -> None:
        super().__init__()
        self.day_first = day_first


def _day_first(texts: Sequence[str]) -> bool:
    """Whether dates begin with the day: unless that makes a night of more than a week."""
    days = [time.day for text in texts if (time := read_clock(text)) and time.day is not None]
    return not days or (max(days) - min(days)).days <= _WEEK


def _length(
    reader: TableReader,
    row: int,
    cells: Sequence[str],
    columns: Columns,
    began: tuple[float, _Clock],
) -> float:
    """Return how long a stage lasts: by its duration, its end, or one page."""
    at, clock = began
    if columns.duration is not None:
        text = cell_at(cells, columns.duration)
        if (time := read_clock(text)) is not None:
            return time.seconds or PAGE_S
        if text.casefold() not in {"", "n/a", "na"}:
            seconds = reader.seconds(row, text, "a duration")
            if seconds < 0:
                raise reader.fault(row, f"{text!r} is no duration")
            return seconds or PAGE_S
    elif columns.end is not None:
        text = cell_at(cells, columns.end)
        if text not in {"", ".", "..."}:
            seconds = _time(reader, row, text, clock) - at
            if seconds < 0:
                raise reader.fault(row, f"ends at {text!r}, before it begins")
            return seconds or PAGE_S
    return PAGE_S
