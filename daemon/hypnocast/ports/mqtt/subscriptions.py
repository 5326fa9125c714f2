"""What is listened to on the broker: each bed's commands, and the birth of Home Assistant."""

from __future__ import annotations

import asyncio

from hypnocast.core.wire.topics import HOME_ASSISTANT_ROOT, HOME_ASSISTANT_STATUS, Topics
from hypnocast.ports.mqtt.client import BrokerRefused, Client
from hypnocast.ports.mqtt.command_inbox import CommandInbox
from hypnocast.ports.mqtt.retained import RetainedStates


class Subscriptions:
    """Subscribes to what concerns the daemon, and hands each message to its consumer.

    Which topics these are grows while a connection lasts; each connection begins with all.
    """

    def __init__(self, topics: Topics, inbox: CommandInbox, states: RetainedStates) -> None:
        """Keep who obeys commands, and what is published again to a Home Assistant that is born."""
        self._topics = topics
        self._inbox = inbox
        self._states = states
        self._beds: dict[str, str] = {}
        """Topic of commands → bed."""
        self._subscribed: set[str] = set()
        self._more = asyncio.Event()

    def serve(self, bed: str) -> None:
        """Accept commands for this bed from now on."""
        self._beds[self._topics.command(bed)] = bed
        self._more.set()

    def look_again(self) -> None:
        """Note that there may be more to subscribe to."""
        self._more.set()

    async def begin(self, client: Client) -> None:
        """Subscribe to all there is, on a new connection."""
        self._subscribed.clear()
        await self._subscribe(client)

    async def follow(self, client: Client) -> None:
        """Subscribe to what comes, for as long as the connection lasts."""
        while True:
            await self._more.wait()
            await self._subscribe(client)

    async def receive(self, client: Client) -> None:
        """Hand on what comes, for as long as the connection lasts."""
        async for message in client.messages:
            topic = str(message.topic)
            if topic == HOME_ASSISTANT_STATUS:
                if message.payload == b"online":
                    self._states.repeat(HOME_ASSISTANT_ROOT)
            elif topic in self._beds:
                self._inbox.receive(self._beds[topic], message.payload, retained=message.retain)

    async def _subscribe(self, client: Client) -> None:
        self._more.clear()
        wanted = list(self._beds)
        if self._states.has(HOME_ASSISTANT_ROOT):
            wanted.append(HOME_ASSISTANT_STATUS)
        for topic in wanted:
            if topic in self._subscribed:
                continue
            self._subscribed.add(topic)
            try:
                await client.listen(topic)
            except BrokerRefused as error:
                self._states.refused[topic] = str(error)
            else:
                self._states.refused.pop(topic, None)
