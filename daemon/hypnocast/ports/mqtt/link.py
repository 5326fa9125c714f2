"""The link to the broker: an outer loop that never gives up, over connections that do.

    connecting ──▶ connected ──▶ waiting ──▶ connecting …
        ├────────▶ refused (the broker answered no) ──▶ connecting …
        └────────▶ waiting (no broker there) ──▶ connecting …

On every connection: ``available``, all retained states, the subscriptions, then the outbox.
States go their own way beside the outbox, so that ``stage`` overtakes a backlog of ``events``.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Literal

import aiomqtt
import structlog

from hypnocast.core.wire import payloads
from hypnocast.core.wire.topics import HOME_ASSISTANT_ROOT, Topics
from hypnocast.errors import BrokerError
from hypnocast.ports.journal.journal import Journal
from hypnocast.ports.journal.records import StoredEvent
from hypnocast.ports.mqtt.client import BrokerRefused, Client
from hypnocast.ports.mqtt.command_inbox import CommandInbox, Handle
from hypnocast.ports.mqtt.connector import Connector, end_tasks
from hypnocast.ports.mqtt.link_states import (
    Closed,
    Connected,
    Connecting,
    LinkState,
    RefusedByBroker,
    StateLog,
    Waiting,
)
from hypnocast.ports.mqtt.outbox import Outbox, attributes
from hypnocast.ports.mqtt.retained import REFUSED_AGAIN_S, Retained, RetainedStates
from hypnocast.ports.mqtt.settings import BrokerSettings
from hypnocast.ports.mqtt.subscriptions import Subscriptions
from hypnocast.ports.supervision import Supervisor
from hypnocast.ports.worker import Worker

log = structlog.get_logger(__name__)

_WATCH_S: Final = 0.5

ASK_EVERY_S: Final = 3.0
"""A broker is asked for a sign of life so often, so that its silence is noticed on a quiet ward."""

SILENT_S: Final = 4.0
"""A broker that has acknowledged nothing for so long is reported, before it counts as gone."""

SHOWN_S: Final = 600.0
"""How long it is reported that another client took our place."""

BEHIND_S: Final = 2.0
"""A broker that has acknowledged nothing for so long is behind."""

SHORT_S: Final = 10.0
SHORT_IN_A_ROW: Final = 3

TAKEN_OVER_WORDS: Final = (
    "another client seems to connect to the broker under the daemon's client id, which cuts the "
    "daemon off; the id is another one now. Look in the broker's log who it was."
)


class MqttLink:
    """Carries everything to and from the broker once started; nothing of it ever blocks."""

    def __init__(
        self,
        settings: BrokerSettings | None,
        topics: Topics,
        node: str,
        journal: Journal,
        handle: Handle,
        *,
        supervisor: Supervisor | None = None,
        on_state: Callable[[LinkState], None] | None = None,
    ) -> None:
        """Keep whom to reach, as whom, and who obeys commands.

        Without a broker nothing is published, and every event counts as sent, as for a replay.
        """
        self._alone = settings is None
        self._settings = settings = settings or BrokerSettings()
        self._journal = journal
        self._topics = topics
        self._available = topics.available(node)
        self._supervisor = supervisor or Supervisor()
        # Whoever knows the id can cut the connection off, again and again.
        self._word = settings.client_word or secrets.token_hex(6)
        self._taken_over_at: float | None = None
        self._short = 0
        """Connections in a row that were cut off soon after they were made."""
        self._connector = Connector(
            settings,
            lambda: f"hypnocast-{topics.site}-{node}-{self._word}",
            will=aiomqtt.Will(self._available, b"offline", qos=1, retain=True),
        )
        self._on_state = on_state
        self._state_log = StateLog()
        self._states = RetainedStates()
        self._outbox = Outbox(journal, topics)
        self._inbox = CommandInbox(journal, handle, self._reply)
        self._listening = Subscriptions(topics, self._inbox, self._states)
        self._client: Client | None = None
        self._stop = asyncio.Event()
        self._again = asyncio.Event()
        self.state: LinkState = Closed()
        self._state_since = time.monotonic()
        self._why_not = ""
        """Why there was no connection last; empty once there is one."""
        self._dropped = 0
        self.connections = 0
        """How often a connection was made."""

    # --- what the daemon says -----------------------------------------------------------------

    def serve(self, bed: str) -> None:
        """Accept commands for this bed from now on."""
        self._listening.serve(bed)

    def stage(self, stored: StoredEvent) -> None:
        """Show an event, already durable, as the bed's newest. ``events`` follows by itself."""
        if self._alone:
            self._journal.acknowledge(stored.bed, stored.sequence)
            return
        self._states.put(
            Retained(self._topics.stage(stored.bed), stored.payload, attributes(stored))
        )

    def retain(self, topic: str, message: payloads.Message) -> None:
        """Let a message be the topic's newest state."""
        self._states.put(Retained(topic, payloads.encode(message)))

    def retain_bytes(self, topic: str, payload: bytes, *, content_type: str) -> None:
        """Let bytes (a picture, a discovery document) be the topic's newest state."""
        self._states.put(Retained(topic, payload, content_type=content_type))
        if topic.startswith(HOME_ASSISTANT_ROOT):
            self._listening.look_again()  # for its birth message

    def clear(self, *topics: str) -> None:
        """Let the broker forget retained topics."""
        for topic in topics:
            self._states.clear(topic)

    def session_ended(self, bed: str) -> None:
        """Clear what must not outlive a night."""
        self.clear(self._topics.stage(bed), self._topics.page(bed), self._topics.explanation(bed))

    def send_now(self, topic: str, message: payloads.Message, *, qos: Literal[0, 1] = 0) -> None:
        """Send what is worth nothing later; without a connection it is forgotten.

        A broker that falls behind gets none of it at QoS 0, so that nothing piles up.
        """
        client = self._client
        if client is None or (qos == 0 and client.silence_s > BEHIND_S):
            return
        with contextlib.suppress(aiomqtt.MqttError):
            client.send(topic, payloads.encode(message), qos=qos)

    def _reply(self, bed: str, payload: bytes) -> None:
        # Whoever asked and was cut off asks again with the same request id.
        if self._client is not None:
            with contextlib.suppress(aiomqtt.MqttError):
                self._client.send(self._topics.reply(bed), payload)

    @property
    def problems(self) -> tuple[str, ...]:
        """What the broker does not let us do, one line each."""
        lines = [f"{topic}: {why}" for topic, why in self._states.refused.items()]
        lines += [f"{topic}: {why}" for topic, why in self._outbox.refused.items()]
        if self._why_not:
            lines.append(self._why_not)
        if self._silence_s > SILENT_S:
            lines.append(f"the broker has answered nothing for more than {SILENT_S:.0f} s")
        if self._taken_over_at is not None and time.monotonic() - self._taken_over_at < SHOWN_S:
            lines.append(TAKEN_OVER_WORDS)
        return tuple(lines)

    @property
    def _silence_s(self) -> float:
        if self._client is not None:
            return self._client.silence_s
        return time.monotonic() - self._state_since if isinstance(self.state, Connecting) else 0.0

    @property
    def dropped(self) -> int:
        """Incoming messages that had no room, since the daemon began."""
        return self._dropped + (self._client.dropped if self._client is not None else 0)

    @property
    def commands_ignored(self) -> Mapping[str, int]:
        """Why commands were not looked at → how many."""
        return self._inbox.ignored

    @property
    def commands_refused(self) -> int:
        """Commands that had no room."""
        return self._inbox.refused

    @property
    def commands_waiting(self) -> int:
        """Commands that wait for those before them."""
        return self._inbox.waiting

    @property
    def states_waiting(self) -> int:
        """Retained topics whose newest state the broker does not have."""
        return self._states.waiting

    # --- the outer loop -----------------------------------------------------------------------

    def stop(self) -> None:
        """Publish ``offline``, disconnect and end."""
        self._stop.set()

    def reconnect(self) -> None:
        """Connect anew at once, with credentials and certificates as their files are now."""
        self._again.set()

    def start(self) -> asyncio.Task[None]:
        """Begin to keep a connection, until stopped."""
        return self._supervisor.task("mqtt", self._run)

    async def _run(self, worker: Worker) -> None:
        if self._alone:
            await self._stop.wait()
            self._outbox.close()
            return
        inbox = self._supervisor.task("commands", lambda _: self._inbox.run(), on_failure="restart")
        try:
            while not self._stop.is_set():
                await self._one_connection(worker)
        finally:
            inbox.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await inbox
            self._outbox.close()
            self._become(Closed())

    async def _one_connection(self, worker: Worker) -> None:
        self._become(Connecting())
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            client = await self._connector.connect()
        except BrokerRefused as error:
            await self._wait(RefusedByBroker(str(error), self._connector.pause_s()))
            return
        except BrokerError as error:
            await self._wait(Waiting(str(error), self._connector.pause_s()))
            return
        try:
            why = await self._use(client)
        except Exception as error:  # noqa: BLE001 - a fault of ours costs a connection, not the link
            worker.failed(error, doing="a connection")
            why = f"{self._settings.where}: the connection was given up: {error!r}"
        finally:
            self._client = None
            await client.leave()
        own = self._stop.is_set() or self._again.is_set()
        short = not own and loop.time() - begun < SHORT_S
        self._short = self._short + 1 if short else 0
        # Old brokers close the connection without a word.
        if client.taken_over or self._short >= SHORT_IN_A_ROW:
            self._word = secrets.token_hex(6)
            self._short = 0
            self._taken_over_at = time.monotonic()
            why = f"{why}; {TAKEN_OVER_WORDS}"
            log.error("taken over", why=why)
        if self._again.is_set():
            self._connector.begin_anew()
        if not self._stop.is_set():
            await self._wait(Waiting(why, self._connector.pause_s(loop.time() - begun)))

    async def _use(self, client: Client) -> str:
        """Use a connection until it ends or we stop; return why it ended."""
        try:
            # Whoever reads ``online`` may send a command at once: listen first.
            await self._listening.begin(client)
        except aiomqtt.MqttError as error:
            return f"{self._settings.where}: the connection ended: {error}"
        tasks: list[asyncio.Future[object]] = [
            asyncio.ensure_future(part)
            for part in (
                self._listening.receive(client),
                self._listening.follow(client),
                self._states.send_all(client),
                self._outbox.drain(client),
                self._watch(client),
                self._ask_again_and_again(client),
                self._stop.wait(),
                self._again.wait(),
            )
        ]
        try:
            self._announce(client, b"online")
            self._client = client
            self.connections += 1
            self._become(Connected(client.protocol))
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return self._why(done)
        finally:
            self._client = None
            self._dropped += client.dropped
            await _end(tasks)
            # Disconnecting in good order, the broker keeps the last will to itself.
            with contextlib.suppress(aiomqtt.MqttError):
                self._announce(client, b"offline")

    def _why(self, done: Iterable[asyncio.Future[object]]) -> str:
        """Return why the first part ended; what is no failure of the broker is raised."""
        why = ""
        for task in done:
            error = _innermost(task.exception())
            if isinstance(error, aiomqtt.MqttError | OSError):
                why = why or f"{self._settings.where}: the connection ended: {error}"
            elif error is not None:
                raise error
        return why

    def _announce(self, client: Client, word: bytes) -> None:
        answer = client.send(self._available, word, retain=True, content_type="text/plain")
        answer.add_done_callback(lambda answer: self._announced(client, word, answer))

    def _announced(self, client: Client, word: bytes, answer: asyncio.Future[None]) -> None:
        if answer.cancelled() or (error := answer.exception()) is None:
            self._states.refused.pop(self._available, None)
            return
        self._states.refused[self._available] = str(error)
        asyncio.get_running_loop().call_later(REFUSED_AGAIN_S, self._announce_again, client, word)

    def _announce_again(self, client: Client, word: bytes) -> None:
        if self._client is client:
            with contextlib.suppress(aiomqtt.MqttError):
                self._announce(client, word)

    async def _ask_again_and_again(self, client: Client) -> None:
        while True:
            await asyncio.sleep(ASK_EVERY_S)
            await client.ask(self._available)

    async def _watch(self, client: Client) -> None:
        """End a connection on which nothing is acknowledged any more."""
        silence = 0.0
        while silence < self._settings.answer_s:
            await asyncio.sleep(_WATCH_S)
            silence = client.silence_s
        msg = f"the broker has acknowledged nothing for {silence:.0f} s"
        raise aiomqtt.MqttError(msg)

    # --- states -------------------------------------------------------------------------------

    def _become(self, state: LinkState) -> None:
        self.state, self._state_since = state, time.monotonic()
        if isinstance(state, RefusedByBroker | Waiting):
            self._why_not = state.why
        elif not isinstance(state, Connecting):
            self._why_not = ""
        self._state_log.add(state)
        if self._on_state is not None:
            self._on_state(state)

    async def _wait(self, state: Waiting | RefusedByBroker) -> None:
        """Wait until it is time to try again, or somebody asks for it."""
        self._become(state)
        asked: list[asyncio.Future[object]] = [
            asyncio.ensure_future(event.wait()) for event in (self._stop, self._again)
        ]
        await asyncio.wait(asked, timeout=state.seconds, return_when=asyncio.FIRST_COMPLETED)
        await _end(asked)
        self._again.clear()


async def _end(tasks: Sequence[asyncio.Future[object]]) -> None:
    """End them, and log what failed in one."""
    await end_tasks(tasks)
    for task in tasks:
        # Where one part has logged why the connection ended, the others need not repeat it.
        error = None if task.cancelled() else _innermost(task.exception())
        if error is not None and not isinstance(error, aiomqtt.MqttError | OSError):
            log.error("a part of the link failed", error=repr(error))


def _innermost(error: BaseException | None) -> BaseException | None:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
