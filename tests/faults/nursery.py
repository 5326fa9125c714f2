"""Brings daemons to life quickly: one process has everything imported and forks the others.
Reads orders as JSON lines on standard input; writes each daemon's process id when it begins and
Reads orders as JSON lines on standard input; reports each daemon's process id when it begins and
its exit status when it has ended, as JSON lines on standard output.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

TESTS = Path(__file__).resolve().parent.parent
DEADLINE_S = 60.0

UNIT_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": "131072",
    "MALLOC_TRIM_THRESHOLD_": "131072",
}
"""What ``systemd/hypnocast.service`` sets; a test holds the two together."""


class Nursery:
    """The test's end of it."""

    def __init__(self, log: Path, before: tuple[str, ...] = ()) -> None:
        """Start the process that has everything imported; ``before`` is a command before it."""
        environment = os.environ | UNIT_ENVIRONMENT
        self._log = log.open("ab")
        self._process = subprocess.Popen(
            [*before, sys.executable, str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
        )

    def begin(self, orders: object) -> int:
        """Bring a daemon to life; return its process id."""
        assert dataclasses.is_dataclass(orders)
        assert not isinstance(orders, type)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(dataclasses.asdict(orders)).encode() + b"\n")
        self._process.stdin.flush()
        return self._read()

    def ended(self) -> int:
        """Wait for its end; return its exit code, or minus the signal that ended it."""
        return os.waitstatus_to_exitcode(self._read())

    def _read(self) -> int:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the nursery died; see {self._log.name}"
        return int(json.loads(line))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._log):
            if pipe is not None:
                pipe.close()


def _report(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def _live(line: str) -> None:
    """Be the daemon until it ends or is killed."""
    from support.orphans import die_with_parent

    die_with_parent()
    from faults.life import Orders, a_ward
    from faults.models import flaky
    from faults.points import arm
    from faults.watched import watched
    from hypnocast.live.service import ward
    from hypnocast.live.service.logs import set_up_logs
    from hypnocast.ports.journal import storage

    set_up_logs()
    document = json.loads(line)
    document["beds"] = tuple(document["beds"])
    document["silences"] = tuple(tuple(silence) for silence in document["silences"])
    orders = Orders(**document)
    ward.STATE_EVERY_S = orders.state_every_s
    if orders.held_bytes:
        vars(storage)["HELD_BYTES"] = orders.held_bytes
    if orders.kill_at:
        arm(orders.kill_at, orders.kill_hit)

    async def serve() -> None:
        build = flaky(orders) if orders.flaky else None
        async with a_ward(orders, build=build) as alive:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, alive.ward.stop)
            await watched(alive, orders)

    asyncio.run(serve())


def main() -> None:
    """Fork daemons on demand, one at a time."""
    sys.path[:0] = [str(TESTS), str(TESTS.parent / "daemon")]
    from support.orphans import die_with_parent

    die_with_parent()
    import onnxruntime
    import scipy.signal

    import faults.life
    import faults.points

    assert all((onnxruntime, scipy.signal, faults.life, faults.points))
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                _live(line)
                code = 0
            except BaseException as error:  # noqa: BLE001 - said below; a child must not go on
                import traceback

                traceback.print_exception(error)
            finally:
                sys.stderr.flush()
                os._exit(code)
        _report(child)
        _, status = os.waitpid(child, 0)
        _report(status)


if __name__ == "__main__":
    main()
