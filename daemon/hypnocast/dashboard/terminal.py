"""The ward at a glance in a terminal, from MQTT alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
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
from hypnocast.dashboard.ward import BedView, Incoming, WardView, seconds
from hypnocast.errors import BrokerError
from hypnocast.ports.mqtt.settings import BrokerSettings

OLD_S = 90.0
"""A bed without news for so long is called old."""
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

    def receive(message: Incoming) -> None:
        nonlocal ward
        ward = fold(ward, message)

    feed = Feed(settings.broker, settings.prefix, on_message=receive)
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
    parts += [Text(line) for bed in ward.beds.values() for line in _second_opinions(bed)]
    parts += [Text(line) for line in below]
    parts.append(Text("Research use only: no diagnosis, no alarm function.", "dim"))
    return Group(*parts)


def _second_opinions(bed: BedView) -> Iterator[str]:
    """Return a line for each pack beside: its newest stage, and how often both gave the same."""
    night, told = bed.night, bed.beside
    if night is None or told is None or told.session != night.session:
        return
    for pack in told.packs:
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
        table.add_row("–", Text("no bed yet", "dim"))
    return table


def _cells(card: Card, now: float, *, tagged: bool) -> dict[str, RenderableType]:
    staged = card.mood == "staged"
    bed = Text(card.bed, "bold")
    if tagged and card.source in _UNREAL:
        bed.append(f" {_UNREAL[card.source]}", "italic #5fb0ee")
    return {
        "Bed": bed,
        "Subject": Text(plain(card.subject or "")),
        "Stage": _stage(card, now),
        "Since": f"{_clock(card.since)} · {_lasting(card.lasted_s)}"
        if staged and card.since
        else "",
        "Sure": f"{100 * card.confidence:.0f} %" if staged and card.confidence is not None else "",
        "Last 30 min": _recent(card.recent),
        "Electrodes": _health(card),
        "Latency": f"{card.latency_ms / 1000:.1f} s"
        if card.latency_ms is not None and staged
        else "",
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
    if card.problems:
        shown.append(f"\n{plain(card.problems[0])}", "#f3cf55")
    return shown


def _clock(instant: str) -> str:
    return time.strftime("%H:%M", time.localtime(seconds(instant)))


def _lasting(length_s: float) -> str:
    if length_s < 2 * PAGE_S:
        return f"{max(0.0, length_s):.0f} s"
    minutes = int(length_s // 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
