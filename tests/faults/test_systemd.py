"""The unit as it is shipped, started by a real systemd: boots one in a container of its own.

``systemd-nspawn`` gives it this machine's ``/usr`` read-only, an empty rest, and no network but
loopback. Only paths and the watchdog's period differ from what the handbook installs.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from faults.stream_lab import TESTS

SYSTEMD = TESTS.parent / "systemd"
BOOT_S, PAGE_S = 60.0, 120.0
CGROUPS = Path("/sys/fs/cgroup")
PYTHON = f"python3.{sys.version_info.minor}"

pytestmark = pytest.mark.timeout(400)

CONFIG = """
[site]
id = "lab"
[daemon]
node = "bedside-1"
[broker]
username_file = "mqtt-user"
password_file = "mqtt-password"
[lsl]
scope = "machine"
peers = ["127.0.0.1"]
[pack]
name = "/opt/hypnocast/pack"
[session]
auto = true
[[bed]]
id = "bed1"
streams = [{ source_id = "bed1" }]
"""

UNITS = {
    "broker.service": """
[Service]
ExecStart=/usr/sbin/mosquitto -c /opt/hypnocast/mosquitto.conf
""",
    "amplifier.service": """
[Service]
Environment=LSLAPICFG=/opt/hypnocast/lsl_api.cfg PYTHONPATH=/opt/hypnocast/tests:/opt/hypnocast/lib
Environment=LD_LIBRARY_PATH=/opt/hypnocast/python/lib
StandardInput=file:/opt/hypnocast/go
ExecStart=/opt/hypnocast/python/bin/{python} -m faults.amplifier \
 '[{{"name": "bed1", "source_id": "bed1", "labels": {labels}}}]'
""",
    "listener.service": """
[Unit]
After=broker.service
[Service]
Restart=always
RestartSec=0.2s
StandardOutput=append:/out/events
StandardError=journal
ExecStart=/usr/bin/mosquitto_sub -h 127.0.0.1 -q 1 -t hypnocast/lab/bed/bed1/events
""",
    "night.target": """
[Unit]
Requires=basic.target
After=basic.target
Wants=broker.service amplifier.service listener.service hypnocast.service
""",
    "hypnocast.service.d/quick.conf": """
