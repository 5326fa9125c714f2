"""UTC as events write it, as a session maps it to the LSL clock, and as files give it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo


def instant(utc_s: float) -> str:
    """Write a time (seconds since 1970, UTC) as events carry it."""
    # Not by strftime, which writes the year 26 in two digits where all expect four.
    when = datetime.fromtimestamp(round(utc_s, 3), UTC).replace(tzinfo=None)
    return when.isoformat(timespec="milliseconds") + "Z"


def seconds_of(instant: str) -> float:
    """Return the seconds since 1970 of a time as events carry it."""
    return datetime.fromisoformat(instant).timestamp()


@dataclass(frozen=True, slots=True)
class UtcAnchor:
    """One moment, read on both clocks: the mapping from the LSL clock to UTC."""

    at_lsl: float
    at_utc: float

    def utc(self, lsl: float) -> float:
        """Return the UTC, in seconds since 1970, of a time on the LSL clock."""
        return self.at_utc + (lsl - self.at_lsl)


def file_time(utc: datetime, zone: ZoneInfo) -> datetime:
    """Return the local, zoneless time that a file or a person at the bed would give."""
    return utc.astimezone(zone).replace(tzinfo=None)
