"""The ward page's server: an application for any ASGI server, and a coroutine that serves it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator

import uvicorn

from hypnocast.dashboard.door import MOST_CONNECTIONS, Door
from hypnocast.dashboard.guard import LARGEST_HEAD, protocol_of
from hypnocast.dashboard.handlers import Handlers
from hypnocast.dashboard.hub import Hub
from hypnocast.dashboard.settings import DashboardSettings
from hypnocast.errors import ConfigError
from hypnocast.ports.supervision import Supervisor
from hypnocast.ports.worker import Worker

SWEEP_S = 2.0
"""How often connections without traffic are looked for."""


class _Server(uvicorn.Server):
    """uvicorn inside somebody else's event loop: signals are not its business."""

    def __init__(self, config: uvicorn.Config, hub: Hub) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()
        self._hub = hub

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._hub.close()
        await super().shutdown(sockets)


async def serve(
    settings: DashboardSettings,
    *,
    started: Callable[[str], None] = lambda _: None,
    supervisor: Supervisor | None = None,
) -> None:
    """Serve the ward page until cancelled; ``started`` gets its address once it listens.

    Without logins the address holds the token that opens the page. Its tasks are watched by
    ``supervisor``.
    """
    supervisor = supervisor or Supervisor()
    handlers = Handlers(settings, supervisor)
    door = Door.at(settings.host, settings.port)
    config = uvicorn.Config(
        handlers.app,
        http=protocol_of(door),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=2,
        h11_max_incomplete_event_size=LARGEST_HEAD,
        ssl_certfile=settings.cert_file,
        ssl_keyfile=settings.key_file,
        proxy_headers=False,
    )
    try:
        _load_certificate(config, settings)
    except ConfigError:
        door.close()
        raise
    host, port = door.getsockname()[:2]
    server = _Server(config, handlers.hub)
    task = supervisor.task("page server", lambda _: server.serve([door]), on_failure="pass")
    task.add_done_callback(lambda _: server.listening.set())
    sweeping = supervisor.task(
        "page sweep", lambda worker: _sweep(door, worker), on_failure="restart"
    )
    try:
        await server.listening.wait()
        name = f"[{host}]" if ":" in host else host
        token = "" if handlers.gate.needs_login else f"?token={settings.token}"
        started(f"{'https' if settings.secure else 'http'}://{name}:{port}/{token}")
        await asyncio.shield(task)
    finally:
        sweeping.cancel()
        server.should_exit = True
        await task


async def _sweep(door: Door, worker: Worker) -> None:
    """Close what was opened and sends nothing, whether or not anybody else comes."""
    while True:
        worker.beat()
        await asyncio.sleep(SWEEP_S)
        door.close_silent()


def _load_certificate(config: uvicorn.Config, settings: DashboardSettings) -> None:
    """Have uvicorn read certificate and key before the page's address is printed."""
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"TLS certificate or key cannot be used: {error.strerror or error}",
            where=f"{settings.cert_file}, {settings.key_file}",
            remedy="Name PEM files that this user may read.",
        ) from None
