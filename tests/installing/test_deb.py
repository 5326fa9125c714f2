"""The Debian package in a clean Debian 12: installed, started, removed, purged.

Pages are staged from an amplifier with LSL of its own, and from a bridge as a service.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import edfio
import numpy as np
import pytest

from hypnocast.simulate.montages import CLINICAL
from hypnocast.simulate.night import SimulatedNight as Sleeper
from installing.clean_root import ROOT, clean_root
from support.containers import Machine, booted, until
from support.needs import need_program

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

CONFIG = """
[site]
id = "lab"
[daemon]
node = "bedside-1"
[lsl]
scope = "machine"
peers = ["127.0.0.1"]
[session]
auto = true
[[bed]]
id = "bed1"
streams = [{ type = "EEG" }, { type = "EOG" }, { type = "EMG" }]
"""
BRIDGED_BED = """
[[bed]]
id = "bed2"
streams = [{ name = "bridged" }]
"""
BRIDGE = "file /srv/night.edf --play --name bridged --config /etc/hypnocast/hypnocast.toml"
LSL = "[multicast]\nResolveScope = machine\n[lab]\nKnownPeers = {127.0.0.1}\n"
AMPLIFIER = """
[Service]
Environment=LSLAPICFG=/etc/lsl_api.cfg OMP_NUM_THREADS=1
ExecStart=/usr/bin/hypnocast simulate --beds 1
"""
PAGE_S = 240.0


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package; ``HYPNOCAST_DEB`` names one that was built before."""
    made = os.environ.get("HYPNOCAST_DEB")
    if made:
        return Path(made)
    need_program("dpkg-deb")
    folder = tmp_path_factory.mktemp("deb")
    quick = {**os.environ, "DEB_COMPRESSION": "-Zgzip -z1"}
    script = ROOT / "packaging" / "deb" / "build.sh"
    subprocess.run(["sh", str(script), "cpu", str(folder)], check=True, env=quick)
    (built,) = folder.glob("*.deb")
    return built


def test_a_package_is_installed_stages_a_page_and_is_removed(package: Path, tmp_path: Path) -> None:
    root = clean_root(tmp_path / "root")
    shutil.copy(package, root / "root" / "hypnocast.deb")
    (root / "etc" / "lsl_api.cfg").write_text(LSL)
    (root / "etc" / "systemd" / "system" / "amplifier.service").write_text(AMPLIFIER)
    with booted(tmp_path / "console", "multi-user.target", f"--directory={root}") as machine:
        _installed(machine)
        _serves(machine, root)
        _bridges(machine, root)
        _removed(machine)


def _installed(machine: Machine) -> None:
    printed = machine.run("dpkg", "-i", "/root/hypnocast.deb")
    assert "systemctl enable --now hypnocast" in printed
    assert machine.run("hypnocast", "--version").startswith("hypnocast ")
    owner = machine.run("stat", "-c", "%U %a", "/var/lib/hypnocast")
    assert owner.split() == ["hypnocast", "700"]
    # The example is there to be edited, not to be served: nothing runs before somebody says so.
    assert machine.unit("hypnocast.service")["ActiveState"] == "inactive"
    # What lies in the package is its own: nothing names the folder in which it was built.
    (interpreter,) = machine.run("head", "-1", "/opt/hypnocast/bin/hypnocast").splitlines()
    assert interpreter == "#!/opt/hypnocast/bin/python3"
    machine.run("/opt/hypnocast/bin/hypnocast", "pack", "list")


def _serves(machine: Machine, root: Path) -> None:
    (root / "etc/hypnocast/hypnocast.toml").write_text(CONFIG)
    for name in ("mqtt-user", "mqtt-password"):
        (root / "etc/hypnocast/credentials" / name).write_text("none")
    machine.run("systemctl", "start", "mosquitto", "amplifier")
    machine.run("systemctl", "enable", "--now", "hypnocast")
    until(lambda: machine.unit("hypnocast.service")["ActiveState"] == "active", "it serves")
    event = _staged(machine, "bed1", "final", "provisional")
    assert event["stage"] in ("W", "N1", "N2", "N3", "R")


