"""Removes a bed that no daemon serves any more from every screen.

What is retained of a bed outlives it on the broker. Clearing it makes every dashboard forget the
bed. The journal and the tapes keep its nights.
"""

from __future__ import annotations

import asyncio

import aiomqtt
import msgspec

from hypnocast.core.wire.payloads import BedStatus, DaemonState, TopicWord
from hypnocast.core.wire.topics import HOME_ASSISTANT_ROOT, Topics
from hypnocast.errors import BrokerError, CommandError
from hypnocast.ports.mqtt.client import Client
from hypnocast.ports.mqtt.connector import Connector
from hypnocast.ports.mqtt.probe import retained
from hypnocast.ports.mqtt.settings import BrokerSettings

_LARGEST_MESSAGE = 8 << 20
"""The newest picture is among what is retained."""


async def retire(settings: BrokerSettings, topics: Topics, bed: str) -> tuple[str, ...]:
    """Clear what is retained of a bed; return the topics that were cleared.

    :class:`CommandError` for what is no bed, :class:`BrokerError` where a daemon serves the bed,
    nothing is retained, or the broker does not let this user clear it.
    """
    try:
        msgspec.convert(bed, TopicWord)
    except msgspec.ValidationError:
        raise CommandError(
            f"{bed!r} is not the id of a bed",
            where="retire",
            remedy="Name one bed: letters, digits, - and _.",
        ) from None
    client = await Connector(
        settings,
        lambda: f"hypnocast-retire-{bed}",
        incoming_bytes=_LARGEST_MESSAGE,
        most_waiting=1024,
    ).connect()
    try:
        kept = await _kept(client, topics, bed)
        _refuse_served(kept, topics, bed, settings.where)
        daemons = f"{topics.prefix}/daemon/"
        own = tuple(topic for topic in kept if not topic.startswith(daemons))
        await _clear(client, own, settings)
    except aiomqtt.MqttError as error:
        raise BrokerError(f"the connection broke: {error}", where=settings.where) from error
    finally:
        await client.leave()
    return own


async def _clear(client: Client, own: tuple[str, ...], settings: BrokerSettings) -> None:
    """Clear topics, and see that the broker did: MQTT 3.1.1 acknowledges what it forbids too."""
    waiting = set(own)
    try:
        async with asyncio.timeout(settings.login_s):
            await asyncio.gather(*(client.send(topic, b"", retain=True) for topic in own))
            async for message in client.messages:
                if not message.payload:
                    waiting.discard(str(message.topic))
                if not waiting:
                    return
    except TimeoutError:
        raise BrokerError(
            f"the broker does not clear {min(waiting)}",
            where=settings.where,
            remedy="Let this user write the topic (broker's ACL).",
        ) from None


async def _kept(client: Client, topics: Topics, bed: str) -> dict[str, bytes]:
    """Return what the broker keeps of a bed, and of the daemons of its site."""
    wanted = (
        f"{topics.prefix}/bed/{bed}/#",
        topics.available("+"),
        topics.daemon("+"),
        topics.discovery(bed),
    )
    return await retained(client, wanted, f"bed {bed}")


def _refuse_served(kept: dict[str, bytes], topics: Topics, bed: str, where: str) -> None:
    """Refuse a bed that a running daemon would only show again."""
    mine = [topic for topic in kept if "/bed/" in topic or topic.startswith(HOME_ASSISTANT_ROOT)]
    if not mine:
        raise BrokerError(
            f"nothing is retained of a bed {bed}",
            where=where,
            remedy="hypnocast watch --once shows the beds there are.",
        )
    try:
        status = msgspec.json.decode(kept.get(topics.status(bed), b""), type=BedStatus)
    except (msgspec.MsgspecError, ValueError):
        return
    if kept.get(topics.available(status.node)) != b"online" or status.state in ("ended", "waiting"):
        return
    try:
        state = msgspec.json.decode(kept.get(topics.daemon(status.node), b""), type=DaemonState)
    except (msgspec.MsgspecError, ValueError):
        state = None
    if state is None or bed in state.beds:
        raise BrokerError(
            f"bed {bed} is served by the daemon {status.node}, which would show it again",
            where=where,
            remedy=f"End its session, and take it out of {status.node}'s configuration.",
        )
