"""A Lab Streaming Layer network of one's own: nobody else's streams, nobody else sees ours.

``isolate`` must run before anything uses liblsl; ``tests/conftest.py`` sees to it. Outlets run
in processes of their own (:mod:`lsl_outlets`), so that they can be killed and stopped.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from hypnocast.core.types import Arrival, Chunk
from hypnocast.ports.lsl.library import LslNetwork
from support.other_host import run_module

_TESTS = Path(__file__).resolve().parents[1]
PORT_RANGE = 96


def base_port() -> int:
    """Return the first port of this process of tests; those side by side do not share any.

    They lie below those that the system hands out.
    """
    return 20_000 + os.getpid() % 110 * (PORT_RANGE + 4)


def session_id() -> str:
    """Return LSL's session id of this test run."""
    return f"test-{os.getpid()}"


def isolate() -> None:
    """Point liblsl, here and in child processes, to a network that is this test run's own."""
    base = base_port()
    network = LslNetwork(
        peers=("127.0.0.1",),
        scope="machine",
        base_port=base + 2,
        port_range=PORT_RANGE,
        multicast_port=base,
        ipv6=False,
        session_id=session_id(),
    )
    content = network.content() + "[log]\nlevel = -3\n"
    folder = Path(tempfile.mkdtemp(prefix="lsl-lab-"))
    atexit.register(_remove, folder, os.getpid())
    (folder / "lsl_api.cfg").write_text(content)
    os.environ["LSLAPICFG"] = str(folder / "lsl_api.cfg")


def _remove(folder: Path, owner: int) -> None:
    """Leave nothing behind; a forked child leaves its parent's folder alone."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


def unique(word: str) -> str:
    """Return a name no other stream has."""
    return f"{word}-{uuid.uuid4().hex[:8]}"


@dataclass(frozen=True)
class Stream:
    """An outlet to run: its first channel counts samples, the others are noise."""

    name: str
    type: str = "EEG"
    source_id: str = ""
    rate: float = 256.0
    declared_rate: float | None = None
    labels: tuple[str, ...] = ("Count", "F4-M1")
    described: tuple[str, ...] | None = None
    """The labels its header gives, if not ``labels``."""
    unit: str | None = "microvolts"
    format: str = "float32"
    start: int = 0
    """The first count."""
    clock: str = "lsl"
    """``lsl``, ``unix`` or ``stuck``."""
    padding: int = 0
    """So many letters are in its header beside the rest."""
    marker: bool = False
    """Send what is written to the process's standard input, instead of signals."""


class Outlets:
    """A process with outlets, from its start to its end."""

    def __init__(self, *streams: Stream, host: str | None = None) -> None:
        """Start it, here or on a host of another name, and wait until its outlets are up."""
        self.process = subprocess.Popen(
            run_module(host, "support.lsl_outlets", json.dumps([asdict(one) for one in streams])),
            cwd=_TESTS,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.up = float(self.process.stdout.readline())
        """The LSL clock when they were up."""

    def mark(self, text: str) -> None:
        """Send a marker."""
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """Kill it as a crash would."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Stop it: its connections stay, nothing comes any more."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on after :meth:`stop`."""
        self.process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


class Collector:
    """A sink that keeps everything and can be waited for."""

    def __init__(self) -> None:
        """Begin empty."""
        self._changed = threading.Condition()
        self._arrivals: list[tuple[str, Arrival]] = []

    def __call__(self, bed: str, arrival: Arrival) -> None:
        """Add an arrival."""
        with self._changed:
            self._arrivals.append((bed, arrival))
            self._changed.notify_all()

    def all(self) -> list[tuple[str, Arrival]]:
        """Return what came for all beds."""
        with self._changed:
            return list(self._arrivals)

    def of(self, bed: str) -> list[Arrival]:
        """Return what came for a bed."""
        with self._changed:
            return [arrival for name, arrival in self._arrivals if name == bed]

    def kinds(self, bed: str) -> list[str]:
        """Return the kinds of arrivals for a bed without repetition of chunks."""
        kinds = [type(arrival).__name__ for arrival in self.of(bed)]
        return [
            kind
            for index, kind in enumerate(kinds)
            if kind not in {"Chunk", "ClockReading"} or index == 0 or kinds[index - 1] != kind
        ]

    def counts(self, bed: str, stream: str | None = None) -> NDArray[np.int64]:
        """Return the first channel of all samples of a bed."""
        parts = [
            arrival.samples[:, 0]
            for arrival in self.of(bed)
            if isinstance(arrival, Chunk) and stream in (None, arrival.stream)
        ]
        return np.concatenate(parts).astype(np.int64) if parts else np.empty(0, np.int64)

    def wait(self, ready: Callable[[], bool], what: str, timeout_s: float = 120.0) -> None:
        """Wait until something is so, or fail."""
        wait_until(ready, what, timeout_s)


def wait_until(ready: Callable[[], bool], what: str, timeout_s: float = 120.0) -> None:
    """Wait for a condition; fail where it does not come true in time."""
    deadline = time.monotonic() + timeout_s
    while not ready():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:g} s in vain: {what}")
        time.sleep(0.02)


@contextmanager
def outlets(*streams: Stream) -> Iterator[Outlets]:
    """Run outlets inside a ``with``."""
    with Outlets(*streams) as running:
        yield running


@contextmanager
def sending(module: str) -> Iterator[None]:
    """Run a module of outlets (:mod:`sending_outlets`) in a process of its own while it sends."""
    process = subprocess.Popen(
        run_module(None, module), cwd=_TESTS, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "up\n"
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def gaps(counts: Sequence[int] | NDArray[np.int64]) -> int:
    """Return at how many places a count does not follow the one before."""
    return int((np.diff(np.asarray(counts)) != 1).sum())
