"""The tapes of all beds: one running tape each, kept safe on disk, and kept from filling it.

A tape must never be the reason that a sample is not read: what the disk refuses is counted and
reported, and a new tape is tried a little later. It begins with all that is not safely on the one
before, as far as that is still in memory.

A tape whose sync failed is given up too: Linux treats the pages as written, and no later sync
writes them.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import structlog

from hypnocast.core.types import Arrival
from hypnocast.errors import TapeError
from hypnocast.ports.durable_files import SyncPace, replace_file, sync_folder
from hypnocast.ports.recordings.bed_tape import BedTape, sync_files
from hypnocast.ports.recordings.tape import Tape
from hypnocast.ports.recordings.tape_retention import forget_expired
from hypnocast.ports.supervision import Supervisor
from hypnocast.ports.worker import Worker

_log = structlog.get_logger("tape")

RETRY_AFTER_S = 30.0

_TRIAL = ".trial"
"""A small file that is written while no tape is, and removed."""

SYNC_DEADLINE_S = 120.0
"""A disk that takes so long over one sync has stopped; it is reported as slow long before."""


@dataclass(frozen=True, slots=True)
class TapeLimits:
    """How long a part of a tape may grow, and how much is kept."""

    part_bytes: int = 2 * 1024**3
    keep_days: float = 30.0
    keep_bytes: int = 200 * 1000**3
    sync_every_s: float = 2.0
    """About what a power cut may cost."""


@dataclass(frozen=True, slots=True)
class TapeStatistics:
    """How the tapes are doing."""

    running: int
    """Beds whose tape is being written."""
    bytes_written: int
    arrivals_lost: int
    """Arrivals that are on no tape, because the disk refused."""
    last_error: str = ""
    problem: str = ""
    """What is wrong now; empty where every bed's tape is written, and synced in time."""
    given_up: int = 0
    """Tapes that were given up because the disk refused a write or a sync."""


