"""The nights of a journal, one line each."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from hypnocast.config.tables import Config
from hypnocast.core.wire.payloads import SourceName
from hypnocast.nights.night_view import NightView, journal_of, view_of
from hypnocast.ports.journal.reader import JournalReader


@dataclass(frozen=True, slots=True)
class NightLine:
    """One night at a glance."""

    session: str
    bed: str
    subject: str | None
    source: SourceName
    start: str
    ended: str | None
    pages: int
    final: int
    withheld: int
    review: int
    total_sleep_min: float
    sleep_efficiency_percent: float | None
    scorers: tuple[str, ...]


def list_nights(config: Config, *, bed: str | None = None, limit: int = 50) -> list[NightLine]:
    """Return the newest nights first."""
    with JournalReader(journal_of(config)) as reader:
        sessions = reader.nights(bed, limit)
        return [_line(view_of(reader.night(session.id))) for session in sessions]


def _line(view: NightView) -> NightLine:
    letters = Counter(view.night.status)
    return NightLine(
        session=view.session.id,
        bed=view.session.bed,
        subject=view.session.subject,
        source=view.session.source,
        start=view.night.start,
        ended=view.session.ended,
        pages=view.night.epochs,
        final=letters["f"],
        withheld=letters["w"],
        review=len(view.night.review),
        total_sleep_min=view.night.statistics.total_sleep_min,
        sleep_efficiency_percent=view.night.statistics.sleep_efficiency_percent,
        scorers=tuple(view.scorers),
    )


def as_text(lines: list[NightLine], zone: ZoneInfo) -> list[str]:
    """Return the list for people, times as the clocks of the lab show them."""
    width = max([7, *(len(line.session) for line in lines)])
    bed = max([10, *(len(line.bed) for line in lines)])
    subject = max([10, *(len(line.subject or "") for line in lines)])
    head = f"{'night':<{width}}  {'bed':<{bed}} {'subject':<{subject}} {'began':<16} {'length':>7}"
    rows = [f"{head} {'staged':>7} {'withheld':>8} {'review':>6} {'asleep':>7} {'SE':>5}"]
    for line in lines:
        began = datetime.fromisoformat(line.start).astimezone(zone)
        efficiency = line.sleep_efficiency_percent
        rows.append(
            f"{line.session:<{width}}  {line.bed:<{bed}} {line.subject or '—':<{subject}}"
            f" {began:%Y-%m-%d %H:%M} {hours(line.pages / 2):>7} {line.final:>7}"
            f" {line.withheld:>8} {line.review:>6} {hours(line.total_sleep_min):>7}"
            f" {'—' if efficiency is None else f'{efficiency:.0f} %':>5}"
            f"{'' if line.ended else '  running'}"
            f"{'' if line.source == 'live' else f'  {line.source}'}"
        )
    return rows


def hours(minutes: float) -> str:
    """Write minutes as hours and minutes."""
    whole = round(minutes)
    return f"{whole // 60}:{whole % 60:02d} h"
