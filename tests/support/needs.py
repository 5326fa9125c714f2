"""What a test needs from the machine, and what becomes of the test where that is missing.

On a developer's machine a missing program skips the test and names it. Where
``HYPNOCAST_REQUIRE_ALL=1`` is set (as in CI) a missing program or module is a failure.
Data sets are no component of the software: they may be missing anywhere.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

import pytest


def _missing(what: str) -> None:
    if os.environ.get("HYPNOCAST_REQUIRE_ALL") == "1":
        pytest.fail(f"{what} is missing, and HYPNOCAST_REQUIRE_ALL=1 says nothing may be")
    pytest.skip(f"{what} is missing", allow_module_level=True)


def need_program(name: str) -> str:
    """Return the path of a program, searched also where Debian puts servers."""
    search = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    found = shutil.which(name, path=search)
    if found is None:
        _missing(f"the program {name}")
    assert found is not None
    return found


def need_module(name: str) -> None:
    """Go on only where a module can be imported."""
    try:
        found = importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        found = False
    if not found:
        _missing(f"the Python module {name}")


def need_file(path: str | Path) -> Path:
    """Return the path of a file that a component brings along."""
    if not Path(path).exists():
        _missing(str(path))
    return Path(path)


def need_data(folder: str) -> Path:
    """Return the folder of a data set under ``HYPNOCAST_DATA``, or skip."""
    root = os.environ.get("HYPNOCAST_DATA", "")
    path = Path(root) / folder
    if not root or not path.is_dir():
        why = f"data set {folder} is not there (HYPNOCAST_DATA names its parent folder)"
        pytest.skip(why, allow_module_level=True)
    return path
