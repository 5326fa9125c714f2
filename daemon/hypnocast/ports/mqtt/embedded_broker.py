"""An MQTT broker inside the process, on loopback: for the demo, and where there is no mosquitto.

It uses MQTT 3.1.1, keeps nothing on disk and lets everyone on this host in.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import warnings
from collections.abc import AsyncIterator
from typing import Final

from hypnocast.errors import BrokerError
from hypnocast.ports.mqtt.settings import BrokerSettings

HOST: Final = "127.0.0.1"

_LOGGERS: Final = ("amqtt", "transitions")


@contextlib.asynccontextmanager
async def embedded_broker(port: int = 0) -> AsyncIterator[BrokerSettings]:
    """Serve on ``port`` of loopback (0: any that is free) and yield how to reach it."""
    # Imported late: nothing but the demo needs it.
    with warnings.catch_warnings():
        # Up to 0.11 it brings passlib, which imports a module that Python 3.13 drops.
        warnings.simplefilter("ignore", DeprecationWarning)
        from amqtt.broker import Broker
        from amqtt.errors import AMQTTError
        from amqtt.plugins.authentication import AnonymousAuthPlugin

    connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    class TidyBroker(Broker):  # type: ignore[misc]  # amqtt's types are not visible to mypy
        """Knows its connections, also those that never came to a whole CONNECT."""

        async def stream_connected(
            self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener_name: str
        ) -> None:
            serving = asyncio.create_task(
                super().stream_connected(reader, writer, listener_name), name="amqtt-connection"
            )
            connections[serving] = writer
            try:
                await serving
            finally:
                del connections[serving]
                writer.close()

    for name in _LOGGERS:
        # It logs every client that goes away as a warning.
        logging.getLogger(name).setLevel(logging.CRITICAL)
    port = _free_port(port)
    broker = TidyBroker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"{HOST}:{port}"}},
            "plugins": {
                f"{AnonymousAuthPlugin.__module__}.{AnonymousAuthPlugin.__qualname__}": {
                    "allow_anonymous": True
                }
            },
        }
    )
    try:
        await broker.start()
    except AMQTTError as error:
        raise BrokerError(
            f"the embedded broker cannot start: {error}",
            where=f"{HOST}:{port}",
            remedy="Choose another --port.",
        ) from error
    try:
        yield BrokerSettings(host=HOST, port=port, version="3.1.1")
    finally:
        # amqtt cancels each reader once and waits for its end. Where a packet comes at that moment,
        # asyncio.wait_for drops the cancellation (before Python 3.12): it would wait until the
        # client leaves. At a closed connection a reader ends in any case.
        for writer in connections.values():
            writer.close()
        await broker.shutdown()
        for serving in list(connections):
            serving.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


def _free_port(port: int) -> int:
    """Return the port if it can be had: amqtt itself would only log a traceback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise BrokerError(
                f"the embedded broker cannot have this port: {error.strerror}",
                where=f"{HOST}:{port}",
                remedy="Stop what listens there, or choose another --port.",
            ) from error
        return int(probe.getsockname()[1])
