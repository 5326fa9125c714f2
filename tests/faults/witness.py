"""A subscriber that keeps everything, and a proxy that can do what networks and brokers do.

Neither knows anything of Hypnocast.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from support.paho_clients import end_client

DEADLINE_S = 90.0
CONNECT, PUBLISH, PUBACK = 1, 3, 4
UNACCEPTABLE_PROTOCOL = b"\x20\x02\x00\x01"
"""The answer of a broker that knows MQTT 3.1.1 and nothing later (its specification, 3.1.2.2)."""


def until(true: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Wait for a condition; fail where it does not come true in time."""
    deadline = time.monotonic() + deadline_s
    while not true():
        assert time.monotonic() < deadline, f"waited {deadline_s:g} s in vain: {what}"
        time.sleep(0.01)


class Witness:
    """Subscribes to everything with a session that the broker keeps while it lives."""

    def __init__(self, port: int, name: str) -> None:
        self.messages: list[tuple[str, bytes, float]] = []
        self._there = threading.Event()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=name, protocol=paho.MQTTv5
        )
        self._client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self._client.on_subscribe = lambda *_: self._there.set()
        self._client.on_message = lambda _client, _data, message: self.messages.append(
            (message.topic, bytes(message.payload), time.monotonic())
        )
        self._client.reconnect_delay_set(1, 1)
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = 3600
        self._client.connect_async("127.0.0.1", port, clean_start=False, properties=properties)
        self._client.loop_start()
        assert self._there.wait(DEADLINE_S)

    def of(self, ending: str) -> list[bytes]:
        """Return what came on topics that end so."""
        return [payload for topic, payload, _ in list(self.messages) if topic.endswith(ending)]

    def events(self, bed: str = "bed1") -> list[bytes]:
        """Return a bed's events as they came."""
        return self.of(f"/bed/{bed}/events")

    def newest(self, ending: str) -> Any:
        """Return the newest message of a topic, read as JSON."""
        return json.loads(self.of(ending)[-1])

    def publish(self, topic: str, content: object) -> None:
        """Publish something."""
        payload = content if isinstance(content, bytes) else json.dumps(content).encode()
        self._client.publish(topic, payload, qos=1)

    def close(self) -> None:
        """Disconnect."""
        end_client(self._client)


@contextmanager
def witness(port: int, name: str = "witness") -> Iterator[Witness]:
    """Listen to everything on a broker."""
    listener = Witness(port, name)
    try:
        yield listener
    finally:
        listener.close()


class FaultProxy:
    """Sits between a client and its broker and does harm, packet by packet.

    What it does is read anew for every packet, so it can be changed at any time.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.refuse = False
        """Nobody gets through: connections are closed at once."""
        self.silent = False
        """The broker's words reach nobody, and nothing is closed."""
        self.slow_s = 0.0
        """Every packet of the broker is held back for so long."""
        self.cut_before_puback: int | None = None
        """The n-th PUBACK from now on is lost with its connection."""
        self.cut_after_puback: int | None = None
        """The connection is lost right after the n-th PUBACK from now on."""
        self.cut_before_publish: int | None = None
        """The n-th PUBLISH from now on never reaches the broker; the connection is lost."""
        self.old = False
        """The broker is of the time of MQTT 3.1.1: it refuses a CONNECT of MQTT 5."""
        self.protocols: list[int] = []
        """The protocol level of each CONNECT: 4 is 3.1.1."""
        self.cuts = 0
        self.connections = 0
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def cut(self) -> None:
        """Break all connections at once."""
        with self._lock:
            for sock in self._sockets:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            self.cuts += 1

    def close(self) -> None:
        """Break everything."""
        self.refuse = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(5.0)
        for sock in list(self._sockets):
            sock.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.refuse:
                    client.close()
                    continue
                try:
                    broker = socket.create_connection(("127.0.0.1", self.target))
                except OSError:
                    client.close()
                    continue
                self.connections += 1
                self._sockets |= {client, broker}
                for source, sink, answers in ((client, broker, False), (broker, client, True)):
                    thread = threading.Thread(
                        target=self._pump, args=(source, sink, answers), daemon=True
                    )
                    self._threads.append(thread)
                    thread.start()

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        buffer = b""
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                buffer += data
                while (packet := first_packet(buffer)) is not None:
                    buffer = buffer[len(packet) :]
                    if not answers and self._is_too_new(packet):
                        source.sendall(UNACCEPTABLE_PROTOCOL)
                        sink.shutdown(socket.SHUT_RDWR)
                        return
                    if not self._pass_on(packet, sink, answers):
                        self.cut()
                        return
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)

    def _is_too_new(self, packet: bytes) -> bool:
        if packet[0] >> 4 != CONNECT:
            return False
        name = packet.index(b"\x00\x04MQTT")
        self.protocols.append(packet[name + 6])
        return self.old and self.protocols[-1] > 4

    def _pass_on(self, packet: bytes, sink: socket.socket, answers: bool) -> bool:
        """Pass a packet on as ordered; False: cut the connection now."""
        kind = packet[0] >> 4
        if answers and self.slow_s:
            time.sleep(self.slow_s)
        if not answers and kind == PUBLISH and self._due("cut_before_publish"):
            return False
        if answers and kind == PUBACK and self._due("cut_before_puback"):
            return False
        if not (answers and self.silent):
            sink.sendall(packet)
        return not (answers and kind == PUBACK and self._due("cut_after_puback"))

    def _due(self, what: str) -> bool:
        with self._lock:
            left: int | None = getattr(self, what)
            if left is None:
                return False
            setattr(self, what, None if left <= 1 else left - 1)
            return left <= 1


def first_packet(buffer: bytes) -> bytes | None:
    """Return the first whole MQTT packet in the buffer."""
    length, shift = 0, 0
    for place in range(1, 5):
        if place >= len(buffer):
            return None
        byte = buffer[place]
        length |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            end = place + 1 + length
            return buffer[:end] if len(buffer) >= end else None
    return None


@contextmanager
def fault_proxy(target: int) -> Iterator[FaultProxy]:
    """Sit before a broker."""
    proxy = FaultProxy(target)
    try:
        yield proxy
    finally:
        proxy.close()
