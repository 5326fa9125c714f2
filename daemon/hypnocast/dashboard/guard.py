"""What checks every request first: size, time, headers, host, and how connections may idle."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from hypnocast.dashboard.door import Door

LARGEST_BODY = 16 << 10
LARGEST_HEAD = 16 << 10
LONGEST_TARGET = 2048
"""Bytes of path and query."""

_POLICY = (
    "default-src 'none'; "
    "script-src 'self'; "
    "style-src 'self'; "
    "img-src 'self' blob: data:; "
    "connect-src 'self'; "
    "manifest-src 'self'; "
    "base-uri 'none'; "
    "form-action 'self'; "
    "frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


class _TooLarge(Exception):  # noqa: N818 - a signal within this module, not an error for people
    """The body is larger than announced or than it may be."""


class _TooSlow(Exception):  # noqa: N818 - as above
    """The body did not come in time."""


class Guard:
    """ASGI middleware that refuses what no honest browser sends, and sets the headers of safety."""

    def __init__(self, app: ASGIApp, *, loopback: bool, secure: bool, patience_s: float) -> None:
        """Keep the application, where it listens, and how long a body may need."""
        self._app = app
        self._loopback = loopback
        self._patience_s = patience_s
        self._headers = dict(_HEADERS)
        if secure:
            self._headers["strict-transport-security"] = "max-age=31536000"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def send_checked(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope)
        if refusal is None:
            try:
                await self._app(scope, self._bounded(receive), send_checked)
            except _TooLarge:
                refusal = (413, f"a request holds at most {LARGEST_BODY} bytes")
            except _TooSlow:
                refusal = (408, "the request took too long")
        if refusal is not None and not begun:
            status, words = refusal
            answer = PlainTextResponse(words + "\n", status, {"connection": "close"})
            await answer(scope, receive, send_checked)

    def _refusal(self, scope: MutableMapping[str, Any]) -> tuple[int, str] | None:
        headers = Headers(scope=scope)
        if len(scope["raw_path"]) + len(scope["query_string"]) > LONGEST_TARGET:
            return 414, "the address is too long"
        if any(part == ".." for part in scope["path"].replace("\\", "/").split("/")):
            return 404, "not found"
        if self._loopback and _host(headers.get("host", "")) not in _LOOPBACK_NAMES:
            return 421, "this page is served to this host only, by the names of this host"
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > LARGEST_BODY:
            return 413, f"a request holds at most {LARGEST_BODY} bytes"
        return None

    def _bounded(self, receive: Receive) -> Receive:
        taken = 0
        complete = False
        deadline = asyncio.get_running_loop().time() + self._patience_s

        async def bounded() -> Message:
            nonlocal taken, complete
            if complete:
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise _TooSlow from None
            taken += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if taken > LARGEST_BODY:
                raise _TooLarge
            return message

        return bounded


def _host(header: str) -> str:
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower()


def protocol_of(door: Door) -> type[PatientProtocol]:
    """Return the protocol of the connections that come through a door."""

    class AtTheDoor(PatientProtocol):
        def note_activity(self) -> None:
            door.spoke(self.transport.get_extra_info("peername"))

    return AtTheDoor


class PatientProtocol(H11Protocol):
    """HTTP/1.1 that waits for a request's head only so long: uvicorn alone would wait for ever."""

    head_s = 10.0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn does
        """Begin to wait for a first request."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Add bytes; the clock runs on while they do not make a whole head."""
        self.note_activity()
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._unwatch()
        super().connection_lost(exc)

    def note_activity(self) -> None:
        """Note that a connection is established: its first bytes came."""

    @property
    def _serving(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request
        return cycle is not None and not cycle.response_complete

    def _watch(self) -> None:
        if self._serving:
            self._unwatch()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.head_s, self._give_up)

    def _unwatch(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        if self._serving:
            return
        if not self.transport.is_closing():
            logging.getLogger(__name__).info(
                "a request's head did not come within %g s", self.head_s
            )
            self.transport.close()
