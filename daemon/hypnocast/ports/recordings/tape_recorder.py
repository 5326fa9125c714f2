"""The tapes of all beds: one running tape each, kept safe on disk, and kept from filling it.

A tape must never be the reason that a sample is not read: what the disk refuses is counted and
told, and a new tape is tried a little later.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import structlog

from hypnocast.core.pages.recent_arrivals import RecentArrivals
from hypnocast.core.types import Arrival
from hypnocast.errors import TapeError
from hypnocast.ports.recordings.tape import Tape

_log = structlog.get_logger("tape")

RETRY_AFTER_S = 30.0

BEHIND_S = 90.0
"""Whoever changes a bed's tape may be so far behind what is being written."""


@dataclass(frozen=True, slots=True)
class TapeLimits:
    """How long a part of a tape may grow, and how much is kept."""

    part_bytes: int = 2 * 1024**3
    keep_days: float = 30.0
    keep_bytes: int = 200 * 1000**3
    sync_every_s: float = 2.0
    """What a power cut may cost."""


@dataclass(frozen=True, slots=True)
class TapeStatistics:
    """How the tapes are doing."""

    running: int
    """Beds whose tape is being written."""
    bytes_written: int
    arrivals_lost: int
    """Arrivals that no tape took, because the disk refused."""
    last_error: str = ""


@dataclass(eq=False)
class _BedTape:
    """One bed's running tape, and what a new one would have to begin with."""

    tape: Tape | None = None
    retry_at: float = 0.0
    recently: RecentArrivals = field(default_factory=lambda: RecentArrivals(BEHIND_S))


