"""``hypnocast retire``: removes a bed that no daemon serves any more from every screen.

What is retained of a bed outlives it on the broker. Clearing it makes every dashboard forget the
bed. The journal and the tapes keep its nights.
"""

from __future__ import annotations

import msgspec

from hypnocast.core.wire.payloads import BedStatus
from hypnocast.core.wire.topics import HOME_ASSISTANT_ROOT, Topics
from hypnocast.errors import BrokerError
from hypnocast.live.publishing.home_assistant import discovery_topic
from hypnocast.ports.mqtt.client import Client
from hypnocast.ports.mqtt.connector import Connector
from hypnocast.ports.mqtt.probe import retained
from hypnocast.ports.mqtt.settings import BrokerSettings


async def retire(settings: BrokerSettings, topics: Topics, bed: str) -> tuple[str, ...]:
    """Clear what is retained of a bed; return the topics that were cleared."""
    client = await Connector(settings, lambda: f"hypnocast-retire-{bed}").connect()
    try:
        kept = await _kept(client, topics, bed)
        _refuse_served(kept, topics, bed, settings.where)
        daemons = f"{topics.prefix}/daemon/"
        own = tuple(topic for topic in kept if not topic.startswith(daemons))
        for topic in own:
            await client.send(topic, b"", retain=True)
    finally:
        await client.leave()
    return own


async def _kept(client: Client, topics: Topics, bed: str) -> dict[str, bytes]:
    """Return what the broker keeps of a bed, and of the daemons of its site."""
    own, discovered = f"{topics.prefix}/bed/{bed}/#", discovery_topic(topics, bed)
    return await retained(client, (own, topics.available("+"), discovered), f"bed {bed}")


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
    online = kept.get(topics.available(status.node)) == b"online"
    if online and status.state not in ("ended", "waiting"):
        raise BrokerError(
            f"bed {bed} is served by the daemon {status.node}, which would show it again",
            where=where,
            remedy=f"End its session, and take it out of {status.node}'s configuration.",
        )
