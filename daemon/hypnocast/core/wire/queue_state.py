"""How a queue on the way of a page does."""

from __future__ import annotations

import msgspec


class QueueState(msgspec.Struct, frozen=True):
    """One queue on the way of a page."""

    depth: int
    """What waits now."""
    bound: int | None
    """At most so much may wait; null: the disk, or the number of beds, is the bound."""
    shed: int
    """What had no room, since the daemon began."""
