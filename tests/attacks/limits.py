"""The memory that the tests of attacks allow, and what a process uses of it."""

from __future__ import annotations

from pathlib import Path

TWO_GB = 2 << 30


def peak_bytes(pid: int) -> int:
    """Return the most memory that a process ever had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} reports no memory")


def threads(pid: int) -> int:
    """Return how many threads a process has."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))
