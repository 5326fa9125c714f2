"""On what, and under which load, a figure was measured."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from hypnocast import __version__

_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
_LIBRARIES = ("numpy", "scipy", "onnxruntime", "onnxruntime-gpu", "pylsl", "aiomqtt")


def conditions() -> dict[str, Any]:
    """Return commit, machine, versions and the load before the first measurement."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "hypnocast": __version__,
        "commit": _commit(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "libraries": {name: version for name in _LIBRARIES if (version := _version(name))},
        "load_before": [round(load, 2) for load in os.getloadavg()],
    }


def resident_mb(process: int | str = "self") -> float:
    """Return how much memory a process has now."""
    return _status(process, "VmRSS:")


def peak_mb(process: int | str = "self") -> float:
    """Return the most memory a process has had."""
    return _status(process, "VmHWM:")


def cpu_s(process: int | str = "self") -> float:
    """Return the processor time of a process, user and system."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS


def _status(process: int | str, key: str) -> float:
    for line in Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    return float("nan")


def _commit() -> str | None:
    """Return the commit that is measured, where this runs from a checkout."""
    here = Path(__file__).parent
    try:
        named = subprocess.run(
            ["git", "-C", here, "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return named.stdout.strip()


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
