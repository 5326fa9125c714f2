"""What the tests of the link share: a plain paho listener, a proxy that can fall silent, a link."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties

from hypnocast.core.wire import commands
from hypnocast.core.wire.commands import Command, Reply
from hypnocast.core.wire.topics import Topics
from hypnocast.ports.journal.journal import Journal
from hypnocast.ports.mqtt.command_inbox import Handle
from hypnocast.ports.mqtt.link import MqttLink
from hypnocast.ports.mqtt.link_states import Connected
from hypnocast.ports.mqtt.settings import BrokerSettings
from support.paho_clients import end_client

TOPICS = Topics("lab")
DEADLINE_S = 120.0


async def until(true: Callable[[], object], what: str = "", deadline_s: float = DEADLINE_S) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + deadline_s
    while not true():
        assert time.monotonic() < deadline, f"{what or 'the condition'} did not come true"
        await asyncio.sleep(0.01)


class Listener:
    """A subscriber that knows nothing of Hypnocast, on plain paho in its own thread."""

    def __init__(self, port: int, *, v5: bool = True) -> None:
        self.messages: list[paho.MQTTMessage] = []
        self._subscribed = threading.Event()
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2,
            protocol=paho.MQTTv5 if v5 else paho.MQTTv311,
        )
        self.client.on_connect = self._on_connect
        self.client.on_subscribe = lambda *_: self._subscribed.set()
        self.client.on_message = lambda _client, _data, message: self.messages.append(message)
        self.client.reconnect_delay_set(1, 1)
        self.client.connect_async("127.0.0.1", port)
        self.client.loop_start()

    def _on_connect(self, client: paho.Client, *_: object) -> None:
        client.subscribe("#", qos=1)

    def ready(self) -> bool:
        """Whether the subscription is made."""
        return self._subscribed.is_set()

    def of(self, topic: str) -> list[bytes]:
        """Return the payloads that came on a topic."""
        return [bytes(m.payload) for m in self.messages if m.topic == topic]

    def json_of(self, topic: str) -> list[Any]:
        """Return what came on a topic, read as JSON."""
        return [json.loads(payload) for payload in self.of(topic) if payload]

    def sequences(self, bed: str = "bed1") -> list[int]:
        """Return the numbers of the events that came."""
        return [event["sequence"] for event in self.json_of(TOPICS.events(bed))]

    def publish(self, topic: str, content: object, *, retain: bool = False) -> None:
        """Publish a command."""
        payload = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.client.publish(topic, payload, qos=1, retain=retain)

    def properties(self, topic: str) -> list[Properties]:
        """Return the MQTT 5 properties of what came on a topic."""
        return [m.properties for m in self.messages if m.topic == topic and m.properties]

    def close(self) -> None:
        """Disconnect and end the thread."""
        end_client(self.client)


@asynccontextmanager
async def listening(port: int, *, v5: bool = True) -> AsyncIterator[Listener]:
    """Listen to everything on a broker."""
    listener = Listener(port, v5=v5)
    try:
        await until(listener.ready, "the subscription")
        yield listener
    finally:
        # In a thread: an embedded broker lives in this loop.
        await asyncio.to_thread(listener.close)


def kept_by_broker(port: int, *, v5: bool = True) -> dict[str, bytes]:
    """Return what a late subscriber gets: the retained messages."""
    listener = Listener(port, v5=v5)
    deadline = time.monotonic() + DEADLINE_S
    try:
        while not listener.ready():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        # Retained messages come in order before whatever is published after the subscription.
        listener.client.publish("end", b"", qos=1)
        while not listener.of("end"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return {m.topic: bytes(m.payload) for m in listener.messages if m.topic != "end"}
    finally:
        listener.close()


async def nobody(bed: str, command: Command) -> Reply:
    """Obey anything by replying so."""
    return Reply(
        request=command.request, command=commands.command_name(command), ok=True, session=bed
    )


@asynccontextmanager
async def linked(
    settings: BrokerSettings,
    journal: Journal,
    handle: Handle = nobody,
    *,
    wait: bool = True,
) -> AsyncIterator[MqttLink]:
    """Run a link for bed1."""
    link = MqttLink(settings, TOPICS, "node1", journal, handle)
    link.serve("bed1")
    task = link.start()
    try:
        if wait:
            await until(lambda: task.done() or isinstance(link.state, Connected), "connected")
            assert not task.done()
        yield link
        assert not task.done()
    finally:
        link.stop()
        await asyncio.wait_for(task, DEADLINE_S)


class Proxy:
    """Forwards bytes between client and broker until ordered to swallow or to cut them."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.port = 0
        self.swallow_answers = False
        """What the broker sends reaches nobody: no PUBACK, no PINGRESP, and no FIN either."""
        self.connections = 0
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        self._writers += [writer, up_writer]
        for source, sink, answers in ((reader, up_writer, False), (up_reader, writer, True)):
            task = asyncio.create_task(self._pump(source, sink, answers=answers))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if not (answers and self.swallow_answers):
                    sink.write(data)
                    await sink.drain()
        sink.close()

    def cut(self) -> None:
        """Break all connections at once."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def end(self) -> None:
        """Break everything and wait until it is gone."""
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def proxied(target: int) -> AsyncIterator[Proxy]:
    """Sit between a client and a broker."""
    proxy = Proxy(target)
    server = await asyncio.start_server(proxy._serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.end()
        await server.wait_closed()
