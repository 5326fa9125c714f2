"""A client that receives everything a broker publishes."""

from __future__ import annotations

import threading

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from support.paho_clients import end_client

DEADLINE_S = 30.0


class PlainListener:
    """Receives everything, as any client of the broker may."""

    def __init__(self, port: int) -> None:
        self.received: list[tuple[str, bytes, bool]] = []
        self._news = threading.Condition()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, "listener")
        self._client.on_message = self._receive
        self._client.on_connect = lambda client, *_: client.subscribe("#", 1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def _receive(self, _client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        with self._news:
            self.received.append((message.topic, bytes(message.payload), message.retain))
            self._news.notify_all()

    def payloads(self, topic: str) -> list[bytes]:
        return [payload for at, payload, _ in list(self.received) if at == topic]

    def wait(self, topic: str, count: int) -> list[bytes]:
        with self._news:
            assert self._news.wait_for(lambda: len(self.payloads(topic)) >= count, DEADLINE_S), (
                topic
            )
        return self.payloads(topic)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(DEADLINE_S)

    def close(self) -> None:
        end_client(self._client)
