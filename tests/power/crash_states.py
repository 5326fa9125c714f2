"""What a disk may hold after a power cut, built from what a process did to it.

Between two syncs a disk may have written nothing, all, a beginning, or any of it, whole or torn at
a sector, in any order. A sync that failed is worse: Linux then takes the pages for written, so
that no later sync writes them (https://lwn.net/Articles/752063/); they may be on the disk or not.
The name of a file is there once its folder was synced; before that it may be.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from power.recording import CallKind, Done

Way = Literal["nothing", "everything", "beginning", "torn512", "torn4096", "names", "lost"]
WAYS: tuple[Way, ...] = (
    "nothing", "everything", "beginning", "torn512", "torn4096", "names", "lost"
)  # fmt: skip
"""Nothing unsynced; all of it; a prefix of it in its order; any of its sectors of 512 or of its
pages of 4096 bytes; the data in full but no name before its folder's sync; all that came after,
but nothing of what a failed sync covered."""

SKIPPED = ("-shm", ".lock", ".reserve")
"""Shared memory, lock and reserve mean nothing to the next start."""


_FOLDER = -1


@dataclass(slots=True)
class _File:
    """A file as the disk may hold it: what is safe, and what was done since."""

    ops: list[_Op] = field(default_factory=list)


@dataclass(slots=True)
class _Op:
    number: int
    """In the whole record."""
    done: Done
    state: Literal["pending", "safe", "abandoned"] = "pending"


@dataclass(slots=True)
class _Names:
    """The names of one folder: path → file, as synced and as they are."""

    safe: dict[str, int] = field(default_factory=dict)
    now: dict[str, int] = field(default_factory=dict)


class Disk:
    """Takes in a record up to the cut, and lays out what may be left."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files: list[_File] = []
        self._by_inode: dict[int, int] = {}
        self._folders: dict[str, _Names] = {}

    def take(self, number: int, done: Done) -> None:
        """Take in what was done next."""
        match done.kind:
            case CallKind.FOLDER:
                self._names(done.text).now[done.text] = _FOLDER
            case CallKind.MADE:
                self._by_inode[done.file] = len(self._files)
                self._files.append(_File())
                self._names(done.text).now[done.text] = self._by_inode[done.file]
            case CallKind.WRITE | CallKind.CUT:
                self._file(done).ops.append(_Op(number, done))
            case CallKind.SYNC:
                for op in self._file(done).ops:
                    if op.state == "pending":
                        op.state = "abandoned" if done.failed else "safe"
            case CallKind.FOLDER_SYNC if not done.failed:
                names = self._folders.setdefault(done.text, _Names())
                names.safe = dict(names.now)
            case CallKind.RENAME:
                old, new = done.text.split("\n")
                self._names(new).now[new] = self._names(old).now.pop(old)
            case CallKind.REMOVE:
                self._names(done.text).now.pop(done.text, None)
            case _:
                pass

    def _file(self, done: Done) -> _File:
        return self._files[self._by_inode[done.file]]

    def _names(self, path: str) -> _Names:
        return self._folders.setdefault(str(Path(path).parent), _Names())

    def _is_reached(self, path: Path, *, only_safe: bool) -> bool:
        """Whether the names of all folders above are there."""
        above = (one for one in path.parents if self._root in one.parents)
        return not only_safe or all(
            str(one) in self._folders.get(str(one.parent), _Names()).safe for one in above
        )

    def lay_out(self, target: Path, way: Way, chance: random.Random) -> None:
        """Write what is left into a folder, in one of the ways."""
        pending = [op.number for file in self._files for op in file.ops if op.state != "safe"]
        until = chance.choice([*pending, 1 << 60]) if pending else 1 << 60
        for names in self._folders.values():
            only_safe = way in ("nothing", "names") or (
                way.startswith("torn") and chance.random() < 0.25
            )
            for path, number in (names.safe if only_safe else names.now).items():
                reached = self._is_reached(Path(path), only_safe=only_safe)
                if number == _FOLDER or path.endswith(SKIPPED) or not reached:
                    continue
                place = target / Path(path).relative_to(self._root)
                place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                place.write_bytes(_content(self._files[number], way, chance, until))
                place.chmod(0o600)


def _content(file: _File, way: Way, chance: random.Random, until: int) -> bytes:
    content = bytearray()
    for op in file.ops:
        if op.state == "safe" or _is_left(op, way, until):
            _apply(content, op.done)
        elif way.startswith("torn"):
            _apply_torn(content, op.done, int(way.removeprefix("torn")), chance)
    return bytes(content)


def _is_left(op: _Op, way: Way, until: int) -> bool:
    """Whether something unsynced is on the disk, whole."""
    if way == "beginning":
        return op.number < until
    return way in ("everything", "names") or (way == "lost" and op.state == "pending")


def _apply(content: bytearray, done: Done) -> None:
    if done.kind is CallKind.CUT:
        if done.at < len(content):
            del content[done.at :]
        else:
            content.extend(bytes(done.at - len(content)))
        return
    _put(content, done.at, done.data)


def _put(content: bytearray, at: int, data: bytes) -> None:
    if at > len(content):
        content.extend(bytes(at - len(content)))
    content[at : at + len(data)] = data


def _apply_torn(content: bytearray, done: Done, sector: int, chance: random.Random) -> None:
    """Write each sector, or do not: a coin for each, biased by a coin for the whole."""
    share = chance.choice([0.1, 0.5, 0.9])
    if done.kind is CallKind.CUT:
        if chance.random() < share:
            _apply(content, done)
        return
    at = done.at
    while at < done.at + len(done.data):
        end = min((at // sector + 1) * sector, done.at + len(done.data))
        if chance.random() < share:
            _put(content, at, done.data[at - done.at : end - done.at])
        at = end


def cuts_of(
    record: Sequence[Done],
    root: Path,
    count: int,
    seed: int,
    look: Callable[[int, Way, Disk, random.Random], None],
) -> None:
    """Cut the power at so many places, each time in one of the ways, all alike often."""
    chance = random.Random(seed)
    chosen = sorted(
        (chance.randint(1, len(record)), WAYS[(index + seed) % len(WAYS)]) for index in range(count)
    )
    disk, taken = Disk(root), 0
    for cut, way in chosen:
        while taken < cut:
            disk.take(taken, record[taken])
            taken += 1
        look(cut, way, disk, chance)