class TapeRecorder:
    """Writes every bed's arrivals; thread-safe. Syncing happens on a thread of its own."""

    def __init__(
        self,
        folder: Path,
        *,
        limits: TapeLimits | None = None,
        facts: Mapping[str, str] | None = None,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """Take the folder; it is made at the first arrival.

        With ``clock``, the local LSL clock, each tape says which UTC its times stand for.
        """
        self._folder = folder
        self._limits = limits or TapeLimits()
        self._facts = dict(facts or {})
        self._now = now
        self._clock = clock
        self._lock = threading.Lock()
        self._bed_tapes: dict[str, _BedTape] = {}
        self._written = 0
        self._lost = 0
        self._last_error = ""
        self._stopping = threading.Event()
        self._syncer = threading.Thread(target=self._keep_safe, name="tape-sync", daemon=True)
        self._syncer.start()

    def write(self, bed: str, arrival: Arrival) -> None:
        """Append what arrived for a bed; never raises, never waits for the disk to settle."""
        with self._lock:
            bed_tape = self._bed_tapes.setdefault(bed, _BedTape())
            self._attempt(bed, bed_tape, lambda tape: tape.write(arrival))
            bed_tape.recently.take(arrival)

    def note(self, bed: str, text: str, at: float) -> None:
        """Append a decision about a bed's time."""
        with self._lock:
            bed_tape = self._bed_tapes.setdefault(bed, _BedTape())
            self._attempt(bed, bed_tape, lambda tape: tape.note(text, at))

    def path(self, bed: str) -> Path | None:
        """Return the part of the bed's tape that is being written."""
        with self._lock:
            bed_tape = self._bed_tapes.get(bed)
            return (
                bed_tape.tape.path if bed_tape is not None and bed_tape.tape is not None else None
            )

    def change(self, bed: str, told: Sequence[Arrival]) -> bool:
        """End the bed's tape and begin a new one, which can be read without it.

        It begins with ``told``, whose last arrival is the newest that was taken in; what was
        written after that follows. Return False where that one is not remembered, or the disk
        refuses.
        """
        with self._lock:
            bed_tape = self._bed_tapes.get(bed)
            if bed_tape is None or bed_tape.tape is None or not told:
                return False
            later = bed_tape.recently.since(told[-1])
            if later is None:
                _log.warning("tape_goes_on", bed=bed, why="who changes it is too far behind")
                return False
            self._end(bed_tape)
            try:
                bed_tape.tape = self._begin(bed, (*told, *later))
            except TapeError as error:
                self._refused(bed_tape, error)
                return False
            self._written += bed_tape.tape.total
            return True

    def statistics(self) -> TapeStatistics:
        """Return how the tapes are doing."""
        with self._lock:
            running = [r.tape for r in self._bed_tapes.values() if r.tape is not None]
            return TapeStatistics(len(running), self._written, self._lost, self._last_error)

    def close(self) -> None:
        """End all tapes properly."""
        self._stopping.set()
        self._syncer.join()
        with self._lock:
            for bed_tape in self._bed_tapes.values():
                self._end(bed_tape)

    # -- one bed -----------------------------------------------------------------------------

    def _attempt(self, bed: str, bed_tape: _BedTape, act: Callable[[Tape], None]) -> None:
        if bed_tape.tape is None and self._now() < bed_tape.retry_at:
            self._lost += 1
            return
        try:
            if bed_tape.tape is None:
                bed_tape.tape = self._begin(bed, bed_tape.recently.standing())
            before = bed_tape.tape.total
            act(bed_tape.tape)
            self._written += bed_tape.tape.total - before
        except TapeError as error:
            self._refused(bed_tape, error)
            self._lost += 1

    def _begin(self, bed: str, told: Iterable[Arrival]) -> Tape:
        began = datetime.fromtimestamp(self._now(), UTC)
        stem = f"{_file_word(bed)}_{began:%Y%m%dT%H%M%S.%f}Z"
        facts = {
            "datetime": began.strftime("%Y-%m-%dT%H:%M:%S+0000"),
            "writer": "hypnocast",
            "bed": bed,
            **self._facts,
        }
        if self._clock is not None:
            facts |= {"lsl_time": repr(self._clock()), "utc_time": repr(self._now())}
        tape = Tape(self._folder, stem, facts=facts, max_bytes=self._limits.part_bytes)
        for arrival in told:
            tape.write(arrival)
        _log.info("tape_begins", bed=bed, path=str(tape.path))
        return tape

    def _end(self, bed_tape: _BedTape) -> None:
        tape, bed_tape.tape = bed_tape.tape, None
        if tape is None:
            return
        try:
            tape.close()
        except TapeError as error:
            self._refused(bed_tape, error)

    def _refused(self, bed_tape: _BedTape, error: TapeError) -> None:
        """Give the tape up: a half-written chunk must not be written on."""
        tape, bed_tape.tape = bed_tape.tape, None
        bed_tape.retry_at = self._now() + RETRY_AFTER_S
        self._last_error = str(error)
        _log.error("tape_refused", error=str(error))
        if tape is not None:
            tape.abandon()

    # -- on its own thread -------------------------------------------------------------------

    def _keep_safe(self) -> None:
        self._retain()
        rounds = 0
        while not self._stopping.wait(self._limits.sync_every_s):
            for number in self._running():
                self._sync(number)
            rounds += 1
            if rounds % max(1, round(60.0 / self._limits.sync_every_s)) == 0:
                self._retain()

    def _sync(self, number: int) -> None:
        try:
            os.fsync(number)
        except OSError as error:
            self._not_synced(error)
        finally:
            os.close(number)

    def _not_synced(self, error: OSError) -> None:
        self._last_error = f"{self._folder}: cannot be synced ({error.strerror})"
        _log.error("tape_not_synced", folder=str(self._folder), error=str(error))

    def _running(self) -> list[int]:
        """Return duplicates of the open files, to be synced unlocked."""
        numbers: list[int] = []
        with self._lock:
            for bed_tape in self._bed_tapes.values():
                number = None if bed_tape.tape is None else bed_tape.tape.fileno()
                if number is None:
                    continue
                try:
                    numbers.append(os.dup(number))
                except OSError as error:  # no descriptor is left; the next round may find one
                    self._not_synced(error)
        return numbers

    def _retain(self) -> None:
        limits = self._limits
        try:
            forgotten = expired(
                self._folder,
                now=self._now(),
                keep_days=limits.keep_days,
                keep_bytes=limits.keep_bytes,
            )
        except OSError as error:
            _log.warning("tapes_cannot_be_listed", folder=str(self._folder), error=str(error))
            return
        # Asked after the folder was listed: a tape that began in between is on neither list.
        with self._lock:
            running = {r.tape.path for r in self._bed_tapes.values() if r.tape is not None}
        for path in forgotten:
            if path in running:
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


def _file_word(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", text).strip("-.") or "bed"
