"""How everybody connects to the broker: the daemon, the ward page, ``watch``, ``check``, the demo.

Login and TLS are read anew at each attempt. Where MQTT 5 is refused, or not answered at all, MQTT
3.1.1 is tried; what worked is tried first the next time. Between two attempts there is a pause
that grows as long as nothing works. What runs on a connection is ended here too.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

import aiomqtt
import structlog

from hypnocast.ports.mqtt.client import (
    INCOMING_BYTES,
    BrokerRefused,
    BrokerSilent,
    Client,
    Protocol,
)
from hypnocast.ports.mqtt.settings import BrokerSettings

FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0
STEADY_S: Final = 10.0
"""A connection that lasted so long starts the pauses anew."""

_CANCEL_EVERY_S: Final = 0.5
"""A good-bye to the broker is cut off after so long."""

WRONG_VERSION: Final = frozenset({1, 132})
"""What a broker with 3.1.1 only may answer to version 5: the code of either version."""

T = TypeVar("T")

_log = structlog.get_logger("mqtt")


class Connector:
    """Makes connections to one broker, one after the other."""

    def __init__(
        self,
        settings: BrokerSettings,
        identifier: Callable[[], str],
        *,
        will: aiomqtt.Will | None = None,
        incoming_bytes: int = INCOMING_BYTES,
        most_waiting: int = 64,
        longest_pause_s: float = LONGEST_PAUSE_S,
    ) -> None:
        """Keep the broker, and who we are to it; nothing is sent yet."""
        self._settings = settings
        self._identifier = identifier
        self._will = will
        self._incoming_bytes = incoming_bytes
        self._most_waiting = most_waiting
        self._longest_pause_s = longest_pause_s
        self._worked: Protocol | None = None
        self._attempts = 0

    async def connect(self) -> Client:
        """Return a connection: :class:`BrokerRefused` or another BrokerError where there is none.

        Whoever gets it must ``leave`` it.
        """
        version = self._settings.version
        if version != "auto":
            return await self._connect_as(version)
        first, self._worked = self._worked or "5", None
        try:
            client = await self._connect_as(first)
        except BrokerSilent:
            if first == "3.1.1":
                raise
            # A broker that knows 3.1.1 only may wait for the end of a CONNECT it misread.
            _log.info("no answer to MQTT 5, trying 3.1.1", broker=self._settings.where)
            client = await self._connect_as("3.1.1")
        except BrokerRefused as error:
            if first == "3.1.1" or error.code not in WRONG_VERSION:
                raise
            client = await self._connect_as("3.1.1")
        self._worked = client.protocol
        return client

    async def _connect_as(self, protocol: Protocol) -> Client:
        client = Client(
            self._settings,
            protocol,
            identifier=self._identifier(),
            will=self._will,
            incoming_bytes=self._incoming_bytes,
            most_waiting=self._most_waiting,
        )
        await client.join()
        return client

    def pause_s(self, lasted_s: float = 0.0) -> float:
        """Return how long to wait before the next attempt, after a connection that lasted so long.

        The pauses of many clients that lost the same broker are spread.
        """
        if lasted_s > STEADY_S:
            self._attempts = 0
        pause: float = min(self._longest_pause_s, FIRST_PAUSE_S * 2**self._attempts)
        self._attempts = min(self._attempts + 1, 10)
        return pause * random.uniform(0.5, 1.0)  # noqa: S311 - spreads clients, guards nothing

    def begin_anew(self) -> None:
        """Let the next pause be the shortest."""
        self._attempts = 0


async def end_tasks(tasks: Iterable[asyncio.Future[T]]) -> None:
    """Cancel until all are over: ``asyncio.wait_for`` (in aiomqtt) can drop a cancellation."""
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_CANCEL_EVERY_S)
