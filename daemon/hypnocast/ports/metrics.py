"""Numbers for Prometheus, served by a few threads at the most, to who asks in time."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from hypnocast.errors import InstallError
from hypnocast.ports.supervision import Supervisor, WorkerPool

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from prometheus_client.core import Metric

MAX_CONNECTIONS: Final = 8
"""At once: whoever may connect to the port may not use up the daemon's threads."""

CONNECTION_S: Final = 5.0
"""How long a connection may last; Prometheus makes one for each look."""


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

    def __init__(
        self,
        host: str,
        port: int,
        read: Callable[[], Iterable[MetricValue]],
        supervisor: Supervisor,
    ) -> None:
        """Keep where to listen, who has the numbers (asked on threads), and who watches them."""
        self._host, self._port, self._read = host, port, read
        self._supervisor = supervisor
        self._close: Callable[[], None] | None = None

    def __enter__(self) -> Self:
        from prometheus_client import CollectorRegistry, make_wsgi_app

        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        answering = self._supervisor.pool("metrics-answers", MAX_CONNECTIONS)
        try:
            server = _LimitedServer((self._host, self._port), answering)
        except OSError as error:
            raise InstallError(
                f"metrics cannot be served: {error.strerror or error}",
                where=f"{self._host}:{self._port}",
                remedy="Choose another [metrics] host or port.",
            ) from error
        server.set_app(make_wsgi_app(registry))
        serving = self._supervisor.thread(
            "metrics", lambda _: server.serve_forever(), on_failure="restart"
        )
        self.port = int(server.server_address[1])

        def close() -> None:
            serving.request_stop()
            server.shutdown()
            server.server_close()
            serving.stop()
            answering.shutdown(wait=False)

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


class _QuietHandler(WSGIRequestHandler):
    """Answers a request; logs nothing, for requests have nothing to do with the night."""

    timeout = CONNECTION_S

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Log nothing."""


class _LimitedServer(WSGIServer):
    """Answers a few connections at once, for a few seconds each."""

    def __init__(self, address: tuple[str, int], answering: WorkerPool) -> None:
        """Listen; connections are answered on the threads of a pool."""
        self._answering = answering
        self._began: dict[socket.socket, float] = {}
        super().__init__(address, _QuietHandler)

    def server_bind(self) -> None:
        """Bind without looking up this host's name, which may be slow."""
        super(WSGIServer, self).server_bind()
        host, port = self.server_address[:2]
        self.server_name, self.server_port = str(host), int(port)
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a connection on a thread of the pool, unless there are too many."""
        if len(self._began) >= MAX_CONNECTIONS:
            self.shutdown_request(request)
            return
        self._began[request] = time.monotonic()
        self._answering.forget(self._answer, request, client_address)

    def _answer(self, request: Any, client_address: Any) -> None:
        with contextlib.suppress(OSError):  # whoever asked is gone, or was too slow
            self.finish_request(request, client_address)
        self.shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:
        """Let go of a connection."""
        self._began.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """End connections that last too long; called twice a second."""
        oldest = time.monotonic() - CONNECTION_S
        for request, began in list(self._began.items()):
            if began < oldest:
                with contextlib.suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)
