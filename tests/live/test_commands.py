"""The command line as people meet it: one clear line when something is wrong, the right code."""

from __future__ import annotations

import importlib.metadata
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog

from hypnocast import cli
from hypnocast.live.service.logs import set_up_logs
from support.brokers import Mosquitto, free_port, running_mosquitto
from support.daemons import command, environment
from support.packs import make_tiny_pack


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """A broker that wants a user and a password."""
    folder = tmp_path_factory.mktemp("broker")
    (folder / "users").write_text("")
    with running_mosquitto(folder, f"password_file {folder}/users", anonymous=False) as running:
        yield running


@dataclass
class Place:
    """A folder with a configuration."""

    folder: Path
    pack: Path

    def config(self, text: str = "", *, port: int | None = None, pack: Path | None = None) -> str:
        """Write a configuration and return its path."""
        path = self.folder / "hypnocast.toml"
        path.write_text(
            f'daemon.state_dir = "{self.folder / "state"}"\n'
            f"broker.port = {port or free_port()}\n"
            f'pack.name = "{pack or self.pack}"\n{text}\n'
        )
        return str(path)


@pytest.fixture
def place(tmp_path: Path, pack: Path) -> Place:
    return Place(tmp_path, pack)


def _one_line(capsys: pytest.CaptureFixture[str], code: int, arguments: list[str]) -> str:
    """Run a command in this process; it must fail with one line and nothing else."""
    assert cli.run(arguments) == code
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith("hypnocast: ")
    assert len(line) < 400
    return line


def _damaged(pack: Path) -> None:
    graph = pack / "decoder_model_merged.onnx"
    graph.write_bytes(graph.read_bytes() + b"!")


def _without_a_file(pack: Path) -> None:
    (pack / "tokenizer.json").unlink()


def _with_another_word(pack: Path) -> None:
    manifest = pack / "pack.toml"
    manifest.write_text(manifest.read_text() + "colour = 1\n")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("broker.prt = 1", ["prt", "broker"]),
        ("broker.port = 'x'", ["broker.port"]),
        ("[[bed]]\nid = 'a'\nstreams = []", ["bed a.streams"]),
        ("site.id = 'a/b'", ["site.id"]),
        ("nonsense", ["TOML"]),
        ("site.timezone = 'Europe/Atlantis'", ["Atlantis", "Europe/Berlin"]),
    ],
)
@pytest.mark.parametrize("verb", ["run", "check", "streams", "doctor"])
def test_a_wrong_configuration_gives_one_line_that_names_the_key(
    place: Place, capsys: pytest.CaptureFixture[str], verb: str, text: str, names: list[str]
) -> None:
    path = place.folder / "wrong.toml"
    path.write_text(text)
    line = _one_line(capsys, 2, [verb, "-c", str(path)])
    for name in (*names, "wrong.toml"):
        assert name in line


def test_a_configuration_that_is_not_there_gives_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert "absent.toml" in _one_line(capsys, 2, ["run", "-c", str(tmp_path / "absent.toml")])


@pytest.mark.parametrize(
    "arguments",
    [
        ["fly"],
        ["demo", "--beds", "0"],
        ["demo", "--speed", "fast"],
        ["replay"],
        ["page", "x.edf", "-1"],
        ["watch", "--broker", "host:port"],
    ],
)
def test_misuse_gives_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    _one_line(capsys, 2, arguments)


@pytest.mark.parametrize(
    ("damage", "names"),
    [
        (_damaged, "decoder_model_merged.onnx"),
        (_without_a_file, "tokenizer.json"),
        (_with_another_word, "colour"),
    ],
)
@pytest.mark.parametrize("verb", ["run", "demo"])
def test_a_damaged_pack_gives_one_line_that_names_the_file(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    verb: str,
    damage: Callable[[Path], None],
    names: str,
) -> None:
    pack = make_tiny_pack(tmp_path / "tiny")
    damage(pack)
    place = Place(tmp_path, pack)
    arguments = ["run", "-c", place.config()] if verb == "run" else ["demo", "--pack", str(pack)]
    assert names in _one_line(capsys, 1, arguments)


