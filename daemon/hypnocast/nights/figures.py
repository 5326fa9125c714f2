"""The figures of reports, as inline SVG: one time axis, so that they read one below the other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html import escape
from typing import TypeVar
from zoneinfo import ZoneInfo

from hypnocast.core.types import PAGE_S
from hypnocast.core.wire.payloads import NightMark, ReasonName, StageEvent, StageName

T = TypeVar("T")

WIDTH, LEFT, RIGHT = 1000.0, 74.0, 8.0
ROWS: tuple[StageName, ...] = ("W", "R", "N1", "N2", "N3")
"""From top to bottom of a hypnogram."""

COLOURS: Mapping[StageName, str] = {
    "W": "#E0A030",
    "R": "#B0459A",
    "N1": "#8FCBEB",
    "N2": "#3E8FCE",
    "N3": "#23408F",
}
"""Distinguished by lightness as well as by hue; every figure names the stage in letters too."""

_HATCH = (
    '<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><rect width="6" height="6" class="gap"/>'
    '<line x1="0" y1="0" x2="0" y2="6" class="gapline"/></pattern></defs>'
)


@dataclass(frozen=True, slots=True)
class Axis:
    """Where a page lies from left to right."""

    start: datetime
    zone: ZoneInfo
    pages: int

    def x(self, page: float) -> float:
        """Return the place of a page's beginning."""
        return LEFT + (WIDTH - LEFT - RIGHT) * page / max(self.pages, 1)

    def page_at(self, at: str) -> float:
        """Return the page, with fractions, in which a moment lies."""
        return (datetime.fromisoformat(at) - self.start).total_seconds() / PAGE_S

    def hours(self, top: float, bottom: float) -> str:
        """Draw the clock below a figure, and a line for each mark of it."""
        minutes = self.pages * PAGE_S / 60.0
        step = next((s for s in (1, 2, 5, 10, 15, 30, 60, 120) if minutes / s <= 10), 240)
        local = self.start.astimezone(self.zone)
        first = local.replace(second=0, microsecond=0) + timedelta(minutes=1)
        first += timedelta(minutes=-(first.hour * 60 + first.minute) % step)
        # From here on in UTC: a clock that is put forward or back in the night is no ruler.
        first = first.astimezone(UTC)
        parts = []
        for number in range(math.ceil(minutes / step) + 1):
            at = first + timedelta(minutes=step * number)
            page = (at - self.start).total_seconds() / PAGE_S
            if page <= self.pages:
                x = self.x(page)
                parts.append(
                    f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}" class="rule"/>'
                    f'<text x="{x:.1f}" y="{bottom + 15}" class="tick" text-anchor="middle">'
                    f"{at.astimezone(self.zone):%H:%M}</text>"
                )
        return "".join(parts)


def figure(height: float, body: str, title: str) -> str:
    """Wrap what was drawn; the title is what a screen reader reads out."""
    return (
        f'<svg viewBox="0 0 {WIDTH:g} {height:g}" role="img" aria-label="{escape(title)}">'
        f"{_HATCH}{body}</svg>"
    )


def hypnogram(
    axis: Axis,
    stages: Sequence[StageName | None],
    *,
    reasons: Sequence[ReasonName | None] = (),
    review: Iterable[int] = (),
    marks: Iterable[NightMark] = (),
    title: str = "Hypnogram",
    row: float = 26.0,
) -> str:
    """Draw the course of the night; hatched where no stage was given, ticks for review."""
    top, bottom = 20.0, 20.0 + row * len(ROWS)
    height = {stage: top + row * (place + 0.5) for place, stage in enumerate(ROWS)}
    parts = [axis.hours(top, bottom)]
    for stage, y in height.items():
        parts.append(
            f'<text x="{LEFT - 10}" y="{y + 4:.1f}" class="name" text-anchor="end">{stage}</text>'
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="rule"/>'
        )
    runs = _runs(list(stages))
    for gap, first, end in runs:
        if gap is None:
            why = sorted({reason for reason in reasons[first:end] if reason is not None})
            parts.append(
                f'<rect x="{axis.x(first):.1f}" y="{top}" height="{bottom - top}" '
                f'width="{axis.x(end) - axis.x(first):.2f}" fill="url(#hatch)">'
                f"<title>no stage: {', '.join(why) or 'unknown'}</title></rect>"
            )
    parts.append(f'<path class="course" d="{_course(axis, runs, height)}"/>')
    parts += [
        f'<line x1="{axis.x(first):.1f}" x2="{axis.x(end):.1f}" y1="{height[stage]:.1f}" '
        f'y2="{height[stage]:.1f}" stroke="{COLOURS[stage]}" class="bar"/>'
        for stage, first, end in runs
        if stage is not None
    ]
    parts += [
        f'<line x1="{axis.x(k + 0.5):.1f}" x2="{axis.x(k + 0.5):.1f}" y1="{bottom + 1}" '
        f'y2="{bottom + 6}" class="review"><title>page {k}: for review</title></line>'
        for k in review
    ]
    parts += [_light(axis, mark, top, bottom) for mark in marks if "lights" in mark.kind]
    return figure(bottom + 22, "".join(parts), title)


