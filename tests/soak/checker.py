"""What the soak found, judged by what was received and what lies in the journal.

Nothing here is Hypnocast's: events are JSON from MQTT, the journal is read as a SQLite file.
"""

from __future__ import annotations

import json
import re
import sqlite3
import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from soak.consumer import ReceivedMessages
from soak.faults import NAMED_WITHIN_S, Injected
from soak.manager import ProcessSize

Event = dict[str, Any]

_DEGRADED = re.compile("journal[_ ]degraded")
STATUS_DELAY_S = 5.0
"""The status line is written once a second, more seldom on a busy machine."""

NAMED_AFTERWARDS = ("clock step",)
"""Kinds that are over at once, and named none the less."""


@dataclass
class Verdict:
    """Every count; those of ``wrong`` must be zero."""

    counts: dict[str, int] = field(default_factory=dict)
    wrong: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    @property
    def passed(self) -> bool:
        """Whether nothing was lost, doubled or invented."""
        return not any(self.wrong.values())


def _identity(event: Event) -> str:
    return json.dumps(event, sort_keys=True)


def journal_events(path: Path) -> dict[str, dict[int, Event]]:
    """Return every event in the journal, bed by bed, by its number."""
    found: dict[str, dict[int, Event]] = defaultdict(dict)
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
        for bed, sequence, payload in database.execute("SELECT bed, sequence, payload FROM events"):
            found[bed][sequence] = json.loads(payload)
    database.close()
    return found


def killed_while_degraded(
    statuses: Sequence[tuple[float, str]], ends: Sequence[float]
) -> list[tuple[float, float]]:
    """Return the stretches in which the journal was said to be degraded until the daemon died."""
    stretches = []
    for end in ends:
        mine = [(at, _DEGRADED.search(words)) for at, words in statuses if at < end]
        since = None
        for at, degraded in reversed(mine):
            if not degraded:
                break
            since = at
        if since is not None:
            stretches.append((since - STATUS_DELAY_S, end))
    return stretches


def _durable(
    verdict: Verdict,
    received: Sequence[ReceivedMessages],
    journal: dict[str, dict[int, Event]],
    not_durable: Sequence[tuple[float, float]],
) -> list[ReceivedMessages]:
    """Leave out what was sent while it was reported as not durable, and lost by a kill."""
    apart = {
        _identity(each.event)
        for each in received
        if any(begin <= each.at <= end for begin, end in not_durable)
        and _identity(journal[each.bed].get(each.event["sequence"], {})) != _identity(each.event)
    }
    verdict.counts["reported as not durable, then killed"] = len(apart)
    return [each for each in received if _identity(each.event) not in apart]


def check_events(
    verdict: Verdict,
    messages: Sequence[ReceivedMessages],
    journal: dict[str, dict[int, Event]],
    not_durable: Sequence[tuple[float, float]],
) -> None:
    """Look for what was lost, doubled, or came again as something else."""
    received = _durable(verdict, messages, journal, not_durable)
    first: dict[str, str] = {}
    by_number: dict[tuple[str, int], str] = {}
    numbers: dict[str, set[int]] = defaultdict(set)
    repeats = Counter[str]()
    for each in received:
        event = each.event
        name, number = event["id"], event["sequence"]
        repeats[name] += not each.caught_up
        numbers[each.bed].add(number)
        if first.setdefault(name, _identity(event)) != _identity(event):
            verdict.wrong["same id, other content"].append(name)
        if by_number.setdefault((each.bed, number), name) != name:
            verdict.wrong["one number, two events"].append(f"{each.bed} {number}")
    for bed, events in journal.items():
        live = {
            each.event["sequence"] for each in received if each.bed == bed and not each.caught_up
        }
        for number, event in events.items():
            if number not in numbers[bed]:
                verdict.wrong["lost: never received"].append(f"{bed} {number}")
            if first.get(event["id"], _identity(event)) != _identity(event):
                verdict.wrong["journal says otherwise"].append(event["id"])
        verdict.counts[f"{bed}: by catch_up only"] = len(set(events) - live)
        gaps = set(range(1, max(numbers[bed], default=0) + 1)) - numbers[bed]
        verdict.wrong["gap in sequence"] += [f"{bed} {number}" for number in sorted(gaps)]
        unknown = numbers[bed] - set(events)
        verdict.wrong["received, not in the journal"] += [f"{bed} {n}" for n in sorted(unknown)]
    verdict.counts["events received"] = len(first)
    verdict.counts["repeats with the same id"] = sum(repeats.values()) - len(first)


