"""The amplifiers of all beds, each a process that can be killed and begun again."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path


class SoakAmplifiers:
    """Keeps one process per bed, and remembers when it was there."""

    def __init__(self, beds: tuple[str, ...], api: Path, chance: random.Random) -> None:
        """Begin all; ``api`` is liblsl's configuration."""
        self._environment = {**os.environ, "LSLAPICFG": str(api)}
        self._chance = chance
        self._lock = threading.Lock()
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._off: list[str] = []
        self.gaps: dict[str, list[tuple[float, float]]] = {bed: [] for bed in beds}
        """When a bed had no amplifier."""
        for bed in beds:
            self._begin(bed)

    def _begin(self, bed: str) -> None:
        program = Path(__file__).with_name("amplifier.py")
        self._running[bed] = subprocess.Popen(
            [sys.executable, str(program), bed], env=self._environment
        )

    def off(self) -> str:
        """Kill one bed's amplifier, and return which."""
        with self._lock:
            bed = self._chance.choice([bed for bed in self._running if bed not in self._off])
            self._running[bed].kill()
            self._running[bed].wait()
            self._off.append(bed)
            self.gaps[bed].append((time.time(), float("inf")))
            return bed

    def on(self) -> None:
        """Begin it again."""
        with self._lock:
            bed = self._off.pop(0)
            self._begin(bed)
            began, _ = self.gaps[bed].pop()
            # Until it is found and open again no sample can come.
            self.gaps[bed].append((began, time.time()))

    def close(self) -> None:
        """End all."""
        for process in self._running.values():
            process.kill()
            process.wait()