[Unit]
After=broker.service
[Service]
WatchdogSec=6s
""",
}

START = f"""#!/bin/sh
# What a virtual environment's own command does, where this Python lies elsewhere.
export LD_LIBRARY_PATH=/opt/hypnocast/python/lib
export PYTHONPATH=/opt/hypnocast/daemon:/opt/hypnocast/lib
exec /opt/hypnocast/python/bin/{PYTHON} -m hypnocast "$@"
"""


def until(true: Callable[[], object], what: str, deadline_s: float) -> None:
    """Wait for a condition that needs a process to ask for."""
    deadline = time.monotonic() + deadline_s
    while not true():
        assert time.monotonic() < deadline, f"waited {deadline_s:g} s in vain: {what}"
        time.sleep(0.3)


@dataclass
class BootedMachine:
    """A container with systemd in it."""

    leader: int
    """Its first process, as this machine numbers it."""
    out: Path

    def inside(self, *command: str) -> str:
        """Run a program in it; return what it printed."""
        enter = ["nsenter", "-t", str(self.leader), "-m", "-u", "-i", "-n", "-p", "--", *command]
        return subprocess.run(enter, capture_output=True, text=True, check=False).stdout

    def unit(self) -> dict[str, str]:
        """Return how the service does, by systemd."""
        text = self.inside("systemctl", "show", "hypnocast.service")
        return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def events(self) -> list[Any]:
        """Return the events that came, as a subscriber wrote them down."""
        path = self.out / "events"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def installed(folder: Path, pack: Path) -> list[str]:
    """Lay out what the handbook installs; return the options that put it in its place."""
    units, etc, opt = folder / "units", folder / "etc", folder / "opt"
    for name, text in UNITS.items():
        unit = units / name
        unit.parent.mkdir(parents=True, exist_ok=True)
        labels = '["F4-M1", "C4-M1", "O2-M1", "E1-M2", "E2-M2", "Chin"]'
        unit.write_text(text.format(python=PYTHON, labels=labels) if "amplifier" in name else text)
    shutil.copy(SYSTEMD / "hypnocast.service", units)
    etc.mkdir()
    opt.mkdir()
    (etc / "hypnocast.toml").write_text(CONFIG)
    for name, secret in (("mqtt-user", "bedside-1"), ("mqtt-password", "of bedside-1")):
        (etc / name).write_text(secret)
        (etc / name).chmod(0o600)
    (opt / "mosquitto.conf").write_text(
        "listener 1883 127.0.0.1\nallow_anonymous true\nuser root\n"
    )
    (opt / "lsl_api.cfg").write_text(
        "[multicast]\nResolveScope = machine\n[lab]\nKnownPeers = {127.0.0.1}\n"
    )
    (opt / "go").write_text("go\n")
    (opt / "hypnocast").write_text(START)
    (opt / "hypnocast").chmod(0o755)
    places = {
        units: "/etc/systemd/system",
        SYSTEMD / "hypnocast.sysusers": "/etc/sysusers.d/hypnocast.conf",
        SYSTEMD / "hypnocast.tmpfiles": "/etc/tmpfiles.d/hypnocast.conf",
        etc / "hypnocast.toml": "/etc/hypnocast/hypnocast.toml",
        etc / "mqtt-user": "/etc/hypnocast/credentials/mqtt-user",
        etc / "mqtt-password": "/etc/hypnocast/credentials/mqtt-password",
        opt / "hypnocast": "/opt/hypnocast/bin/hypnocast",
        opt / "mosquitto.conf": "/opt/hypnocast/mosquitto.conf",
        opt / "lsl_api.cfg": "/opt/hypnocast/lsl_api.cfg",
        opt / "go": "/opt/hypnocast/go",
        pack: "/opt/hypnocast/pack",
        TESTS: "/opt/hypnocast/tests",
        TESTS.parent / "daemon": "/opt/hypnocast/daemon",
        Path(sysconfig.get_paths()["platlib"]): "/opt/hypnocast/lib",
        Path(sys.base_prefix): "/opt/hypnocast/python",
    }
    return [f"--bind-ro={here}:{there}" for here, there in places.items()]


@contextmanager
def booted(folder: Path, pack: Path) -> Iterator[BootedMachine]:
    """Boot a systemd with the service; end it and all that is in it."""
    if os.geteuid() != 0 or (nspawn := shutil.which("systemd-nspawn")) is None:
        pytest.skip("no systemd can be booted here: it takes root and systemd-nspawn")
    out = folder / "out"
    out.mkdir()
    before = _groups()
    name = f"hypnocast-{os.getpid()}"
    with (folder / "console").open("wb") as console:
        process = subprocess.Popen(
            [
                *(nspawn, "--directory=/", "--volatile=yes", "--boot", "--private-network"),
                *("--register=no", "--keep-unit", f"--machine={name}"),
                *("--console=pipe", f"--bind={out}:/out", *installed(folder, pack)),
                *("--", "systemd.unit=night.target"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
        )
    leader = 0
    try:
        until(lambda: process.poll() is not None or _child(process.pid), "a first process", BOOT_S)
        if process.poll() is not None:
            pytest.skip(f"no systemd can be booted here: {(folder / 'console').read_text()[-300:]}")
        leader = _child(process.pid)
        machine = BootedMachine(leader, out)
        try:
            until(machine.unit, "systemd answers", BOOT_S)
        except AssertionError:
            pytest.skip("a systemd was started in a container here, and never answered")
        yield machine
    finally:
        if leader:
            os.kill(leader, signal.SIGKILL)
        process.terminate()
        process.wait(30.0)
        # Where /run is on a disk, nspawn dares not remove what it made there.
        shutil.rmtree(f"/run/systemd/nspawn/propagate/{name}", ignore_errors=True)
        for group in sorted(_groups() - before, reverse=True):
            group.rmdir()


def _child(process: int) -> int:
    """Return the only child of a process that is systemd itself, 0 before it is there."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    for child in map(int, children):
        if "systemd.unit=night.target" in Path(f"/proc/{child}/cmdline").read_text():
            return 0 if "nspawn" in Path(f"/proc/{child}/comm").read_text() else child
    return 0


def _groups() -> set[Path]:
    """Return the control groups that nspawn makes beside its own."""
    roots = [path for part in ("payload", "supervisor") for path in CGROUPS.rglob(part)]
    return {path for root in roots for path in (root, *root.rglob("*")) if path.is_dir()}


@pytest.mark.promise(2)
@pytest.mark.promise(7)
def test_a_real_systemd_starts_stages_and_after_a_hang_restarts_the_service(
    tmp_path: Path, pack: Path
) -> None:
    with booted(tmp_path, pack) as machine:
        until(lambda: machine.unit()["ActiveState"] == "active", "the service is ready", BOOT_S)
        first = machine.unit()
        assert "model on cpu" in first["StatusText"]
        status = dict(
            line.split(":\t", 1)
            for line in machine.inside("cat", f"/proc/{first['MainPID']}/status").splitlines()
            if ":\t" in line
        )
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"
        assert int(status["CapBnd"], 16) == int(status["CapEff"], 16) == 0
        assert "0" not in status["Uid"].split()
        until(lambda: len(machine.events()) >= 1, "a page is staged", PAGE_S)
        assert machine.events()[0]["status"] == "final"
        # It hangs: no beat any more. systemd kills it and starts it anew, and the night goes on.
        machine.inside("kill", "-STOP", first["MainPID"])
        until(lambda: machine.unit()["NRestarts"] == "1", "systemd restarts it", BOOT_S)
        assert machine.unit()["MainPID"] != first["MainPID"]
        until(lambda: machine.unit()["ActiveState"] == "active", "it is ready again", BOOT_S)
        until(lambda: len(machine.events()) >= 3, "the night goes on", PAGE_S)
        events = machine.events()
        assert len({event["session"] for event in events}) == 1
        assert [event["epoch"] for event in events[:3]] == [0, 1, 2]
        assert {event["status"] for event in events} <= {"final", "withheld"}
        machine.inside("systemctl", "stop", "hypnocast.service")
        assert machine.unit()["Result"] == "success"
        files = machine.inside("stat", "-c", "%U %a", "/var/lib/hypnocast").split()
        assert files == ["hypnocast", "700"]
