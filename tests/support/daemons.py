"""The command line in a process of its own, as people start it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

DAEMON = Path(__file__).resolve().parents[2] / "daemon"
DEADLINE_S = 90.0


@dataclass(frozen=True, slots=True, eq=False)
class Daemon:
    """A running ``python -m hypnocast``, and what it has written so far."""

    process: subprocess.Popen[bytes]
    stdout: Path
    stderr: Path

    @property
    def output(self) -> str:
        """What it has written to standard output."""
        return self.stdout.read_text()

    @property
    def complained(self) -> str:
        """What it has written to standard error."""
        return self.stderr.read_text()

    def wait_for(
        self, true: Callable[[], object], what: str, timeout_s: float = DEADLINE_S
    ) -> None:
        """Wait for a condition; fail where the process ends before it comes true."""
        deadline = time.monotonic() + timeout_s
        while not true():
            ended = self.process.poll()
            assert ended is None, f"ended with {ended} before {what}: {self.complained}"
            assert time.monotonic() < deadline, f"{what} did not come true: {self.complained}"
            time.sleep(0.02)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)

    def kill(self) -> None:
        """Kill it as a power cut would."""
        self.process.kill()
        self.process.wait(DEADLINE_S)

    def left_over(self) -> bool:
        """Return whether any process of its group still runs."""
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        return True


def environment(changes: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a child that finds the package without an installation."""
    return {**os.environ, "PYTHONPATH": str(DAEMON), **changes}


def _within(memory_bytes: int | None) -> tuple[str, ...]:
    """Return what goes before a command that may have no more addresses than so many."""
    if memory_bytes is None:
        return ()
    return ("sh", "-c", f'ulimit -v {memory_bytes // 1024}; exec "$@"', "sh")


@contextmanager
def daemon(
    folder: Path,
    *arguments: str,
    interruptible: bool = True,
    memory_bytes: int | None = None,
    **changes: str,
) -> Iterator[Daemon]:
    """Run a command that lasts; ``changes`` are variables of its environment.

    Where it is not ``interruptible``, it begins as a script's background jobs do: without SIGINT.
    With ``memory_bytes`` it has no more addresses than so many, which is stricter than a limit on
    memory, and glibc makes few arenas, as in the service's unit.
    """
    if memory_bytes is not None:
        changes = {"MALLOC_ARENA_MAX": "2", **changes}
    deaf = () if interruptible else ("sh", "-c", 'trap "" INT; exec "$@"', "sh")
    folder.mkdir(parents=True, exist_ok=True)
    stdout, stderr = folder / "stdout.txt", folder / "stderr.txt"
    with stdout.open("wb") as out, stderr.open("wb") as err:
        process = subprocess.Popen(
            [*_within(memory_bytes), *deaf, sys.executable, "-m", "hypnocast", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=environment(changes),
            start_new_session=True,
        )
    running = Daemon(process, stdout, stderr)
    try:
        yield running
    finally:
        if process.poll() is None:
            running.kill()


def command(
    *arguments: str, memory_bytes: int | None = None, **changes: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return what it printed."""
    return subprocess.run(
        [*_within(memory_bytes), sys.executable, "-m", "hypnocast", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE_S,
        env=environment(changes),
        check=False,
    )
