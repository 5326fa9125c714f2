"""Names that only look like this host, and other accounts of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hypnocast.config.file import parse_config
from hypnocast.core.wire.schema import documents
from hypnocast.errors import ConfigError, JournalError
from hypnocast.ports.durable_files import private_file
from hypnocast.ports.journal.journal import Journal

ROOT = Path(__file__).resolve().parents[2]
LOOKS_LIKE_THIS = ["127.evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "127.1."]


@pytest.mark.attack("host: its name")
@pytest.mark.parametrize("host", LOOKS_LIKE_THIS)
def test_a_name_that_begins_like_this_host_is_another(host: str) -> None:
    broker = parse_config(f'[broker]\nhost = "{host}"').broker
    assert not broker.loopback
    assert broker.uses_tls
    with pytest.raises(ConfigError, match="without TLS and a login"):
        parse_config(f'[dashboard]\nenabled = true\nhost = "{host}"')
    with pytest.raises(ConfigError, match="in clear to another host"):
        parse_config(f'[pack]\nremote = ["grpc://{host}:8001"]')


@pytest.mark.attack("host: other accounts")
@pytest.mark.parametrize("mode", [0o1777, 0o777, 0o770])
def test_a_state_folder_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    state = tmp_path / "state"
    state.mkdir()
    state.chmod(mode)
    with pytest.raises(JournalError, match="chmod go-w"):
        Journal.open(state / "journal.sqlite")


@pytest.mark.attack("host: other accounts")
def test_what_is_exported_follows_no_planted_link_and_is_its_users_alone(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("before")
    link = tmp_path / "night.csv"
    link.symlink_to(elsewhere)
    with pytest.raises(OSError, match=r"night\.csv"):
        private_file(link, b"stages")
    assert elsewhere.read_text() == "before"
    private_file(tmp_path / "other.csv", b"stages")
    assert (tmp_path / "other.csv").stat().st_mode & 0o777 == 0o600


@pytest.mark.attack("host: the broker's access list")
def test_the_shipped_access_list_knows_every_topic_of_a_bed() -> None:
    """A topic that it lacks would be refused by the broker, and wait in the outbox for ever."""
    listed = (ROOT / "systemd/mosquitto/hypnocast.acl").read_text(encoding="utf-8").splitlines()
    leaves = {name.removesuffix(".json") for name in map(_leaf, documents()) if name}
    for leaf in leaves - {"daemon", "command", "event"} | {"events", "page"}:
        assert f"topic write hypnocast/lab/bed/bed1/{leaf}" in listed
    assert "topic read hypnocast/lab/bed/bed1/command" in listed


def _leaf(document: str) -> str:
    return document.removeprefix("schemas/") if document.startswith("schemas/") else ""
