"""Whose turn it is where there are more beds than the model serves, and how many looks that cost.

The bed that was served longest ago goes first. A bed whose page was given up is owed the next one:
where serving another bed now would leave no time for it, the model waits for it for a moment.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from hypnocast.core.types import PAGE_S
from hypnocast.live.staging.capacity import LIVE_DEADLINE_S

AWAITED_S = 1.5
"""A page may come so much later after the one before it than it should."""

OF_LATE_S = 600.0
"""What is reported of looks that came too late is of so long."""


@dataclass(slots=True)
class _Turn:
    asked: float
    """When its newest look came."""
    served: int = -1
    """The number of its newest look that was judged; -1: none was."""
    owed: bool = False
    """Whether its newest look was given up."""


class Turns:
    """What each bed was given of the model. Whoever uses it holds the judge's lock."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self._turns: WeakKeyDictionary[Hashable, _Turn] = WeakKeyDictionary()
        self._number = itertools.count()

    def asked(self, asker: Hashable | None, now: float) -> None:
        """Note that a bed asks."""
        if asker is not None:
            self._turns.setdefault(asker, _Turn(now)).asked = now

    def served(self, asker: Hashable | None) -> None:
        """Note that a bed's look is judged."""
        turn = self._turns.get(asker) if asker is not None else None
        if turn is not None:
            turn.served, turn.owed = next(self._number), False

    def missed(self, asker: Hashable | None) -> None:
        """Note that a bed's look had no opinion in time."""
        turn = self._turns.get(asker) if asker is not None else None
        if turn is not None:
            turn.owed = True

    def order(self, asker: Hashable | None) -> int:
        """Return what sorts those first that were served longest ago."""
        turn = self._turns.get(asker) if asker is not None else None
        return turn.served if turn is not None else -1

    def next_page_s(self, now: float) -> float:
        """Return in how many seconds a bed's next page is due."""
        due = (turn.asked + PAGE_S - now for turn in self._turns.values())
        return min((seconds for seconds in due if seconds > 0.0), default=float("inf"))

    def waits_until(
        self, there: Iterable[Hashable | None], now: float, page_s: float
    ) -> float | None:
        """Return how long the model waits for beds owed before those there; None: it need not."""
        present = [self._turns[each] for each in there if each is not None and each in self._turns]
        if not present:
            return None
        oldest = min(turn.served for turn in present)
        ahead = [turn for turn in self._turns.values() if turn.owed and turn.served < oldest]
        soon = [turn.asked + PAGE_S for turn in ahead if turn.asked + PAGE_S <= now + page_s]
        until = max((at + AWAITED_S for at in soon), default=now)
        last = now + (1 + len(soon)) * page_s
        return until if until > now and last > max(soon) + LIVE_DEADLINE_S else None


class LateLooks:
    """Looks at pages that were judged, and those that had no opinion in time."""

    def __init__(self) -> None:
        """Begin with none."""
        self.total = 0
        """All that had none in time."""
        self._recent: deque[tuple[float, int, int]] = deque()

    def note(self, now: float, *, in_time: int = 0, late: int = 0) -> None:
        """Count some more."""
        self.total += late
        if late or self._recent:
            self._recent.append((now, in_time, late))
        while self._recent and self._recent[0][0] < now - OF_LATE_S:
            self._recent.popleft()

    def problem(self, now: float) -> tuple[str, ...]:
        """Return in words that the model is too slow; nothing where it was not, of late."""
        rows = [row for row in self._recent if row[0] >= now - OF_LATE_S]
        late, all_looks = sum(row[2] for row in rows), sum(row[1] + row[2] for row in rows)
        if not late:
            return ()
        minutes = f"{OF_LATE_S / 60:.0f} minutes"
        return (f"model: too slow: {late} of {all_looks} looks at pages too late in {minutes}",)
