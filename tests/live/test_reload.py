"""A signal makes the daemon read its credentials anew, and name what must wait for a restart."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest
import structlog

from hypnocast.config.file import load_config, parse_config
from hypnocast.config.tables import Config, changed_keys
from hypnocast.core.wire import commands
from hypnocast.core.wire.topics import Topics
from hypnocast.errors import CommandError
from hypnocast.live.service.serve import forget_old_nights, reload
from hypnocast.ports.journal.journal import Journal
from hypnocast.ports.journal.reader import JournalReader
from hypnocast.ports.mqtt.link import MqttLink
from hypnocast.ports.mqtt.link_states import Connected
from hypnocast.ports.mqtt.settings import BrokerSettings
from hypnocast.ports.supervision import Supervisor
from support.brokers import running_mosquitto
from support.mqtt_lab import until
from support.nights import a_batch, a_session, an_event, instant


async def _nobody(bed: str, command: commands.Command) -> commands.Reply:
    raise CommandError(f"{command.request} at {bed}: nobody is there")


def test_every_changed_key_is_named() -> None:
    old = parse_config('[signal]\nmains_hz = 50\n[[bed]]\nid = "a"\nstreams = [{name = "x"}]')
    new = parse_config("[signal]\nmains_hz = 60\n[publish]\npage = true")
    assert set(changed_keys(old, new)) == {"signal.mains_hz", "publish.page", "bed"}
    assert changed_keys(Config(), Config()) == ()


async def test_a_reload_connects_anew_and_refuses_what_a_night_cannot_change(
    tmp_path: Path,
) -> None:
    file = tmp_path / "hypnocast.toml"
    file.write_text("[signal]\nmains_hz = 50\n", encoding="utf-8")
    config = load_config(file)
    with running_mosquitto(tmp_path) as broker:
        settings = BrokerSettings(port=broker.port)
        async with Journal.open(tmp_path / "journal.sqlite") as journal:
            link = MqttLink(settings, Topics("lab"), "node", journal, _nobody)
            running = link.start()
            await until(lambda: isinstance(link.state, Connected), "connected")
            file.write_text("[signal]\nmains_hz = 60\n", encoding="utf-8")
            with structlog.testing.capture_logs() as found:
                reload(config, file, link)
                await until(lambda: link.connections == 2, "connected anew")
            assert [line["key"] for line in found if "key" in line] == ["signal.mains_hz"]
            file.write_text("[signal]\nmains = 60\n", encoding="utf-8")
            with structlog.testing.capture_logs() as found:
                reload(config, file, link)
            assert found[0]["log_level"] == "error"
            assert "mains" in found[0]["error"]
            assert link.connections == 2
            link.stop()
            await asyncio.wait_for(running, 10.0)


@pytest.mark.parametrize("text", ["", "[site]\nid = 'other'\n"])
def test_a_file_compared_with_itself_changes_nothing(tmp_path: Path, text: str) -> None:
    file = tmp_path / "hypnocast.toml"
    file.write_text(text, encoding="utf-8")
    assert changed_keys(load_config(file), load_config(file)) == ()


async def test_old_nights_are_forgotten_however_long_the_daemon_runs(tmp_path: Path) -> None:
    supervisor = Supervisor()
    async with Journal.open(tmp_path / "journal.sqlite", supervisor) as journal:
        keeping = asyncio.create_task(forget_old_nights(journal, 30, every_s=0.01))
        # After the first round: the daemon has been running for a while.
        beats = {health.name: health.beats for health in supervisor.health()}["journal"]
        await until(
            lambda: any(
                health.beats > beats + 1 for health in supervisor.health()
                if health.name == "journal"
            ),
            "the first round",
        )  # fmt: skip
        night = dataclasses.replace(
            a_session(name="old"), opened="2000-01-01T00:00:00.000Z", phase="ended", ended=instant()
        )
        await journal.commit(a_batch(an_event(0, session="old"), session=night))
        journal.acknowledge(night.bed, 1)
        async with asyncio.timeout(20.0):
            while await journal.read(JournalReader.nights):  # noqa: ASYNC110  (a thread writes)
                await asyncio.sleep(0.01)
        keeping.cancel()
