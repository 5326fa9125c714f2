"""The link on a real mosquitto: nothing lost, everything in order, states beside the backlog."""

from __future__ import annotations

import asyncio
import dataclasses
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from hypnocast.errors import BrokerError
from hypnocast.ports.journal.journal import Journal
from hypnocast.ports.mqtt import link as links
from hypnocast.ports.mqtt.client import Protocol
from hypnocast.ports.mqtt.link import MqttLink
from hypnocast.ports.mqtt.link_states import (
    Connected,
    Connecting,
    LinkState,
    RefusedByBroker,
    Waiting,
)
from hypnocast.ports.mqtt.settings import BrokerSettings, login
from support.brokers import Mosquitto, free_port, running_mosquitto
from support.mqtt_lab import TOPICS, kept_by_broker, linked, listening, nobody, proxied, until
from support.needs import need_program
from support.nights import a_batch, a_session, an_event


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with running_mosquitto(tmp_path) as mosquitto:
        yield mosquitto


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    async with Journal.open(tmp_path / "state" / "journal.sqlite") as opened:
        await opened.commit(a_batch(session=a_session()))
        yield opened


async def _pages(journal: Journal, first: int, count: int, bed: str = "bed1") -> None:
    await asyncio.gather(
        *(journal.commit(a_batch(an_event(k, bed=bed))) for k in range(first, first + count))
    )


async def drained(journal: Journal) -> None:
    async with asyncio.timeout(15):
        while await journal.waiting():  # noqa: ASYNC110 - the journal has no event for this
            await asyncio.sleep(0.02)


@pytest.mark.promise(2)
async def test_events_come_in_order_and_leave_the_outbox(
    broker: Mosquitto, journal: Journal
) -> None:
    await _pages(journal, 0, 50)
    async with (
        listening(broker.port) as listener,
        linked(BrokerSettings(port=broker.port), journal),
    ):
        await _pages(journal, 50, 50)
        await until(lambda: len(listener.sequences()) >= 100)
        await drained(journal)
    assert listener.sequences() == list(range(1, 101))


async def test_available_says_online_and_offline(broker: Mosquitto, journal: Journal) -> None:
    async with linked(BrokerSettings(port=broker.port), journal):
        await until(lambda: kept_by_broker(broker.port).get(TOPICS.available("node1")) == b"online")
    assert kept_by_broker(broker.port)[TOPICS.available("node1")] == b"offline"


async def test_cloudevents_attributes_ride_on_mqtt_5(broker: Mosquitto, journal: Journal) -> None:
    async with (
        listening(broker.port) as listener,
        linked(BrokerSettings(port=broker.port), journal),
    ):
        await _pages(journal, 0, 1)
        await until(listener.sequences)
    (properties,) = listener.properties(TOPICS.events("bed1"))
    found = properties.json()  # type: ignore[no-untyped-call]  # paho's
    assert found["ContentType"] == "application/json"
    attributes = dict(found["UserProperty"])
    assert attributes["specversion"] == "1.0"
    assert attributes["id"] == "bed1-night/0/1"
    assert attributes["source"] == "hypnocast/lab/bed/bed1"
    assert attributes["type"] == "hypnocast.stage.1"


@pytest.mark.promise(2)
async def test_a_broker_that_dies_and_returns_misses_nothing(
    broker: Mosquitto, journal: Journal
) -> None:
    settings = BrokerSettings(port=broker.port)
    async with listening(broker.port) as listener, linked(settings, journal) as link:
        await _pages(journal, 0, 10)
        await drained(journal)
        broker.kill()
        await until(lambda: isinstance(link.state, Waiting))
        await _pages(journal, 10, 40)
        listener._subscribed.clear()
        broker.start()
        await until(lambda: isinstance(link.state, Connected))
        await drained(journal)
        await until(listener.ready)
        await _pages(journal, 50, 1)
        await until(lambda: 51 in listener.sequences())
    # QoS 1 to a subscriber that was away is the broker's business; ours is order and no loss.
    assert listener.sequences() == sorted(listener.sequences())
    assert link.connections == 2


@pytest.mark.promise(2)
async def test_a_cut_before_the_acknowledgement_repeats_the_same_id(
    broker: Mosquitto, journal: Journal
) -> None:
    async with (
        proxied(broker.port) as proxy,
        listening(broker.port) as listener,
        linked(BrokerSettings(port=proxy.port), journal) as link,
    ):
        await _pages(journal, 0, 3)
        await drained(journal)
        proxy.swallow_answers = True
        await _pages(journal, 3, 3)
        await until(lambda: len(listener.sequences()) == 6)
        assert await journal.waiting() == {"bed1": 3}
        proxy.swallow_answers = False
        proxy.cut()
        await drained(journal)
        assert link.connections == 2
    ids = [event["id"] for event in listener.json_of(TOPICS.events("bed1"))]
    assert listener.sequences() == [1, 2, 3, 4, 5, 6, 4, 5, 6]
    assert ids[3:6] == ids[6:9]


