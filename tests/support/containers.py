"""A systemd of its own in a container (``systemd-nspawn``), with no network but loopback."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.needs import need_program

BOOT_S = 120.0
CGROUPS = Path("/sys/fs/cgroup")


def until(true: Callable[[], object], what: str, deadline_s: float = BOOT_S) -> None:
    """Wait for a condition that takes a process to ask for."""
    deadline = time.monotonic() + deadline_s
    while not true():
        assert time.monotonic() < deadline, f"waited {deadline_s:g} s in vain: {what}"
        time.sleep(0.3)


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
        """Return how a unit does, as systemd says."""
        shown = self.run("systemctl", "show", name, check=False)
        return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)


@contextmanager
def booted(console: Path, target: str, *options: str) -> Iterator[Machine]:
    """Boot a systemd to a target; end it and all that is in it.

    ``options`` name nspawn's root and what is laid into it; ``console`` keeps what is printed.
    """
    if os.geteuid() != 0:
        pytest.skip("no systemd can be booted here: it takes root")
    nspawn = need_program("systemd-nspawn")
    name = f"hypnocast-{os.getpid()}"
    groups = _own_groups(name)
    with console.open("wb") as printed:
        process = subprocess.Popen(
            [
                *(
                    "sh",
                    "-c",
                    _MOVE,
                    " ".join(map(str, groups)),
                    nspawn,
                    *options,
                    "--boot",
                    "--private-network",
                    "--register=no",
                    "--keep-unit",
                ),
                *(f"--machine={name}", "--console=pipe", "--", f"systemd.unit={target}"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=printed,
        )
    leader = 0

    def has_begun() -> bool:
        nonlocal leader
        if process.poll() is None:
            leader = _first_process(process.pid, target)
        return leader > 0 or process.poll() is not None

    try:
        until(has_begun, "a first process")
        if process.poll() is not None:
            pytest.skip(f"no systemd can be booted here: {console.read_text()[-300:]}")
        machine = Machine(leader)
        try:
            until(lambda: machine.unit("dbus.socket"), "systemd answers")
        except AssertionError:
            pytest.skip("a systemd was started in a container here, and never answered")
        yield machine
    finally:
        if leader:
            os.kill(leader, signal.SIGKILL)
        process.terminate()
        process.wait(30.0)
        until(lambda: all(_is_gone(group) for group in groups), "its control groups are gone")
        # Where /run is on a disk, nspawn dares not remove what it made there.
        shutil.rmtree(f"/run/systemd/nspawn/propagate/{name}", ignore_errors=True)


_MOVE = 'for group in $0; do echo $$ > $group/cgroup.procs || exit; done; exec "$@"'
"""A shell that moves into control groups and becomes another program."""


def _own_groups(name: str) -> list[Path]:
    """Make control groups of its own for nspawn, which makes two of always the same names in them.

    Two at once, of two runs of the tests, would share these and end each other's machine.
    """
    tops = [CGROUPS / part for part in ("systemd", "unified")]
    groups = [top / name for top in tops if top.is_dir()] or [CGROUPS / name]
    try:
        for group in groups:
            group.mkdir(exist_ok=True)
    except OSError as error:
        pytest.skip(f"no systemd can be booted here: {error}")
    return groups


def _is_gone(group: Path) -> bool:
    """Remove a control group and those in it, which is refused while one has a process."""
    for path in sorted((each for each in group.rglob("*") if each.is_dir()), reverse=True):
        with suppress(OSError):
            path.rmdir()
    with suppress(OSError):
        group.rmdir()
    return not group.exists()


def _first_process(nspawn: int, target: str) -> int:
    """Return the only child of nspawn that is systemd itself, 0 before it is there."""
    children = Path(f"/proc/{nspawn}/task/{nspawn}/children").read_text().split()
    for child in map(int, children):
        if target in Path(f"/proc/{child}/cmdline").read_text():
            return 0 if "nspawn" in Path(f"/proc/{child}/comm").read_text() else child
    return 0
