"""Stands in for the service manager: starts the daemon, listens for its heart, begins it anew."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

WATCHDOG_S = 60.0
RESTART_S = 1.0


@dataclass(frozen=True)
class DaemonLife:
    """One run of the daemon."""

    began: float
    ended: float
    code: int
    silent: bool
    """Ended by the manager because its heart stood still."""


@dataclass(frozen=True)
class ProcessSize:
    """How big the daemon is at one moment."""

    at: float
    life: int
    rss_kb: int
    descriptors: int
    threads: int


class ServiceManager:
    """Keeps one daemon running, as systemd would with ``Restart=always``."""

    def __init__(
        self,
        config: Path,
        log: Path,
        environment: dict[str, str],
        begun: Callable[[int], object],
    ) -> None:
        """Keep the daemon's configuration, its log, its variables, and who gets its number."""
        self._begun = begun
        self._config = config
        self._log = log.open("ab")
        self._path = log.with_name("notify")
        self._environment = {
            **os.environ,
            **environment,
            "NOTIFY_SOCKET": str(self._path),
            "WATCHDOG_USEC": str(round(WATCHDOG_S * 1e6)),
        }
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self._path))
        self._socket.settimeout(0.5)
        self._stopping = False
        self._began = 0.0
        self._alive_at = 0.0
        self.process: subprocess.Popen[bytes] | None = None
        self.statuses: list[tuple[float, str]] = []
        self.ready: list[float] = []
        self.lives: list[DaemonLife] = []
        self.sizes: list[ProcessSize] = []
        self._threads = [
            threading.Thread(target=run, daemon=True)
            for run in (self._listen, self._keep, self._measure)
        ]
        for thread in self._threads:
            thread.start()

    def kill(self) -> None:
        """Kill the daemon as a power cut would; it is begun anew."""
        process = self.process
        if process is not None:
            process.kill()

    def stop(self) -> int:
        """End the daemon in good order and return its exit code."""
        self._stopping = True
        process = self.process
        code = -1
        if process is not None:
            process.terminate()
            code = process.wait(120.0)
        for thread in self._threads:
            thread.join(5.0)
        self._socket.close()
        self._log.close()
        return code

    def _keep(self) -> None:
        while not self._stopping:
            self._began = time.time()
            self._alive_at = float("inf")  # before it is ready no heart is listened for
            process = subprocess.Popen(
                [sys.executable, "-m", "hypnocast", "run", "-c", str(self._config)],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                env=self._environment,
            )
            self._begun(process.pid)
            self.process = process
            silent = False
            while process.poll() is None:
                if time.time() - self._alive_at > WATCHDOG_S:
                    silent = True
                    process.send_signal(signal.SIGABRT)
                    process.wait()
                time.sleep(0.1)
            self.lives.append(DaemonLife(self._began, time.time(), process.returncode, silent))
            if not self._stopping:
                time.sleep(RESTART_S)

    def _listen(self) -> None:
        while not self._stopping:
            try:
                words = self._socket.recv(65536).decode()
            except TimeoutError:
                continue
            now = time.time()
            for line in words.splitlines():
                if line == "WATCHDOG=1":
                    self._alive_at = now
                elif line == "READY=1":
                    self._alive_at = now
                    self.ready.append(now)
                elif line.startswith("STATUS="):
                    self.statuses.append((now, line.removeprefix("STATUS=")))

    def _measure(self) -> None:
        while not self._stopping:
            time.sleep(2.0)
            process = self.process
            if process is None or process.poll() is not None:
                continue
            folder = Path(f"/proc/{process.pid}")
            try:
                lines = (folder / "status").read_text().splitlines()
                found = dict(line.split(":", 1) for line in lines)
                size = ProcessSize(
                    at=time.time(),
                    life=len(self.lives),
                    rss_kb=int(found["VmRSS"].split()[0]),
                    descriptors=len(list((folder / "fd").iterdir())),
                    threads=int(found["Threads"]),
                )
            except (OSError, KeyError, ValueError):
                continue  # it has just ended
            self.sizes.append(size)
