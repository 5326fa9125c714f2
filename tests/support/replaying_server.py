"""A TCP server that sends to each who connects what it was given, as gear's own servers do."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

Script = Callable[[int], Iterable[tuple[float, bytes]]]
"""What the nth connection gets: pauses in seconds, and what is sent after each."""


class ReplayingServer:
    """Serves one connection after the other, and closes each when its script is over."""

    def __init__(self, script: Script, *, greeting: bytes = b"") -> None:
        """Keep the script, and what a client must send first."""
        self._script = script
        self._greeting = greeting
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._over = threading.Event()
        self.port: int = self._socket.getsockname()[1]
        self.served = 0
        """Connections so far."""
        self._thread = threading.Thread(target=self._serve, name="replaying-server")
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                if self._over.is_set():
                    return
                received = b""
                while len(received) < len(self._greeting):
                    received += connection.recv(64)
                assert received == self._greeting
                self.served += 1
                for pause, piece in self._script(self.served):
                    if self._over.wait(pause):
                        return
                    connection.sendall(piece)

    def close(self) -> None:
        """End, in the middle of a script too."""
        self._over.set()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0):
            pass
        self._thread.join(10.0)
        self._socket.close()


@contextmanager
def replaying(script: Script, *, greeting: bytes = b"") -> Iterator[ReplayingServer]:
    """Run a server for as long as a test needs it."""
    server = ReplayingServer(script, greeting=greeting)
    try:
        yield server
    finally:
        server.close()
