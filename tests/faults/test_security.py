"""Who may read and write what: files, secrets, codes, commands."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from faults.life import ORIGIN, Orders, a_ward
from faults.witness import witness
from hypnocast.config.file import load_config, parse_config
from hypnocast.core.wire.pseudonyms import why_personal
from hypnocast.errors import BrokerError, ConfigError
from hypnocast.live.service.build import JOURNAL, boot_id, broker_settings
from hypnocast.live.service.pseudonym_warnings import PseudonymWarnings
from hypnocast.ports.journal.journal import Journal
from hypnocast.ports.mqtt.settings import BrokerSettings, login, tls_context
from support.brokers import running_mosquitto
from support.mqtt_lab import linked, until


@pytest.mark.parametrize(
    "code", ["s-17", "A0042", "bed1", "Room-North", "Sim-Bed-01", "sub-019", "BETA7", "20260", "N3"]
)
def test_a_code_is_a_code(code: str) -> None:
    assert why_personal(code) is None


@pytest.mark.parametrize(
    "code",
    [
        "Maier_Anna",
        "AnnaMaier",
        "van-Haagse-Harry",
        "1951-05-02",
        "19510502",
        "s-02051951",
        "2.5.51",
    ],
)
def test_a_code_that_looks_like_a_person_is_reported(code: str) -> None:
    assert why_personal(code) is not None


async def test_a_warning_comes_once_and_does_not_repeat_the_subjects_code(
    tmp_path: Path, pack: Path
) -> None:
    with capture_logs() as logs:
        watcher = PseudonymWarnings(["Anna_Maier"])
        orders = Orders(str(tmp_path / "s"), str(pack), 1, ORIGIN, until=ORIGIN + 120.0)
        async with a_ward(orders) as alive:
            await alive.ward.run()
            rows = await alive.journal.events("bed1")
            assert rows
        import msgspec

        from hypnocast.ports.journal.store import decode_event

        event = msgspec.structs.replace(decode_event(rows[0].payload), subject="Haagse_Harry")
        watcher.event(event)
        watcher.event(event)
    values = [line for line in logs if "looks like a name" in line["event"]]
    assert [line["bed"] for line in values] == ["Anna_Maier", "bed1"]
    assert "Harry" not in json.dumps(values)


async def test_what_the_daemon_writes_only_its_user_reads(tmp_path: Path, pack: Path) -> None:
    before = os.umask(0)
    try:
        state = tmp_path / "state"
        orders = Orders(str(state), str(pack), 1, ORIGIN, until=ORIGIN + 120.0, tape=True)
        async with a_ward(orders) as alive:
            await alive.ward.run()
            modes = {
                path.relative_to(tmp_path).as_posix(): path.stat().st_mode & 0o077
                for path in [state, *state.rglob("*")]
            }
    finally:
        os.umask(before)
    assert any(name.endswith(".xdf") for name in modes)
    assert f"state/{JOURNAL}" in modes
    assert not [name for name, open_to in modes.items() if open_to], modes


def test_tls_is_on_wherever_words_leave_this_host_and_verifies_certificate_and_name() -> None:
    away = broker_settings(parse_config('[broker]\nhost = "broker.lab"').broker)
    assert (away.tls, away.port) == (True, 8883)
    context = tls_context(away)
    assert context is not None
    assert context.check_hostname
    assert context.verify_mode.name == "CERT_REQUIRED"
    assert context.minimum_version.name == "TLSv1_2"
    here = broker_settings(parse_config("").broker)
    assert (here.tls, here.port) == (False, 1883)
    opted_out = parse_config('[broker]\nhost = "broker.lab"\ntls = false').broker
    assert not broker_settings(opted_out).tls


@pytest.mark.parametrize("key", ["username", "password"])
def test_a_secret_has_no_place_in_the_configuration(key: str) -> None:
    with pytest.raises(ConfigError) as found:
        parse_config(f'[broker]\n{key} = "topsecret"')
    assert "topsecret" not in str(found.value)


def test_a_secret_in_the_address_is_refused_unsaid() -> None:
    with pytest.raises(ConfigError, match="credential files"):
        parse_config('[broker]\nhost = "anna:topsecret@broker"')


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("topsecret")
    for mode in (0o604, 0o640 | 0o020, 0o602):
        secret.chmod(mode)
        with pytest.raises(BrokerError, match="open to others") as found:
            login(BrokerSettings(password_file=secret))
        assert "topsecret" not in str(found.value)
    secret.chmod(0o600)
    assert login(BrokerSettings(password_file=secret)) == (None, "topsecret")


def test_a_configuration_that_everybody_can_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hypnocast.toml"
    path.write_text("")
    path.chmod(0o666)
    with pytest.raises(ConfigError, match="everybody can write"):
        load_config(path)


@pytest.mark.promise(7)
async def test_nested_brackets_as_a_command_are_refused_and_the_link_lives(tmp_path: Path) -> None:
    """Found by the fuzzer: one such message ended the daemon."""
    with running_mosquitto(tmp_path) as broker, witness(broker.port) as listener:
        async with (
            Journal.open(tmp_path / "state" / "journal.sqlite") as journal,
            linked(BrokerSettings(port=broker.port), journal) as link,
        ):
            for content in (b"[" * 8000, b'{"a":' * 1500, b'{"command":' + b"[" * 8000):
                listener.publish("hypnocast/lab/bed/bed1/command", content)
            await until(lambda: len(listener.of("/reply")) == 3, "refused in words")
            assert link.connections == 1
    assert all("no command" in json.loads(reply)["error"] for reply in listener.of("/reply"))


def test_a_host_without_a_boot_id_counts_every_start_as_a_boot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def hidden(*_: object, **__: object) -> str:
        raise PermissionError

    monkeypatch.setattr(Path, "read_text", hidden)
    boot_id.cache_clear()
    first = boot_id()
    assert boot_id() == first
    boot_id.cache_clear()
    assert boot_id() != first
    boot_id.cache_clear()


def test_the_command_line_accepts_no_secret() -> None:
    from typer.main import get_command

    from hypnocast.cli import app

    names = {
        option
        for command in get_command(app).commands.values()  # type: ignore[attr-defined]
        for parameter in command.params
        for option in parameter.opts
    }
    assert names
    assert not [name for name in names if re.search("pass|secret|token|user(?!$)", name)], names
