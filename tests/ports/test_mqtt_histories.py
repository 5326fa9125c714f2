"""Any history of the link to the broker, against a small model.

The whole link runs: connector, outbox, retained states, commands. The network, the broker and the
disk are the history's: the broker answers late, refuses a message, swallows everything, cuts the
connection with or without having processed what was under way, is away, knows MQTT 3.1.1 only, lets
another client take the daemon's place; the journal cannot be read for a while. Time is the event
loop's own and goes on to the next thing at once. ``HYPNOCAST_HISTORIES=5000`` runs so many.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import aiomqtt
import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hypnocast.core.wire import payloads
from hypnocast.core.wire.topics import Topics
from hypnocast.errors import BrokerError, JournalError
from hypnocast.ports.journal.records import StoredEvent
from hypnocast.ports.mqtt.client import BrokerRefused
from hypnocast.ports.mqtt.connector import Connector
from hypnocast.ports.mqtt.link import MqttLink
from hypnocast.ports.mqtt.link_states import Connected
from hypnocast.ports.mqtt.settings import BrokerSettings
from support.mqtt_lab import nobody
from support.nights import an_event

T = TypeVar("T")
BEDS = ("bed1", "bed2")
TOPICS = Topics("lab")
HISTORIES = int(os.environ.get("HYPNOCAST_HISTORIES", "20"))
MOST_QUESTIONS = 15
"""A bed is asked no more than its budget lets through."""


class InstantLoop(asyncio.SelectorEventLoop):
    """An event loop whose time goes on to the next thing to do as soon as there is nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        look: Callable[[float | None], Any] = self._selector.select  # type: ignore[attr-defined]  # asyncio's own

        def select(timeout: float | None) -> Any:
            ready = look(0.0)
            assert ready or timeout is not None, "nothing will ever happen"
            self._now += 0.0 if ready else timeout or 0.0
            return ready

        self._selector.select = select  # type: ignore[attr-defined]  # asyncio's own

    def time(self) -> float:
        return self._now


@dataclass
class LinkModel:
    """The events of each bed; what the broker confirmed, refused, and has been sent."""

    events: dict[str, list[StoredEvent]] = field(default_factory=lambda: {bed: [] for bed in BEDS})
    acknowledged: set[tuple[str, int]] = field(default_factory=set)
    confirmed: set[tuple[str, int]] = field(default_factory=set)
    refused: set[tuple[str, int]] = field(default_factory=set)
    taken: dict[str, list[int]] = field(default_factory=lambda: {bed: [] for bed in BEDS})
    retained: dict[str, bytes] = field(default_factory=dict)

    def waiting(self, bed: str) -> list[StoredEvent]:
        return [row for row in self.events[bed] if (bed, row.sequence) not in self.acknowledged]


class ModelJournal:
    """What the link asks of a journal, answered by the model."""

    def __init__(self, model: LinkModel) -> None:
        self.model = model
        self.unreadable = False
        self.news: list[Callable[[tuple[StoredEvent, ...]], None]] = []

    def subscribe(self, news: Callable[[tuple[StoredEvent, ...]], None]) -> Callable[[], None]:
        self.news.append(news)
        return lambda: self.news.remove(news)

    def acknowledge(self, bed: str, sequence: int) -> None:
        self.model.acknowledged.add((bed, sequence))

    async def _read(self) -> None:
        await asyncio.sleep(0.001)
        if self.unreadable:
            raise JournalError("cannot be read: disk I/O error")

    async def waiting(self) -> dict[str, int]:
        await self._read()
        return {bed: len(rows) for bed in BEDS if (rows := self.model.waiting(bed))}

    async def outbox(self, bed: str, after: int = 0, limit: int = 200) -> tuple[StoredEvent, ...]:
        await self._read()
        return tuple(row for row in self.model.waiting(bed) if row.sequence > after)[:limit]

    async def events(self, bed: str, since: int = 0, limit: int = 200) -> tuple[StoredEvent, ...]:
        await self._read()
        return tuple(self.model.events[bed][since : since + limit])


@dataclass
class SentMessage:
    """A message on its way to the broker."""

    topic: str
    payload: bytes
    retain: bool
    answer: asyncio.Future[None]
    at: float


