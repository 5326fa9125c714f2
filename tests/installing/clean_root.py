"""A clean Debian 12: nothing of this machine is in it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from support.needs import need_program

INCLUDED = "systemd,systemd-sysv,python3,python3-venv,mosquitto,mosquitto-clients,ca-certificates"
ROOT = Path(__file__).resolve().parents[2]


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
