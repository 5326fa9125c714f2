"""Texts of clinical software with a header of their own: DOMINO's sleep profile, RemLogic's events.

DOMINO (SOMNOmedics): lines ``Signal ID:``, ``Start Time:``, ``Rate: 30 s`` (or 20 s), then a line
``22:30:00,000; N2`` an epoch, in English or German. RemLogic (Embla): ``RemLogic Event Export``,
then a table whose columns ``Time``, ``Event`` and ``Duration`` are found by their names.
"""

from __future__ import annotations

import re
from datetime import date, timedelta
from pathlib import Path

from hypnocast.core.types import PAGE_S
from hypnocast.errors import TapeError
from hypnocast.ports.hypnograms.clock_times import ClockTime, RunningClock, read_clock
from hypnocast.ports.hypnograms.scoring import ScoredSpan, Scoring
from hypnocast.ports.hypnograms.stage_words import read_word

_HEAD_LINES = 40
_HALF_DAY_S = 43_200.0
_DOMINO = re.compile(r"Signal[ -]?ID\s*:", re.IGNORECASE)
_REMLOGIC = re.compile(r"RemLogic Event Export", re.IGNORECASE)
_REMLOGIC_TABLE = re.compile(r"(?:Time|Heure|Zeit)\s*\[hh:mm:ss", re.IGNORECASE)
_RATE = re.compile(r"(\d+(?:[.,]\d+)?)\s*(ms|s)\b", re.IGNORECASE)
_EVENTS = ("event", "ereignis", "événement", "evénement", "evenement")
_TIMES = ("time", "heure", "zeit")
_DURATIONS = ("duration", "durée", "duree", "dauer")


def is_domino(text: str) -> bool:
    """Whether a text is a sleep profile of DOMINO."""
    return any(_DOMINO.match(line) for line in text.splitlines()[:_HEAD_LINES])


def is_remlogic(text: str) -> bool:
    """Whether a text is an event export of RemLogic."""
    lines = text.splitlines()[:_HEAD_LINES]
    return any(_REMLOGIC.match(line) or _REMLOGIC_TABLE.search(line) for line in lines)


def read_domino(text: str, path: Path) -> Scoring:
    """Read DOMINO's sleep profile, in epochs of 20 or 30 s."""
    head: dict[str, str] = {}
    clock: RunningClock | None = None
    spans: list[ScoredSpan] = []
    rk = False
    length = PAGE_S
    for number, line in enumerate(text.splitlines(), start=1):
        where = f"{path}, line {number}"
        if not line.strip():
            continue
        stamp, separator, word = line.partition(";")
        time = read_clock(stamp)
        if time is None or not separator:
            if clock is not None:
                raise TapeError(f"{line.strip()!r} is no time and stage", where=where)
            key, _, value = line.partition(":")
            head[key.strip().casefold()] = value.strip()
            continue
        if clock is None:
            _refuse_other_signals(head, path)
            length = _rate(head, path)
            clock = RunningClock(_first_day(head, time))
        scored = read_word(word)
        if scored is None:
            raise TapeError(f"{word.strip()!r} is no sleep stage", where=where)
        spans.append(ScoredSpan(clock.since_first(time), length, scored.stage))
        rk |= scored.rk
    if clock is None:
        raise TapeError("has DOMINO's header, and no epochs below it", where=str(path))
    return Scoring(
        f"DOMINO's sleep profile in epochs of {length:g} s",
        tuple(spans),
        "R&K" if rk else "AASM",
        start=clock.start,
        clock_s=clock.clock_s,
    )


def _refuse_other_signals(head: dict[str, str], path: Path) -> None:
    kind = head.get("signal type", head.get("signaltyp", head.get("signal-typ", "discret")))
    if not kind.casefold().startswith(("discret", "diskret")):
        raise TapeError(
            f"is DOMINO's export of {head.get('signal id', 'another signal')!r}, not of stages",
            where=str(path),
            remedy="Export the sleep profile (Schlafprofil).",
        )


def _rate(head: dict[str, str], path: Path) -> float:
    rate = head.get("rate", head.get("epochenlänge", ""))
    found = _RATE.search(rate)
    seconds = PAGE_S if found is None else float(found[1].replace(",", "."))
    if found is not None and found[2].lower() == "ms":
        seconds /= 1000.0
    if not 1.0 <= seconds <= 120.0:
        raise TapeError(f"gives {rate!r} as the length of an epoch", where=str(path))
    return seconds


def _first_day(head: dict[str, str], first: ClockTime) -> date | None:
    """Return the date of the first epoch; it may lie behind the midnight after the start."""
    began = read_clock(head.get("start time", head.get("startzeit", head.get("startdatum", ""))))
    if began is None or began.day is None:
        return None
    return began.day + timedelta(days=first.seconds < began.seconds - _HALF_DAY_S)


def read_remlogic(text: str, path: Path) -> Scoring:
    """Read RemLogic's event export; events that are no stages are passed over."""
    lines = text.splitlines()
    at = next((n for n, line in enumerate(lines) if _REMLOGIC_TABLE.search(line)), None)
    if at is None:
        raise TapeError(
            "is RemLogic's export without a column `Time [hh:mm:ss]`",
            where=str(path),
            remedy="Export the events with their time and duration.",
        )
    head = [cell.partition("[")[0].strip().casefold() for cell in lines[at].split("\t")]
    time_at, event_at, length_at = (
        next((head.index(name) for name in names if name in head), None)
        for names in (_TIMES, _EVENTS, _DURATIONS)
    )
    if time_at is None or event_at is None:
        raise TapeError("has no columns Time and Event", where=f"{path}, line {at + 1}")
    clock, spans = RunningClock(), []
    for number, line in enumerate(lines[at + 1 :], start=at + 2):
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) <= max(time_at, event_at):
            cells = [cell.strip() for cell in re.split(r"\t+", line.strip())]
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        if len(cells) <= max(time_at, event_at):
            raise TapeError("has no event or no time", where=where)
        word = read_word(cells[event_at]) if cells[event_at].upper().startswith("SLEEP") else None
        if word is None:
            continue
        time = read_clock(cells[time_at])
        if time is None:
            raise TapeError(f"{cells[time_at]!r} is no time", where=where)
        seconds = _seconds(cells, length_at, where)
        spans.append(ScoredSpan(clock.since_first(time), seconds, word.stage))
    return Scoring(
        "RemLogic's event export", tuple(spans), "R&K", start=clock.start, clock_s=clock.clock_s
    )


def _seconds(cells: list[str], column: int | None, where: str) -> float:
    if column is None or column >= len(cells) or not cells[column]:
        return PAGE_S
    try:
        seconds = float(cells[column].replace(",", "."))
    except ValueError:
        seconds = float("nan")
    if not 0 <= seconds < float("inf"):
        raise TapeError(f"{cells[column]!r} is no duration", where=where)
    return seconds or PAGE_S