class ModelClient:
    """A connection: what aiomqtt would be asked for."""

    most_bytes = None
    dropped = 0

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol
        self.taken_over = False
        self.under_way: deque[SentMessage] = deque()
        self.commands: asyncio.Queue[aiomqtt.Message | None] = asyncio.Queue()
        self.lost = False

    @property
    def silence_s(self) -> float:
        now = asyncio.get_running_loop().time()
        return now - self.under_way[0].at if self.under_way else 0.0

    @property
    async def messages(self) -> AsyncIterator[aiomqtt.Message]:
        while (message := await self.commands.get()) is not None:
            yield message
        msg = "the connection was cut"
        raise aiomqtt.MqttError(msg)

    def lose(self) -> None:
        self.lost = True
        self.commands.put_nowait(None)

    async def listen(self, _: str) -> None:
        await asyncio.sleep(0.0)
        if self.lost:
            raise aiomqtt.MqttError("the connection was cut")

    async def ask(self, topic: str) -> None:
        await self.listen(topic)

    def send(
        self, topic: str, payload: bytes, *, retain: bool = False, qos: int = 1, **_: object
    ) -> asyncio.Future[None]:
        if self.lost:
            raise aiomqtt.MqttError("the connection was cut")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[None] = loop.create_future()
        self.under_way.append(SentMessage(topic, payload, retain, answer, loop.time()))
        assert qos == 1
        return answer

    async def leave(self) -> None:
        self.lose()


class ModelConnector(Connector):
    """The connector, to a broker that is as the history has it."""

    away = refusing = old = False
    client: ModelClient | None = None

    async def _connect_as(self, protocol: Any) -> Any:
        await asyncio.sleep(0.01)
        if self.away:
            raise BrokerError("the broker cannot be reached")
        if self.refusing:
            raise BrokerRefused("not authorized", code=135)
        if self.old and protocol == "5":
            raise BrokerRefused("unsupported protocol version", code=132)
        self.client = ModelClient(protocol)
        return self.client


