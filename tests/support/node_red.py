"""Node-RED for tests: fetched once by npm into the user's cache, run on loopback, no editor."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.needs import need_program

VERSION = "4"
"""Version 5 needs a newer Node than Debian 12 has."""
_FETCH_S = 170.0
_START_S = 60.0

_SETTINGS = """module.exports = {
  flowFile: "flow.json", uiHost: "127.0.0.1", httpAdminRoot: false, httpNodeRoot: false,
  telemetry: { enabled: false }, diagnostics: { enabled: false },
  logging: { console: { level: "info", metrics: false, audit: false } },
};
"""


def node_red() -> Path:
    """Return Node-RED's program; fetch it where it is missing, or skip where that cannot be."""
    need_program("node")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "hypnocast-tests" / f"node-red-{VERSION}"
    program = folder / "node_modules" / ".bin" / "node-red"
    if not program.exists():
        npm = need_program("npm")
        folder.mkdir(parents=True, exist_ok=True)
        command = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder)]
        try:
            subprocess.run(
                [*command, f"node-red@{VERSION}"], check=True, capture_output=True, timeout=_FETCH_S
            )
        except subprocess.SubprocessError as error:
            if os.environ.get("HYPNOCAST_REQUIRE_ALL") == "1":
                pytest.fail(f"npm cannot fetch node-red@{VERSION}: {error}")
            pytest.skip(f"npm cannot fetch node-red@{VERSION}")
    return program


@contextmanager
def running_node_red(folder: Path, flow: str) -> Iterator[Path]:
    """Run a flow in a folder of its own; gives the log once the flow has started."""
    (folder / "settings.js").write_text(_SETTINGS)
    (folder / "flow.json").write_text(flow)
    log = folder / "node-red.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [node_red(), "--userDir", folder, "--settings", folder / "settings.js"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + _START_S
        while "Connected to broker" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield log
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
