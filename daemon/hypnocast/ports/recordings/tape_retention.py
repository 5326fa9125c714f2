"""Which tapes are forgotten: those that are too old, and the oldest of those that are too much."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import structlog

_log = structlog.get_logger("tape")


def forget_expired(
    folder: Path,
    *,
    now: float,
    keep_days: float,
    keep_bytes: int,
    running: Callable[[], set[Path]],
) -> None:
    """Delete the expired tapes of a folder but for those that are being written."""
    try:
        forgotten = expired(folder, now=now, keep_days=keep_days, keep_bytes=keep_bytes)
    except OSError as error:
        _log.warning("tapes_cannot_be_listed", folder=str(folder), error=str(error))
        return
    # Asked after the folder was listed: a tape that began in between is on neither list.
    kept = running()
    for path in forgotten:
        if path in kept:
            continue
        try:
            path.unlink(missing_ok=True)
            _log.info("tape_forgotten", path=str(path))
        except OSError as error:
            _log.warning("tape_cannot_be_deleted", path=str(path), error=str(error))


def expired(folder: Path, *, now: float, keep_days: float, keep_bytes: int) -> list[Path]:
    """Return the tapes that are too old, and the oldest that are too much, oldest first."""
    entries: list[tuple[float, int, Path]] = []
    for path in folder.glob("*_[0-9][0-9][0-9]*.xdf"):
        try:
            facts = path.stat()
        except FileNotFoundError:
            continue
        entries.append((facts.st_mtime, facts.st_size, path))
    entries.sort()
    total = sum(size for _, size, _ in entries)
    gone: list[Path] = []
    for modified, size, path in entries:
        if modified < now - keep_days * 86_400 or total > keep_bytes:
            gone.append(path)
            total -= size
    return gone
