"""Where arrivals come from: the network, or anything that can be read at any speed.

A source names its own time. Live it is the local LSL clock, and a tick comes even when nothing
else does; in replay and simulation it is the data's own watermark, and nothing waits for a
clock.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

from hypnocast.core.timing.utc import UtcAnchor
from hypnocast.core.types import Arrival, Chunk
from hypnocast.core.wire.payloads import SourceName

if TYPE_CHECKING:
    from hypnocast.ports.lsl.source import LslSource

TICK_S = 0.05
MAX_WAITING = 20_000
"""Arrivals kept for a thread that is behind: some minutes of a ward. The tape has them anyway."""


class ArrivalSource(Protocol):
    """Hands over arrivals, bed by bed, in the order in which they came."""

    @property
    def kind(self) -> SourceName:
        """The source that events name for their samples."""
        ...

    def utc_of(self, local: float) -> float:
        """Return the UTC (seconds since 1970) of a time on the local LSL clock."""
        ...

    def now(self) -> float | None:
        """Return the local LSL clock; None where the data carry the time."""
        ...

    def arrivals(self) -> Iterator[tuple[str, Arrival] | None]:
        """Give arrivals; None is a tick. Ends when there will be no more."""
        ...

    def measure_soon(self) -> None:
        """Measure the senders' clocks now rather than when their turn comes."""
        ...

    def stop(self) -> None:
        """Let :meth:`arrivals` end soon."""
        ...


class RecordedSource:
    """Arrivals from a file, a tape or the simulator."""

    def __init__(
        self, arrivals: Iterable[tuple[str, Arrival]], anchor: UtcAnchor, kind: SourceName
    ) -> None:
        """Keep what to hand over, and when it was."""
        self.kind: SourceName = kind
        self._arrivals = arrivals
        self._anchor = anchor
        self._stopped = False

    def utc_of(self, local: float) -> float:
        """Return when that was, by when the recording was made."""
        return self._anchor.utc(local)

    def now(self) -> None:
        """Return no time: the data carry it."""
        return

    def arrivals(self) -> Iterator[tuple[str, Arrival] | None]:
        """Give what was recorded, as fast as it is asked for."""
        for bed_and_arrival in self._arrivals:
            if self._stopped:
                return
            yield bed_and_arrival

    def measure_soon(self) -> None:
        """Do nothing: what was measured then is all there is."""

    def stop(self) -> None:
        """End early."""
        self._stopped = True


class LiveSource:
    """Arrivals from the network. ``record`` sees each one first, whatever becomes of it."""

    kind: SourceName = "live"

    def __init__(
        self,
        lsl: LslSource,
        clock: Callable[[], float],
        record: Callable[[str, Arrival], None] | None,
    ) -> None:
        """Keep the supervisor of the streams, the local LSL clock, and the tape."""
        self._lsl = lsl
        self._clock = clock
        self._record = record
        self._waiting: queue.SimpleQueue[tuple[str, Arrival]] = queue.SimpleQueue()
        self._stopped = False
        self.dropped = 0
        """Samples the signal thread was too slow for; they are on the tape."""

    @property
    def waiting(self) -> int:
        """Arrivals that wait for the signal thread."""
        return self._waiting.qsize()

    def utc_of(self, local: float) -> float:
        """Return that time by the host's clock, as it is set now."""
        return time.time() + (local - self._clock())

    def now(self) -> float:
        """Return the local LSL clock."""
        return self._clock()

    def arrivals(self) -> Iterator[tuple[str, Arrival] | None]:
        """Give what comes in, and a tick at least every :data:`TICK_S`."""
        self._lsl.start(self._sink)
        try:
            while not self._stopped:
                yield from self._next()
        finally:
            self._lsl.stop()

    def measure_soon(self) -> None:
        """Ask the supervisor of the streams to look at their clocks."""
        self._lsl.measure_soon()

    def stop(self) -> None:
        """Stop reading the network."""
        self._stopped = True

    def _next(self) -> Iterator[tuple[str, Arrival] | None]:
        try:
            yield self._waiting.get(timeout=TICK_S)
            while True:
                yield self._waiting.get_nowait()
        except queue.Empty:
            yield None

    def _sink(self, bed: str, arrival: Arrival) -> None:
        if self._record is not None:
            self._record(bed, arrival)
        # Samples give way where the signal thread is far behind. What opens and ends streams, and
        # the few marks and readings of clocks, do not: without it later samples mean nothing.
        if isinstance(arrival, Chunk) and self._waiting.qsize() >= MAX_WAITING:
            self.dropped += len(arrival.stamps)
            return
        self._waiting.put((bed, arrival))
