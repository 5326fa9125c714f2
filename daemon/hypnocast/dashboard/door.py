"""The listening socket of the ward page: who holds many connections, or opens them halfway.

A TLS handshake is made by asyncio, before any HTTP is seen, and may last a minute. So connections
are counted where they are accepted, by address, and one without any traffic is closed.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import time
from collections import Counter
from typing import Any, Final, Self

from hypnocast.errors import ConfigError

MOST_CONNECTIONS: Final = 400
"""From all addresses together."""

MOST_FROM_ONE: Final = 100
"""From one address: a ward behind one router has some viewers, each with a few connections."""

MOST_HALF_OPEN: Final = 24
"""Of these, on which no request came yet."""

HALF_OPEN_S: Final = 10.0


class Door(socket.socket):
    """Accepts connections, and drops at once what is too many of one address."""

    open: dict[_Guest, str]
    waiting: dict[_Guest, float]

    @classmethod
    def at(cls, host: str, port: int) -> Self:
        """Bind a door to an address."""
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            door = cls(family, socket.SOCK_STREAM)
            door.open, door.waiting = {}, {}
            try:
                door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                door.bind((host, port))
            except OSError:
                door.close()
                raise
        except OSError as error:
            raise ConfigError(
                f"cannot listen: {error.strerror or error}",
                where=f"{host}:{port}",
                remedy="Choose another dashboard host or port.",
            ) from None
        return door

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection; one too many is closed, and is as if it had not come."""
        line, address = super().accept()
        self.close_silent()
        who = address_of(str(address[0]))
        from_one = Counter(self.open.values())[who]
        half_open = sum(self.open[guest] == who for guest in self.waiting)
        if (
            len(self.open) >= MOST_CONNECTIONS
            or from_one >= MOST_FROM_ONE
            or half_open >= MOST_HALF_OPEN
        ):
            line.close()
            raise ConnectionAbortedError  # to asyncio this is a peer that is gone
        guest = _Guest(self, line)
        self.open[guest] = who
        self.waiting[guest] = time.monotonic()
        return guest, address

    def spoke(self, address: Any) -> None:
        """Note that a request came from a connection, by its peer's address."""
        for guest in self.waiting:
            if guest.peer == address:
                del self.waiting[guest]
                return

    def close_silent(self) -> None:
        """Close connections without traffic for too long."""
        oldest = time.monotonic() - HALF_OPEN_S
        for guest in [guest for guest, since in self.waiting.items() if since < oldest]:
            with contextlib.suppress(OSError):
                guest.shutdown(socket.SHUT_RDWR)  # asyncio closes it when it sees the end

    def forget(self, guest: _Guest) -> None:
        """Note that a connection is over."""
        self.open.pop(guest, None)
        self.waiting.pop(guest, None)


class _Guest(socket.socket):
    """One connection, which notifies its door when it is closed."""

    def __init__(self, door: Door, line: socket.socket) -> None:
        self.peer = line.getpeername()
        self._door = door
        super().__init__(fileno=line.detach())

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def close(self) -> None:
        """Close it."""
        self._door.forget(self)
        super().close()


def address_of(host: str) -> str:
    """Return whom an address is counted with: of IPv6 the network that one host may choose from."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        if not address.is_loopback:
            return str(ipaddress.IPv6Network((address, 64), strict=False))
    return str(address)
