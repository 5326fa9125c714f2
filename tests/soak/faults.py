"""What fails, when, and how the daemon is to name it. Kinds come and go independently."""

from __future__ import annotations

import errno
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from soak.amplifiers import SoakAmplifiers
    from soak.disk import FailingDisk, MemoryGroup
    from soak.manager import ServiceManager
    from soak.proxy import FailingProxy
    from support.brokers import Mosquitto

NAMED_WITHIN_S = 10.0


@dataclass(frozen=True)
class Failure:
    """One way to fail."""

    name: str
    every_s: float
    """On average."""
    lasts_s: tuple[float, float]
    """From, to; zero: a blow."""
    begin: Callable[[], object]
    end: Callable[[], object] = lambda: None
    names: str = ""
    """A pattern that ``degraded`` (or, without a broker, the status line) matches meanwhile; ``{}``
    is what ``begin`` returned. A broker of MQTT 3.1.1 only has none: it is served as any other."""


@dataclass(frozen=True)
class Injected:
    """A fault that was injected."""

    kind: str
    began: float
    ended: float
    names: str


@dataclass(frozen=True, eq=False)
class SoakScene:
    """The parts that can fail."""

    manager: ServiceManager
    mosquitto: Mosquitto
    proxy: FailingProxy
    disk: FailingDisk
    memory: MemoryGroup
    amplifiers: SoakAmplifiers
    chance: random.Random

    def kinds(self) -> list[Failure]:
        """Return every way to fail."""
        disk, proxy = self.disk, self.proxy
        broker = r"answered nothing|acknowledged nothing|connection ended|cannot be reached"
        return [
            Failure("kill -9", 110.0, (0.0, 0.0), self.manager.kill),
            Failure("broker cut", 100.0, (0.0, 0.0), proxy.cut),
            Failure("broker gone", 120.0, (5.0, 25.0), self._refuse, self._accept, broker),
            Failure("broker silent", 150.0, (15.0, 35.0), self._swallow, self._pass_on, broker),
            Failure("broker killed", 140.0, (1.0, 6.0), self._kill_broker, self._start_broker),
            Failure("broker 3.1.1", 160.0, (30.0, 60.0), self._become_old, self._become_new),
            Failure(
                "disk full", 130.0, (12.0, 30.0), disk.fill, disk.make_room,
                r"disk is full|No space",
            ),
            Failure(
                "disk read-only", 150.0, (12.0, 25.0),
                lambda: disk.refuse_writes(errno.EROFS), lambda: disk.refuse_writes(0),
                r"[Rr]ead-only|readonly|I/O error|journal.degraded",
            ),
            Failure(
                "sync EIO", 150.0, (12.0, 25.0),
                lambda: disk.fail_syncs(errno.EIO), lambda: disk.fail_syncs(0),
                r"I/O error|Input/output|cannot be synced|journal.degraded",
            ),
            Failure(
                "slow disk", 150.0, (15.0, 30.0),
                lambda: disk.slow_syncs(1500), lambda: disk.slow_syncs(0), r"to sync",
            ),
            Failure("memory", 170.0, (12.0, 20.0), self._squeeze, self._release, self._short),
            Failure("clock step", 120.0, (0.0, 0.0), self._step_clock, names=r"clock was set"),
            Failure(
                "amplifier off", 60.0, (3.0, 40.0), self.amplifiers.off, self.amplifiers.on,
                r"{}: no samples",
            ),
        ]  # fmt: skip

    def _refuse(self) -> None:
        self.proxy.refuses = True
        self.proxy.cut()

    def _swallow(self) -> None:
        self.proxy.swallows = True

    def _accept(self) -> None:
        self.proxy.refuses = False

    def _pass_on(self) -> None:
        self.proxy.swallows = False

    def _become_old(self) -> None:
        self.proxy.old = True
        self.proxy.cut()

    def _become_new(self) -> None:
        self.proxy.old = False
        self.proxy.cut()

    def _kill_broker(self) -> None:
        self.mosquitto.kill()

    def _start_broker(self) -> None:
        self.mosquitto.start()

    def _step_clock(self) -> None:
        steps = {-7200, -90, -3, 0, 3, 90, 3600} - {self.disk.clock_shift}
        self.disk.shift_clock(self.chance.choice(sorted(steps)))

    @property
    def _short(self) -> str:
        return r"memory: only" if self.memory.there else ""

    def _squeeze(self) -> None:
        if self.memory.there:
            self.memory.limit(self.memory.held + 12_000_000)

    def _release(self) -> None:
        self.memory.limit(None)


class Injector:
    """Lets every kind come and go on a thread of its own, until stopped."""

    def __init__(self, kinds: list[Failure], seed: int) -> None:
        """Begin with all kinds at once."""
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self.injected: list[Injected] = []
        self._threads = [
            threading.Thread(target=self._run, args=(kind, random.Random(f"{seed} {kind.name}")))
            for kind in kinds
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End every fault that lasts, and inject no more."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _run(self, kind: Failure, chance: random.Random) -> None:
        wait = chance.uniform(0.1, 1.0) * kind.every_s
        while not self._stopping.wait(wait):
            began = time.time()
            struck = kind.begin()
            lasts = chance.uniform(*kind.lasts_s)
            self._stopping.wait(lasts)
            ended = time.time()
            names = kind.names.replace("{}", str(struck))
            kind.end()
            with self._lock:
                self.injected.append(Injected(kind.name, began, ended, names))
            wait = chance.uniform(0.5, 1.5) * kind.every_s