class LinkHistories(RuleBasedStateMachine):
    """Lets everything happen to a link that can happen to one."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = InstantLoop()
        self.model = LinkModel()
        self.journal = ModelJournal(self.model)
        self.seen: dict[str, bytes] = {}
        """Id of each event that ever reached the broker, and its bytes."""
        self.asked = 0
        self._run(self._begin())

    async def _begin(self) -> None:
        settings = BrokerSettings(version="auto")
        self.link = MqttLink(settings, TOPICS, "node1", self.journal, nobody)  # type: ignore[arg-type]  # the model
        self.connector = ModelConnector(settings, lambda: "node1")
        self.link._connector = self.connector
        for bed in BEDS:
            self.link.serve(bed)
        self.task = self.link.start()

    async def _ended(self) -> None:
        await self.task

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    @property
    def client(self) -> ModelClient | None:
        """The connection that lasts."""
        client = self.connector.client
        return None if client is None or client.lost else client

    # --- what may happen ------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.0, 0.05, 1.0, 7.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self._run(asyncio.sleep(seconds))

    @rule(bed=st.sampled_from(BEDS), count=st.integers(1, 12))
    def commit(self, bed: str, count: int) -> None:
        async def commit() -> None:
            for _ in range(count):
                number = len(self.model.events[bed]) + 1
                event = msgspec.structs.replace(an_event(number - 1, bed=bed), sequence=number)
                row = StoredEvent(bed, number, event.id, payloads.encode(event))
                self.model.events[bed].append(row)
                for news in self.journal.news:
                    news((row,))
                self.link.stage(row)

        self._run(commit())

    @precondition(lambda self: self.client is not None and self.client.under_way)
    @rule(count=st.integers(1, 25))
    def answer(self, count: int) -> None:
        """Accept messages and acknowledge them, in their order, as a broker must."""

        async def answer() -> None:
            client = self.client
            for _ in range(min(count, len(client.under_way) if client else 0)):
                assert client is not None
                sent = client.under_way.popleft()
                self._process(sent, confirmed=True)
                sent.answer.set_result(None)
            await asyncio.sleep(0.0)

        self._run(answer())

    @precondition(lambda self: self.client is not None and self.client.under_way)
    @rule()
    def refuse(self) -> None:
        async def refuse() -> None:
            assert self.client is not None
            sent = self.client.under_way.popleft()
            if sent.topic.endswith("/events"):
                self.model.refused.add(_place(sent))
            sent.answer.set_exception(BrokerRefused("quota exceeded", code=151))
            await asyncio.sleep(0.0)

        self._run(refuse())

    @precondition(lambda self: self.client is not None)
    @rule(taken=st.integers(0, 25), other=st.booleans())
    def cut(self, taken: int, other: bool) -> None:
        """End the connection; of what was under way the first arrived, without an answer."""

        async def cut() -> None:
            client = self.client
            assert client is not None
            for sent in list(client.under_way)[:taken]:
                self._process(sent, confirmed=False)
            client.taken_over = other
            client.lose()
            await asyncio.sleep(0.0)

        self._run(cut())

    @rule(away=st.booleans(), refusing=st.booleans(), old=st.booleans())
    def the_broker_changes(self, away: bool, refusing: bool, old: bool) -> None:
        self.connector.away, self.connector.refusing, self.connector.old = away, refusing, old

    @rule(unreadable=st.booleans())
    def the_disk_changes(self, unreadable: bool) -> None:
        self.journal.unreadable = unreadable

    @precondition(lambda self: self.client is not None and self.asked < MOST_QUESTIONS)
    @rule(bed=st.sampled_from(BEDS), since=st.integers(0, 30), limit=st.integers(1, 10))
    def catch_up(self, bed: str, since: int, limit: int) -> None:
        """Ask for what was missed; the answer, if one comes, goes on from there without a gap."""
        self.asked += 1

        async def ask() -> None:
            assert self.client is not None
            command = {"command": "catch_up", "request": f"r{self.asked}", "since": since,
                       "limit": limit}  # fmt: skip
            self.client.commands.put_nowait(
                aiomqtt.Message(
                    TOPICS.command(bed), msgspec.json.encode(command), 1, False, 1, None
                )
            )
            await asyncio.sleep(0.05)

        before = len(self.model.events[bed])
        self._run(ask())
        client = self.client
        replies = [] if client is None else [
            msgspec.json.decode(sent.payload) for sent in client.under_way
            if sent.topic == TOPICS.reply(bed)
        ]  # fmt: skip
        for reply in replies:
            if reply["request"] == f"r{self.asked}" and reply["ok"]:
                wanted = list(range(since + 1, before + 1))[:limit]
                assert [event["sequence"] for event in reply["events"]] == wanted
                assert reply["more"] == (before > since + limit)

    def _process(self, sent: SentMessage, *, confirmed: bool) -> None:
        """Be the broker: keep what is retained, look at every event."""
        if sent.retain:
            self.model.retained[sent.topic] = sent.payload
        if not sent.topic.endswith("/events"):
            return
        bed, number = _place(sent)
        event = msgspec.json.decode(sent.payload)
        assert self.seen.setdefault(event["id"], sent.payload) == sent.payload, "one id, one event"
        taken = self.model.taken[bed]
        first_sight = number not in taken
        skipped = set(range(1, number)) - set(taken)
        # A consumer sees events in order, but for one that the broker itself has refused.
        assert not first_sight or {(bed, one) for one in skipped} <= self.model.refused
        taken.append(number)
        if confirmed:
            self.model.confirmed.add((bed, number))

    # --- what must hold -------------------------------------------------------------------------

    @invariant()
    def nothing_leaves_the_outbox_that_the_broker_did_not_confirm(self) -> None:
        assert self.model.acknowledged <= self.model.confirmed

    @invariant()
    def the_link_lives(self) -> None:
        assert not self.task.done()

    def teardown(self) -> None:
        """Where the broker and the disk are well again, everything arrives."""
        try:
            self.the_broker_changes(False, False, False)
            self.the_disk_changes(False)
            for _ in range(400):
                self.time_passes(1.0)
                if self.client is not None and self.client.under_way:
                    self.answer(25)
                elif isinstance(self.link.state, Connected) and not (
                    any(map(self.model.waiting, BEDS)) or self.link._states.refused
                ):
                    break
            assert isinstance(self.link.state, Connected)
            assert [self.model.waiting(bed) for bed in BEDS] == [[], []], "none is lost"
            for bed, rows in self.model.events.items():
                assert set(self.model.taken[bed]) == {row.sequence for row in rows}
                if rows:
                    assert self.model.retained[TOPICS.stage(bed)] == rows[-1].payload
            assert self.model.retained[TOPICS.available("node1")] == b"online"
        finally:
            self.link.stop()
            self._run(self._ended())
            self.loop.close()


def _place(sent: SentMessage) -> tuple[str, int]:
    event = msgspec.json.decode(sent.payload)
    return event["bed"], event["sequence"]


TestLinkHistories = LinkHistories.TestCase
TestLinkHistories.settings = settings(
    max_examples=HISTORIES, stateful_step_count=40, deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)  # fmt: skip
