"""An EDF or BDF file that a recorder is still writing, published as it grows.

Clinical recorders write whole data records (mostly of one second) while they record; the header
says −1 records until the file is closed, or a number that grows. What is wholly on disk is read
and sent in real time, later by one record and a little more, so that it flows evenly.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np

from hypnocast.bridge.gear import BridgeRun, marker_header
from hypnocast.bridge.recorded_streams import LISTENER_S, in_pieces, published
from hypnocast.bridge.sample_clock import RecordClock
from hypnocast.core.types import PAGE_S, Arrival, Chunk, Mark, StreamHeader, StreamOpened
from hypnocast.errors import StreamError, TapeError
from hypnocast.ports.lsl.library import load_pylsl
from hypnocast.ports.recordings.edf_file import EdfFile
from hypnocast.ports.recordings.files import edf_streams

_POLL_S = 0.05
_WAIT_S = 0.5
QUIET_S: Final = 10.0
"""A file that has not grown for so long is said to stand still."""

_MOST_AT_ONCE = 64


class GrowingFile:
    """An EDF or BDF file in the making."""

    def __init__(
        self, path: Path, name: str, names: Mapping[str, str], *, delay_s: float | None = None
    ) -> None:
        """Take the file, its streams' name and other names for channels.

        ``delay_s`` is how much later than on disk samples are sent at most; by itself, a record
        and a quarter of a second.
        """
        self._path = path
        self._stream_name = name
        self._names = names
        self._delay_s = delay_s

    @property
    def name(self) -> str:
        """What people know it by."""
        return str(self._path)

    def arrivals(self, run: BridgeRun) -> Iterator[Arrival]:
        """Wait for the file, then give what it holds as it grows, until it is closed."""
        file = self._await_header(run)
        if file is None:
            return
        groups = edf_streams(file)
        headers = published([header for header, _ in groups], self._stream_name, self._names)
        streams = [(headers[h.key], places) for h, places in groups if h.key in headers]
        marks = marker_header("file", self._stream_name)
        clock = load_pylsl().local_clock
        now: float = clock()
        for header in (*(header for header, _ in streams), marks):
            yield StreamOpened(header, now)
        patience = now + LISTENER_S
        while not run.listened_to() and clock() < patience and not run.stop.wait(_POLL_S):
            pass
        try:
            yield from _Following(file, streams, marks, self._delay_s, run).arrivals()
        except (TapeError, OSError) as error:
            raise StreamError(_reason(error), where=str(self._path)) from error

    def _await_header(self, run: BridgeRun) -> EdfFile | None:
        """Return the file once its header is whole; None where the bridge ends before."""
        said = ""
        while not run.stop.is_set():
            try:
                return EdfFile(self._path)
            except (TapeError, OSError) as error:
                why = _reason(error)
                if why != said:
                    run.say(f"{self._path}: {why}; waiting for it")
                    said = why
            run.stop.wait(_WAIT_S)
        return None


def _reason(error: TapeError | OSError) -> str:
    return error.what if isinstance(error, TapeError) else str(error.strerror)


class _Following:
    """One file from the record it was joined at."""

    def __init__(
        self,
        file: EdfFile,
        streams: list[tuple[StreamHeader, list[int]]],
        marks: StreamHeader,
        hold_back: float | None,
        run: BridgeRun,
    ) -> None:
        self._file = file
        self._streams = streams
        self._marks = marks
        self._clock = load_pylsl().local_clock
        self._run = run
        self._open_end = file.announced < 0
        self._times = RecordClock(file.record_s, hold_back)
        self._next = self._first_record()
        self._due: deque[Chunk | Mark] = deque()
        self._grew: float = self._clock()
        self._still = False

    def arrivals(self) -> Iterator[Arrival]:
        """Give what is due, until the recorder has closed the file."""
        while True:
            now = self._clock()
            self._read(now)
            while self._due and self._due[0].arrived <= now:
                yield self._due.popleft()
            if self._run.stop.wait(_POLL_S) or (not self._due and self._closed()):
                return

    def _first_record(self) -> int:
        """Return where to begin: with the file, or, later, where one of its pages begins."""
        there, record_s = self._file.on_disk(), self._file.record_s
        if there * record_s < PAGE_S:
            return 0
        for record in range(there, there + int(PAGE_S / record_s) + 1):
            if abs(record * record_s / PAGE_S - round(record * record_s / PAGE_S)) < 1e-9:
                there = record
                break
        self._run.say(f"{self._file.path}: joined at {there * record_s:g} s of the recording")
        return there

    def _read(self, now: float) -> None:
        """Read the records that have come to disk."""
        there = self._file.on_disk()
        if (
            there < self._next
            and there * self._file.record_s < PAGE_S
            and self._times.origin is not None
        ):
            raise StreamError("was begun anew", where=str(self._file.path))
        if there <= self._next:
            self._notice_standstill(now)
            return
        if self._still:
            self._run.say(f"{self._file.path}: grows again")
        self._grew, self._still = now, False
        last = min(there, self._next + _MOST_AT_ONCE)
        onsets, values = self._file.read(self._next, last - self._next)
        later = self._times.place(onsets[0], len(onsets), now)
        if later:
            self._run.say(
                f"{self._file.path}: came {later:.1f} s late to disk; what follows is sent so much "
                f"later (--delay {self._times.hold_back:.1f} from the start loses nothing)"
            )
        origin = self._times.origin
        assert origin is not None  # noqa: S101
        coming: list[Chunk | Mark] = []
        for row, onset in enumerate(onsets):
            begin = origin + onset
            for header, places in self._streams:
                samples = np.stack([values[place][row] for place in places]).T
                stamps = begin + np.arange(len(samples)) / header.rate
                coming += in_pieces(Chunk(header.key, samples, stamps), header.rate)
        for tal in self._file.annotations(self._next, last):
            if tal.text:
                at = origin + tal.onset
                coming.append(Mark(self._marks.key, at, tal.text, max(now, at)))
        self._due.extend(sorted(coming, key=lambda each: each.arrived))
        self._next = last

    def _notice_standstill(self, now: float) -> None:
        if not self._still and now - self._grew > QUIET_S + self._file.record_s:
            self._still = True
            finished = not self._open_end and self._times.origin is None
            hint = "; a finished recording is sent by --play" if finished else ""
            self._run.say(f"{self._file.path}: has not grown for {now - self._grew:.0f} s{hint}")

    def _closed(self) -> bool:
        """Return whether the header now gives how many records there are, and all were read."""
        if not self._open_end or self._clock() - self._grew < 2 * _WAIT_S:
            return False
        announced = EdfFile(self._file.path).announced
        return 0 <= announced <= self._next
