"""Which outlet fills a place of a bed, and whether another has taken it in mid-session.

Whoever can send on the network can announce a stream under the ``source_id`` of an amplifier, and
is read when that falls away. A restart of the amplifier looks alike, but for two things: it comes
from the same host, by name and by address. The name is only what a sender says of itself; the
address is where the samples come from.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypnocast.core.types import OutletChange
from hypnocast.ports.lsl.header import StreamAnswer

MOST_HELD = 1024


@dataclass(frozen=True, slots=True)
class SeenOutlet:
    """Who sends a stream."""

    uid: str
    host: str
    """What it says its host is called."""
    address: str
    """Where its samples come from."""

    @classmethod
    def of(cls, answer: StreamAnswer) -> SeenOutlet:
        """Return who answered."""
        header = answer.described.header
        return cls(header.uid, header.host, answer.address)

    def __str__(self) -> str:
        return f"{self.host or 'a host without a name'} at {self.address or 'an unknown address'}"

    def is_at_home(self, before: SeenOutlet) -> bool:
        """Return whether this one comes from where another came from."""
        return (self.host, self.address) == (before.host, before.address)


class OutletPin:
    """Remembers from whom a place of a bed is read in the session that runs."""

    def __init__(self, *, binding: bool) -> None:
        """Keep whether an outlet from elsewhere is read only once the lab has accepted it."""
        self._binding = binding
        self._session: str | None = None
        self._homes: list[SeenOutlet] = []
        """Who was read when the session began, and whom the lab has accepted since."""
        self._newest: SeenOutlet | None = None
        self._held: dict[str, SeenOutlet] = {}
        """Outlets from elsewhere that wait until the lab accepts them."""

    @property
    def problem(self) -> str:
        """What people should look at; empty where all is as it was."""
        newest = self._newest
        if self._session is None or not self._homes:
            return ""
        if self._held:
            waiting = next(iter(self._held.values()))
            return (
                f"comes from {waiting} now, in this session it came from {self._homes[-1]}; "
                "it is not read"
            )
        if newest is not None and not self._is_at_home(newest):
            return f"comes from {newest} now, in this session it came from {self._homes[-1]}"
        return ""

    def live_in(self, session: str | None, *, reading: bool) -> None:
        """Note which session runs, and whether the place is being read: a pin lasts so long.

        Between sessions, amplifiers may be exchanged as one likes.
        """
        if session != self._session:
            self._session = session
            self._held.clear()
            self._homes.clear()
        if reading and not self._homes and self._newest is not None:
            self._homes.append(self._newest)

    def holds(self, uid: str) -> bool:
        """Return whether an outlet waits until the lab accepts it."""
        return uid in self._held

    def may_read(self, outlet: SeenOutlet) -> bool:
        """Return whether an outlet may be read; one that may not waits until it is accepted."""
        pinned = self._binding and self._session is not None and self._homes
        if not pinned or self._is_at_home(outlet):
            return True
        if len(self._held) < MOST_HELD:
            self._held[outlet.uid] = outlet
        return False

    def read(self, outlet: SeenOutlet) -> OutletChange | None:
        """Note that an outlet is read from now on; return what that changes in a session."""
        before, self._newest = self._newest, outlet
        self._held.clear()
        if before is None or self._session is None or not self._homes:
            return None
        if not outlet.is_at_home(before):
            return OutletChange(f"comes from {outlet} now, before from {before}", moved=True)
        if before.uid != outlet.uid:
            return OutletChange(f"was begun anew by {outlet}", moved=False)
        return None

    def accept(self) -> bool:
        """Accept who sends; return whether anything was doubtful."""
        doubtful = bool(self.problem)
        if doubtful and self._held:
            # The one that the problem names; the next one is named after it.
            self._homes.append(self._held.pop(next(iter(self._held))))
        elif self._newest is not None:
            self._homes.append(self._newest)
        return doubtful

    def _is_at_home(self, outlet: SeenOutlet) -> bool:
        return any(outlet.is_at_home(home) for home in self._homes)
