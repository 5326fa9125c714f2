"""A TCP server that sends by itself: connected to, read, and its silence noticed."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from hypnocast.errors import ConfigError, StreamError

CONNECT_S: Final = 5.0
_POLL_S = 0.25
_PIECE = 65_536


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """Where a server is."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, port: int) -> TcpAddress:
        """Read ``HOST`` or ``HOST:PORT``."""
        host, colon, number = text.rpartition(":")
        if not colon:
            host, number = text, str(port)
        if not host or not number.isdecimal() or not 0 < int(number) < 65_536:
            raise ConfigError(f"{text!r} is no address", remedy="Write HOST or HOST:PORT.")
        return cls(host.strip("[]"), int(number))

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def received(
    address: TcpAddress, stop: threading.Event, *, greeting: bytes = b""
) -> Iterator[bytes]:
    """Connect, greet, and yield what comes, with ``b""`` four times a second while nothing does.

    Ends when ``stop`` is set; raises :class:`StreamError` where the connection is lost.
    """
    try:
        connection = socket.create_connection((address.host, address.port), CONNECT_S)
    except OSError as error:
        raise StreamError(f"cannot be reached ({_why(error)})", where=str(address)) from error
    with connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.settimeout(_POLL_S)
        try:
            connection.sendall(greeting)
            while not stop.is_set():
                try:
                    piece = connection.recv(_PIECE)
                except TimeoutError:
                    yield b""
                    continue
                if not piece:
                    raise StreamError("closed the connection", where=str(address))
                yield piece
        except OSError as error:
            raise StreamError(f"was lost ({_why(error)})", where=str(address)) from error


class Silence:
    """Notices that nothing comes any more."""

    def __init__(self, address: TcpAddress, most_s: float) -> None:
        """Take how long a pause may be."""
        self._address = address
        self._most_s = most_s
        self._since = time.monotonic()

    def broken(self) -> None:
        """Note that something came."""
        self._since = time.monotonic()

    def check(self) -> None:
        """Raise where nothing has come for too long."""
        if time.monotonic() - self._since > self._most_s:
            raise StreamError(f"has sent nothing for {self._most_s:g} s", where=str(self._address))


def _why(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
