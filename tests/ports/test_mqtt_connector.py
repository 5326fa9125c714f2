"""One way to the broker for everybody: version, login, refusals, pauses, and what aiomqtt lends."""

from __future__ import annotations

import asyncio
import importlib.metadata
import inspect
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiomqtt
import paho.mqtt.client as paho
import pytest

from hypnocast.dashboard.feed import Feed, ended
from hypnocast.dashboard.ward import Incoming
from hypnocast.ports.mqtt.client import BrokerRefused, BrokerSilent, Client
from hypnocast.ports.mqtt.connector import LONGEST_PAUSE_S, Connector
from hypnocast.ports.mqtt.probe import probe
from hypnocast.ports.mqtt.settings import BrokerSettings
from support.brokers import Mosquitto, free_port, running_mosquitto
from support.mqtt_lab import listening, until

ROOT = Path(__file__).resolve().parents[2]
HAYSTACK = "daemon"


class OldBroker:
    """Sits before a real broker, and treats MQTT 5 as brokers of 3.1.1 do."""

    def __init__(self, target: int, answer: bytes | None) -> None:
        self.levels: list[int] = []
        """Protocol levels of the CONNECTs that came."""
        self._target = target
        self._answer = answer
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._converse(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"MQTT")
        level = await reader.readexactly(1)
        self.levels.append(level[0])
        if level[0] == 5:
            if self._answer is None:
                await reader.read()  # waits for the end of a CONNECT it misread
            else:
                writer.write(self._answer)
                await writer.drain()
            return
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target)
        up_writer.write(head + level)
        try:
            await asyncio.gather(_pump(reader, up_writer), _pump(up_reader, writer))
        finally:
            up_writer.close()

    async def end(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        sink.write(data)
        await sink.drain()
    sink.close()


ANSWERS = {
    "silent": None,
    "refused as 3.1.1 does": b"\x20\x02\x00\x01",
    "refused as 5 does": b"\x20\x03\x00\x84\x00",
}


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with running_mosquitto(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


@asynccontextmanager
async def old_broker(target: int, answer: bytes | None) -> AsyncIterator[tuple[OldBroker, int]]:
    old = OldBroker(target, answer)
    server = await asyncio.start_server(old.serve, "127.0.0.1", 0)
    try:
        yield old, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await old.end()
        await server.wait_closed()


async def by_feed(settings: BrokerSettings) -> None:
    """As the ward page and ``watch`` connect."""
    taken: list[Incoming] = []
    feed = Feed(settings, "hypnocast/lab", on_message=taken.append)
    task = asyncio.create_task(feed.run())
    try:
        await until(lambda: feed.link.connected, "the view is connected")
    finally:
        await ended(task)


async def by_probe(settings: BrokerSettings) -> None:
    """As ``check`` connects."""
    assert (await probe(settings, "hypnocast/lab", "pc1", ["bed1"])).protocol == "3.1.1"


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("connects", [by_feed, by_probe])
async def test_whoever_connects_falls_back_to_311(
    mosquitto: Mosquitto, connects: Callable[[BrokerSettings], Awaitable[None]], answer: str
) -> None:
    async with old_broker(mosquitto.port, ANSWERS[answer]) as (old, port):
        await connects(BrokerSettings(port=port, login_s=0.5))
    assert old.levels == [5, 4]


async def test_what_worked_is_tried_first_the_next_time(mosquitto: Mosquitto) -> None:
    async with old_broker(mosquitto.port, None) as (old, port):
        connector = Connector(BrokerSettings(port=port, login_s=0.5), lambda: "one")
        for _ in range(3):
            client = await connector.connect()
            await client.leave()
    assert old.levels == [5, 4, 4, 4]


async def test_a_version_that_is_configured_is_the_only_one_tried(mosquitto: Mosquitto) -> None:
    async with old_broker(mosquitto.port, None) as (old, port):
        settings = BrokerSettings(port=port, login_s=0.3, version="5")
        with pytest.raises(BrokerSilent):
            await Connector(settings, lambda: "one").connect()
    assert old.levels == [5]


async def test_a_wrong_password_is_a_refusal_and_no_reason_for_another_version(
    tmp_path: Path,
) -> None:
    (tmp_path / "users").write_text("")
    extra = f"password_file {tmp_path / 'users'}"
    with (
        running_mosquitto(tmp_path, extra, anonymous=False) as broker,
        pytest.raises(BrokerRefused) as refused,
    ):
        await Connector(BrokerSettings(port=broker.port), lambda: "one").connect()
    assert refused.value.code == 135


async def test_pauses_grow_to_a_bound_and_begin_anew_after_a_steady_connection() -> None:
    connector = Connector(BrokerSettings(port=free_port()), lambda: "one")
    pauses = [connector.pause_s() for _ in range(12)]
    assert 0.25 <= pauses[0] <= 0.5
    assert all(LONGEST_PAUSE_S / 2 <= pause <= LONGEST_PAUSE_S for pause in pauses[7:])
    assert connector.pause_s(lasted_s=11.0) <= 0.5


async def test_a_view_that_falls_behind_says_so_and_reads_all_anew(
    mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hypnocast.dashboard.feed._MOST_WAITING", 5)
    problems: list[str] = []
    taken: dict[str, bytes] = {}

    async with listening(mosquitto.port) as listener:
        topic = "hypnocast/lab/bed/bed1/status"
        feed = Feed(
            BrokerSettings(port=mosquitto.port),
            "hypnocast/lab",
            on_message=lambda message: taken.update({message.topic: message.payload}),
            on_link=lambda link: problems.append(link.problem),
        )
        task = asyncio.create_task(feed.run())
        try:
            await until(lambda: feed.link.connected, "the view is connected")
            for number in range(2000):
                listener.publish(topic, {"number": number}, retain=True)
            await until(lambda: feed.dropped, "messages are dropped")
            newest = b'{"number": 1999}'
            await until(lambda: taken.get("bed/bed1/status") == newest, "the newest state")
            assert any("messages dropped" in problem for problem in problems)
        finally:
            await ended(task)
            listener.publish(topic, b"", retain=True)


async def test_a_view_is_ended_though_its_first_cancellation_is_dropped() -> None:
    """As ``asyncio.wait_for`` does before Python 3.12, where an answer comes at that moment."""
    dropped = asyncio.Event()

    async def subscribing() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            dropped.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(subscribing())
    await asyncio.sleep(0)
    async with asyncio.timeout(30.0):
        await ended(task)
    assert dropped.is_set()
    assert task.cancelled()


def test_what_is_relied_upon_of_aiomqtt_beyond_what_it_promises() -> None:
    """aiomqtt has no public way to a PUBACK's reason code, nor to its paho client."""
    pinned = re.search(r'"aiomqtt==([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert pinned is not None, "pinned exactly: a new version is looked at before it is taken"
    assert importlib.metadata.version("aiomqtt") == pinned[1]
    source = inspect.getsource(aiomqtt.Client)
    for relied_upon in (
        "self._client: mqtt.Client = mqtt.Client(",
        "self._client.on_publish = self._on_publish",
        "self._client.on_socket_register_write = self._on_socket_register_write",
        "self._disconnected: asyncio.Future[None]",
        "self._loop = asyncio.get_running_loop()",
    ):
        assert relied_upon in source, relied_upon
    arguments = list(inspect.signature(aiomqtt.Client._on_publish).parameters)
    assert arguments == ["self", "client", "userdata", "mid", "reason_code", "properties"]
    arguments = list(inspect.signature(aiomqtt.Client._on_socket_register_write).parameters)
    assert arguments == ["self", "client", "userdata", "sock"]


async def test_nobody_but_the_client_touches_what_is_private_to_aiomqtt() -> None:
    client = Client(BrokerSettings(), "5", identifier="one")
    assert isinstance(client._client, paho.Client)
    private = re.compile(r"\bclient\._(client|loop|disconnected|on_publish)\b")
    wrong = [
        str(path.relative_to(ROOT))
        for path in (ROOT / HAYSTACK).rglob("*.py")
        if private.search(path.read_text(encoding="utf-8"))
    ]
    assert wrong == []
