"""The watchdog: a heartbeat that means progress.

Every part of the daemon shows a pulse: what it has done, and whether it has anything to do. A
part that has something to do and does nothing of it for longer than its deadline is stuck. The
service manager gets its heartbeat only while nothing is stuck; a part that stays stuck ends the
process, so that it is started anew and resumes the nights.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from hypnocast.errors import HypnocastError
from hypnocast.ports.system import Notifier, leave_in
from hypnocast.ports.thread_stacks import thread_stacks

LOOK_EVERY_S: Final = 1.0
LONGEST_LOOK_S: Final = 5.0
"""A longer pause between two looks was the whole process's, which was stopped or got no
processor: it counts as so much, for no part of it hung alone."""

PATIENCE_S: Final = 30.0
"""How long a part may stay stuck beyond its deadline, while something may restart it."""

ORDERLY_S: Final = 20.0
"""How long an end in good order may last when something is stuck."""

STUCK_EXIT: Final = 1

_log = structlog.get_logger("watchdog")


class StuckError(HypnocastError):
    """A part of the daemon makes no progress, and nothing brought it back."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """How a part does at one moment."""

    part: str
    done: int
    """Differs from look to look as long as the part gets something done."""
    busy: bool
    """Whether there is anything to do; who has nothing to do is never stuck."""
    deadline_s: float


@dataclass(frozen=True, slots=True)
class Stuck:
    """A part that has something to do and does nothing of it."""

    part: str
    for_s: float
    """How long it has made no progress."""
    over_s: float
    """How far beyond its deadline that is."""


class WatchedPart(Protocol):
    """What the watchdog looks at."""

    def refresh(self) -> None:
        """Read the numbers."""
        ...

    def pulses(self) -> Sequence[Pulse]:
        """Return the pulse of every part."""
        ...

    def words(self) -> str:
        """Return in a line what goes on."""
        ...


@dataclass(frozen=True, slots=True)
class _Seen:
    done: int
    at: float


class Watchdog:
    """Looks at every part again and again, and beats while all of them get on."""

    def __init__(
        self,
        patient: WatchedPart,
        notifier: Notifier,
        *,
        patience_s: float = PATIENCE_S,
        every_s: float = LOOK_EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep whom to watch and whom to notify."""
        self._patient = patient
        self._notifier = notifier
        self._patience_s = patience_s
        period = notifier.watchdog_s
        self._every_s = every_s if period is None else min(every_s, period / 4)
        self._clock = clock
        self._seen: dict[str, _Seen] = {}
        self._looked_at = clock()
        self._watched_s = 0.0
        """How long it has watched, by its own looks."""
        self.stuck: tuple[Stuck, ...] = ()

    def look(self) -> tuple[Stuck, ...]:
        """Return the parts that are stuck now."""
        at = self._clock()
        self._watched_s += min(LONGEST_LOOK_S, at - self._looked_at)
        self._looked_at, now = at, self._watched_s
        stuck: list[Stuck] = []
        seen: dict[str, _Seen] = {}
        for pulse in self._patient.pulses():
            last = self._seen.get(pulse.part)
            if last is None or last.done != pulse.done or not pulse.busy:
                last = _Seen(pulse.done, now)
            seen[pulse.part] = last
            still = now - last.at
            if still > pulse.deadline_s:
                stuck.append(Stuck(pulse.part, still, still - pulse.deadline_s))
        self._seen = seen
        self._sort_out(tuple(stuck))
        return self.stuck

    def _sort_out(self, stuck: tuple[Stuck, ...]) -> None:
        """Log what has become stuck, and what goes on again."""
        before = {one.part for one in self.stuck}
        after = {one.part: one for one in stuck}
        for part in sorted(after.keys() - before):
            _log.error("a part stands still", part=part, for_s=round(after[part].for_s, 1))
        if after.keys() - before:
            _log.error("where every thread is", threads=thread_stacks())
        for part in sorted(before - after.keys()):
            _log.info("a part goes on", part=part)
        self.stuck = stuck

    async def run(self, ready: asyncio.Event) -> None:
        """Report when the daemon is ready, then watch; :class:`StuckError` ends it."""
        self._notifier.status("warming up")
        await ready.wait()
        self._notifier.ready()
        while True:
            stuck = self.look()
            self._notifier.status(self._words(stuck))
            if not stuck:
                self._notifier.alive()
            self._give_up(stuck)
            self._patient.refresh()
            await asyncio.sleep(self._every_s)

    def _give_up(self, stuck: Sequence[Stuck]) -> None:
        lost = [one for one in stuck if one.over_s > self._patience_s]
        if lost:
            names = ", ".join(f"{one.part} for {one.for_s:.0f} s" for one in lost)
            raise StuckError(
                f"stands still: {names}",
                where="watchdog",
                remedy="The service manager starts the daemon anew; see its log.",
            )

    def _words(self, stuck: Sequence[Stuck]) -> str:
        words = self._patient.words()
        if not stuck:
            return words
        return f"STUCK: {', '.join(f'{one.part} ({one.for_s:.0f} s)' for one in stuck)}; {words}"


async def keep_watch(
    serving: Awaitable[None],
    watchdog: Watchdog,
    ready: asyncio.Event,
    *,
    stop: Callable[[], None],
    leave: Callable[[float, int], Callable[[], None]] = leave_in,
) -> None:
    """Serve under the watchdog. What is stuck is left: in good order if it can be, else hard."""
    served = asyncio.ensure_future(serving)
    watch = asyncio.create_task(watchdog.run(ready), name="watchdog")
    try:
        await asyncio.wait({served, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not served.done():
            # The timer is never called off: the interpreter's own end may wait for a thread.
            leave(ORDERLY_S, STUCK_EXIT)
            stop()
            await asyncio.wait({served})
            watch.result()
        served.result()
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
