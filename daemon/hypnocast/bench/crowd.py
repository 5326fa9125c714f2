"""Group *crowd*: beds in one process, in real time, without a network between.

More beds than liblsl carries on this machine: up to where they fall behind. Each count of beds is
a process of its own: ``python -m hypnocast.bench.crowd PACK BEDS PAGES``.
"""

from __future__ import annotations

import heapq
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypnocast.bench.figures import Figure, Target
from hypnocast.bench.machine import cpu_s, resident_mb
from hypnocast.bench.path import START_S, arrived, later
from hypnocast.bench.watched_ward import WardWatch, run_room
from hypnocast.core.types import PAGE_S, Arrival
from hypnocast.errors import HypnocastError
from hypnocast.simulate import SimulatedSource
from hypnocast.stagers.packs.pack import Pack, load_pack

Coming = tuple[str, Arrival]

FEW, FULL = 10, 500
STEPS_UP = (FEW, FULL, 750, 1000)
"""Beds, one count after the other, until one is too many."""
IN_TIME_S = 3.0
PEOPLE = 8
"""Nights that are simulated beforehand; beds have them in turn, each at its own time."""
_SETTLED_S = 5.0


def measure(pack: Pack, *, pages: int) -> Iterator[Figure]:
    """Serve more and more beds until verdicts are late; compare what a bed costs."""
    measured: dict[int, dict[str, Any]] = {}
    for beds in STEPS_UP:
        measured[beds] = one = _in_child(pack, beds, pages)
        name = f"{beds} beds in one process"
        in_time = (Target("at most", IN_TIME_S, "worst"),) if beds <= FULL else ()
        lost = (Target("at most", 0.0, "worst"),)
        yield Figure("crowd", f"{name}: first verdict", "s", one["late_s"], in_time)
        yield Figure("crowd", f"{name}: pages lost", "pages", [one["lost"]], lost)
        yield Figure("crowd", f"{name}: processor", "% of a core per bed", [one["cpu"] / beds])
        yield Figure("crowd", f"{name}: memory", "MB", [one["resident_mb"]])
        if max(one["late_s"]) > IN_TIME_S:
            break
    most = max((n for n, one in measured.items() if max(one["late_s"]) <= IN_TIME_S), default=0)
    enough = (Target("at least", float(FULL)),)
    yield Figure("crowd", "most beds measured in time", "beds", [float(most)], enough)
    if FULL in measured:
        few, full = measured[FEW], measured[FULL]
        dearer = 100.0 * (full["cpu"] / FULL / (few["cpu"] / FEW) - 1.0)
        even = (Target("at most", 20.0),)
        yield Figure("crowd", f"processor per bed, {FULL} over {FEW}", "%", [dearer], even)
        each = (full["resident_mb"] - few["resident_mb"]) / (FULL - FEW)
        small = (Target("at most", 2.0),)
        yield Figure("crowd", "memory of a further bed", "MB", [each], small)


def _in_child(pack: Pack, beds: int, pages: int) -> dict[str, Any]:
    child = subprocess.run(
        [sys.executable, "-m", "hypnocast.bench.crowd", pack.folder, str(beds), str(pages)],
        capture_output=True,
        text=True,
        check=False,
    )
    if child.returncode:
        raise HypnocastError(f"beds failed: {child.stderr.strip()[-300:]}", where="bench crowd")
    measured: dict[str, Any] = json.loads(child.stdout)
    return measured


@dataclass(slots=True)
class Crowd:
    """Beds that went to sleep at different moments; what it costs to play them is kept apart."""

    beds: int
    pages: int
    began: float = 0.0
    playing_s: float = 0.0
    since: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Wall clock, processor and playing, when all beds were there."""
    ends: dict[str, float] = field(default_factory=dict)
    """When epoch 0 of a bed began, on the data's own clock."""

    def arrivals(self, _: WardWatch) -> Iterator[Coming]:
        """Give what comes when it is due."""
        people = [_night(number, self.pages) for number in range(min(PEOPLE, self.beds))]
        beds = [self._bed(number, people[number % PEOPLE]) for number in range(self.beds)]
        coming = heapq.merge(*beds, key=_when)
        item = next(coming, None)
        self.began = time.monotonic()
        settled = False
        while item is not None:
            early = self.began + _when(item) - START_S - time.monotonic()
            if early > 0.0:  # a sleep of no length at all hands the interpreter to other threads
                time.sleep(early)
            if not settled and _when(item) > START_S + PAGE_S + _SETTLED_S:
                settled = True
                self.since = (time.monotonic(), cpu_s(), self.playing_s)
            yield item
            before = time.thread_time()
            item = next(coming, None)
            self.playing_s += time.thread_time() - before

    def _bed(self, number: int, night: list[Arrival]) -> Iterator[Coming]:
        name = f"bed-{number:04d}"
        shift = PAGE_S * number / self.beds
        self.ends[name] = shift
        for arrival in night:
            yield name, later(arrival, shift)


def _night(seed: int, pages: int) -> list[Arrival]:
    source = SimulatedSource(
        ["bed"], seed=seed, pages=pages, truth=False, skip_pages=30, clock_start=START_S
    )
    return [arrival for _, arrival in source]


def _when(coming: Coming) -> float:
    return arrived(coming[1])


def main(pack: Path, beds: int, pages: int) -> None:
    """Run, and print what it needed."""
    from hypnocast.live.service.logs import set_up_logs

    set_up_logs(quiet=True)
    crowd = Crowd(beds, pages)
    watch = run_room(load_pack(pack), crowd.arrivals)
    wall, cpu, playing = crowd.since
    used = (cpu_s() - cpu) - (crowd.playing_s - playing)
    late = [
        at - (crowd.began + crowd.ends[bed] + PAGE_S * (epoch + 1))
        for (bed, epoch), at in watch.acknowledged.items()
        if epoch < pages - 1
    ]
    measured = {
        "late_s": [round(value, 4) for value in late],
        "lost": beds * pages - len(watch.acknowledged),
        "cpu": 100.0 * used / (time.monotonic() - wall),
        "resident_mb": resident_mb(),
    }
    print(json.dumps(measured))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
