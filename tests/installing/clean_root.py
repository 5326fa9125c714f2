"""A clean Debian 12 and a container in which it boots: nothing of this machine is in it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.needs import need_program

INCLUDED = "systemd,systemd-sysv,python3,python3-venv,mosquitto,mosquitto-clients,ca-certificates"
BOOT_S = 120.0
ROOT = Path(__file__).resolve().parents[2]


def until(true: Callable[[], object], what: str, deadline_s: float = BOOT_S) -> None:
    """Wait for a condition that takes a process to ask for."""
    deadline = time.monotonic() + deadline_s
    while not true():
        assert time.monotonic() < deadline, f"waited {deadline_s:g} s in vain: {what}"
        time.sleep(0.3)


def clean_root(folder: Path) -> Path:
    """Return a new Debian 12 in a folder; ``HYPNOCAST_CLEAN_ROOT`` names a tar of one."""
    if os.geteuid() != 0:
        pytest.skip("a clean root takes root")
    folder.mkdir(parents=True)
    made = os.environ.get("HYPNOCAST_CLEAN_ROOT")
    if made:
        subprocess.run(["tar", "-xf", made, "-C", str(folder)], check=True)
        return folder
    maker = need_program("mmdebstrap")
    options = ("--variant=minbase", f"--include={INCLUDED}")
    subprocess.run([maker, *options, "bookworm", str(folder)], check=True)
    return folder


@dataclass
class Machine:
    """A container with systemd in it."""

    leader: int
    """Its first process, as this machine numbers it."""

    def run(self, *command: str, check: bool = True) -> str:
        """Run a program in it; return what it printed."""
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        enter = ["nsenter", "-t", str(self.leader), "-m", "-u", "-i", "-n", "-p", "--"]
        ran = subprocess.run(
            [*enter, "/usr/bin/env", "-i", path, "LC_ALL=C.UTF-8", *command],
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or ran.returncode == 0, f"{command}: {ran.stdout}{ran.stderr}"
        return ran.stdout

    def unit(self, name: str) -> dict[str, str]:
        """Return how a service does, as systemd says."""
        shown = self.run("systemctl", "show", name, check=False)
        return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)


@contextmanager
def booted(root: Path, console: Path) -> Iterator[Machine]:
    """Boot a root with no network but loopback; end it and all that is in it."""
    nspawn = need_program("systemd-nspawn")
    with console.open("wb") as printed:
        process = subprocess.Popen(
            [
                *(nspawn, f"--directory={root}", "--boot", "--private-network"),
                *("--register=no", "--keep-unit", f"--machine=hypnocast-{os.getpid()}"),
                *("--console=pipe", "--", "systemd.unit=multi-user.target"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=printed,
        )
    leader = 0
    try:
        until(lambda: process.poll() is not None or _child(process.pid), "a first process")
        if process.poll() is not None:
            pytest.skip(f"no systemd can be booted here: {console.read_text()[-300:]}")
        leader = _child(process.pid)
        machine = Machine(leader)
        until(lambda: machine.unit("dbus.socket"), "systemd answers")
        yield machine
    finally:
        if leader:
            os.kill(leader, signal.SIGKILL)
        process.terminate()
        process.wait(30.0)
        name = f"hypnocast-{os.getpid()}"
        shutil.rmtree(f"/run/systemd/nspawn/propagate/{name}", ignore_errors=True)


def _child(process: int) -> int:
    """Return the container's first process, 0 before it is there."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    for child in map(int, children):
        if "multi-user.target" in Path(f"/proc/{child}/cmdline").read_text():
            return 0 if "nspawn" in Path(f"/proc/{child}/comm").read_text() else child
    return 0
