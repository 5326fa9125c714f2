"""Warns where a code that everybody on the network reads looks like a person."""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from hypnocast.core.wire.payloads import StageEvent
from hypnocast.core.wire.pseudonyms import why_personal

_log = structlog.get_logger("pseudonyms")


class PseudonymWarnings:
    """Looks at every bed's and subject's code once.

    It is a :class:`~hypnocast.live.service.ward.Watcher`.
    """

    def __init__(self, beds: Iterable[str] = ()) -> None:
        """Look at the configured beds at once."""
        self._seen: set[tuple[str, str]] = set()
        for bed in beds:
            self._look("bed", bed, bed)

    def event(self, event: StageEvent) -> None:
        """Look at whose event this is."""
        self._look("bed", event.bed, event.bed)
        if event.subject is not None:
            self._look("subject", event.subject, event.bed)

    def _look(self, what: str, code: str, bed: str) -> None:
        if (what, code) in self._seen:
            return
        self._seen.add((what, code))
        why = why_personal(code)
        if why is not None:
            # The log must not spread what it warns of: a subject's code is not repeated.
            _log.warning(
                f"the {what}'s code looks like {why}; everybody on the broker can read it",
                bed=bed,
                remedy="Use a code that shows nothing of the person.",
            )
