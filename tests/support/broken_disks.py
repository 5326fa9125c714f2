"""Commands run where their output cannot be written: on a full disk, or on one only to be read.

Run as a program in a mount namespace of its own it takes orders, a line of JSON each, so that what
the commands import is loaded once for all of them.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import pytest

from support.needs import need_program

State = Literal["full", "nearly full", "read-only"]
_SIZE, _LEFT = 1 << 18, 1 << 14


@dataclass(frozen=True)
class Found:
    """What a command did on a broken disk."""

    status: int
    complaints: tuple[str, ...]
    """Its lines on standard error."""
    left: tuple[str, ...]
    """Files on the disk that were not there before."""


class BrokenDisk:
    """A disk of its own, under ``folder``, for one command after another."""

    def __init__(self, folder: Path, process: subprocess.Popen[str]) -> None:
        self.folder = folder
        self._process = process

    def run(self, line: str, state: State, lab: Path) -> Found:
        """Run a command line in ``lab``; ``{out}`` in it is a path on the disk."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        words = shlex.split(line.format(out=self.folder / "out"))
        order = {"words": words, "state": state, "lab": str(lab)}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the process that runs commands has ended"
        found: dict[str, Any] = json.loads(answer)
        return Found(found["status"], tuple(found["complaints"]), tuple(found["left"]))


@contextmanager
def broken_disk(folder: Path) -> Iterator[BrokenDisk]:
    """Run commands on a broken disk; skips where nobody may mount one."""
    folder.mkdir()
    namespace = (need_program("unshare"), "--user", "--map-root-user", "--mount")
    trial = subprocess.run(
        [*namespace, "mount", "-t", "tmpfs", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if trial.returncode:
        pytest.skip("this machine lets nobody mount a disk in a namespace of their own")
    with subprocess.Popen(
        [*namespace, sys.executable, "-m", "support.broken_disks", str(folder)],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield BrokenDisk(folder, process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(60)


def _mounted(folder: Path, state: State) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "t", str(folder)], check=True)
    if state == "read-only":
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        return
    left = 0 if state == "full" else _LEFT
    (folder / "filling").write_bytes(b"\0" * (_SIZE - left))


def _obey(folder: Path, order: dict[str, Any]) -> dict[str, Any]:
    from hypnocast.cli import main as hypnocast
    from hypnocast_models.cli import main as models

    program, *words = order["words"]
    _mounted(folder, order["state"])
    before = set(folder.rglob("*"))
    said = folder.with_name("said")
    os.chdir(order["lab"])
    kept = os.dup(2)
    with said.open("wb") as file:
        os.dup2(file.fileno(), 2)
    try:
        with patch.object(sys, "argv", [program, *words]):
            status: Any = (hypnocast if program == "hypnocast" else models)()
    except SystemExit as end:
        status = end.code
    except Exception:  # noqa: BLE001 - whatever it is, it is reported
        import traceback

        traceback.print_exc()
        status = -1
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
    left = sorted(str(one.relative_to(folder)) for one in set(folder.rglob("*")) - before)
    subprocess.run(["umount", "-l", str(folder)], check=True)
    return {"status": status or 0, "complaints": said.read_text().splitlines(), "left": left}


def _serve(folder: Path) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for line in sys.stdin:
        answers.write(json.dumps(_obey(folder, json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
