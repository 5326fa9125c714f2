"""Events in order: which have come, which are missing, which are repeats; no input or output."""

from __future__ import annotations

from hypnocast.core.wire.payloads import StageEvent


class Sequences:
    """The newest sequence number given of each bed."""

    def __init__(self, since: dict[str, int] | None = None) -> None:
        """Go on after known numbers; a bed that is not among them begins with what comes first."""
        self._given = dict(since or {})

    def given(self, bed: str) -> int | None:
        """Return the newest number given of a bed; None: nothing yet."""
        return self._given.get(bed)

    def is_repeat(self, event: StageEvent) -> bool:
        """Return whether an event was given before."""
        given = self._given.get(event.bed)
        return given is not None and event.sequence <= given

    def is_next(self, event: StageEvent) -> bool:
        """Return whether nothing is missing before an event."""
        given = self._given.get(event.bed)
        return given is None or event.sequence == given + 1

    def give(self, event: StageEvent) -> None:
        """Note that an event is given."""
        self._given[event.bed] = event.sequence
