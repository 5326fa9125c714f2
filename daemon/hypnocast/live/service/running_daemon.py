"""What ``doctor`` shows of a daemon that runs: the numbers it keeps on the broker."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import Final

import msgspec

from hypnocast.config.tables import Config
from hypnocast.core.wire.payloads import BedStatus, DaemonState
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
                wanted = (state, available, topics.status("+"))
                kept = await retained(client, wanted, settings.where)
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
    return _words(newest, online=online) | _problems(kept, config.daemon.node)


def _problems(kept: dict[str, bytes], node: str) -> dict[str, str]:
    """Return what is wrong at each bed of a daemon, by what the broker keeps of it."""
    facts = {}
    for payload in kept.values():
        with contextlib.suppress(msgspec.MsgspecError):
            status = msgspec.json.decode(payload, type=BedStatus)
            if status.node == node and status.problems:
                facts[f"bed {status.bed}"] = "; ".join(status.problems)
    return dict(sorted(facts.items()))


def _limits(state: DaemonState) -> str:
    """Return which limits were met since the daemon began."""
    met = {
        "by streams": state.counters.get("limits_met", 0),
        "messages not looked at": state.counters.get("ignored", 0),
        "messages dropped": state.counters.get("mqtt_dropped", 0),
        **{f"{name} shed": queue.shed for name, queue in sorted(state.queues.items())},
    }
    return ", ".join(f"{what} {count}" for what, count in met.items() if count) or "none met"


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
        "limits": _limits(state),
        "counters": ", ".join(f"{key} {count}" for key, count in sorted(state.counters.items())),
        "queues": ", ".join(
            f"{name} {queue.depth}{'' if queue.bound is None else f' of {queue.bound}'}"
            + (f" ({queue.shed} shed)" if queue.shed else "")
            for name, queue in sorted(state.queues.items())
        ),
    }
