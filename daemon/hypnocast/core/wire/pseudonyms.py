"""Whether a code that should be a pseudonym looks like a person."""

from __future__ import annotations

import re
from typing import Final

_HARMLESS: Final = frozenset({
    "bed", "room", "ward", "lab", "night", "session", "subject", "patient", "participant",
    "control", "case", "group", "sham", "placebo", "sub", "ses", "sim", "demo", "test", "pilot",
    "study", "visit", "run", "north", "south", "east", "west", "left", "right", "blue", "green",
    "red", "yellow", "white", "black", "grey", "floor", "wing", "unit", "sleep", "centre",
    "center", "hospital", "clinic", "home",
})  # fmt: skip
"""Words that codes are made of, and people seldom."""

_YEAR = r"(?:19|20)\d\d"
_DATES: Final = tuple(
    re.compile(pattern)
    for pattern in (
        rf"(?<!\d){_YEAR}[-_.]?(?:0[1-9]|1[0-2])[-_.]?(?:0[1-9]|[12]\d|3[01])(?!\d)",
        rf"(?<!\d)(?:0[1-9]|[12]\d|3[01])[-_.]?(?:0[1-9]|1[0-2])[-_.]?{_YEAR}(?!\d)",
        r"(?<!\d)(?:0?[1-9]|[12]\d|3[01])[-_.](?:0?[1-9]|1[0-2])[-_.]\d\d(?!\d)",
    )
)
_WORD: Final = re.compile(r"[A-Z][a-z]{2,}")


def why_personal(code: str) -> str | None:
    """Return what a code looks like, if it looks like a person; it is never more than a guess."""
    if any(date.search(code) for date in _DATES):
        return "a date, perhaps of birth"
    words = [word for word in _WORD.findall(code) if word.casefold() not in _HARMLESS]
    if len(words) >= 2:
        return "a name"
    return None
