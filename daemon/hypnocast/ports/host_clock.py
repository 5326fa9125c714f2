"""The host's clock: whether somebody has set it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

STEP_S: Final = 0.5
"""A clock that is only kept in time moves less between two looks."""

SHOWN_S: Final = 60.0
"""How long a step is reported."""


class HostClock:
    """Compares the clock that can be set with the one that cannot, at every look."""

    def __init__(
        self,
        utc: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep both clocks."""
        self._utc = utc
        self._steady = steady
        self._apart = utc() - steady()
        self._shown_until = float("-inf")
        self._words = ""
        self.steps = 0

    def look(self) -> None:
        """Note a step since the last look."""
        apart = self._utc() - self._steady()
        by, self._apart = apart - self._apart, apart
        if abs(by) >= STEP_S:
            self.steps += 1
            self._shown_until = self._steady() + SHOWN_S
            self._words = f"the host's clock was set by {by:+.0f} s; pages keep their grid"

    @property
    def problem(self) -> str:
        """The step to report now; empty where there is none."""
        return self._words if self._steady() < self._shown_until else ""