def hypnodensity(axis: Axis, pages: Sequence[StageEvent | None]) -> str:
    """Draw how sure each page was of each stage, stacked."""
    top, bottom = 6.0, 116.0
    parts = []
    known = [page if page and page.probabilities else None for page in pages]
    for first, end in _stretches([page is not None for page in known]):
        rows = [page.probabilities for page in known[first:end] if page and page.probabilities]
        below = [0.0] * len(rows)
        for stage in reversed(ROWS):
            above = [low + getattr(row, stage) for low, row in zip(below, rows, strict=True)]
            edge = [_step(axis, first + k, bottom - (bottom - top) * min(1.0, y))
                    for k, y in enumerate(above)]  # fmt: skip
            back = [_step(axis, first + k, bottom - (bottom - top) * min(1.0, y), back=True)
                    for k, y in reversed(list(enumerate(below)))]  # fmt: skip
            parts.append(
                f'<path d="M{" L".join(edge)} L{" L".join(back)} Z" fill="{COLOURS[stage]}"/>'
            )
            below = above
    parts += [
        f'<rect x="{axis.x(first):.1f}" y="{top}" height="{bottom - top}" '
        f'width="{axis.x(end) - axis.x(first):.2f}" fill="url(#hatch)"/>'
        for first, end in _stretches([page is None for page in known])
    ]
    for share in (0.0, 0.5, 1.0):
        y = bottom - (bottom - top) * share
        parts.append(
            f'<text x="{LEFT - 10}" y="{y + 4:.1f}" class="tick" text-anchor="end">'
            f"{share:.0%}</text>"
        )
    parts.append(axis.hours(bottom, bottom + 4))
    return figure(bottom + 22, "".join(parts), "Hypnodensity: probability of each stage")


def signal_quality(axis: Axis, pages: Sequence[StageEvent | None]) -> str:
    """Draw how each channel did, page by page: good, part missing, flagged, nothing there."""
    roles = list(dict.fromkeys(role for page in pages if page for role in page.quality))
    row, top = 17.0, 4.0
    parts = []
    for place, role in enumerate(roles):
        y = top + row * place
        parts.append(
            f'<text x="{LEFT - 10}" y="{y + 11:.1f}" class="tick" text-anchor="end">'
            f"{escape(role)}</text>"
        )
        states = [_state(page, role) for page in pages]
        for state, first, end in _runs(states):
            parts.append(
                f'<rect x="{axis.x(first):.2f}" y="{y}" height="{row - 4}" class="q-{state}" '
                f'width="{axis.x(end) - axis.x(first):.2f}"/>'
            )
    bottom = top + row * len(roles)
    parts.append(axis.hours(bottom, bottom + 4))
    return figure(bottom + 22, "".join(parts), "Signal quality of each channel")


def _state(page: StageEvent | None, role: str) -> str:
    report = page.quality.get(role) if page is not None else None
    if report is None:
        return "none"
    if report.coverage == 0.0 or "missing" in report.flags or "detached" in report.flags:
        return "bad"
    if report.flags:
        return "poor"
    return "good" if report.coverage >= 0.99 else "part"


def _course(
    axis: Axis,
    runs: Sequence[tuple[StageName | None, int, int]],
    height: Mapping[StageName, float],
) -> str:
    path: list[str] = []
    before: StageName | None = None
    for stage, first, end in runs:
        if stage is not None:
            pen = "L" if before is not None else "M"
            y = height[stage]
            path.append(f"{pen}{axis.x(first):.1f},{y:.1f} L{axis.x(end):.1f},{y:.1f}")
        before = stage
    return " ".join(path)


def _light(axis: Axis, mark: NightMark, top: float, bottom: float) -> str:
    page = axis.page_at(mark.at)
    if not 0 <= page <= axis.pages:
        return ""
    x, on = axis.x(page), mark.kind == "lights_on"
    anchor = "end" if page > axis.pages / 2 else "start"
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top - 6}" y2="{bottom}" class="light"/>'
        f'<text x="{x:.1f}" y="{top - 9}" class="tick" text-anchor="{anchor}">'
        f"{'lights on' if on else 'lights off'}</text>"
    )


def _step(axis: Axis, page: int, y: float, *, back: bool = False) -> str:
    left, right = f"{axis.x(page):.1f},{y:.1f}", f"{axis.x(page + 1):.1f},{y:.1f}"
    return f"{right} L{left}" if back else f"{left} L{right}"


def _runs(values: Sequence[T]) -> list[tuple[T, int, int]]:
    runs: list[tuple[T, int, int]] = []
    for place, value in enumerate(values):
        if runs and runs[-1][0] == value:
            runs[-1] = (value, runs[-1][1], place + 1)
        else:
            runs.append((value, place, place + 1))
    return runs


def _stretches(values: Sequence[bool]) -> list[tuple[int, int]]:
    return [(first, end) for value, first, end in _runs(values) if value]
