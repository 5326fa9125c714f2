"""Decides whether a night was kept whole. Shares no code with the daemon: standard library only.

It reads the journal as any SQLite tool would, what a subscriber got, and what the streams truly
carried, and counts: lost, doubled, wrongly staged, out of order, off the grid, changed.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

PAGE_S = 30.0
STAGES = {"W", "N1", "N2", "N3", "R"}
REASONS = {
    "low_coverage",
    "missing_channel",
    "detached",
    "out_of_scale",
    "unknown_unit",
    "too_late",
    "no_model",
    "daemon_down",
    "session_end",
}


@dataclass(frozen=True)
class Truth:
    """What a bed's streams truly carried, in UTC."""

    begins: tuple[float, ...]
    """When samples began to come: at first, and after each restart. The night begins at one."""
    ends: float
    """The end of the session: it ended then and nowhere else."""
    good: Callable[[float], bool]
    """Whether the samples at that time were good and somebody was there to read them."""
    needed: float = 0.5
    """A page with less than this share of good samples must not be staged."""


@dataclass
class NightCheck:
    """What was found of one bed's night."""

    expected: int = 0
    terminal: int = 0
    final: int = 0
    lost: list[int] = field(default_factory=list)
    doubled: list[int] = field(default_factory=list)
    wrongly_staged: list[int] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Everything else that may not be."""

    @property
    def whole(self) -> bool:
        """Whether nothing at all is amiss."""
        return not (self.lost or self.doubled or self.wrongly_staged or self.wrong)


def check_night(
    journals: Sequence[Path], result: Iterable[bytes] | None, bed: str, truth: Truth
) -> NightCheck:
    """Check one bed's night: its journals (more than one after damage) and the broker's traffic."""
    found = NightCheck()
    written = [event for path in journals for event in _journal(path, bed)]
    _check_terminals(found, written, truth)
    if result is not None:
        _check_traffic(found, written, [_read(payload) for payload in result])
    return found


def _read(payload: bytes) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(payload)
    return event


def _journal(path: Path, bed: str) -> list[dict[str, Any]]:
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
        rows = db.execute(
            "SELECT payload FROM events WHERE bed = ? ORDER BY sequence", (bed,)
        ).fetchall()
    db.close()
    return [_read(row[0]) for row in rows]


def _utc(instant: str) -> float:
    return datetime.fromisoformat(instant).timestamp()


def _check_terminals(found: NightCheck, written: Sequence[dict[str, Any]], truth: Truth) -> None:
    sessions = {event["session"] for event in written}
    if len(sessions) != 1:
        found.wrong.append(f"{len(sessions)} sessions instead of one")
        return
    anchor = _utc(written[0]["start"]) - PAGE_S * written[0]["epoch"]
    if all(abs(anchor - begins) > 0.05 for begins in truth.begins):
        found.wrong.append(f"the grid begins at {anchor:.3f}, where no samples began")
    found.expected = math.ceil(round((truth.ends - anchor) / PAGE_S, 3))
    terminals: dict[int, list[dict[str, Any]]] = {}
    for event in written:
        _check_event(found, event, anchor)
        if event["status"] != "provisional":
            terminals.setdefault(event["epoch"], []).append(event)
    found.terminal = len(terminals)
    found.lost = [epoch for epoch in range(found.expected) if epoch not in terminals]
    found.doubled = [epoch for epoch, events in terminals.items() if len(events) > 1]
    if beyond := [epoch for epoch in terminals if epoch >= found.expected]:
        found.wrong.append(f"pages after the end of the night: {beyond}")
    for epoch, events in sorted(terminals.items()):
        if events[0]["status"] == "final":
            found.final += 1
            if _share_of_good(anchor + PAGE_S * epoch, truth) < truth.needed:
                found.wrongly_staged.append(epoch)


def _check_event(found: NightCheck, event: dict[str, Any], anchor: float) -> None:
    epoch, name = event["epoch"], event["id"]
    if abs(_utc(event["start"]) - anchor - PAGE_S * epoch) > 0.002:
        found.wrong.append(f"{name} is off the grid")
    if event["status"] == "withheld":
        if event["stage"] is not None or event["reason"] not in REASONS:
            found.wrong.append(f"{name} is withheld with {event['stage']}, {event['reason']}")
    elif event["stage"] not in STAGES or event["reason"] is not None:
        found.wrong.append(f"{name} has stage {event['stage']}, reason {event['reason']}")


def _share_of_good(start: float, truth: Truth, steps: int = 60) -> float:
    times = (start + PAGE_S * (step + 0.5) / steps for step in range(steps))
    return sum(truth.good(at) for at in times) / steps


def _check_traffic(
    found: NightCheck, written: Sequence[dict[str, Any]], received: Sequence[dict[str, Any]]
) -> None:
    """Compare what a subscriber got with what is durable."""
    durable = {event["sequence"]: event for event in written}
    first: dict[int, dict[str, Any]] = {}
    ids: dict[str, int] = {}
    for event in received:
        number, name = event["sequence"], event["id"]
        if first.setdefault(number, event) != event:
            found.wrong.append(f"{name} was repeated with another content")
        if ids.setdefault(name, number) != number:
            found.wrong.append(f"{name} came with numbers {ids[name]} and {number}")
        if number not in durable:
            found.wrong.append(f"{name} was sent and is not durable")
        elif durable[number] != event:
            found.wrong.append(f"{name} was sent otherwise than it is written")
    if list(first) != sorted(first):
        found.wrong.append("first sights are out of order")
    missing = sorted(durable.keys() - first.keys())
    if missing:
        found.wrong.append(f"{len(missing)} events never came, the first is {missing[0]}")
