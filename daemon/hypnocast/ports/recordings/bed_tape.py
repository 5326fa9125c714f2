"""One bed's running tape, and what a new one would have to begin with."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import BinaryIO

from hypnocast.core.pages.recent_arrivals import RecentArrivals
from hypnocast.core.types import Arrival
from hypnocast.ports.recordings.tape import Tape

BEHIND_S = 90.0
"""How much of each bed is remembered: for whoever changes its tape and is behind what is being
written, and for a new tape where the old one was given up."""


@dataclass(eq=False)
class BedTape:
    """One bed's running tape, and what a new one would have to begin with."""

    tape: Tape | None = None
    retry_at: float = 0.0
    newest: Arrival | None = None
    """The last arrival on the running tape."""
    safe: Arrival | None = None
    """The last arrival that survives a power cut."""
    missed: int = 0
    """Arrivals since then that are on no tape."""
    doubtful: bool = False
    """Whether a sync of the running tape has failed: no later sync of it means anything."""
    failures: int = 0
    """Tapes given up in a row."""
    recently: RecentArrivals = field(default_factory=lambda: RecentArrivals(BEHIND_S))
    ended: list[BinaryIO] = field(default_factory=list)
    """Parts that are over and not synced yet."""

    def part_ended(self, file: BinaryIO) -> None:
        """Keep a part that is over until it is synced."""
        self.ended.append(file)

    def take_ended(self) -> list[BinaryIO]:
        """Hand over the parts that are over, to be synced and closed."""
        ended, self.ended = self.ended, []
        return ended

    def give_up(self) -> None:
        """Let go of all files: what they hold after ``safe`` goes on to the next tape."""
        tape, self.tape = self.tape, None
        if tape is not None:
            tape.abandon()
        for file in self.take_ended():
            with suppress(OSError):
                file.close()


def sync_files(files: Sequence[BinaryIO]) -> None:
    """Make files survive a power cut; all of them are closed, whatever happens."""
    with ExitStack() as closing:
        for file in files:
            closing.enter_context(file)
        for file in files:
            os.fsync(file.fileno())
