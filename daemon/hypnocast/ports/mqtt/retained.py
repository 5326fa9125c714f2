"""What the broker keeps for late subscribers: only the newest of each topic matters."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from hypnocast.errors import BrokerError
from hypnocast.ports.mqtt.client import Attributes, Client

_WINDOW: Final = 8

MAX_STATE_BYTES: Final = 1 << 20
"""Of one state; brokers refuse a longer message with the whole connection."""

REFUSED_AGAIN_S: Final = 30.0
"""A state that the broker refused is sent again after so long: it may let us by then."""

SUSPECT_BYTES: Final = 256 << 10
"""A state so long that was under way when a connection ended may be why it ended."""

_AROUND: Final = 512
"""What a message has beside topic and payload, at most."""


@dataclass(frozen=True, slots=True)
class Retained:
    """One retained message; an empty payload clears the topic."""

    topic: str
    payload: bytes
    attributes: Attributes = ()
    content_type: str = "application/json"


class RetainedStates:
    """Sends the newest state of each topic, all of them again after each reconnection.

    A slow broker gets fewer states, never old ones; memory is bounded by the number of topics.
    """

    def __init__(self) -> None:
        """Begin with nothing to publish."""
        self._states: dict[str, Retained] = {}
        self._due: dict[str, None] = {}
        self._under_way: set[str] = set()
        self._changed = asyncio.Event()
        self.refused: dict[str, str] = {}
        """Topic → why the broker refused it."""
        self._most_bytes = MAX_STATE_BYTES

    def put(self, state: Retained) -> None:
        """Let this be the newest state of its topic."""
        self._states[state.topic] = state
        self._mark(state.topic)

    def clear(self, topic: str) -> None:
        """Let the broker forget the topic."""
        self.put(Retained(topic, b""))

    def repeat(self, prefix: str = "") -> None:
        """Send everything again that begins with ``prefix``."""
        for topic in self._states:
            if topic.startswith(prefix):
                self._mark(topic)

    def has(self, prefix: str) -> bool:
        """Return whether there is a state whose topic begins with ``prefix``."""
        return any(topic.startswith(prefix) for topic in self._states)

    @property
    def waiting(self) -> int:
        """Topics whose newest state is not acknowledged."""
        return len(self._due) + len(self._under_way)

    def _mark(self, topic: str) -> None:
        self._due[topic] = None
        self._changed.set()

    def _try_again(self, topic: str) -> None:
        if topic in self.refused and topic in self._states:
            self._mark(topic)

    async def send_all(self, client: Client) -> None:
        """Send what there is and what comes, for as long as the connection lasts."""
        self._suspect()
        if client.most_bytes is not None:
            self._most_bytes = min(self._most_bytes, client.most_bytes - _AROUND)
        self.repeat()
        while True:
            self._changed.clear()
            for topic in [topic for topic in self._due if topic not in self._under_way]:
                if len(self._under_way) >= _WINDOW:
                    break
                del self._due[topic]
                state = self._states.get(topic)
                if state is None:
                    continue  # it was to be cleared, and the broker has just cleared it
                if len(state.payload) + len(topic) > self._most_bytes:
                    self.refused[topic] = f"{len(state.payload)} bytes are too long for the broker"
                else:
                    self._send(state, client)
            await self._changed.wait()

    def _suspect(self) -> None:
        """Send nothing again that is so long that it may have ended the last connection."""
        for topic in self._under_way:
            size = len(self._states[topic].payload) if topic in self._states else 0
            if size > SUSPECT_BYTES:
                self._most_bytes = min(self._most_bytes, size - 1)
        self._under_way.clear()

    def _send(self, state: Retained, client: Client) -> None:
        answer = client.send(
            state.topic,
            state.payload,
            retain=True,
            attributes=state.attributes,
            content_type=state.content_type,
        )
        self._under_way.add(state.topic)
        answer.add_done_callback(lambda answer: self._answered(state, answer))

    def _answered(self, state: Retained, answer: asyncio.Future[None]) -> None:
        self._under_way.discard(state.topic)
        self._changed.set()
        if answer.cancelled():
            return
        error = answer.exception()
        if isinstance(error, BrokerError):
            self.refused[state.topic] = str(error)
            asyncio.get_running_loop().call_later(REFUSED_AGAIN_S, self._try_again, state.topic)
            return
        self.refused.pop(state.topic, None)
        if not state.payload and self._states.get(state.topic) is state:
            del self._states[state.topic]
