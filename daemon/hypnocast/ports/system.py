"""The host's service manager: readiness, heartbeat, a hard end."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping

import structlog

_log = structlog.get_logger("system")


class Notifier:
    """Reports to the service manager; without one (no ``NOTIFY_SOCKET``) it does nothing.

    The protocol is systemd's: datagrams of ``KEY=value`` lines to a Unix socket.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        """Find the socket and the watchdog's period, where there are any."""
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self.watchdog_s = _watchdog(environment) if self._address else None
        """Without a heartbeat for so long we are killed; None where nobody listens for one."""
        self._last_status = ""
        # One socket for all: where file descriptors run out, the heart must still beat.
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        # A manager that does not read must not hold up the night.
        self._socket.settimeout(0.0)

    def ready(self) -> None:
        """Report that start-up is over."""
        self._send("READY=1")

    def alive(self) -> None:
        """Beat once."""
        self._send("WATCHDOG=1")

    def status(self, words: str) -> None:
        """Report in words what goes on; the same words are sent again only if they were lost."""
        if words != self._last_status:
            sent = self._send(f"STATUS={' '.join(words.split())}")
            self._last_status = words if sent else ""

    def stopping(self) -> None:
        """Report that we end."""
        self._send("STOPPING=1")

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()

    def _send(self, message: str) -> bool:
        """Send a message; return whether it was taken, or nobody wants it."""
        if self._address is None:
            return True
        try:
            self._socket.sendto(message.encode(), self._address)
        except OSError as error:
            _log.warning("the service manager cannot be reached", error=str(error))
            return False
        return True


def _address(value: str) -> str | None:
    if value.startswith("@"):
        return "\0" + value[1:]
    return value if value.startswith("/") else None


def _watchdog(environment: Mapping[str, str]) -> float | None:
    meant_for = environment.get("WATCHDOG_PID", "")
    period = environment.get("WATCHDOG_USEC", "")
    if not period.isdecimal() or int(period) == 0:
        return None
    if meant_for.isdecimal() and int(meant_for) != os.getpid():
        return None
    return int(period) / 1e6


def leave_in(seconds: float, code: int) -> Callable[[], None]:
    """End the process the hard way after a while, whatever hangs; return how to call that off.

    A thread that is stuck in a driver or on a disk cannot be ended, and would keep an orderly
    end waiting for ever.
    """
    timer = threading.Timer(seconds, os._exit, [code])
    timer.daemon = True
    timer.start()
    return timer.cancel


def leave_computing(name: str, patience_s: float = 1.0) -> None:
    """End the process here and now if threads of this name still compute.

    A model cannot be interrupted, and the interpreter's own end beneath it aborts the process: a
    stop in good order would look like a crash. To be called when all else has ended.
    """
    until = time.monotonic() + patience_s
    for thread in threading.enumerate():
        if thread.name == name:
            thread.join(max(0.0, until - time.monotonic()))
            if thread.is_alive():
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(0)
