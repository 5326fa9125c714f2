"""What ``doctor`` shows of a daemon that runs: the numbers it keeps on the broker."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Final

import msgspec

from hypnocast.config.tables import Config
from hypnocast.core.wire.payloads import DaemonState
from hypnocast.core.wire.topics import Topics
from hypnocast.errors import BrokerError
from hypnocast.live.service.build import broker_settings
from hypnocast.ports.mqtt.connector import Connector
from hypnocast.ports.mqtt.probe import retained

PATIENCE_S: Final = 10.0
"""A broker that needs longer to let us in has more wrong with it than ``doctor`` can show."""


def running_daemon(config: Config) -> dict[str, str]:
    """Return how the configured daemon does, by its own word; :class:`BrokerError` without one."""
    return asyncio.run(_ask(config))


async def _ask(config: Config) -> dict[str, str]:
    settings = broker_settings(config.broker)
    topics = Topics(config.site.id, config.broker.topic_root)
    state, available = topics.daemon(config.daemon.node), topics.available(config.daemon.node)
    try:
        async with asyncio.timeout(PATIENCE_S):
            connector = Connector(settings, lambda: f"hypnocast-doctor-{config.daemon.node}")
            client = await connector.connect()
            try:
                kept = await retained(client, (state, available), settings.where)
            finally:
                await client.leave()
    except TimeoutError:
        raise BrokerError(
            "the broker gave no answer", where=settings.where, remedy="Look at the broker."
        ) from None
    online = kept.get(available) == b"online"
    if state not in kept:
        return {"daemon": "online, without a state yet" if online else "not seen by the broker"}
    try:
        newest = msgspec.json.decode(kept[state], type=DaemonState)
    except msgspec.MsgspecError as error:
        raise BrokerError(
            f"what is kept of the daemon is no state: {error}",
            where=state,
            remedy="Is it a daemon of another version?",
        ) from error
    return _words(newest, online=online)


def _words(state: DaemonState, *, online: bool) -> dict[str, str]:
    age_s = (datetime.now(UTC) - datetime.fromisoformat(state.at)).total_seconds()
    up = (
        f"up {state.uptime_s / 3600.0:.1f} h"
        if online
        else f"was up {state.uptime_s / 3600.0:.1f} h"
    )
    waiting, oldest = state.outbox.waiting, state.outbox.oldest_s
    since = "" if oldest is None else f", the oldest for {oldest:.0f} s"
    return {
        "daemon": f"{'online' if online else 'OFFLINE'}, version {state.version}, {up}; "
        f"reported {age_s:.0f} s ago",
        "daemon runs": f"{state.pack} {state.pack_version} on {state.provider}",
        "daemon beds": ", ".join(state.beds) or "none",
        "degraded": "; ".join(state.degraded) or "nothing",
        "outbox": f"{waiting} events wait{since}; {state.outbox.sent} were acknowledged",
        "counters": ", ".join(f"{key} {count}" for key, count in sorted(state.counters.items())),
        "queues": ", ".join(
            f"{name} {queue.depth}{'' if queue.bound is None else f' of {queue.bound}'}"
            + (f" ({queue.shed} shed)" if queue.shed else "")
            for name, queue in sorted(state.queues.items())
        ),
    }
