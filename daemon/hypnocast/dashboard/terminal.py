"""The ward at a glance in a terminal, from MQTT alone."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hypnocast.core.plain_text import plain
from hypnocast.core.types import PAGE_S
from hypnocast.dashboard.feed import BrokerLink, Feed, ended
from hypnocast.dashboard.view import Card, Level, Point, card, fold
from hypnocast.dashboard.ward import Incoming, WardView, seconds
from hypnocast.errors import BrokerError
from hypnocast.ports.mqtt.settings import BrokerSettings

OLD_S = 90.0
"""A bed that has said nothing for so long is called old."""
_REDRAWS_S = 0.5
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
_COLUMNS = {
    "Bed": 3, "Subject": 7, "Stage": 12, "Since": 14, "Sure": 5, "Last 30 min": 30,
    "Electrodes": 19, "Latency": 7,
}  # fmt: skip
"""Columns, and how narrow they may get."""
_ROOM = {"Since": 100, "Sure": 100, "Subject": 124, "Latency": 124}
"""Columns that want a wider terminal."""

_UNREAL = {"simulated": "SIMULATED", "replay": "REPLAYED"}


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """Which broker and which site to watch."""

    broker: BrokerSettings
    prefix: str = "hypnocast/lab"
    once_after_s: float | None = None
    """Print one table after so many seconds and end; None watches until interrupted."""
    below: tuple[str, ...] = ()
    """What else to keep in sight: lines below the table."""


async def watch(settings: WatchSettings, console: Console | None = None) -> None:
    """Show the ward until cancelled, healing over every outage of the broker."""
    screen = console if console is not None else Console()
    ward = WardView()

    def take(message: Incoming) -> None:
        nonlocal ward
        ward = fold(ward, message)

    feed = Feed(settings.broker, settings.prefix, on_message=take)
    task = asyncio.create_task(feed.run(), name="watch feed")
    try:
        if settings.once_after_s is not None:
            await asyncio.sleep(settings.once_after_s)
            screen.print(ward_view(ward, time.time(), feed.link, settings.below))
            if not feed.link.connected:
                raise BrokerError(
                    f"the ward cannot be seen: {feed.link.problem}",
                    where=settings.broker.where,
                    remedy="Name the broker with --broker HOST:PORT, or start it.",
                )
            return
        with Live(console=screen, auto_refresh=False, screen=screen.is_terminal) as live:
            while True:
                live.update(ward_view(ward, time.time(), feed.link, settings.below), refresh=True)
                await asyncio.sleep(_REDRAWS_S)
    finally:
        await ended(task)


def ward_view(
    ward: WardView, now: float, link: BrokerLink | None = None, below: tuple[str, ...] = ()
) -> RenderableType:
    """Return the table of the ward, with what is wrong above and the notice below."""
    parts: list[RenderableType] = []
    if link is not None and not link.connected:
        silent = _lasting(now - link.since)
        words = f" No contact with the broker for {silent} ({link.problem}); what you see is old. "
        parts.append(Text(words, "bold white on #b83a0c"))
    if ward.refused:
        parts.append(Text(f"{ward.refused} messages broke the contract: {ward.refusal}", "#f3cf55"))
    sources = {card(bed, ward).source for bed in ward.beds.values()}
    if len(sources) == 1 and (unreal := _UNREAL.get(next(iter(sources)))) is not None:
        parts.append(Text(f" {unreal}: no person now. ", "italic #5fb0ee"))
    parts.append(_Fitted(ward, now))
    parts += [Text(line) for line in below]
    parts.append(Text("Research use only: no diagnosis, no alarm function.", "dim"))
    return Group(*parts)


@dataclass(frozen=True, slots=True)
class _Fitted:
    """The ward as a table, with as many columns as the terminal has room for."""

    ward: WardView
    now: float

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield ward_table(self.ward, self.now, options.max_width)


def ward_table(ward: WardView, now: float, width: int) -> Table:
    """Return the ward as a table, a row per bed.

    A narrow terminal shows the stage, the course and the electrodes: what is wrong comes first.
    """
    shown = [name for name in _COLUMNS if width >= _ROOM.get(name, 0)]
    table = Table(box=SIMPLE_HEAD, header_style="dim", border_style="dim", pad_edge=False)
    for name in shown:
        wraps = name in ("Stage", "Electrodes")
        table.add_column(name, no_wrap=not wraps, min_width=_COLUMNS[name])
    mixed = len({card(bed, ward).source for bed in ward.beds.values()}) > 1
    for bed in ward.beds.values():
        cells = _cells(card(bed, ward), now, tagged=mixed)
        table.add_row(*(cells[name] for name in shown))
    if not ward.beds:
        table.add_row("–", Text("no bed heard of yet", "dim"))
    return table


def _cells(told: Card, now: float, *, tagged: bool) -> dict[str, RenderableType]:
    staged = told.mood == "staged"
    bed = Text(told.bed, "bold")
    if tagged and told.source in _UNREAL:
        bed.append(f" {_UNREAL[told.source]}", "italic #5fb0ee")
    return {
        "Bed": bed,
        "Subject": Text(plain(told.subject or "")),
        "Stage": _stage(told, now),
        "Since": f"{_clock(told.since)} · {_lasting(told.lasted_s)}"
        if staged and told.since
        else "",
        "Sure": f"{100 * told.confidence:.0f} %" if staged and told.confidence is not None else "",
        "Last 30 min": _recent(told.recent),
        "Electrodes": _health(told),
        "Latency": f"{told.latency_ms / 1000:.1f} s"
        if told.latency_ms is not None and staged
        else "",
    }


def _stage(told: Card, now: float) -> Text:
    loud = _loud(told, now)
    if loud is not None:
        words, ground = loud
        return Text(f" {words} ", f"bold black on {ground}")
    if told.mood != "staged" or told.stage is None:
        calm = told.phase or "no session" if told.mood == "not_staging" else told.mood
        return Text(calm.replace("_", " "), "dim")
    shown = Text(told.stage, f"bold {_STYLE[told.stage]}")
    shown.append(" ?" if told.provisional else "", "dim")
    shown.append(" review" if told.review else "", "#f3cf55")
    return shown


def _loud(told: Card, now: float) -> tuple[str, str] | None:
    """Return what nobody may overlook, and its ground."""
    alarm = "#ff8a5c"
    if told.mood == "ended":
        return "ENDED", "#a9b8c4"
    if told.node_available is False:
        return f"daemon {plain(told.node or '')} offline", alarm
    if told.mood == "stale":
        return f"SILENT, last {told.stage}" if told.stage else "SILENT", alarm
    if now - told.heard > OLD_S:
        return f"no news for {_lasting(now - told.heard)}", alarm
    if told.mood == "withheld":
        return f"WITHHELD {told.reason_words or ''}", "#f3cf55"
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


def _health(told: Card) -> Text:
    if told.mood == "ended":
        return Text()
    sign, style = _SIGN[told.health] if told.health is not None else ("■", "dim")
    shown = Text(f"{sign} ", style)
    shown.append(plain(told.health_words), style if told.health != "good" else "")
    if told.problems:
        shown.append(f"\n{plain(told.problems[0])}", "#f3cf55")
    return shown


def _clock(instant: str) -> str:
    return time.strftime("%H:%M", time.localtime(seconds(instant)))


def _lasting(length_s: float) -> str:
    if length_s < 2 * PAGE_S:
        return f"{max(0.0, length_s):.0f} s"
    minutes = int(length_s // 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
