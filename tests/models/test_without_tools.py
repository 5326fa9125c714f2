"""A new environment lacks the models' tools (PyTorch, Dask): tests skip there, and none fails."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
HIDING = REPOSITORY / "tests/support/hidden_modules"
USERS_OF_TOOLS = (
    "tests/models",
    "tests/stagers",
    "tests/nights/test_corrections.py",
    "tests/test_api.py",
)


def _distribution(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _required(name: str) -> set[str]:
    lines = (REPOSITORY / "requirements" / name).read_text().splitlines()
    found = (re.match(r"[A-Za-z0-9][\w.-]*", line) for line in lines)
    return {_distribution(match[0]) for match in found if match is not None}


def _modules_of_the_tools() -> list[str]:
    tools = _required("models.txt") | _required("torch.txt")
    tools -= _required("test.txt")
    return sorted(
        module
        for module, makers in packages_distributions().items()
        if {_distribution(maker) for maker in makers} <= tools
    )


@pytest.mark.timeout(900)
def test_without_the_models_tools_tests_skip_and_none_fails(tmp_path: Path) -> None:
    hidden = _modules_of_the_tools()
    if "distributed" not in hidden:
        pytest.skip("the models' tools are not installed: every other test shows it")
    env = {key: value for key, value in os.environ.items() if not key.startswith("HYPNOCAST_")}
    env |= {"HYPNOCAST_HIDDEN": " ".join(hidden), "PYTHONPATH": str(HIDING)}
    asked = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    asked += ["-m", "not long and not real_time", "--basetemp", str(tmp_path / "base")]
    asked += ["--ignore", __file__, *USERS_OF_TOOLS]
    run = subprocess.run(
        asked, cwd=REPOSITORY, env=env, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert "the Python module distributed is missing" in run.stdout
