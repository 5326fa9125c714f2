"""A small file system for the daemon's state, and calls on it that fail or wait."""

from __future__ import annotations

import mmap
import os
import struct
import subprocess
from pathlib import Path

_CONTROL = struct.Struct("=4q")


class FailingDisk:
    """A tmpfs that fills up, under a library that makes calls on it fail."""

    def __init__(self, folder: Path, size_mb: int) -> None:
        """Mount it below ``folder``; needs the rights of root."""
        self.path = folder / "state"
        self.path.mkdir()
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m,mode=0700", "soak", str(self.path)],
            check=True,
        )
        self._shim = folder / "shim.so"
        source = Path(__file__).with_name("shim.c")
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-O2", "-o", str(self._shim), str(source), "-ldl"],
            check=True,
        )
        self._control = folder / "control"
        self._control.write_bytes(bytes(_CONTROL.size))
        with self._control.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _CONTROL.size)
        self._shared = [0, 0, 0, 0]
        self._fill = self.path / "filled"

    def environment(self) -> dict[str, str]:
        """Return what makes a process feel it."""
        return {
            "LD_PRELOAD": str(self._shim),
            "SOAK_CONTROL": str(self._control),
            "SOAK_FOLDER": str(self.path),
        }

    def _write(self, place: int, value: int) -> None:
        self._shared[place] = value
        self._map[:] = _CONTROL.pack(*self._shared)

    def refuse_writes(self, errno: int) -> None:
        """Let every writing call fail; 0: as ever."""
        self._write(0, errno)

    def slow_syncs(self, milliseconds: int) -> None:
        """Let every sync wait."""
        self._write(1, milliseconds)

    @property
    def clock_shift(self) -> int:
        """Return how far ahead the clock is set."""
        return self._shared[2]

    def shift_clock(self, seconds: int) -> None:
        """Set the host's clock ahead, as the daemon sees it."""
        self._write(2, seconds)

    def fail_syncs(self, errno: int) -> None:
        """Let every sync fail; 0: as ever."""
        self._write(3, errno)

    def fill(self) -> None:
        """Leave no room."""
        with self._fill.open("wb", buffering=0) as file:
            for size in (1 << 20, 1 << 12):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    continue

    def make_room(self) -> None:
        """Give the room back."""
        self._fill.unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount it."""
        self._map.close()
        os.sync()
        subprocess.run(["umount", "-l", str(self.path)], check=False)


class MemoryGroup:
    """A control group that takes memory away, where the host lets us have one."""

    def __init__(self) -> None:
        """Make a group below the one we are in (version 1 or 2)."""
        self._folder: Path | None = None
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, place = line.split(":", 2)
            if controllers == "memory":
                self._try(
                    Path("/sys/fs/cgroup/memory") / place.lstrip("/"), "memory.limit_in_bytes"
                )
            elif not controllers:
                self._try(Path("/sys/fs/cgroup") / place.lstrip("/"), "memory.high")

    def _try(self, parent: Path, limit: str) -> None:
        if self._folder is not None:
            return
        folder = parent / f"soak-{os.getpid()}"
        try:
            folder.mkdir()
        except OSError:
            return
        if (folder / limit).exists():
            self._folder, self._limit = folder, folder / limit
        else:
            folder.rmdir()

    @property
    def there(self) -> bool:
        """Whether there is a group."""
        return self._folder is not None

    def take_in(self, process: int) -> None:
        """Put a process in."""
        if self._folder is not None:
            (self._folder / "cgroup.procs").write_text(str(process))

    def limit(self, size: int | None) -> bool:
        """Allow so many bytes; None: any. Return whether the kernel agreed."""
        if self._folder is None:
            return False
        without = "max" if self._limit.name == "memory.high" else "-1"
        try:
            self._limit.write_text(without if size is None else str(size))
        except OSError:
            return False
        return True

    @property
    def held(self) -> int:
        """Bytes in use that the kernel cannot take back at once: not what it keeps of files."""
        assert self._folder is not None
        name = "memory.current" if self._limit.name == "memory.high" else "memory.usage_in_bytes"
        words = (self._folder / "memory.stat").read_text().split()
        kept = dict(zip(words[::2], words[1::2], strict=True))["inactive_file"]
        return int((self._folder / name).read_text()) - int(kept)

    def close(self) -> None:
        """Remove the group."""
        if self._folder is not None:
            self.limit(None)
            self._folder.rmdir()