def check_pages(
    verdict: Verdict,
    journal: dict[str, dict[int, Event]],
    gaps: dict[str, list[tuple[float, float]]],
    quiet: Sequence[tuple[float, float]],
) -> None:
    """Look for pages without, or with two, terminal events; for guesses; for needless silence."""
    reasons = Counter[str]()
    clean = staged = 0
    for bed, events in journal.items():
        terminal: dict[str, dict[int, list[Event]]] = defaultdict(lambda: defaultdict(list))
        for event in events.values():
            if event["status"] != "provisional":
                terminal[event["session"]][event["epoch"]].append(event)
        for session, epochs in terminal.items():
            for epoch in range(max(epochs) + 1):
                if len(epochs.get(epoch, ())) != 1:
                    words = f"{session} page {epoch}: {len(epochs.get(epoch, ()))} terminal events"
                    verdict.wrong["pages without exactly one event"].append(words)
            for (event,) in (found for found in epochs.values() if len(found) == 1):
                begin, end = (
                    datetime.fromisoformat(event[key]).timestamp() for key in ("start", "end")
                )
                missing = sum(
                    max(0.0, min(end, till) - max(begin, since)) for since, till in gaps[bed]
                )
                final = event["status"] == "final"
                reasons[event["reason"] or "final"] += 1
                if final and missing > 29.0:
                    verdict.wrong["a stage without samples"].append(event["id"])
                if any(since <= begin and end + 30.0 <= till for since, till in quiet):
                    clean += 1
                    staged += final
    verdict.counts |= {f"pages {reason}": count for reason, count in sorted(reasons.items())}
    verdict.counts["pages on which nothing failed"] = clean
    verdict.counts["… of those staged"] = staged


@dataclass(frozen=True)
class Naming:
    """Whether faults of one kind were named in time."""

    kind: str
    injected: int
    long: int
    """Lasted long enough to be named, while the daemon was up."""
    named: int
    slowest_s: float


def check_naming(
    injected: Sequence[Injected],
    states: Sequence[tuple[float, Event]],
    statuses: Sequence[tuple[float, str]],
    up: Sequence[tuple[float, float]],
) -> list[Naming]:
    """Find, for each fault that lasts, when the daemon named it first."""
    problems = sorted(
        [(at, " | ".join(state["degraded"])) for at, state in states] + list(statuses),
        key=lambda one: one[0],
    )
    rows = []
    for kind in sorted({each.kind for each in injected}):
        mine = [each for each in injected if each.kind == kind]
        lasting = [
            each
            for each in mine
            if each.names
            and (each.ended - each.began >= NAMED_WITHIN_S or kind in NAMED_AFTERWARDS)
            and any(a <= each.began and each.began + NAMED_WITHIN_S <= b for a, b in up)
        ]
        waits = []
        for each in lasting:
            pattern = re.compile(each.names)
            blow = kind in NAMED_AFTERWARDS
            until = 1.0 + (each.began + NAMED_WITHIN_S if blow else each.ended)
            before = [words for at, words in problems if at < each.began]
            if before and not blow and pattern.search(before[-1]):
                waits.append(0.0)
                continue
            later = (
                at - each.began
                for at, words in problems
                if each.began <= at <= until and pattern.search(words)
            )
            waits.append(next(later, float("inf")))
        named = [wait for wait in waits if wait <= NAMED_WITHIN_S + 1.0]
        rows.append(Naming(kind, len(mine), len(lasting), len(named), max(named, default=0.0)))
    return rows


@dataclass(frozen=True)
class Growth:
    """A size of the process at the beginning and at the end of its longest life."""

    what: str
    begin: float
    end: float


def check_sizes(
    sizes: Sequence[ProcessSize], settled_s: float = 60.0
) -> tuple[float, list[Growth]]:
    """Return how long the longest life was, and what grew in it once it had settled."""
    lives: dict[int, list[ProcessSize]] = defaultdict(list)
    for size in sizes:
        lives[size.life].append(size)
    if not lives:
        return 0.0, []
    longest = max(lives.values(), key=lambda life: life[-1].at - life[0].at)
    settled = [size for size in longest if size.at - longest[0].at >= settled_s] or longest
    part = max(1, len(settled) // 5)
    grown = []
    for what, read in (
        ("memory, MB", lambda size: size.rss_kb / 1024),
        ("descriptors", lambda size: float(size.descriptors)),
        ("threads", lambda size: float(size.threads)),
    ):
        values = [read(size) for size in settled]
        grown.append(
            Growth(what, statistics.median(values[:part]), statistics.median(values[-part:]))
        )
    return longest[-1].at - longest[0].at, grown