@pytest.mark.promise(2)
async def test_a_connection_that_falls_silent_is_given_up(
    broker: Mosquitto, journal: Journal
) -> None:
    async with proxied(broker.port) as proxy:
        settings = BrokerSettings(port=proxy.port, answer_s=1.0)
        async with linked(settings, journal) as link:
            await drained(journal)
            proxy.swallow_answers = True
            await _pages(journal, 0, 2)
            await until(lambda: isinstance(link.state, Waiting))
            assert "acknowledged nothing" in link.problems[0]
            proxy.swallow_answers = False
            await drained(journal)


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_a_broker_that_falls_silent_is_named_though_nothing_is_published(
    broker: Mosquitto, journal: Journal, version: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "ASK_EVERY_S", 0.1)
    monkeypatch.setattr(links, "SILENT_S", 0.3)
    async with proxied(broker.port) as proxy:
        settings = BrokerSettings(port=proxy.port, version=version, answer_s=1.0)
        async with listening(broker.port) as listener, linked(settings, journal) as link:
            await asyncio.sleep(0.5)  # it is asked, and answers
            assert not link.problems
            before = len(listener.messages)
            proxy.swallow_answers = True
            await until(lambda: "answered nothing" in " ".join(link.problems), "it is named")
            assert isinstance(link.state, Connected), "it is given more time than that"
            assert len(listener.messages) == before, "nobody else sees that it is asked"
            await until(lambda: isinstance(link.state, Waiting))
            # While another connection is tried, what is wrong still stands there.
            await until(lambda: isinstance(link.state, Connecting))
            assert "acknowledged nothing" in link.problems[0]
            proxy.swallow_answers = False
            proxy.cut()
            await until(lambda: isinstance(link.state, Connected) and not link.problems)


@pytest.mark.promise(7)
async def test_stage_overtakes_a_backlog(broker: Mosquitto, journal: Journal) -> None:
    await _pages(journal, 0, 400)
    settings = BrokerSettings(port=broker.port)
    async with listening(broker.port) as listener, linked(settings, journal) as link:
        done = await journal.commit(a_batch(an_event(400)))
        link.stage(done.stored[0])
        await drained(journal)
        await until(lambda: len(listener.sequences()) == 401)
    topics = [message.topic for message in listener.messages]
    after = topics[topics.index(TOPICS.stage("bed1")) :].count(TOPICS.events("bed1"))
    assert after > 100
    assert listener.sequences() == list(range(1, 402))


async def test_states_are_retained_announced_again_and_cleared(
    broker: Mosquitto, journal: Journal
) -> None:
    stage, page = TOPICS.stage("bed1"), TOPICS.page("bed1")
    async with linked(BrokerSettings(port=broker.port), journal) as link:
        done = await journal.commit(a_batch(an_event(0)))
        link.stage(done.stored[0])
        link.retain_bytes(page, b"\x89PNG", content_type="image/png")
        await until(lambda: {stage, page} <= kept_by_broker(broker.port).keys())
        broker.restart()  # without persistence: it has forgotten everything
        await until(lambda: link.connections == 2)
        await until(lambda: {stage, page} <= kept_by_broker(broker.port).keys())
        link.session_ended("bed1")
        await until(lambda: not {stage, page} & kept_by_broker(broker.port).keys())


async def test_home_assistant_gets_its_documents_again_when_it_is_born(
    broker: Mosquitto, journal: Journal
) -> None:
    topic = "homeassistant/device/hypnocast_bed1/config"
    settings = BrokerSettings(port=broker.port)
    async with listening(broker.port) as listener, linked(settings, journal) as link:
        link.retain_bytes(topic, b"{}", content_type="application/json")
        await until(lambda: len(listener.of(topic)) == 1)

        def announced_again() -> bool:
            listener.publish("homeassistant/status", b"online")
            return len(listener.of(topic)) >= 2

        await until(announced_again)


async def test_a_broker_that_was_never_there_is_waited_for(journal: Journal) -> None:
    port = free_port()
    async with linked(BrokerSettings(port=port), journal, wait=False) as link:
        await until(lambda: isinstance(link.state, Waiting))
        assert f"127.0.0.1:{port}" in link.problems[0]
        assert "Check host and port" in link.problems[0]


# --- logging in -------------------------------------------------------------------------------


