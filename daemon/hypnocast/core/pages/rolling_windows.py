"""When the last 30 s are looked at between page closes, for rolling verdicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hypnocast.core.types import PAGE_S

_SAME_S = 1e-6


@dataclass(slots=True)
class RollingWindows:
    """Windows that end every ``hop_s`` of a session's grid; where a page ends there is none."""

    hop_s: float
    last: float = float("-inf")
    """End of the newest window that was given."""

    def due(
        self, anchor: float, now: float, *, grace_s: float, whole: Callable[[float], bool]
    ) -> float | None:
        """Return the end of the newest window that is due, once; those before it are left out.

        A window is due when it is ``whole``, or ``grace_s`` later.
        """
        end = self._newest(anchor, now)
        if end is None or not whole(end):
            end = self._newest(anchor, now - grace_s)
        if end is not None:
            self.last = end
        return end

    def _newest(self, anchor: float, until: float) -> float | None:
        end = anchor + int(max(0.0, until - anchor) / self.hop_s + _SAME_S) * self.hop_s
        into_page = (end - anchor) % PAGE_S
        at_close = min(into_page, PAGE_S - into_page) < _SAME_S
        new = end > self.last + _SAME_S and end >= anchor + PAGE_S
        return end if new and not at_close else None
