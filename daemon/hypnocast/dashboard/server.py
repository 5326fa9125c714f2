"""The ward page's server: an application for any ASGI server, and a coroutine that serves it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator

import uvicorn
from starlette.applications import Starlette

from hypnocast.dashboard.guard import LARGEST_HEAD, PatientProtocol
from hypnocast.dashboard.handlers import Handlers
from hypnocast.dashboard.hub import Hub
from hypnocast.dashboard.settings import DashboardSettings
from hypnocast.errors import ConfigError

__all__ = ["DashboardSettings", "create_app", "serve"]

_MOST_CONNECTIONS = 400


def create_app(settings: DashboardSettings) -> Starlette:
    """Return the application; it listens to the broker while its lifespan runs."""
    return Handlers(settings).app


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
    settings: DashboardSettings, *, started: Callable[[str], None] = lambda _: None
) -> None:
    """Serve the ward page until cancelled; ``started`` is told its address once it listens."""
    desk = Handlers(settings)
    config = uvicorn.Config(
        desk.app,
        http=PatientProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=2,
        h11_max_incomplete_event_size=LARGEST_HEAD,
        ssl_certfile=settings.cert_file,
        ssl_keyfile=settings.key_file,
        proxy_headers=False,
    )
    _load_certificate(config, settings)
    listener = _listen(settings)
    host, port = listener.getsockname()[:2]
    server = _Server(config, desk.hub)
    task = asyncio.create_task(server.serve([listener]), name="dashboard")
    task.add_done_callback(lambda _: server.listening.set())
    try:
        await server.listening.wait()
        name = f"[{host}]" if ":" in host else host
        started(f"{'https' if settings.secure else 'http'}://{name}:{port}/")
        await asyncio.shield(task)
    finally:
        server.should_exit = True
        await task


def _load_certificate(config: uvicorn.Config, settings: DashboardSettings) -> None:
    """Have uvicorn read certificate and key before it is said where the page is."""
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"TLS certificate or key cannot be used: {error.strerror or error}",
            where=f"{settings.cert_file}, {settings.key_file}",
            remedy="Name PEM files that this user may read.",
        ) from None


def _listen(settings: DashboardSettings) -> socket.socket:
    where = f"{settings.host}:{settings.port}"
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((settings.host, settings.port))
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise ConfigError(
            f"cannot listen: {error.strerror or error}",
            where=where,
            remedy="Choose another dashboard host or port.",
        ) from None
    return listener
