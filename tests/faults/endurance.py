"""Eight simulated hours at speed with faults at random: memory, descriptors and threads."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from faults.afterwards import send_the_rest
from faults.checker import NightCheck, Truth, check_night
from faults.life import ORIGIN, UTC0, Orders, TimeFile, is_bad
from faults.nursery import Nursery
from faults.witness import FaultProxy, fault_proxy, until, witness

EVERY_S = 0.25


@dataclass(frozen=True)
class Footprint:
    """How big a process is at one moment."""

    hours: float
    rss_kb: int
    descriptors: int
    threads: int


@dataclass(frozen=True)
class Endured:
    """What was measured, and whether the night is whole."""

    sizes: list[Footprint]
    findings: dict[str, NightCheck]
    cuts: int
    seconds: float

    def growth(self, begin: float, end: float) -> float:
        """By which share memory grew between two moments of the night, as fractions of it."""
        whole = self.sizes[-1].hours

        def median(low: float, high: float) -> float:
            some = sorted(s.rss_kb for s in self.sizes if low * whole <= s.hours <= high * whole)
            return float(some[len(some) // 2])

        return median(end - 0.1, end) / median(begin, begin + 0.1) - 1.0


def size_of(process: int, hours: float) -> Footprint:
    """Ask the kernel."""
    numbers = dict(
        line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines()
    )
    descriptors = len(list(Path(f"/proc/{process}/fd").iterdir()))
    return Footprint(hours, int(numbers["VmRSS"].split()[0]), descriptors, int(numbers["Threads"]))


def endure(folder: Path, port: int, pack: Path, *, hours: float, seed: int) -> Endured:
    """Run a night of two beds through random faults, with samples of its size."""
    chance = random.Random(seed)
    ends = ORIGIN + hours * 3600.0
    silences = tuple(
        (at := ORIGIN + chance.uniform(0.0, hours * 3600.0), at + chance.choice([2.0, 20.0, 200.0]))
        for _ in range(round(3 * hours))
    )
    beds = ("bed1", "bed2")
    sizes: list[Footprint] = []
    clock = TimeFile(folder / "clock")
    begun = time.monotonic()
    with (
        witness(port) as listener,
        fault_proxy(port) as proxy,
        Nursery(folder / "daemons.log") as nursery,
    ):
        orders = Orders(
            state=str(folder / "state"), pack=str(pack), port=proxy.port, begins=ORIGIN,
            beds=beds, until=ends, clock=str(folder / "clock"), tape=True, flaky=0.02,
            silences=silences, answer_s=1.0,
        )  # fmt: skip
        process = nursery.begin(orders)
        over = threading.Event()
        harm = threading.Thread(target=_harm, args=(proxy, chance, over))
        harm.start()

        def sample() -> None:
            while not over.wait(EVERY_S):
                try:
                    sizes.append(size_of(process, (clock.now - ORIGIN) / 3600.0))
                except (FileNotFoundError, KeyError):
                    return  # it has just ended

        sampler = threading.Thread(target=sample)
        sampler.start()
        code = nursery.ended()
        over.set()
        harm.join()
        sampler.join()
        assert code == 0, (folder / "daemons.log").read_text()[-4000:]
        send_the_rest(orders, nursery, proxy)
        pages = round(hours * 120)
        until(lambda: all(len(set(listener.events(bed))) >= pages for bed in beds), "all came")
        truth = Truth(
            (UTC0,),
            UTC0 + ends - ORIGIN,
            lambda at: (
                not is_bad(ORIGIN + at - UTC0)
                and not any(a <= ORIGIN + at - UTC0 < b for a, b in silences)
            ),
        )
        journal = folder / "state" / "journal.sqlite"
        findings = {bed: check_night([journal], listener.events(bed), bed, truth) for bed in beds}
    return Endured(sizes, findings, proxy.cuts, time.monotonic() - begun)


def _harm(proxy: FaultProxy, chance: random.Random, over: threading.Event) -> None:
    """Do something to the connection every second or so."""
    while not over.wait(chance.uniform(0.3, 2.0)):
        match chance.choice(["cut", "before", "after", "silent", "slow", "refuse"]):
            case "cut":
                proxy.cut()
            case "before":
                proxy.cut_before_puback = chance.randint(1, 5)
            case "after":
                proxy.cut_after_puback = chance.randint(1, 5)
            case "silent":
                proxy.silent = True
                over.wait(chance.uniform(0.5, 2.0))
                proxy.silent = False
            case "slow":
                proxy.slow_s = 0.02
                over.wait(chance.uniform(0.5, 2.0))
                proxy.slow_s = 0.0
            case _:
                proxy.refuse = True
                proxy.cut()
                over.wait(chance.uniform(0.5, 2.0))
                proxy.refuse = False