def _staged(machine: Machine, bed: str, *wanted: str, after: int = -1) -> Any:
    """Wait until a page after an epoch has one of the wanted states; return its event.

    The stage is retained: whoever asks late gets the newest.
    """
    topic = f"hypnocast/lab/bed/{bed}/stage"
    ask = ("timeout", "10", "mosquitto_sub", "-h", "127.0.0.1", "-C", "1", "-t", topic)
    said: list[Any] = []

    def page() -> bool:
        printed = machine.run(*ask, check=False)
        said[:] = [json.loads(printed)] if printed else []
        return bool(said) and said[0]["epoch"] > after and said[0]["status"] in wanted

    until(page, f"a page of {bed} after {after}", PAGE_S)
    return said[0]


def _bridges(machine: Machine, root: Path) -> None:
    """Gear without LSL of its own: its bridge is a service that outlives its own death."""
    unit = "hypnocast-bridge@bed-2.service"
    wave = Sleeper(4).samples(1800.0, 2100.0, rate=256)
    labels = (lead.label for lead in CLINICAL)
    signals = [
        edfio.EdfSignal(
            column, 256, label=label, physical_dimension="uV", physical_range=(-3000, 3000)
        )
        for label, column in zip(labels, np.clip(wave, -3000, 3000).T, strict=True)
    ]
    edfio.Edf(signals, data_record_duration=1.0).write(root / "srv" / "night.edf")
    (root / "etc/hypnocast/hypnocast.toml").write_text(CONFIG + BRIDGED_BED)
    (root / "etc/hypnocast/bridge/bed-2.conf").write_text(f"ARGUMENTS={BRIDGE}\n")
    machine.run("systemctl", "stop", "amplifier")
    machine.run("systemctl", "restart", "hypnocast")
    machine.run("systemctl", "enable", "--now", unit)
    first = _staged(machine, "bed2", "final")
    assert first["stage"] in ("W", "N1", "N2", "N3", "R")
    before = machine.unit(unit)
    assert before["User"] == "hypnocast"
    machine.run("systemctl", "kill", "--signal", "KILL", unit)
    until(lambda: machine.unit(unit)["MainPID"] not in ("0", before["MainPID"]), "another one")
    later = _staged(machine, "bed2", "final", after=first["epoch"] + 1)
    assert later["session"] == first["session"]
    assert machine.unit(unit)["NRestarts"] == "1"
    machine.run("systemctl", "stop", unit)
    stopped = machine.unit(unit)
    assert (stopped["ActiveState"], stopped["Result"]) == ("inactive", "success")
    machine.run("systemctl", "start", unit)


def _removed(machine: Machine) -> None:
    machine.run("dpkg", "-r", "hypnocast")
    assert machine.unit("hypnocast.service")["LoadState"] == "not-found"
    assert (
        machine.run("systemctl", "is-active", "hypnocast-bridge@bed-2", check=False) != "active\n"
    )
    wanted = "/etc/systemd/system/multi-user.target.wants/hypnocast-bridge@bed-2.service"
    gone = (wanted, "/opt/hypnocast", "/usr/bin/hypnocast", "/usr/lib/sysusers.d/hypnocast.conf")
    for path in gone:
        assert machine.run("sh", "-c", f"test ! -e {path} && echo gone").strip() == "gone", path
    assert "bed1" in machine.run("cat", "/etc/hypnocast/hypnocast.toml")
    assert "journal.sqlite" in machine.run("ls", "/var/lib/hypnocast")
    printed = machine.run("dpkg", "-P", "hypnocast")
    assert "are kept" in printed
    assert "journal.sqlite" in machine.run("ls", "/var/lib/hypnocast")
    assert machine.run("sh", "-c", "test ! -e /etc/hypnocast && echo gone").strip() == "gone"
