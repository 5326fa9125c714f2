"""A dashboard that wants everything: plain paho, a lasting subscription, ``catch_up`` for gaps."""

from __future__ import annotations

import json
import threading
import time
import uuid
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion


@dataclass(frozen=True)
class ReceivedMessages:
    """An event as it came."""

    at: float
    bed: str
    event: dict[str, Any]
    caught_up: bool


class Consumer:
    """Listens to a site on the broker itself."""

    def __init__(self, port: int, prefix: str) -> None:
        """Connect, again and again, in a thread of paho's."""
        self._prefix = prefix
        self._lock = threading.Lock()
        self._replies: dict[str, dict[str, Any]] = {}
        self.received: list[ReceivedMessages] = []
        self.states: list[tuple[float, dict[str, Any]]] = []
        self.words: list[tuple[float, str]] = []
        """What ``available`` said."""
        self.broken: list[str] = []
        """Messages that are no JSON, or lack what the contract promises."""
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id="soak-consumer",
            protocol=paho.MQTTv311,
            clean_session=False,
        )
        self.client.on_connect = self._subscribe
        self.client.on_message = self._take
        self.client.reconnect_delay_set(1, 1)
        self.client.connect_async("127.0.0.1", port, keepalive=10)
        self.client.loop_start()

    def close(self) -> None:
        """Disconnect."""
        self.client.disconnect()
        self.client.loop_stop()

    def _subscribe(self, client: paho.Client, *_: object) -> None:
        client.subscribe(f"{self._prefix}/#", qos=1)

    def _take(self, _client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        now = time.time()
        topic = message.topic.removeprefix(f"{self._prefix}/")
        try:
            self._sort(now, topic, bytes(message.payload))
        except (ValueError, KeyError, TypeError) as error:
            self.broken.append(f"{topic}: {error!r}")

    def _sort(self, now: float, topic: str, payload: bytes) -> None:
        kind = topic.rsplit("/", 1)[-1]
        if kind == "available":
            self.words.append((now, payload.decode()))
        elif kind == "state" and topic.startswith("daemon/"):
            self.states.append((now, json.loads(payload)))
        elif kind == "events":
            event = json.loads(payload)
            with self._lock:
                self.received.append(
                    ReceivedMessages(now, topic.split("/")[1], event, caught_up=False)
                )
        elif kind == "reply":
            reply = json.loads(payload)
            self._replies[reply["request"]] = reply

    def catch_up(self, bed: str, deadline_s: float = 120.0) -> None:
        """Ask for everything of a bed, from the first event on."""
        since = 0
        until = time.monotonic() + deadline_s
        while time.monotonic() < until:
            request = uuid.uuid4().hex
            command = {"command": "catch_up", "request": request, "since": since}
            self.client.publish(f"{self._prefix}/bed/{bed}/command", json.dumps(command), qos=1)
            asked = time.monotonic()
            while request not in self._replies and time.monotonic() - asked < 10.0:
                time.sleep(0.05)
            reply = self._replies.get(request)
            if reply is None or not reply["ok"]:
                time.sleep(1.0)
                continue
            now = time.time()
            for event in reply["events"]:
                with self._lock:
                    self.received.append(ReceivedMessages(now, bed, event, caught_up=True))
                since = max(since, event["sequence"])
            if not reply["more"]:
                return
        raise TimeoutError(f"bed {bed} did not get what it missed")

    def events(self) -> list[ReceivedMessages]:
        """Return everything received so far."""
        with self._lock:
            return list(self.received)
