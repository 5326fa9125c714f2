"""Between the daemon and the broker: cuts, refuses, swallows answers, knows MQTT 3.1.1 only."""

from __future__ import annotations

import asyncio
import contextlib
import threading

_REFUSED_VERSION = b"\x20\x02\x00\x01"
"""CONNACK of MQTT 3.1.1: unacceptable protocol version."""


class FailingProxy:
    """A proxy on a thread of its own."""

    def __init__(self, target: int) -> None:
        """Listen on a free port of loopback, for a broker on ``target``."""
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._up = threading.Event()
        self._end = asyncio.Event()
        self.refuses = False
        """Whether every connection is ended at once."""
        self.swallows = False
        """Whether what the broker answers reaches nobody."""
        self.old = False
        """Whether the broker is to be one of MQTT 3.1.1 only."""
        self.connections = 0
        self.port = 0
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()
        self._up.wait(10.0)

    def cut(self) -> None:
        """Break all connections."""
        self._loop.call_soon_threadsafe(self._abort)

    def close(self) -> None:
        """End."""
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10.0)

    def _abort(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._up.set()
        await self._end.wait()
        server.close()
        self._abort()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if not self.refuses:
                await self._converse(reader, writer)
        writer.close()
        self._writers.discard(writer)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"MQTT")
        level = await reader.readexactly(1)
        if self.old and level == b"\x05":
            writer.write(_REFUSED_VERSION)
            await writer.drain()
            return
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers.add(up_writer)
        up_writer.write(head + level)
        try:
            await asyncio.gather(
                self._pump(reader, up_writer, answers=False),
                self._pump(up_reader, writer, answers=True),
            )
        finally:
            up_writer.close()
            self._writers.discard(up_writer)

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        while data := await source.read(65536):
            if not (answers and self.swallows):
                sink.write(data)
                await sink.drain()
        sink.close()
