"""What a command writes: wholly or not at all; and which output a fault of the disk befell."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from hypnocast.errors import OutputError

_ROOM: Final = "Make room there, or name a place on another disk."
_WRITABLE: Final = "Name a place that this user may write."
_BY_NUMBER: Final = {
    errno.ENOSPC: ("the disk is full", _ROOM),
    errno.EDQUOT: ("this user's share of the disk is full", _ROOM),
    errno.EFBIG: ("no file may grow that large here", _ROOM),
    errno.EROFS: ("the disk can only be read", _WRITABLE),
}
_RIGHTS: Final = (errno.EACCES, errno.EPERM)
_BY_WORDS: Final = {
    "No space left": errno.ENOSPC,
    "os error 28": errno.ENOSPC,
    "Errno 28": errno.ENOSPC,
    "PytorchStreamWriter failed": errno.ENOSPC,
    "unexpected pos": errno.ENOSPC,
    "Read-only file system": errno.EROFS,
    "os error 30": errno.EROFS,
}
"""What libraries that write weights and graphs say in errors of their own."""


@contextmanager
def writing(*outputs: Path | None, keep: bool = False, own: bool = False) -> Iterator[None]:
    """Take away what was begun when a command fails, and name the output that the disk refused.

    ``keep`` leaves what is there already, for a command that goes on from it. ``own`` says that the
    outputs are folders into which nothing else writes: they are made at once, before the work, and
    what is new in one that was there goes too.
    """
    wanted = [Path(one) for one in outputs if one is not None]
    before = {one: set(one.rglob("*")) for one in wanted if own and one.is_dir()}
    made = [_first_missing(one) for one in wanted]
    try:
        for one in wanted if own else ():
            one.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException as error:
        if not keep:
            _take_away(made, before)
        fault = _fault_of_disk(error, wanted)
        if fault is None:
            raise
        raise fault from error


def _first_missing(path: Path) -> Path | None:
    """Return the path, or the uppermost folder above it that is not there; None: all is there."""
    missing = None
    for one in (path, *path.parents):
        if one.exists() or one.is_symlink():
            return missing
        missing = one
    return missing


def _take_away(made: list[Path | None], before: dict[Path, set[Path]]) -> None:
    for one in made:
        if one is not None and one.is_dir():
            shutil.rmtree(one, ignore_errors=True)
        elif one is not None:
            with suppress(OSError):  # on a disk that can only be read even what is not there
                one.unlink()
    for folder, there in before.items():
        for path in sorted(set(folder.rglob("*")) - there, reverse=True):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def _fault_of_disk(error: BaseException, wanted: list[Path]) -> OutputError | None:
    if isinstance(error, OutputError):
        return None  # whoever wrote it named it
    number = error.errno if isinstance(error, OSError) else None
    named = [Path(name) for name in _names(error)]
    if number in _RIGHTS and any(_belongs(name, wanted) for name in named):
        what, remedy = "may not be written", _WRITABLE
    else:
        if number not in _BY_NUMBER:
            number = _by_words(error)
        if number is None:
            return None
        what, remedy = _BY_NUMBER[number]
    ours = [one for one in wanted if any(_belongs(name, [one]) for name in named)]
    # What is named and no output is a folder for temporary files, say.
    places = ours or named[-1:] or wanted
    where = ", ".join(map(str, places))
    return OutputError(f"cannot be written: {what}", where=where, remedy=remedy)


def _by_words(error: BaseException) -> int | None:
    if not isinstance(error, Exception):
        return None
    return next((number for sign, number in _BY_WORDS.items() if sign in str(error)), None)


def _names(error: BaseException) -> list[str]:
    found = (getattr(error, "filename", None), getattr(error, "filename2", None))
    return [str(name) for name in found if name is not None]


def _belongs(name: Path, wanted: list[Path]) -> bool:
    """Whether a path is an output, lies in one or beside its drafts, or is a folder above it."""
    name = name.absolute()
    for one in wanted:
        output = one.absolute()
        draft = name.name.startswith((output.name, f".{output.name}"))
        beside = draft and name.parent == output.parent
        if beside or output in (name, *name.parents) or name in output.parents:
            return True
    return False
