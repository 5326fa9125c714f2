"""A real mosquitto on loopback, for any test that needs a broker."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from support.needs import need_program

DEADLINE_S = 40.0


_ports = itertools.cycle(range(10_000 + os.getpid() % 100 * 100, 10_100 + os.getpid() % 100 * 100))


def free_port() -> int:
    """Return a port of loopback that nobody listens on, and nobody will before the test does.

    It lies below those that the system hands out, and no other process of tests uses it.
    """
    for port in itertools.islice(_ports, 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("a hundred ports in a row are taken")


@dataclass(slots=True)
class Mosquitto:
    """A broker that can be killed and started again on the same port."""

    program: str
    config: Path
    port: int
    process: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        log = self.config.with_suffix(".log")
        with log.open("ab") as sink:
            self.process = subprocess.Popen(
                [self.program, "-c", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            assert self.process.poll() is None, log.read_text()
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1.0).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise AssertionError(log.read_text())

    def kill(self) -> None:
        """Kill it as a power cut would: without a farewell to anybody."""
        self._end(force=True)

    def stop(self) -> None:
        """End it in good order."""
        self._end(force=False)

    def restart(self) -> None:
        """Kill it and start it again."""
        self.kill()
        self.start()

    def _end(self, *, force: bool) -> None:
        if self.process is None:
            return
        if force:
            self.process.kill()
        else:
            self.process.terminate()
        self.process.wait(DEADLINE_S)
        self.process = None


@contextmanager
def running_mosquitto(
    folder: Path, extra: str = "", *, anonymous: bool = True
) -> Iterator[Mosquitto]:
    """Run mosquitto on a free port; ``extra`` are further lines of its configuration."""
    program = need_program("mosquitto")
    port = free_port()
    config = folder / f"mosquitto-{port}.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\n"
        f"allow_anonymous {'true' if anonymous else 'false'}\n"
        # As root it would become the user mosquitto, who may not read the test's folder.
        f"user root\npersistence false\n{extra}\n"
    )
    broker = Mosquitto(program, config, port)
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()