@pytest.mark.parametrize("there", [(), ("onnxruntime", "onnxruntime-gpu")])
def test_both_engines_or_neither_give_one_line_that_says_what_to_install(
    place: Place,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    there: tuple[str, ...],
) -> None:
    from hypnocast.stagers.onnx import engine

    real = importlib.metadata.distribution

    def distribution(name: str) -> importlib.metadata.Distribution:
        if not name.startswith("onnxruntime"):
            return real(name)
        if name not in there:
            raise importlib.metadata.PackageNotFoundError(name)
        return real("onnxruntime")

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)
    engine._onnxruntime.cache_clear()
    line = _one_line(capsys, 1, ["demo", "--headless", "--pack", str(place.pack), "--pages", "1"])
    assert "hypnocast[cpu]" in line
    assert "both" in line if there else "neither" in line


def test_without_liblsl_run_gives_one_line_that_says_where_to_get_it(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pylsl", None)
    for arguments in (["run", "-c", place.config()], ["streams", "--wait", "0.5"], ["simulate"]):
        assert "PYLSL_LIB" in _one_line(capsys, 1, arguments)


def test_a_refused_login_is_a_fault_that_check_names(place: Place, broker: Mosquitto) -> None:
    outcome = command("check", "--json", "-c", place.config(port=broker.port))
    assert outcome.returncode == 1, outcome.stderr
    assert outcome.stderr == ""
    faults = [finding for finding in json.loads(outcome.stdout) if finding["fault"]]
    (fault,) = (finding for finding in faults if finding["subject"] == "broker")
    assert str(broker.port) in fault["text"]
    assert "\n" not in fault["text"]
    assert "password" in fault["text"]


def test_check_says_what_run_would_do(place: Place, tmp_path: Path) -> None:
    with running_mosquitto(tmp_path) as broker:
        outcome = command("check", "-c", place.config("session.auto = true", port=broker.port))
    assert outcome.returncode == 0, outcome.stdout
    assert outcome.stderr == ""
    subjects = {line.split()[1] for line in outcome.stdout.splitlines()}
    assert {"config", "pack", "broker", "disk", "clock", "streams"} <= subjects
    assert "FAULT" not in outcome.stdout


def test_check_looks_at_the_folder_of_the_tapes_wherever_it_is(place: Place) -> None:
    file = place.folder / "tapes"
    file.touch()
    outcome = command("check", "--json", "-c", place.config(f'tape.folder = "{file}/ward"'))
    disks = [each for each in json.loads(outcome.stdout) if each["subject"] == "disk"]
    assert [each["fault"] for each in disks] == [False, True]
    assert str(file) in disks[1]["text"]


def test_a_file_that_is_no_recording_gives_one_line(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    path = place.folder / "night.edf"
    path.write_bytes(b"no recording at all")
    config = place.config()
    for verb in (["replay", str(path)], ["page", str(path), "0"]):
        assert "night.edf" in _one_line(capsys, 1, [*verb, "-c", config])


def test_an_answer_that_cannot_be_written_gives_one_line(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    """A disk that is full: ``tests/faults/test_unwritable_outputs.py``."""
    (place.folder / "file").write_text("no folder")
    below = place.folder / "file" / "below"
    assert "below" in _one_line(capsys, 1, ["schema", str(below)])


def test_a_ward_that_cannot_be_is_refused_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--broker", ":1883"], ["--site", "a b"], ["--broker", "host:0"]):
        line = _one_line(capsys, 2, ["watch", "--once", *words])
        assert "HOST:PORT" in line
        assert "`" not in line


def test_a_broker_that_is_not_there_is_a_fault_of_watch_once(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    line = _one_line(capsys, 1, ["watch", "--once", "-c", place.config()])
    assert "the ward cannot be seen" in line
    assert "--broker" in line


def test_every_command_explains_itself_without_loading_what_is_heavy() -> None:
    outcome = command("--help")
    assert outcome.returncode == 0
    verbs = [
        line.split()[0] for line in outcome.stdout.partition("Commands:")[2].splitlines() if line
    ]
    assert {
        "demo",
        "run",
        "check",
        "streams",
        "simulate",
        "replay",
        "page",
        "watch",
        "pack",
    } <= set(verbs)
    code = (
        "import sys\nfrom hypnocast.cli import run\n"
        f"for verb in {verbs!r}:\n    assert run([verb, '--help']) == 0\n"
        "heavy = {'scipy', 'onnxruntime', 'torch', 'transformers', 'pylsl', 'aiomqtt', 'amqtt'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=environment({}), timeout=60.0,
                   stdout=subprocess.DEVNULL)  # fmt: skip


def test_a_standard_error_that_is_gone_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = io.StringIO()
    monkeypatch.setattr(sys, "stderr", gone)
    set_up_logs()
    structlog.get_logger("test").error("shown")
    gone.close()
    structlog.get_logger("test").error("not shown")
