"""Short chunks of a recording made into longer ones: what every chunk costs is paid once.

A tape has the chunks that came over the network, a quarter of a second each. How samples were
chunked cannot be seen on a page, so a replay need not go in such small steps. Anything but
samples (a clock reading, a marker, a stream that is lost) keeps its place among those of its
stream; only a clock reading goes ahead of samples of other streams, which it does not concern.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from hypnocast.core.types import Arrival, Chunk, ClockReading
from hypnocast.ports.recordings.recording import Recording

JOINED_S = 10.0
"""Chunks that came within so long of each other become one."""


def arrivals_of(recording: Recording) -> Iterator[Arrival]:
    """Give what a recording holds, in chunks as long as they may be."""
    return (arrival for _, arrival in joined(("", one) for one in recording.arrivals(JOINED_S)))


def joined(arrivals: Iterable[tuple[str, Arrival]]) -> Iterator[tuple[str, Arrival]]:
    """Give the same arrivals with longer chunks."""
    waiting: dict[tuple[str, str], list[Chunk]] = {}
    since = 0.0
    for bed, arrival in arrivals:
        if isinstance(arrival, ClockReading) and (bed, arrival.stream) not in waiting:
            yield bed, arrival
            continue
        if not isinstance(arrival, Chunk):
            yield from _released(waiting)
            yield bed, arrival
            continue
        if not waiting:
            since = arrival.arrived
        elif not since <= arrival.arrived < since + JOINED_S:
            yield from _released(waiting)
            since = arrival.arrived
        waiting.setdefault((bed, arrival.stream), []).append(arrival)
    yield from _released(waiting)


def _released(waiting: dict[tuple[str, str], list[Chunk]]) -> Iterator[tuple[str, Arrival]]:
    for (bed, stream), chunks in waiting.items():
        if len(chunks) == 1:
            yield bed, chunks[0]
            continue
        samples = np.concatenate([chunk.samples for chunk in chunks])
        stamps = np.concatenate([chunk.stamps for chunk in chunks])
        yield bed, Chunk(stream, samples, stamps, chunks[-1].arrived)
    waiting.clear()