class TapeRecorder:
    """Writes every bed's arrivals; thread-safe. Syncing happens on a thread of its own."""

    def __init__(
        self,
        folder: Path,
        *,
        limits: TapeLimits | None = None,
        facts: Mapping[str, str] | None = None,
        now: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] | None = None,
        supervisor: Supervisor | None = None,
    ) -> None:
        """Keep the folder; it is made at the first arrival.

        ``steady`` goes on whatever the host's clock is set to: it decides when to try again.
        With ``clock``, the local LSL clock, each tape notes which UTC its times stand for. The
        thread that syncs is watched by ``supervisor``.
        """
        self._folder = folder
        self._limits = limits or TapeLimits()
        self._facts = dict(facts or {})
        self._now = now
        self._steady = steady
        self._clock = clock
        self._lock = threading.Lock()
        self._bed_tapes: dict[str, BedTape] = {}
        self._written = 0
        self._lost = 0
        self._last_error = ""
        self._pace = SyncPace("a tape")
        self._given_up = 0
        self._refused_trial = ""
        """Why a small file could not be written and synced, while no tape is."""
        self._named: dict[str, Path] = {}
        """Bed → the newest part whose name survives a power cut."""
        self._syncer = (supervisor or Supervisor()).thread(
            "tape-sync", self._keep_safe, deadline_s=SYNC_DEADLINE_S, on_failure="restart"
        )

    def write(self, bed: str, arrival: Arrival) -> None:
        """Append what arrived for a bed; never raises, never waits for the disk to settle."""
        with self._lock:
            bed_tape = self._bed_tapes.setdefault(bed, BedTape())
            if self._attempt(bed, bed_tape, lambda tape: tape.write(arrival)):
                bed_tape.newest = arrival
            bed_tape.recently.add(arrival)

    def note(self, bed: str, text: str, at: float) -> None:
        """Append a decision about a bed's time."""
        with self._lock:
            bed_tape = self._bed_tapes.setdefault(bed, BedTape())
            self._attempt(bed, bed_tape, lambda tape: tape.note(text, at))

    def path(self, bed: str) -> Path | None:
        """Return the part of the bed's tape that is being written."""
        with self._lock:
            bed_tape = self._bed_tapes.get(bed)
            return (
                bed_tape.tape.path if bed_tape is not None and bed_tape.tape is not None else None
            )

    def safe(self, bed: str) -> Arrival | None:
        """Return the bed's last arrival that survives a power cut."""
        with self._lock:
            bed_tape = self._bed_tapes.get(bed)
            return None if bed_tape is None else bed_tape.safe

    def change(self, bed: str, arrivals: Sequence[Arrival]) -> bool:
        """End the bed's tape and begin a new one, which can be read without it.

        It begins with ``arrivals``, whose last is the newest that was read; what was
        written after that follows. Return False where that one is not remembered, or the disk
        refuses.
        """
        with self._lock:
            bed_tape = self._bed_tapes.get(bed)
            if bed_tape is None or bed_tape.tape is None or not arrivals:
                return False
            later = bed_tape.recently.since(arrivals[-1])
            if later is None:
                _log.warning("tape_goes_on", bed=bed, why="who changes it is too far behind")
                return False
            self._end(bed_tape)
            try:
                bed_tape.tape = self._begin(bed, bed_tape, (*arrivals, *later))
            except TapeError as error:
                self._refused(bed_tape, error)
                return False
            self._written += bed_tape.tape.total
            bed_tape.doubtful = False
            return True

    def statistics(self) -> TapeStatistics:
        """Return how the tapes are doing."""
        with self._lock:
            all_tapes = self._bed_tapes.values()
            amiss = any(one.tape is None or one.doubtful for one in all_tapes)
            problems = (self._last_error if amiss else "", self._refused_trial, self._pace.problem)
            return TapeStatistics(
                running=sum(one.tape is not None for one in all_tapes),
                bytes_written=self._written,
                arrivals_lost=self._lost,
                last_error=self._last_error,
                problem="; ".join(one for one in problems if one),
                given_up=self._given_up,
            )

    def close(self) -> None:
        """End all tapes properly."""
        self._syncer.stop()
        with self._lock:
            for bed, bed_tape in self._bed_tapes.items():
                if bed_tape.tape is None and bed_tape.missed:
                    self._replace(bed, bed_tape)  # what is on no tape is in memory still
                self._end(bed_tape)
        for bed, bed_tape in self._bed_tapes.items():
            try:
                if ended := bed_tape.take_ended():
                    sync_files(ended)
                    sync_folder(self._folder)
            except OSError as error:
                self._last_error = f"{self._folder}: cannot be synced ({error.strerror})"
                _log.error("tape_not_synced", bed=bed, error=str(error))

    # -- one bed -----------------------------------------------------------------------------

    def _attempt(self, bed: str, bed_tape: BedTape, act: Callable[[Tape], None]) -> bool:
        if bed_tape.tape is None and self._steady() < bed_tape.retry_at:
            self._miss(bed_tape)
            return False
        try:
            tape = bed_tape.tape or self._begin_anew(bed, bed_tape)
            before = tape.total
            act(tape)
            self._written += tape.total - before
        except TapeError as error:
            self._refused(bed_tape, error)
            self._miss(bed_tape)
            return False
        return True

    def _miss(self, bed_tape: BedTape) -> None:
        self._lost += 1
        bed_tape.missed += 1

    def _begin_anew(self, bed: str, bed_tape: BedTape) -> Tape:
        """Begin a tape with all that is not safely on the one before, as far as remembered."""
        again = bed_tape.recently.after(bed_tape.safe)
        tape = self._begin(bed, bed_tape, again)
        bed_tape.tape, bed_tape.doubtful = tape, False
        self._written += tape.total
        self._lost -= min(bed_tape.missed, len(again))
        bed_tape.missed = 0
        return tape

    def _begin(self, bed: str, bed_tape: BedTape, arrivals: Iterable[Arrival]) -> Tape:
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
        tape = Tape(
            self._folder,
            stem,
            facts=facts,
            max_bytes=self._limits.part_bytes,
            keep_safe=bed_tape.part_ended,
        )
        try:
            for arrival in arrivals:
                tape.write(arrival)
        except TapeError:
            # All of it is in memory still; on a full disk the file would only be in the way.
            tape.abandon()
            with suppress(OSError):
                tape.path.unlink()
            raise
        _log.info("tape_begins", bed=bed, path=str(tape.path))
        return tape

    def _end(self, bed_tape: BedTape) -> None:
        tape, bed_tape.tape = bed_tape.tape, None
        if tape is None:
            return
        try:
            tape.close()
        except TapeError as error:
            self._refused(bed_tape, error)

    def _refused(self, bed_tape: BedTape, error: TapeError) -> None:
        """Give the tape up: a half-written chunk must not be written on."""
        bed_tape.give_up()
        bed_tape.retry_at = self._steady() + RETRY_AFTER_S
        self._last_error = str(error)
        self._given_up += 1
        _log.error("tape_refused", error=str(error))

    # -- on its own thread -------------------------------------------------------------------

    def _keep_safe(self, worker: Worker) -> None:
        self._retain()
        rounds = 0
        worker.idle()
        while not worker.wait(self._limits.sync_every_s):
            with self._lock:
                beds = list(self._bed_tapes.items())
            tried = False
            for bed, bed_tape in beds:
                worker.beat()
                tried |= self._make_safe(bed, bed_tape)
            if not tried:
                self._try_folder()
            rounds += 1
            if rounds % max(1, round(60.0 / self._limits.sync_every_s)) == 0:
                self._retain()
            worker.idle()

    def _make_safe(self, bed: str, bed_tape: BedTape) -> bool:
        """Sync a bed's tape, unlocked; where that fails, give it up and begin another.

        Return whether the disk was asked for a sync.
        """
        with self._lock:
            tape, newest = bed_tape.tape, bed_tape.newest
            if bed_tape.doubtful and self._steady() >= bed_tape.retry_at:
                self._replace(bed, bed_tape)
                return False
            if tape is None or bed_tape.doubtful:
                return False
            path, number = tape.path, tape.fileno()
            try:
                number = None if number is None else os.dup(number)
            except OSError as error:  # no descriptor is left; the next round may find one
                self._last_error = f"{self._folder}: cannot be synced ({error.strerror})"
                return False
            if number is None:
                return False
            ended = bed_tape.take_ended()
        try:
            with self._pace.timed():
                self._sync(bed, path, number, ended)
        except OSError as error:
            # Whatever tape is running by now: what is not safe may have been on this one.
            with self._lock:
                self._not_synced(bed, bed_tape, error)
        else:
            with self._lock:
                if bed_tape.tape is tape:
                    bed_tape.safe, bed_tape.failures = newest, 0
        return True

    def _sync(self, bed: str, path: Path, number: int, ended: Sequence[BinaryIO]) -> None:
        """Sync the parts that are over, the one that is being written, and their names."""
        try:
            sync_files(ended)
            os.fsync(number)
        finally:
            os.close(number)
        if self._named.get(bed) != path:
            sync_folder(path.parent)
            sync_folder(path.parent.parent)
            self._named[bed] = path

    def _try_folder(self) -> None:
        """Write a small file while no tape is synced, so that a disk that fails is named all along.

        Refused tapes are tried much later. A disk that takes no write may be slow to sync as well.
        """
        refused: dict[str, None] = {}
        asks: Sequence[Callable[[], None]] = (lambda: sync_folder(self._folder), self._write_trial)
        for ask in asks:
            try:
                with self._pace.timed():
                    ask()
            except FileNotFoundError:
                return  # nothing ever came
            except OSError as error:
                refused[str(error.strerror)] = None
        why = f"{self._folder}: cannot be written or synced ({', '.join(refused)})"
        self._refused_trial = why if refused else ""

    def _write_trial(self) -> None:
        replace_file(self._folder / _TRIAL, b".")
        (self._folder / _TRIAL).unlink()

    def _not_synced(self, bed: str, bed_tape: BedTape, error: OSError) -> None:
        self._last_error = f"{self._folder}: cannot be synced ({error.strerror})"
        _log.error("tape_not_synced", bed=bed, error=str(error))
        # At once; if it goes on so, ever more seldom, but before memory forgets what is not safe.
        pause = 0.0 if not bed_tape.failures else min(RETRY_AFTER_S, 2.0**bed_tape.failures)
        bed_tape.doubtful = True
        bed_tape.failures += 1
        bed_tape.retry_at = self._steady() + pause
        if not pause:
            self._replace(bed, bed_tape)

    def _replace(self, bed: str, bed_tape: BedTape) -> None:
        """Let go of a tape whose sync failed, and begin a new one."""
        self._given_up += bed_tape.tape is not None
        bed_tape.give_up()
        try:
            self._begin_anew(bed, bed_tape)
        except TapeError as error:
            self._refused(bed_tape, error)

    def _retain(self) -> None:
        forget_expired(
            self._folder,
            now=self._now(),
            keep_days=self._limits.keep_days,
            keep_bytes=self._limits.keep_bytes,
            running=self._running,
        )

    def _running(self) -> set[Path]:
        with self._lock:
            return {one.tape.path for one in self._bed_tapes.values() if one.tape is not None}


def _file_word(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", text).strip("-.") or "bed"
