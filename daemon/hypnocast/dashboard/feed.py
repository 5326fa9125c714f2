"""The wire to the broker: a subscriber that never gives up, and commands with their replies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import aiomqtt
import msgspec

from hypnocast.core.wire.commands import Command, Reply
from hypnocast.dashboard.ward import MAX_PICTURE_BYTES, TOPICS, Incoming, bed_of, read_reply
from hypnocast.errors import BrokerError
from hypnocast.ports.mqtt.client import Client
from hypnocast.ports.mqtt.connector import Connector, end_tasks
from hypnocast.ports.mqtt.settings import BrokerSettings

_LONGEST_PAUSE_S = 5.0
_MOST_WAITING = 4096
"""Messages read but not yet folded; who falls further behind reads all anew."""

_LARGEST_MESSAGE = MAX_PICTURE_BYTES + (64 << 10)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BrokerLink:
    """Whether the broker answers, and what is wrong if not."""

    connected: bool
    since: float
    """Seconds since 1970."""
    problem: str = ""


class Feed:
    """Subscribes to a site's public topics for as long as :meth:`run` runs."""

    def __init__(
        self,
        broker: BrokerSettings,
        prefix: str,
        *,
        on_message: Callable[[Incoming], None],
        on_link: Callable[[BrokerLink], None] = lambda _: None,
        topics: Sequence[str] = TOPICS,
    ) -> None:
        """Keep the broker, the site's prefix, and who gets messages and the state of the link."""
        self.link = BrokerLink(connected=False, since=time.time(), problem="connecting")
        self._connector = Connector(
            broker,
            lambda: f"hypnocast-view-{secrets.token_hex(6)}",
            incoming_bytes=_LARGEST_MESSAGE,
            most_waiting=_MOST_WAITING,
            longest_pause_s=_LONGEST_PAUSE_S,
        )
        self._prefix = prefix
        self._topics = topics
        self._on_message = on_message
        self._on_link = on_link
        self.dropped = 0
        """Messages that came faster than they could be folded."""
        self._client: Client | None = None
        self._replies: dict[tuple[str, str], asyncio.Future[Reply]] = {}

    async def run(self) -> None:
        """Stay subscribed until cancelled; every outage is reported once and waited out."""
        while True:
            begun = time.monotonic()
            try:
                await self._subscribed()
            except BrokerError as error:
                self._show_connection(
                    connected=False, problem=f"{error.where}: {error.what}".removeprefix(": ")
                )
            except aiomqtt.MqttError as error:
                self._connector.begin_anew()
                self._show_connection(connected=False, problem=str(error) or "the broker is gone")
            await asyncio.sleep(self._connector.pause_s(time.monotonic() - begun))

    async def ask(self, bed: str, command: Command, *, patience_s: float) -> Reply:
        """Send a command and return its reply; :class:`BrokerError` where none comes."""
        client = self._client
        where = f"bed {bed}"
        if client is None:
            raise BrokerError(
                "the command was not sent: no broker", where=where, remedy="Try again later."
            )
        key = (bed, command.request)
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        if self._replies.setdefault(key, reply) is not reply:
            reply = self._replies[key]
        try:
            words = msgspec.json.encode(command)
            sent = client.send(f"{self._prefix}/bed/{bed}/command", words)
            async with asyncio.timeout(patience_s):
                await sent
                return await asyncio.shield(reply)
        except TimeoutError:
            raise BrokerError(
                f"no daemon answered within {patience_s:g} s",
                where=where,
                remedy="See whether its daemon is online.",
            ) from None
        except aiomqtt.MqttError as error:
            raise BrokerError(
                f"the command may not have been sent: {error}",
                where=where,
                remedy="Try again; a repeat with the same request id does no harm.",
            ) from None
        finally:
            self._replies.pop(key, None)

    async def _subscribed(self) -> None:
        client = await self._connector.connect()
        try:
            for topic in self._topics:
                await client.listen(f"{self._prefix}/{topic}")
            self._client = client
            self._show_connection(connected=True)
            async for message in client.messages:
                self._receive(message)
                if client.dropped:
                    # A topic whose newest state was dropped would stay old: have all sent again.
                    self.dropped += client.dropped
                    msg = f"too far behind: {client.dropped} messages dropped; all is read anew"
                    raise aiomqtt.MqttError(msg)
        finally:
            self._client = None
            await client.leave()

    def _receive(self, message: aiomqtt.Message) -> None:
        topic = message.topic.value.removeprefix(f"{self._prefix}/")
        payload = message.payload
        if topic.endswith("/reply"):
            self._receive_reply(bed_of(topic) or "", payload)
            return
        self._on_message(Incoming(topic, payload, message.retain, time.time()))

    def _receive_reply(self, bed: str, payload: bytes) -> None:
        try:
            reply = read_reply(payload)
        except (msgspec.DecodeError, ValueError) as error:
            _log.warning("a reply of bed %s breaks the contract: %s", bed, error)
            return
        waiting = self._replies.get((bed, reply.request))
        if waiting is not None and not waiting.done():
            waiting.set_result(reply)

    def _show_connection(self, *, connected: bool, problem: str = "") -> None:
        if (connected, problem) == (self.link.connected, self.link.problem):
            return
        since = self.link.since if connected == self.link.connected else time.time()
        self.link = BrokerLink(connected, since, problem)
        self._on_link(self.link)


async def ended(task: asyncio.Task[None]) -> None:
    """End the task of a feed; what it failed of is raised."""
    await end_tasks((task,))
    with contextlib.suppress(asyncio.CancelledError):
        await task
