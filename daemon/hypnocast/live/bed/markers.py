"""What a bed makes of markers: which may act on the night, which become notes, and how many."""

from __future__ import annotations

from collections.abc import Callable

from hypnocast.core.budget import Budget
from hypnocast.core.night.marks import MarkMeaning, meaning_of
from hypnocast.core.plain_text import plain
from hypnocast.core.types import Mark, StreamHeader
from hypnocast.errors import CommandError

MARKER_TYPES = frozenset({"marker", "markers", "event", "events", "annotation", "annotations"})
"""Types of streams whose texts people want to read in the night's notes."""

NOTE_CHARS = 500
"""The longest note, as for notes by command."""

BURST, PER_SECOND = 20.0, 2.0
"""The rate of markers, as for commands."""

SHOWN_S = 60.0
"""How long after it happened a problem is shown."""


class Markers:
    """Decides about the markers of one bed, one after the other."""

    def __init__(self, heeds: Callable[[StreamHeader], bool]) -> None:
        """Keep which streams the configuration names: only their markers act."""
        self._heeds = heeds
        self._notes = Budget(BURST, PER_SECOND)
        self._acts = Budget(BURST, PER_SECOND)
        self._left_out = 0
        self._wrong: dict[str, tuple[str, float]] = {}

    def meaning(self, mark: Mark, header: StreamHeader | None) -> MarkMeaning | None:
        """Return what a marker asks for, where its stream may ask for anything."""
        meaning = meaning_of(mark.text)
        if meaning is None:
            return None
        if header is not None and not self._heeds(header):
            name = plain(header.name)
            text = (
                f"markers of {name} are notes only: no bed of the configuration names that stream"
            )
            self._wrong["heed"] = (text, mark.arrived)
            return None
        return meaning if self._within(self._acts, mark) else None

    def note(self, mark: Mark, header: StreamHeader | None) -> str:
        """Return a marker's text as a note of the night; empty where it is none."""
        readable = header is None or header.type.casefold() in MARKER_TYPES
        if not readable or not self._within(self._notes, mark):
            return ""
        return plain(mark.text.strip(), NOTE_CHARS)

    def refused(self, error: CommandError, now: float) -> None:
        """Note that what a marker asked for cannot be."""
        self._wrong["refused"] = (f"a marker is not obeyed: {error}", now)

    def problems(self, now: float) -> tuple[str, ...]:
        """Return what went wrong recently."""
        return tuple(text for text, at in self._wrong.values() if now - at < SHOWN_S)

    def _within(self, budget: Budget, mark: Mark) -> bool:
        if not mark.arrived or budget.spend(mark.arrived):
            return True
        self._left_out += 1
        if (self._left_out - 1).bit_length() == self._left_out.bit_length():
            self._wrong["rate"] = (self._wrong["rate"][0], mark.arrived)
            return False  # logged anew at each power of two: a flood fills no log
        text = (
            f"{self._left_out} markers came faster than {PER_SECOND:g} a second: not in the notes"
        )
        self._wrong["rate"] = (text, mark.arrived)
        return False
