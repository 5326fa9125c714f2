"""The ward at a glance in a terminal, from MQTT alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hypnocast.core.plain_text import plain
from hypnocast.core.types import PAGE_S
from hypnocast.dashboard.feed import BrokerLink, Feed, ended
from hypnocast.dashboard.view import Card, Level, Point, card, fold
from hypnocast.dashboard.ward import BedView, Incoming, WardView, seconds
from hypnocast.errors import BrokerError
from hypnocast.ports.mqtt.settings import BrokerSettings

OLD_S = 90.0
"""A bed without news for so long is called old."""
_REDRAWS_S = 0.5
_CONTACT_S = 15.0
"""So long a broker may take to answer at all before one table is printed."""
_ROWS = {"W": "▇", "R": "▆", "N1": "▅", "N2": "▃", "N3": "▁"}
_STYLE = {
    "W": "#f4b13e",
    "R": "#ec8fc7",
    "N1": "#b9e2f7",
    "N2": "#5fb0ee",
    "N3": "#8b9dff",
}
_SIGN: dict[Level, tuple[str, str]] = {
    "good": ("●", "#43c59e"),
    "fair": ("▲", "#f3cf55"),
    "bad": ("✖", "bold #ff8a5c"),
}
_COURSE = "Last 30 min"
_COLUMNS = {
    "Bed": 3, "Subject": 7, "Stage": 12, "Since": 14, "Sure": 5, _COURSE: 30,
    "Electrodes": 14, "Latency": 7,
}  # fmt: skip
"""Columns, and how wide they are at least."""
_LEFT_OUT = ("Latency", "Subject", "Sure", "Since")
"""Columns that a narrow terminal goes without, in this order."""
_WRAPPED = ("Stage", "Electrodes")
_LONGEST_WORD = 22
_SHORTEST_COURSE = 11
"""Minutes; where there is no room for so many, the course is left out."""
_BETWEEN = 3
"""Blanks between two columns."""

_UNREAL = {"simulated": "SIMULATED", "replay": "REPLAYED"}


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """Which broker and which site to watch."""

    broker: BrokerSettings
    prefix: str = "hypnocast/lab"
    once_after_s: float | None = None
    """Print one table so many seconds after the broker answered, or refused, and end; None watches
    until interrupted."""
    zone: str = "UTC"
    """The clocks of the site."""
    below: tuple[str, ...] = ()
    """What else to keep in sight: lines below the table."""


async def watch(settings: WatchSettings, console: Console | None = None) -> None:
    """Show the ward until cancelled, healing over every outage of the broker."""
    screen = console if console is not None else Console()
    ward = WardView()

    def receive(message: Incoming) -> None:
        nonlocal ward
        ward = fold(ward, message)

    answered = asyncio.Event()
    feed = Feed(
        settings.broker,
        settings.prefix,
        on_message=receive,
        on_link=lambda _: answered.set(),
    )
    task = asyncio.create_task(feed.run(), name="watch feed")
    try:
        if settings.once_after_s is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(answered.wait(), _CONTACT_S)
            await asyncio.sleep(settings.once_after_s)
            screen.print(_view(ward, feed.link, settings))
            if not feed.link.connected:
                raise BrokerError(
                    f"the ward cannot be seen: {feed.link.problem}",
                    where=settings.broker.where,
                    remedy="Name the broker with --broker HOST:PORT, or start it.",
                )
            return
        with Live(console=screen, auto_refresh=False, screen=screen.is_terminal) as live:
            while True:
                live.update(_view(ward, feed.link, settings), refresh=True)
                await asyncio.sleep(_REDRAWS_S)
    finally:
        await ended(task)


def _view(ward: WardView, link: BrokerLink, settings: WatchSettings) -> RenderableType:
    return ward_view(ward, time.time(), link, settings.below, settings.zone)


def ward_view(
    ward: WardView,
    now: float,
    link: BrokerLink | None = None,
    below: tuple[str, ...] = (),
    zone: str = "UTC",
) -> RenderableType:
    """Return the table of the ward, with what is wrong above and below, and the notice.

    Times are by the clocks of the site's ``zone``.
    """
    cards = tuple(card(bed, ward) for bed in ward.beds.values())
    parts: list[RenderableType] = []
    if link is not None and not link.connected:
        silent = _lasting(now - link.since)
        words = f" No contact with the broker for {silent} ({link.problem}); what you see is old. "
        parts.append(Text(words, "bold white on #b83a0c"))
    if ward.refused:
        parts.append(Text(f"{ward.refused} messages broke the contract: {ward.refusal}", "#f3cf55"))
    sources = {one.source for one in cards}
    if len(sources) == 1 and (unreal := _UNREAL.get(next(iter(sources)))) is not None:
        parts.append(Text(f" {unreal}: no person now. ", "italic #5fb0ee"))
    parts.append(_Fitted(cards, now, zone))
    parts += [
        Text(f"{plain(one.bed)}: {plain(problem)}", "#f3cf55")
        for one in cards
        for problem in one.problems
    ]
    parts += [Text(line) for bed in ward.beds.values() for line in _second_opinions(bed)]
    parts += [Text(line, "dim") for line in _not_judged(cards)]
    parts += [Text(line) for line in below]
    notice = f"Times of {zone}. Research use only: no diagnosis, no alarm function."
    parts.append(Text(notice, "dim"))
    return Group(*parts)


def _second_opinions(bed: BedView) -> Iterator[str]:
    """Return a line for each pack beside: its newest stage, and how often both gave the same."""
    night, beside = bed.night, bed.beside
    if night is None or beside is None or beside.session != night.session:
        return
    for pack in beside.packs:
        deep = [
            ours == theirs
            for ours, theirs in zip(night.stages, pack.stages, strict=False)
            if theirs == "N3" and ours is not None
        ]
        parts = [
            f"{plain(bed.name)}  {plain(pack.pack)}: {pack.stage or 'no stage'}",
            f"{pack.compared - len(pack.parted)} of {pack.compared} pages alike"
            + ("" if pack.kappa is None else f", κ {pack.kappa:.2f}"),
        ]
        if deep:
            parts.append(f"N3 {sum(deep)} of {len(deep)}")
        yield " · ".join(parts)


def _not_judged(cards: tuple[Card, ...]) -> Iterator[str]:
    """Say of which beds the pack was not judged on the montage; once for all of the same."""
    beds: dict[str, list[str]] = {}
    for one in cards:
        if one.judged is not None:
            beds.setdefault(one.judged, []).append(one.bed)
    for words, names in beds.items():
        yield f"{', '.join(names)}: {plain(words)}"


@dataclass(frozen=True, slots=True)
class _Fitted:
    """The ward as a table, with as many columns as the terminal has room for."""

    cards: tuple[Card, ...]
    now: float
    zone: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        mixed = len({one.source for one in self.cards}) > 1
        rows = [_cells(one, self.now, self.zone, tagged=mixed) for one in self.cards]
        yield ward_table(rows, options.max_width)


def ward_table(rows: list[dict[str, Text]], width: int) -> Table:
    """Return the ward as a table, a row per bed; where 60 columns are, no word is cut.

    A narrow terminal shows the stage, the course and the electrodes: what is wrong comes first.
    """
    widths = _fitted_widths(rows, width)
    table = Table(box=SIMPLE_HEAD, header_style="dim", border_style="dim", pad_edge=False)
    for name, wide in widths.items():
        title = f"Last {wide} min" if name == _COURSE else name
        table.add_column(title, no_wrap=name not in ("Bed", *_WRAPPED), width=wide, overflow="fold")
    for cells in rows:
        course = cells[_COURSE]
        shown = cells | {_COURSE: course[max(0, len(course) - widths.get(_COURSE, 0)) :]}
        table.add_row(*(shown[name] for name in widths))
    if not rows:
        table.add_row("–", Text("no bed yet", "dim"))
    return table


def _fitted_widths(rows: list[dict[str, Text]], width: int) -> dict[str, int]:
    """Return the columns shown and how wide they are."""
    widths = dict(_COLUMNS)
    for name in ("Bed", "Subject", *_WRAPPED):
        for cells in rows:
            longest = max(map(len, cells[name].plain.split()), default=0) + 2 * (name == "Stage")
            widths[name] = max(widths[name], min(longest, _LONGEST_WORD))
    for name in _LEFT_OUT:
        if _whole(widths) > width:
            del widths[name]
    widths[_COURSE] -= max(0, _whole(widths) - width)
    if widths[_COURSE] < _SHORTEST_COURSE:
        del widths[_COURSE]
    for name in ("Electrodes", "Stage", "Bed"):
        widest = max((len(cells[name]) for cells in rows), default=0)
        spare = max(0, width - _whole(widths))
        widths[name] = max(widths[name], min(widest, widths[name] + spare))
    return widths


def _whole(widths: dict[str, int]) -> int:
    return 2 + sum(widths.values()) + _BETWEEN * (len(widths) - 1)


def _cells(card: Card, now: float, zone: str, *, tagged: bool) -> dict[str, Text]:
    staged = card.mood == "staged"
    bed = Text(card.bed, "bold")
    if tagged and card.source in _UNREAL:
        bed.append(f" {_UNREAL[card.source]}", "italic #5fb0ee")
    return {
        "Bed": bed,
        "Subject": Text(plain(card.subject or "")),
        "Stage": _stage(card, now),
        "Since": Text(f"{_clock(card.since, zone)} · {_lasting(card.lasted_s)}")
        if staged and card.since
        else Text(),
        "Sure": Text(f"{100 * card.confidence:.0f} %")
        if staged and card.confidence is not None
        else Text(),
        _COURSE: _recent(card.recent),
        "Electrodes": _health(card),
        "Latency": Text(f"{card.latency_ms / 1000:.1f} s")
        if card.latency_ms is not None and staged
        else Text(),
    }


def _stage(card: Card, now: float) -> Text:
    loud = _loud(card, now)
    if loud is not None:
        words, ground = loud
        return Text(f" {words} ", f"bold black on {ground}")
    if card.mood != "staged" or card.stage is None:
        calm = card.phase or "no session" if card.mood == "not_staging" else card.mood
        return Text(calm.replace("_", " "), "dim")
    shown = Text(card.stage, f"bold {_STYLE[card.stage]}")
    shown.append(" ?" if card.provisional else "", "dim")
    shown.append(" review" if card.review else "", "#f3cf55")
    return shown


def _loud(card: Card, now: float) -> tuple[str, str] | None:
    """Return what nobody may overlook, and its ground."""
    alarm = "#ff8a5c"
    if card.mood == "ended":
        return "ENDED", "#a9b8c4"
    if card.node_available is False:
        return f"daemon {plain(card.node or '')} offline", alarm
    if card.mood == "stale":
        return f"SILENT, last {card.stage}" if card.stage else "SILENT", alarm
    if now - card.seen > OLD_S:
        return f"no news for {_lasting(now - card.seen)}", alarm
    if card.mood == "withheld":
        return f"WITHHELD {card.reason_words or ''}", "#f3cf55"
    return None


def _recent(points: tuple[Point, ...]) -> Text:
    """Return a character a minute; hatching where both its pages were withheld."""
    shown = Text()
    for first in range(0, len(points), 2):
        minute = points[first : first + 2]
        stage = next((point.stage for point in reversed(minute) if point.stage is not None), None)
        if stage is not None:
            shown.append(_ROWS[stage], _STYLE[stage])
        else:
            shown.append("░" if any(point.status == "w" for point in minute) else " ", "#f3cf55")
    return shown


def _health(card: Card) -> Text:
    if card.mood == "ended":
        return Text()
    sign, style = _SIGN[card.health] if card.health is not None else ("■", "dim")
    shown = Text(f"{sign} ", style)
    shown.append(plain(card.health_words), style if card.health != "good" else "")
    return shown


def _clock(instant: str, zone: str) -> str:
    return datetime.fromtimestamp(seconds(instant), ZoneInfo(zone)).strftime("%H:%M")


def _lasting(length_s: float) -> str:
    if length_s < 2 * PAGE_S:
        return f"{max(0.0, length_s):.0f} s"
    minutes = int(length_s // 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
