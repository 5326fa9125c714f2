"""One connection to the broker, on which a refusal is a refusal."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
from typing import Any, Final, Literal, cast

import aiomqtt
import paho.mqtt.client as paho
from aiomqtt.exceptions import MqttConnectError
from aiomqtt.types import PahoSocket
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from hypnocast.errors import BrokerError
from hypnocast.ports.mqtt.fair_queue import FairQueue
from hypnocast.ports.mqtt.settings import BrokerSettings, login, tls_context

Protocol = Literal["5", "3.1.1"]
Attributes = tuple[tuple[str, str], ...]
"""CloudEvents attributes; MQTT 5 carries them as user properties, 3.1.1 goes without."""

UNSUPPORTED_PROTOCOL: Final = 132
INCOMING_BYTES: Final = 64 * 1024
IN_FLIGHT: Final = 20
"""How many messages may wait for their PUBACK; what is left of an outbox window is for states."""

_VERSIONS = {"5": aiomqtt.ProtocolVersion.V5, "3.1.1": aiomqtt.ProtocolVersion.V311}

# Everything aiomqtt reports reaches us as an exception; its log would repeat it.
_silent = logging.getLogger("hypnocast.aiomqtt")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False


class BrokerRefused(BrokerError):  # noqa: N818 - it is what the broker did
    """The broker answered with a refusal: waiting alone will not help."""

    def __init__(self, what: str, *, code: int, where: str = "", remedy: str = "") -> None:
        """Keep the reason code too."""
        super().__init__(what, where=where, remedy=remedy)
        self.code = code


class BrokerSilent(BrokerError):  # noqa: N818 - it is what the broker did
    """Something listens there and accepts what we send, but does not answer."""


class Client(aiomqtt.Client):
    """What aiomqtt's client lacks: reason codes of PUBACK, and sending without waiting.

    What comes in waits in a :class:`FairQueue`; aiomqtt's own would drop messages unseen.

    ``send`` hands a message over at once and returns a future of its acknowledgement, so that
    messages stay in order and many can be under way.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        protocol: Protocol,
        *,
        identifier: str,
        will: aiomqtt.Will | None = None,
        incoming_bytes: int = INCOMING_BYTES,
        most_waiting: int = 64,
    ) -> None:
        """Read the credentials and prepare; nothing is sent yet.

        The broker is asked to send nothing larger than ``incoming_bytes``; of what it sends,
        ``most_waiting`` messages may lie unread.
        """
        username, password = login(settings)
        v5 = protocol == "5"
        super().__init__(
            settings.host,
            settings.port,
            username=username,
            password=password,
            logger=_silent,
            identifier=identifier,
            protocol=_VERSIONS[protocol],
            will=will,
            clean_session=None if v5 else True,
            clean_start=True if v5 else paho.MQTT_CLEAN_START_FIRST_ONLY,
            timeout=settings.login_s,
            keepalive=settings.keepalive_s,
            max_queued_incoming_messages=most_waiting,
            queue_type=FairQueue,
            max_inflight_messages=IN_FLIGHT,
            properties=_connect_properties(incoming_bytes) if v5 else None,
            tls_context=tls_context(settings),
            # Small messages must not wait for the acknowledgement of the one before.
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        )
        self.protocol = protocol
        self.taken_over = False
        """Whether the broker ended the connection because another client used our id."""
        self.most_bytes: int | None = None
        """The largest message the broker accepts, where it gave one."""
        self._settings = settings
        self._unanswered: dict[int, tuple[asyncio.Future[None], float]] = {}
        self._asked_at: float | None = None
        """When the broker was asked for a sign of life; None: it has answered."""

    @property
    def dropped(self) -> int:
        """Messages that had no room among those that lay unread."""
        return cast("FairQueue", self._queue).dropped

    async def join(self) -> None:
        """Connect and log in: :class:`BrokerRefused` or :class:`BrokerError` where that fails."""
        where = self._settings.where
        try:
            await self.__aenter__()
        except MqttConnectError as error:
            self._drop()
            code = _code(error.rc)
            raise BrokerRefused(
                f"the broker refuses the connection: {error.rc}",
                code=code,
                where=where,
                remedy=_REMEDIES.get(code, ""),
            ) from error
        except aiomqtt.MqttError as error:
            silent = self._client.socket() is not None
            self._drop()
            kind = BrokerSilent if silent else BrokerError
            raise kind(
                f"the broker cannot be reached: {error}", where=where, remedy=_remedy(str(error))
            ) from error
        except BaseException:
            self._drop()
            raise

    async def leave(self) -> None:
        """Disconnect as far as there is still a connection."""
        with contextlib.suppress(aiomqtt.MqttError):
            await self.__aexit__(None, None, None)
        self._drop()

    def _drop(self) -> None:
        """Close the socket whatever state the connection is in; aiomqtt leaves it open at times."""
        self._client.disconnect()
        if self._disconnected.done() and not self._disconnected.cancelled():
            self._disconnected.exception()  # it was raised where it matters, or nobody waited

    def send(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        qos: Literal[0, 1] = 1,
        attributes: Attributes = (),
        content_type: str = "application/json",
    ) -> asyncio.Future[None]:
        """Hand a message over; the future resolves at PUBACK, or fails with the broker's no."""
        properties = None
        if self.protocol == "5":
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.ContentType = content_type
            properties.UserProperty = list(attributes)
        info = self._client.publish(topic, payload, qos, retain, properties)
        if info.rc != paho.MQTT_ERR_SUCCESS:
            raise aiomqtt.MqttCodeError(info.rc, "could not send")
        future = self._loop.create_future()
        if qos == 0:
            future.set_result(None)
        else:
            self._unanswered[info.mid] = (future, self._loop.time())
        return future

    def _on_connect(
        self,
        client: paho.Client,
        userdata: Any,
        flags: paho.ConnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        super()._on_connect(client, userdata, flags, reason_code, properties)
        self.most_bytes = getattr(properties, "MaximumPacketSize", None)

    def _on_disconnect(
        self,
        client: paho.Client,
        userdata: Any,
        flags: paho.DisconnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        code = getattr(reason_code, "value", 0)  # an error of paho's own is no ReasonCode
        self.taken_over = self.taken_over or code == TAKEN_OVER  # paho may call twice
        super()._on_disconnect(client, userdata, flags, reason_code, properties)

    def _on_publish(
        self,
        client: paho.Client,
        userdata: Any,
        mid: int,
        reason_code: ReasonCode,
        properties: Properties,
    ) -> None:
        super()._on_publish(client, userdata, mid, reason_code, properties)
        future, _ = self._unanswered.pop(mid, (None, 0.0))
        if future is None or future.done():
            return
        if reason_code.is_failure:
            future.set_exception(
                BrokerRefused(
                    f"the broker refuses a message: {reason_code}",
                    code=reason_code.value,
                    where=self._settings.where,
                    remedy="Let this user write the topic (broker's ACL).",
                )
            )
        else:
            future.set_result(None)

    def _on_socket_register_write(
        self,
        client: paho.Client,
        userdata: Any,  # noqa: ARG002 - paho's signature
        sock: PahoSocket,
    ) -> None:
        """Write as soon as the socket allows it, where it still is one when the loop comes to it.

        aiomqtt would watch its descriptor a turn later. Meanwhile an acknowledgement may let the
        next message go, the connection may end, and the descriptor may have been reused.
        """

        def write() -> None:
            try:
                client.loop_write()
            except Exception as error:  # noqa: BLE001 - it ends the connection, whatever it is
                if not self._disconnected.done():
                    self._disconnected.set_exception(error)

        def watch() -> None:
            number = sock.fileno()
            if number >= 0:
                self._loop.add_writer(number, write)

        self._loop.call_soon_threadsafe(watch)  # paho connects in a thread

    @property
    def silence_s(self) -> float:
        """For how long the oldest message, or question, has waited for its acknowledgement."""
        since = [self._asked_at] if self._asked_at is not None else []
        since += [at for _, at in self._unanswered.values()][:1]
        return self._loop.time() - min(since) if since else 0.0

    async def ask(self, topic: str) -> None:
        """Ask the broker for a sign of life, and return when it came.

        What is asked is to end a subscription to ``topic``, which there must not be: MQTT has every
        broker acknowledge that, and nobody else sees it.
        """
        self._asked_at = self._loop.time()
        await self.unsubscribe(topic, timeout=math.inf)
        self._asked_at = None

    async def listen(self, topic: str) -> None:
        """Subscribe; a refusal by the broker is raised."""
        for code in await self.subscribe(topic, qos=1):
            if _code(code) >= 128:
                raise BrokerRefused(
                    f"the broker refuses the subscription to {topic}",
                    code=_code(code),
                    where=self._settings.where,
                    remedy="Let this user read the topic (broker's ACL).",
                )


def _connect_properties(incoming_bytes: int) -> Properties:
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.MaximumPacketSize = incoming_bytes
    return properties


def _code(code: object) -> int:
    return code.value if isinstance(code, ReasonCode) else int(str(code))


TAKEN_OVER = 142
"""Another client connected under our id (MQTT 5, 4.13)."""


_REMEDIES = {
    UNSUPPORTED_PROTOCOL: 'It may speak MQTT 3.1.1 only: version = "auto" tries both.',
    134: "Check the files with user name and password.",
    135: "Let this user connect (broker's configuration), or check user name and password.",
    133: "Give this daemon a node name of its own.",
}


def _remedy(text: str) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "Name the authority that signed the broker's certificate, and the host as it says."
    if "WRONG_VERSION_NUMBER" in text or "timed out" in text:
        return "Check that port and TLS belong together, and that it is an MQTT broker."
    if "Name or service not known" in text or "resolution" in text:
        return "Check the host name."
    return "Check host and port, and that the broker runs."
