"""Memory of this process and of the machine, as Linux reports it."""

from __future__ import annotations

from pathlib import Path

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")


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
    group = _own_group(proc, cgroups)
    while group is not None and group != cgroups:
        limit, used = _number(group / "memory.max"), _number(group / "memory.current")
        if limit is not None and used is not None:
            left.append(max(0, limit - used))
        group = group.parent if cgroups in group.parents else None
    return min(left, default=None)


def _own_group(proc: Path, cgroups: Path) -> Path | None:
    try:
        text = (proc / "self" / "cgroup").read_text(encoding="ascii")
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith("0::/"):
            return cgroups / line.removeprefix("0::/")
    return None


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
