"""Memory of this process and of the machine, as Linux reports it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
_LIMITS = ("memory.max", "memory.high", "memory.limit_in_bytes")
_USED = ("memory.current", "memory.usage_in_bytes")

SHORT_BYTES: Final = 48_000_000
"""With so little left, a page more of every bed may be too much."""


def resident_bytes(proc: Path = _PROC) -> int:
    """Return what this process holds in memory; 0 where the system does not report it."""
    return _kilobytes(proc / "self" / "status", "VmRSS") or 0


def free_bytes(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int | None:
    """Return what this process may still allocate before it is refused or killed.

    That is the machine's free memory, or what is left to the service's control group where that
    is less. None where the system reports neither.
    """
    free = _kilobytes(proc / "meminfo", "MemAvailable")
    left = [free] if free is not None else []
    for group in _own_groups(proc, cgroups):
        limits = [limit for name in _LIMITS if (limit := _number(group / name)) is not None]
        used = [number for name in _USED if (number := _number(group / name)) is not None]
        if limits and used:
            # What is kept of files that nobody reads just now is given back at once.
            spare = _in_stat(group / "memory.stat", "inactive_file")
            left.append(max(0, min(limits) - used[0] + spare))
    return min(left, default=None)


def memory_problem(free: int | None) -> str:
    """Return that memory is short, in words; empty where there is enough."""
    if free is None or free >= SHORT_BYTES:
        return ""
    return f"memory: only {free / 1e6:.0f} MB are left to this service; the system may end it"


def _own_groups(proc: Path, cgroups: Path) -> Iterator[Path]:
    """Give the control groups of this process that may limit its memory, of either version."""
    try:
        text = (proc / "self" / "cgroup").read_text(encoding="ascii")
    except OSError:
        return
    for line in text.splitlines():
        _, controllers, place = line.split(":", 2)
        if controllers in ("", "memory"):
            root = cgroups / controllers if controllers else cgroups
            group = root / place.lstrip("/")
            while group != root and root in group.parents:
                yield group
                group = group.parent


def _in_stat(path: Path, key: str) -> int:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.split()[0] == key), 0)


def _kilobytes(path: Path, key: str) -> int | None:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024
    return None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None  # no such group, or "max": no limit
