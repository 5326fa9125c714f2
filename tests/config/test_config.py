"""A configuration is read strictly: every fault gets one line that names file, key and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from hypnocast.config.file import load_config, parse_config
from hypnocast.config.tables import Config, RuleTable, credential
from hypnocast.errors import ConfigError

EXAMPLE = Path(__file__).parents[2] / "docs" / "hypnocast.toml"
BED = '[[bed]]\nid = "b1"\nstreams = [{name = "x"}]\n'

WRONG = [
    ("site = 3", "site"),
    ("[sites]\nid = 'a'", "sites"),
    ("[site]\nid = 'two words'", "site.id"),
    ("[site]\nid = 'a/b'", "site.id"),
    ("[site]\nid = ''", "site.id"),
    ("[site]\nid = 'a+'", "site.id"),
    ("[site]\ntimezone = 'Mars/Olympus'", "site.timezone"),
    ("[daemon]\nnode = '#'", "daemon.node"),
    ("[daemon]\nname = 'x'", "name"),
    ("[broker]\nhost = ''", "broker.host"),
    ("[broker]\nhost = 'mqtt://h'", "broker.host"),
    ("[broker]\nhost = 'me:secret@h'", "broker.host"),
    ("[broker]\nport = 0", "broker.port"),
    ("[broker]\nport = 70000", "broker.port"),
    ("[broker]\nport = '1883'", "broker.port"),
    ("[broker]\npassword = 'x'", "password"),
    ("[broker]\npassword_file = 'x'", "broker.password_file"),
    ("[broker]\nversion = '4'", "broker.version"),
    ("[broker]\ntls = 'yes'", "broker.tls"),
    ("[broker]\ncert_file = 'x'", "broker"),
    ("[broker]\nca_file = 'x'", "broker.tls"),
    ("[broker]\ntopic_root = '/a'", "broker.topic_root"),
    ("[broker]\ntopic_root = 'a/#'", "broker.topic_root"),
    ("[pack]\nprovider = 'gpu'", "pack.provider"),
    ("[pack]\nthreads = 0", "pack.threads"),
    ("[pack]\nreview_below = 1.5", "pack.review_below"),
    ("[pack]\nexplain = 'all'", "pack.explain"),
    ("[pack]\nremote = ['http://a']", "pack.remote[0]"),
    ("[pack]\nremote = ['grpc://localhost:1', 'grpc://triton-1:8001']", "pack.remote[1]"),
    ("[pack]\nremote = ['grpc://127.evil.example:1']", "pack.remote[0]"),
    ("[pack]\nremote = ['grpc://localhost:1']\nremote_ca_file = 'x'", "pack.remote_ca_file"),
    ("[signal]\nmains_hz = 55", "signal.mains_hz"),
    ("[signal]\ngrace_s = -1", "signal.grace_s"),
    ("[session]\ntimeout_s = 0", "session.timeout_s"),
    ("[lsl]\nscope = 'world'", "lsl.scope"),
    ("[lsl]\npeers = 'a'", "lsl.peers"),
    ("[lsl]\nsenders = ['10.0.0.7', 'bedside-1']", "lsl.senders[1]"),
    ("[tape]\nkeep_days = 0", "tape.keep_days"),
    ("[publish]\nhop_s = 0.1", "publish.hop_s"),
    ("[dashboard]\nenabled = true\nhost = '0.0.0.0'", "dashboard.host"),
    ("[dashboard]\ncert_file = 'x'", "dashboard"),
    ("[[bed]]\nid = 'b1'", "bed b1"),
    ("[[bed]]\nid = 'b1'\nstreams = []", "bed b1.streams"),
    ("[[bed]]\nid = 'b1'\nstreams = [{}]", "bed b1.streams[0]"),
    ("[[bed]]\nid = 'b1'\nstreams = [{nme = 'x'}]", "nme"),
    ("[[bed]]\nstreams = [{name = 'x'}]", "bed[0]"),
    (BED + BED, "bed[1].id"),
    (BED + "[bed.roles]\n'F9-M1' = 'x'", ".roles.F9-M1"),
    (BED + "reference = 'F99'", ".reference"),
    ("[[rule]]\nname = 'x'\nstage = 'N4'\npages = 1", "rule[0].stage"),
    ("[[rule]]\nname = 'x'\nstage = 'N2'", "rule[0]"),
    ("[[rule]]\nname = 'x'\nstage = 'N2'\npages = 0", "rule[0].pages"),
    ("[[rule]]\nname = 'x'\nstage = 'N2'\npages = 1\nminutes = 1", "rule[0]"),
    (BED + "[[rule]]\nname = 'x'\nstage = 'N2'\npages = 1\nbed = 'b2'", "rule[0].bed"),
    ("[[rule]]\nname = 'x'\nstage = 'R'\npages = 1\n" * 2, "rule[1].name"),
    ("[site\nid = 3", "TOML"),
    ("[site]\nid = 'a'\nid = 'b'", "TOML"),
]


@pytest.mark.parametrize(("text", "named"), WRONG, ids=[w[0].replace("\n", " ") for w in WRONG])
def test_every_wrong_configuration_gives_one_line_that_names_the_key(text: str, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "lab.toml")
    line = str(caught.value)
    assert line.startswith("lab.toml: ")
    assert named in line
    assert "\n" not in line
    assert caught.value.remedy
    assert caught.value.exit_code == 2
    for jargon in ("`", "regex", "enum", "object", "field", "null"):
        assert jargon not in line, line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[broker]\nport = 70000", ("[broker.port] 70000 cannot be used. "
         "Give a whole number from 1 to 65535.")),
        ("[pack]\nprovider = 'gpu'", ("[pack.provider] 'gpu' cannot be used. "
         "Give 'auto' or 'cpu' or 'cuda' or 'tensorrt'.")),
        ("[broker]\npassword = 'x'", ("[broker] there is no key 'password'. "
         "Did you mean password_file?")),
        ("[[bed]]\nstreams = [{name = 'x'}]", ("[bed[0]] id is missing. "
         "Give 1 to 64 letters, digits, _ or -.")),
        ("[[bed]]\nid = 'a'\nstreams = [{name = 3}]", ("[bed a.streams[0].name] 3 cannot be used. "
         "Give a text in quotes.")),
        ("[broker]\nhost = 'me:secret@h'", ("[broker.host] is more than the name of a host. "
         "Give the host alone; user and password belong into credential files.")),
    ],
)  # fmt: skip
def test_the_line_says_what_stands_there_and_what_may(text: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "lab.toml")
    assert str(caught.value) == f"lab.toml: {line}"


def test_the_commented_example_loads_and_names_every_key() -> None:
    config = load_config(EXAMPLE)
    assert config.bed[0].streams[1].host == "bedside-1"
    text = EXAMPLE.read_text(encoding="utf-8")
    for table in Config.__struct_fields__:
        if table == "bed":
            continue
        assert f"[{table}]" in text
        keys = RuleTable if table == "rule" else getattr(config, table)
        for key in keys.__struct_fields__:
            named = f"{key} =" in text or f"[[{table}.{key}]]" in text
            assert named, f"{table}.{key} is not in the example"


def test_the_example_shows_the_defaults() -> None:
    shown, defaults = load_config(EXAMPLE), Config()
    for table in ("daemon", "broker", "pack", "signal", "lsl", "tape", "journal", "publish"):
        assert getattr(shown, table) == getattr(defaults, table)


def test_tls_is_the_default_wherever_words_leave_the_host() -> None:
    assert not Config().broker.uses_tls
    far = parse_config("[broker]\nhost = 'broker.lab'")
    assert far.broker.uses_tls
    assert far.broker.address == ("broker.lab", 8883)
    plain = parse_config("[broker]\nhost = 'broker.lab'\ntls = false")
    assert plain.broker.address == ("broker.lab", 1883)


def test_a_file_that_everybody_can_write_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "hypnocast.toml"
    file.write_text("[site]\nid = 'a'\n")
    file.chmod(0o666)
    with pytest.raises(ConfigError, match="everybody can write"):
        load_config(file)
    with pytest.raises(ConfigError, match="No such file"):
        load_config(tmp_path / "absent.toml")


def test_a_bare_credential_lies_among_systemds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/hypnocast.service")
    assert credential("mqtt-password") == Path("/run/credentials/hypnocast.service/mqtt-password")
    assert credential("/etc/secret") == Path("/etc/secret")
    assert credential(None) is None
