"""Beds in one process, in real time: ``python -m hypnocast.app.bench.crowd PACK BEDS PAGES``."""

from __future__ import annotations

import heapq
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hypnocast.app.bench.machine import cpu_s, peak_mb
from hypnocast.app.bench.path import START_S, arrived, later
from hypnocast.app.bench.room import Watch, run_room
from hypnocast.app.simulate import SimulatedSource
from hypnocast.core.types import PAGE_S, Arrival
from hypnocast.stagers.pack import load_pack

Coming = tuple[str, Arrival]


@dataclass(slots=True)
class Crowd:
    """Beds that went to sleep at different moments; what it costs to play them is kept apart."""

    beds: int
    pages: int
    began: float = 0.0
    simulating_s: float = 0.0
    since: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Wall clock, processor and simulator, when all beds were there."""
    ends: dict[str, float] = field(default_factory=dict)
    """When epoch 0 of a bed began, on the monotonic clock."""

    def arrivals(self, _: Watch) -> Iterator[Coming]:
        """Give what comes when it is due."""
        coming = heapq.merge(*map(self._bed, range(self.beds)), key=_when)
        item = next(coming, None)  # makes everybody's night, which takes a while
        self.began = time.monotonic()
        settled = False
        while item is not None:
            due = self.began + _when(item) - START_S
            time.sleep(max(0.0, due - time.monotonic()))
            if not settled and _when(item) > START_S + PAGE_S + 5.0:
                settled = True
                self.since = (time.monotonic(), cpu_s(), self.simulating_s)
            yield item
            before = time.thread_time()
            item = next(coming, None)
            self.simulating_s += time.thread_time() - before

    def _bed(self, number: int) -> Iterator[Coming]:
        name = f"bed-{number:03d}"
        shift = PAGE_S * number / self.beds
        self.ends[name] = shift
        source = SimulatedSource(
            [name], seed=number, pages=self.pages, truth=False, skip_pages=30, clock_start=START_S
        )
        for bed, arrival in source:
            yield bed, later(arrival, shift)


def _when(coming: Coming) -> float:
    return arrived(coming[1])


def main(pack: Path, beds: int, pages: int) -> None:
    """Run, and print what it took."""
    from hypnocast.app.logs import set_up_logs

    set_up_logs(quiet=True)
    crowd = Crowd(beds, pages)
    watch = run_room(load_pack(pack), crowd.arrivals)
    wall, cpu, simulating = crowd.since
    used = (cpu_s() - cpu) - (crowd.simulating_s - simulating)
    late = [
        at - (crowd.began + crowd.ends[bed] + PAGE_S * (epoch + 1))
        for (bed, epoch), at in watch.acknowledged.items()
        if epoch < pages - 1
    ]
    told = {
        "late_s": [round(value, 4) for value in late],
        "lost": beds * pages - len(watch.acknowledged),
        "cpu": 100.0 * used / (time.monotonic() - wall),
        "peak_mb": peak_mb(),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
