"""The unit as it is shipped, started by a real systemd: boots one in a container of its own.

``systemd-nspawn`` gives it this machine's ``/usr`` read-only, an empty rest, and no network but
loopback. Only paths and the watchdog's period differ from what the handbook installs.
"""

from __future__ import annotations

import json
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from faults.stream_lab import TESTS
from support.containers import Machine, booted, until

SYSTEMD = TESTS.parent / "systemd"
PAGE_S = 120.0
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


@dataclass
class ServiceMachine:
    """A machine on which the service is installed."""

    machine: Machine
    out: Path

    def inside(self, *command: str) -> str:
        """Run a program in it; return what it printed."""
        return self.machine.run(*command, check=False)

    def unit(self) -> dict[str, str]:
        """Return how the service does, by systemd."""
        return self.machine.unit("hypnocast.service")

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
def service_machine(folder: Path, pack: Path) -> Iterator[ServiceMachine]:
    """Boot a systemd with the service; end it and all that is in it."""
    out = folder / "out"
    out.mkdir()
    options = ("--directory=/", "--volatile=yes", f"--bind={out}:/out", *installed(folder, pack))
    with booted(folder / "console", "night.target", *options) as machine:
        yield ServiceMachine(machine, out)


@pytest.mark.promise(2)
@pytest.mark.promise(7)
def test_a_real_systemd_starts_stages_and_after_a_hang_restarts_the_service(
    tmp_path: Path, pack: Path
) -> None:
    with service_machine(tmp_path, pack) as machine:
        until(lambda: machine.unit()["ActiveState"] == "active", "the service is ready")
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
        until(lambda: machine.unit()["NRestarts"] == "1", "systemd restarts it")
        assert machine.unit()["MainPID"] != first["MainPID"]
        until(lambda: machine.unit()["ActiveState"] == "active", "it is ready again")
        until(lambda: len(machine.events()) >= 3, "the night goes on", PAGE_S)
        events = machine.events()
        assert len({event["session"] for event in events}) == 1
        assert [event["epoch"] for event in events[:3]] == [0, 1, 2]
        assert {event["status"] for event in events} <= {"final", "withheld"}
        machine.inside("systemctl", "stop", "hypnocast.service")
        assert machine.unit()["Result"] == "success"
        files = machine.inside("stat", "-c", "%U %a", "/var/lib/hypnocast").split()
        assert files == ["hypnocast", "700"]
