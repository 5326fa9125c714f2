"""The host's service manager, and who else watches: readiness, heartbeat, metrics."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import structlog

from hypnocast.errors import InstallError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from prometheus_client.core import Metric

_log = structlog.get_logger("system")


class Notifier:
    """Tells the service manager how we do; without one (no ``NOTIFY_SOCKET``) it does nothing.

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
        """Say that start-up is over."""
        self._send("READY=1")

    def alive(self) -> None:
        """Beat once."""
        self._send("WATCHDOG=1")

    def status(self, words: str) -> None:
        """Say in words what goes on; the same words are said once."""
        if words != self._last_status:
            self._last_status = words
            self._send(f"STATUS={' '.join(words.split())}")

    def stopping(self) -> None:
        """Say that we end."""
        self._send("STOPPING=1")

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()

    def _send(self, message: str) -> None:
        if self._address is None:
            return
        try:
            self._socket.sendto(message.encode(), self._address)
        except OSError as error:
            _log.warning("the service manager cannot be told", error=str(error))


def _address(told: str) -> str | None:
    if told.startswith("@"):
        return "\0" + told[1:]
    return told if told.startswith("/") else None


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


# --- metrics ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MetricValue:
    """One number for Prometheus."""

    name: str
    help: str
    value: float
    kind: Literal["gauge", "counter"] = "gauge"
    labels: Mapping[str, str] = field(default_factory=dict)


class MetricsServer:
    """Serves numbers to Prometheus, by default to this host only."""

    def __init__(self, host: str, port: int, read: Callable[[], Iterable[MetricValue]]) -> None:
        """Take where to listen, and who has the numbers (asked on the server's thread)."""
        self._host, self._port, self._read = host, port, read
        self._close: Callable[[], None] | None = None

    def __enter__(self) -> Self:
        from prometheus_client import CollectorRegistry, start_http_server

        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        try:
            server, thread = start_http_server(self._port, self._host, registry)
        except OSError as error:
            raise InstallError(
                f"metrics cannot be served: {error.strerror or error}",
                where=f"{self._host}:{self._port}",
                remedy="Choose another [metrics] host or port.",
            ) from error
        self.port = int(server.server_address[1])

        def close() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        self._close = close
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._close is not None:
            self._close()

    def describe(self) -> list[Metric]:
        """Name nothing beforehand: prometheus-client asks this of a collector."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Give all numbers as they are now: prometheus-client asks this of a collector."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for reading in self._read():
            family = families.get(reading.name)
            if family is None:
                make = CounterMetricFamily if reading.kind == "counter" else GaugeMetricFamily
                family = make(f"hypnocast_{reading.name}", reading.help, labels=[*reading.labels])
                families[reading.name] = family
            family.add_metric([*reading.labels.values()], reading.value)
        return families.values()