def _secret(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    path.chmod(0o600)
    return path


def _password_broker(folder: Path) -> str:
    mosquitto_passwd = need_program("mosquitto_passwd")
    subprocess.run(
        [mosquitto_passwd, "-b", "-c", str(folder / "passwords"), "bed", "right"], check=True
    )
    acl = folder / "acl"
    acl.write_text("user bed\ntopic readwrite hypnocast/lab/daemon/#\ntopic read #\n")
    return f"password_file {folder}/passwords\nacl_file {acl}"


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_a_refused_login_is_no_connection(
    tmp_path: Path, journal: Journal, version: str
) -> None:
    with running_mosquitto(tmp_path, _password_broker(tmp_path), anonymous=False) as broker:
        password = _secret(tmp_path, "password", "wrong\n")
        settings = BrokerSettings(
            port=broker.port,
            username_file=_secret(tmp_path, "user", "bed\n"),
            password_file=password,
            version="5" if version == "5" else "3.1.1",
        )
        async with linked(settings, journal, wait=False) as link:
            await until(lambda: isinstance(link.state, RefusedByBroker))
            assert link.connections == 0
            assert "user name and password" in link.problems[0]
            assert "wrong" not in link.problems[0]
            password.write_text("right\n")  # exchanged without a restart
            await until(lambda: isinstance(link.state, Connected))


@pytest.mark.promise(2)
async def test_an_acknowledgement_that_says_no_is_not_delivery(
    tmp_path: Path, journal: Journal
) -> None:
    with running_mosquitto(tmp_path, _password_broker(tmp_path), anonymous=False) as broker:
        settings = BrokerSettings(
            port=broker.port,
            username_file=_secret(tmp_path, "user", "bed"),
            password_file=_secret(tmp_path, "password", "right"),
        )
        async with linked(settings, journal) as link:
            await _pages(journal, 0, 3)
            await until(lambda: any("/events" in line for line in link.problems))
            assert await journal.waiting() == {"bed1": 3}
            assert "Not authorized" in " ".join(link.problems)


def test_credentials_open_to_others_are_refused(tmp_path: Path) -> None:
    path = _secret(tmp_path, "password", "secret")
    path.chmod(0o644)
    with pytest.raises(BrokerError, match="chmod 600"):
        login(BrokerSettings(password_file=path))
    with pytest.raises(BrokerError, match="cannot be read"):
        login(BrokerSettings(password_file=tmp_path / "none"))


# --- TLS --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    openssl = need_program("openssl")
    folder = tmp_path_factory.mktemp("certificates")

    def run(*words: str) -> None:
        subprocess.run([openssl, *words], cwd=folder, check=True, capture_output=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    run("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=Lab CA")
    for name, subject in (
        ("server", "subjectAltName=DNS:localhost"),
        ("client", "basicConstraints=CA:FALSE"),
    ):
        (folder / "ext").write_text(subject)
        run("req", *curve, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        run(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key"),
            *("-CAcreateserial", "-out", f"{name}.crt", "-extfile", "ext"),
        )
    return folder


async def test_tls_with_client_certificate(
    tmp_path: Path, certificates: Path, journal: Journal
) -> None:
    c = certificates
    port = free_port()
    extra = (
        f"listener {port} 127.0.0.1\ncafile {c}/ca.crt\ncertfile {c}/server.crt\n"
        f"keyfile {c}/server.key\nrequire_certificate true"
    )
    with running_mosquitto(tmp_path, extra):
        good = BrokerSettings(
            host="localhost",
            port=port,
            tls=True,
            ca_file=c / "ca.crt",
            cert_file=c / "client.crt",
            key_file=c / "client.key",
        )
        await _pages(journal, 0, 3)
        async with linked(good, journal):
            await drained(journal)
        stranger = dataclasses.replace(good, ca_file=None)
        wrong_name = dataclasses.replace(good, host="127.0.0.1")
        for bad in (stranger, wrong_name):
            async with linked(bad, journal, wait=False) as link:
                await until(lambda: isinstance(link.state, Waiting))
                assert "authority that signed" in link.problems[0]


async def test_a_certificate_that_is_none_is_reported(tmp_path: Path, journal: Journal) -> None:
    none = tmp_path / "ca.pem"
    none.write_text("nothing")
    settings = BrokerSettings(port=1, tls=True, ca_file=none)
    async with linked(settings, journal, wait=False) as link:
        await until(lambda: isinstance(link.state, Waiting))
        assert str(none) in link.problems[0]


async def test_what_stands_in_the_way_of_a_connection_is_logged_once(journal: Journal) -> None:
    states: list[LinkState] = []
    settings = BrokerSettings(port=free_port())
    link = MqttLink(settings, TOPICS, "node1", journal, nobody, on_state=states.append)
    with capture_logs() as logged:
        task = link.start()
        await until(lambda: sum(isinstance(one, Waiting) for one in states) >= 2, "two tries")
        link.stop()
        await task
    lines = [(entry["log_level"], entry["state"]) for entry in logged if entry["event"] == "mqtt"]
    assert lines == [("info", "connecting"), ("warning", "waiting"), ("info", "closed")]
