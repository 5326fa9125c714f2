"""The wire to the broker: a subscriber that never gives up, and commands with their replies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass

import aiomqtt
import msgspec
from aiomqtt.exceptions import MqttConnectError

from hypnocast.app.config import Broker, read_secret
from hypnocast.core.wire import Command, Reply
from hypnocast.dashboard.ward import TOPICS, Incoming, bed_of, read_reply
from hypnocast.errors import BrokerError

_FIRST_WAIT_S = 0.25
_LONGEST_WAIT_S = 5.0
_WRONG_VERSION = frozenset({1, 132})
"""What a broker that speaks 3.1.1 only answers to version 5."""
_MOST_WAITING = 4096
"""Messages read but not yet folded; a viewer that falls behind loses the rest and says so."""

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
        broker: Broker,
        prefix: str,
        *,
        on_message: Callable[[Incoming], None],
        on_link: Callable[[BrokerLink], None] = lambda _: None,
    ) -> None:
        """Take the broker, the site's prefix, and who is told of messages and of the link."""
        self.link = BrokerLink(connected=False, since=time.time(), problem="connecting")
        self._broker = broker
        self._prefix = prefix
        self._on_message = on_message
        self._on_link = on_link
        self._client: aiomqtt.Client | None = None
        self._replies: dict[tuple[str, str], asyncio.Future[Reply]] = {}
        self._protocol = {
            "5": aiomqtt.ProtocolVersion.V5,
            "3.1.1": aiomqtt.ProtocolVersion.V311,
            "auto": aiomqtt.ProtocolVersion.V5,
        }[broker.version]

    async def run(self) -> None:
        """Stay subscribed until cancelled; every outage is told once and waited out."""
        wait = _FIRST_WAIT_S
        while True:
            try:
                await self._subscribed()
            except MqttConnectError as error:
                if self._falls_back(error):
                    continue
                self._tell(connected=False, problem=f"the broker refuses: {error}")
            except (aiomqtt.MqttError, ssl.SSLError, OSError) as error:
                if self.link.connected:
                    wait = _FIRST_WAIT_S
                self._tell(connected=False, problem=str(error) or "the broker is gone")
            await asyncio.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT_S)

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
            await client.publish(f"{self._prefix}/bed/{bed}/command", words, qos=1)
            return await asyncio.wait_for(asyncio.shield(reply), patience_s)
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
        async with self._connect() as client:
            codes = await client.subscribe([(f"{self._prefix}/{topic}", 1) for topic in TOPICS])
            refused = [
                topic
                for topic, code in zip(TOPICS, codes, strict=False)
                if int(getattr(code, "value", code)) >= 128
            ]
            if refused:
                problem = f"the broker forbids to read {', '.join(refused)}"
                raise aiomqtt.MqttError(problem)
            self._client = client
            self._tell(connected=True)
            try:
                async for message in client.messages:
                    self._take(message)
            finally:
                self._client = None

    def _connect(self) -> aiomqtt.Client:
        broker = self._broker
        host, port = broker.address
        user = read_secret(broker.username_file, "broker") if broker.username_file else None
        password = read_secret(broker.password_file, "broker") if broker.password_file else None
        return aiomqtt.Client(
            host,
            port,
            identifier=f"hypnocast-view-{secrets.token_hex(6)}",
            username=user,
            password=password,
            protocol=self._protocol,
            keepalive=10,
            timeout=10,
            max_queued_incoming_messages=_MOST_WAITING,
            tls_context=_tls(broker) if broker.uses_tls else None,
        )

    def _falls_back(self, error: MqttConnectError) -> bool:
        code = getattr(error.rc, "value", error.rc)
        if (
            self._broker.version != "auto"
            or self._protocol is aiomqtt.ProtocolVersion.V311
            or code not in _WRONG_VERSION
        ):
            return False
        self._protocol = aiomqtt.ProtocolVersion.V311
        return True

    def _take(self, message: aiomqtt.Message) -> None:
        topic = message.topic.value.removeprefix(f"{self._prefix}/")
        payload = message.payload
        if topic.endswith("/reply"):
            self._take_reply(bed_of(topic) or "", payload)
            return
        self._on_message(Incoming(topic, payload, message.retain, time.time()))

    def _take_reply(self, bed: str, payload: bytes) -> None:
        try:
            reply = read_reply(payload)
        except (msgspec.DecodeError, ValueError) as error:
            _log.warning("a reply of bed %s breaks the contract: %s", bed, error)
            return
        waiting = self._replies.get((bed, reply.request))
        if waiting is not None and not waiting.done():
            waiting.set_result(reply)

    def _tell(self, *, connected: bool, problem: str = "") -> None:
        if (connected, problem) == (self.link.connected, self.link.problem):
            return
        since = self.link.since if connected == self.link.connected else time.time()
        self.link = BrokerLink(connected, since, problem)
        self._on_link(self.link)


def _tls(broker: Broker) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=broker.ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if broker.cert_file:
        context.load_cert_chain(broker.cert_file, broker.key_file)
    return context


async def ended(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait until it is gone."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
