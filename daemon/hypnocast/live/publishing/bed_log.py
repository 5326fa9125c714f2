"""What the daemon logs of one bed: sessions, first stages, what is wrong; once each."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from hypnocast.core.night.session import Session
from hypnocast.core.wire.payloads import StageEvent

_log = structlog.get_logger("bed")


class BedLog:
    """Logs what an engineer looks for in the morning, and nothing twice."""

    def __init__(self, bed: str) -> None:
        """Begin with nothing logged."""
        self._log = _log.bind(bed=bed)
        self._problems: frozenset[str] = frozenset()
        self._judged: str | None = None
        self._begun: str | None = None
        self._logged: set[str] = set()
        """What was logged of the session that runs."""

    def begins(self, session: Session) -> None:
        """Log that a session begins, or enters another phase."""
        if self._begun != session.id:
            self._begun, self._logged = session.id, set()
        if session.phase.value not in self._logged:
            self._logged.add(session.phase.value)
            self._log.info("session", id=session.id, phase=session.phase.value)

    def ends(self, session: Session, pages: int) -> None:
        """Log that a session ended."""
        self._log.info("session ended", id=session.id, pages=pages)

    def event(self, event: StageEvent) -> None:
        """Log the first stage of a session, and the first page withheld for each reason."""
        if event.status == "final" and "final" not in self._logged:
            self._logged.add("final")
            self._log.info("first stage", stage=event.stage, epoch=event.epoch)
        elif event.status == "withheld" and f"withheld {event.reason}" not in self._logged:
            self._logged.add(f"withheld {event.reason}")
            self._log.warning("first page withheld", reason=event.reason, epoch=event.epoch)

    def judged(self, words: str | None) -> None:
        """Log that the pack was not judged on the bed's montage."""
        if words is not None and words != self._judged:
            self._log.warning("montage", what=words)
        self._judged = words or self._judged

    def problems(self, lines: Sequence[str]) -> None:
        """Log what has become wrong, and what is well again."""
        now = frozenset(lines)
        for line in lines:
            if line not in self._problems:
                self._log.warning("problem", what=line)
        for line in sorted(self._problems - now):
            self._log.info("problem is over", what=line)
        self._problems = now
