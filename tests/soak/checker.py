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
    missed: tuple[str, ...]
    """Those that were not named in time: when, and what was said then."""


def check_naming(
    injected: Sequence[Injected],
    states: Sequence[tuple[float, Event]],
    statuses: Sequence[tuple[float, str]],
    up: Sequence[tuple[float, float]],
) -> list[Naming]:
    """Find, for each fault that lasts, when the daemon named it first."""
    problems = all_words(states, statuses)
    rows = []
    for kind in sorted({each.kind for each in injected}):
        mine = [each for each in injected if each.kind == kind]
        waits, missed = [], []
        for each in mine:
            blow = kind in NAMED_AFTERWARDS
            since = _to_name_from(each, up, blow=blow) if each.names else None
            if since is None:
                continue
            until = since + NAMED_WITHIN_S + 1.0
            said = [(at, words) for at, words in problems if since <= at <= until]
            if since == each.began and not blow:  # what stood there already
                said = [(since, words) for at, words in problems if at < since][-1:] + said
            named = [at - since for at, words in said if re.search(each.names, words)]
            waits.append(named[0] if named else float("inf"))
            if not named:
                last = said[-1][1] if said else "nothing was said"
                missed.append(
                    f"{kind}, {each.began:.1f} to {each.ended:.1f}, from {since:.1f}: {last}"
                )
        in_time = [wait for wait in waits if wait < float("inf")]
        rows.append(
            Naming(
                kind, len(mine), len(waits), len(in_time), max(in_time, default=0.0), tuple(missed)
            )
        )
    return rows


def all_words(
    states: Sequence[tuple[float, Event]], statuses: Sequence[tuple[float, str]]
) -> list[tuple[float, str]]:
    """Return everything that was called wrong, in ``daemon/state`` and in the status line."""
    published = [(at, " | ".join(state["degraded"])) for at, state in states]
    return sorted([*published, *statuses], key=lambda one: one[0])


def _to_name_from(
    fault: Injected, up: Sequence[tuple[float, float]], *, blow: bool
) -> float | None:
    """Return from when a fault has to be named; None where the daemon had no time for it.

    A daemon that comes up while a fault lasts has to name it too.
    """
    for ready, down in up:
        since = max(fault.began, ready)
        until = down if blow else min(down, fault.ended)
        if until - since >= NAMED_WITHIN_S and (since == fault.began or not blow):
            return since
    return None


@dataclass(frozen=True)
class Growth:
    """A size of the process at the beginning and at the end of its longest life."""

    what: str
    begin: float
    end: float
    an_hour: float
    """How much it grew in an hour, as a straight line through all of them has it."""
    flat: bool


LONG_LIFE_S = 1200.0
"""In a life of this length nothing may grow any more."""

SETTLED_S = 300.0
"""A process is filled with what it needs; a shorter life is looked at from its fifth part on."""


def check_sizes(verdict: Verdict, sizes: Sequence[ProcessSize]) -> tuple[float, list[Growth]]:
    """Return how long the longest life was, and what grew in it once it had settled."""
    lives: dict[int, list[ProcessSize]] = defaultdict(list)
    for size in sizes:
        lives[size.life].append(size)
    if not lives:
        return 0.0, []
    longest = max(lives.values(), key=lambda life: life[-1].at - life[0].at)
    lasted_s = longest[-1].at - longest[0].at
    from_s = min(SETTLED_S, lasted_s / 5)
    settled = [size for size in longest if size.at - longest[0].at >= from_s]
    part = max(1, len(settled) // 5)
    hours = [size.at / 3600.0 for size in settled]
    grown = []
    for what, read, more in (
        ("memory, MB", lambda size: size.rss_kb / 1024, 20.0),
        ("descriptors", lambda size: float(size.descriptors), 5.0),
        ("threads", lambda size: float(size.threads), 3.0),
    ):
        values = [read(size) for size in settled]
        begin, end = statistics.median(values[:part]), statistics.median(values[-part:])
        slope = statistics.linear_regression(hours, values).slope if len(settled) > 1 else 0.0
        grown.append(Growth(what, begin, end, slope, flat=end - begin <= more))
        if lasted_s >= LONG_LIFE_S and not grown[-1].flat:
            verdict.wrong["grown in a long life"].append(f"{what}: {begin:.1f} to {end:.1f}")
    return lasted_s, grown
