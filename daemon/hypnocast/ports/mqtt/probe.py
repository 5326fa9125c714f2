"""A look at the broker: whether it lets us in and write where we must, and what it keeps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Final

import aiomqtt

from hypnocast.errors import BrokerError
from hypnocast.ports.mqtt.client import Client, Protocol
from hypnocast.ports.mqtt.connector import Connector
from hypnocast.ports.mqtt.settings import BrokerSettings

LISTEN_S: Final = 1.0
"""Retained messages follow the subscription at once."""


@dataclass(frozen=True, slots=True)
class Probed:
    """What the broker let us do."""

    protocol: Protocol
    refused: dict[str, str]
    """Topic → why not."""


async def probe(settings: BrokerSettings, prefix: str, node: str, beds: Sequence[str]) -> Probed:
    """Log in, and try every kind of topic; :class:`BrokerError` where there is no way in.

    What is published is empty and not retained, on topics nobody else writes to; subscribers of
    ``events`` are spared: the right to it is shown by ``rolling``, which lies beside it.
    """
    client = await Connector(settings, lambda: f"hypnocast-check-{node}").connect()
    refused: dict[str, str] = {}
    try:
        for topic in [
            f"{prefix}/daemon/{node}/check",
            *(f"{prefix}/bed/{b}/rolling" for b in beds),
        ]:
            await _try(refused, topic, client.send(topic, b""))
        for bed in beds:
            topic = f"{prefix}/bed/{bed}/command"
            try:
                await client.listen(topic)
            except BrokerError as error:
                refused[topic] = f"may not be read: {error}"
    finally:
        await client.leave()
    return Probed(client.protocol, refused)


async def retained(client: Client, wanted: Sequence[str], where: str) -> dict[str, bytes]:
    """Return what the broker keeps on some topics; ``where`` is named in an error."""
    kept: dict[str, bytes] = {}

    async def listen() -> None:
        async for message in client.messages:
            if message.retain and isinstance(message.payload, bytes):
                kept[str(message.topic)] = message.payload

    try:
        for topic in wanted:
            await client.listen(topic)
        async with asyncio.timeout(LISTEN_S):
            await listen()
    except TimeoutError:
        pass
    except aiomqtt.MqttError as error:
        raise BrokerError(f"the connection broke: {error}", where=where) from error
    return kept


async def _try(refused: dict[str, str], topic: str, answer: Awaitable[None]) -> None:
    try:
        await answer
    except BrokerError as error:
        refused[topic] = f"may not be written: {error}"
