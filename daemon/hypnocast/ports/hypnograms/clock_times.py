"""Times of day and dates as scoring software writes them, laid on one running clock."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta

_DAY_S = 86_400.0
_CLOCK = re.compile(
    r"(?:(?P<date>\d{1,4}[-./]\d{1,2}[-./]\d{1,4})[T ,]+)?"
    r"(?P<h>\d{1,2}):(?P<m>\d{2})(?::(?P<s>\d{2}(?:[.,]\d{1,18})?))?"
    r"(?: ?(?P<half>[AaPp])\.?[Mm]\.?)?(?:Z|[+-]\d{2}:?\d{2})?"
)
_DATE = re.compile(r"(\d{1,4})[-./](\d{1,2})[-./](\d{1,4})")


@dataclass(frozen=True, slots=True)
class ClockTime:
    """A time of day, and its date where there is one."""

    day: date | None
    seconds: float

    @property
    def moment(self) -> datetime | None:
        """Return date and time; None without a date."""
        if self.day is None:
            return None
        return datetime(self.day.year, self.day.month, self.day.day) + timedelta(  # noqa: DTZ001 - files know no zone
            seconds=round(self.seconds, 6)
        )


def read_clock(text: str, *, day_first: bool = True) -> ClockTime | None:
    """Read a time of day with or without a date; None where the text is no such time."""
    found = _CLOCK.fullmatch(text.strip())
    if found is None:
        return None
    hours, minutes = int(found["h"]), int(found["m"])
    seconds = float((found["s"] or "0").replace(",", "."))
    half = (found["half"] or "").lower()
    if half:
        if not 1 <= hours <= 12:
            return None
        hours = hours % 12 + (12 if half == "p" else 0)
    if hours > 23 or minutes > 59 or seconds >= 60:
        return None
    day = None
    if found["date"]:
        # A clock of twelve hours goes with dates that begin with the month.
        day = read_date(found["date"], day_first=day_first and not half)
        if day is None:
            return None
    return ClockTime(day, hours * 3600.0 + minutes * 60.0 + seconds)


def read_date(text: str, *, day_first: bool = True) -> date | None:
    """Read a date: year first, or day and month in the given order, unless only one can be."""
    found = _DATE.fullmatch(text.strip())
    if found is None:
        return None
    one, two, three = map(int, found.groups())
    if len(found[1]) == 4:
        year, month, day = one, two, three
    else:
        year = three + (0 if len(found[3]) == 4 else 2000)
        day, month = (one, two) if day_first else (two, one)
        if month > 12 >= day:
            day, month = month, day
    try:
        return date(year, month, day)
    except ValueError:
        return None


class RunningClock:
    """Turns times of day into seconds since the first of them, over midnight."""

    def __init__(self, day: date | None = None) -> None:
        """Begin; ``day`` is the date of the first time where the file gives it elsewhere."""
        self._day = day
        self._first: ClockTime | None = None
        self._last = 0.0
        self._turns = 0

    def since_first(self, time: ClockTime) -> float:
        """Return how many seconds after the first time this one is."""
        if self._first is None:
            self._first = ClockTime(time.day or self._day, time.seconds)
        elif time.day is None and time.seconds < self._last - _DAY_S / 2:
            self._turns += 1
        self._last = time.seconds
        days: float = self._turns
        if time.day is not None and self._first.day is not None:
            days = (time.day - self._first.day).days
        return round(days * _DAY_S + time.seconds - self._first.seconds, 6)

    @property
    def start(self) -> datetime | None:
        """Return when the first time was; None without a date."""
        return None if self._first is None else self._first.moment

    @property
    def clock_s(self) -> float | None:
        """Return the first time of day."""
        return None if self._first is None else self._first.seconds
