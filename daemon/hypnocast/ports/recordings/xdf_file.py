"""XDF files of other recorders, such as LabRecorder, as recordings.

The clock readings of a file are collected first, because a recorder may have written them long
after the samples they are needed for; the samples then come in the order of the file.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from hypnocast.core.types import (
    Arrival,
    Chunk,
    ClockReading,
    Mark,
    StreamHeader,
    StreamLost,
    StreamOpened,
)
from hypnocast.errors import TapeError
from hypnocast.ports.recordings.limits import check_annotations, check_duration
from hypnocast.ports.recordings.recording import Annotation, Recording, pseudonym
from hypnocast.ports.recordings.tape_reader import file_facts, guarded_events, marks_of, open_xdf
from hypnocast.ports.recordings.xdf_clock import (
    GAP_S,
    SET_BACK_S,
    Segment,
    place,
    runs,
    segments_of,
)
from hypnocast.ports.recordings.xdf_decode import Damage, FileHeader, Header, Offset, Samples, Texts

_MAX_RUNS = 10_000

PIECE_S = 1.0
"""Samples come in pieces no longer than this, however long the file's chunks are."""


@dataclass(slots=True)
class _Scanned:
    header: StreamHeader
    readings: list[tuple[float, float]] = field(default_factory=list)
    """(time on the sender's clock, offset), in the order of the file."""
    runs: list[tuple[float, float]] = field(default_factory=list)
    """First and last stamp of each run of samples between leaps of the stamps."""
    marks: list[tuple[float, str]] = field(default_factory=list)
    segments: tuple[Segment, ...] = ()

    def add(self, first: float, last: float, path: Path) -> None:
        """Note samples; those that go on where the last ones ended belong to the same run."""
        if self.runs and -SET_BACK_S <= first - self.runs[-1][1] <= GAP_S:
            self.runs[-1] = (self.runs[-1][0], last)
        elif len(self.runs) < _MAX_RUNS:
            self.runs.append((first, last))
        else:
            raise TapeError(
                f"stream {self.header.key}: its time stamps leap more than {_MAX_RUNS} times",
                where=str(path),
            )

    def local(self) -> Iterator[tuple[float, float]]:
        """Give the runs, and the marks, on the recorder's clock."""
        at: int = 0
        before: float | None = None
        for first, last in self.runs or ((stamp, stamp) for stamp, _ in self.marks):
            at = place(self.segments, at, first, before)
            offset = self.segments[at].offset
            yield first + offset, last + offset
            before = last


def open_foreign_xdf(path: Path) -> Recording:
    """Open an XDF file that is no tape of ours."""
    streams, facts, problems = _scan_file(path)
    for one in streams.values():
        one.segments = segments_of(one.readings)
        if len(one.segments) > 1:
            times = len(one.segments) - 1
            problems.append(f"stream {one.header.key}: its clock was set {times}x; laid by offsets")
    with_samples = [one for one in streams.values() if one.runs or one.marks]
    if not with_samples:
        raise TapeError("holds no samples", where=str(path))
    t0 = min(first for one in with_samples for first, _ in one.local())
    end = max(last for one in with_samples for _, last in one.local())
    check_duration(end - t0, path)
    annotations = sorted(
        (mark for one in streams.values() for mark in _annotations(one)),
        key=lambda mark: mark.onset,
    )
    return Recording(
        path=path,
        format="XDF",
        subject=pseudonym("", b"", repr((facts, [s.header.uid for s in with_samples])).encode()),
        start=_start(facts.get("datetime", "")),
        t0=t0,
        duration_s=end - t0,
        headers=tuple(one.header for one in streams.values()),
        annotations=tuple(annotations),
        problems=tuple(problems),
        decisions=(),
        play=lambda chunk_s: _play(path, streams, min(chunk_s, PIECE_S)),
    )


def _scan_file(path: Path) -> tuple[dict[int, _Scanned], dict[str, str], list[str]]:
    """Read a file once: its streams without their values, its own facts, its damage."""
    facts: dict[str, str] = {}
    streams: dict[int, _Scanned] = {}
    problems: list[str] = []
    keys: set[str] = set()
    with open_xdf(path) as file:
        for event in guarded_events(file, name=str(path), any_time=False):
            match event:
                case FileHeader(xml):
                    facts = file_facts(xml)
                case Header(number, described):
                    header = described.header
                    if header.key in keys:
                        header = replace(header, key=f"{header.key}/{number}")
                    keys.add(header.key)
                    streams[number] = _Scanned(header)
                    if described.labels_disagree:
                        problems.append(f"stream {header.key}: labels and channels disagree")
                case Offset(number, time, offset):
                    streams[number].readings.append((time, offset))
                case Samples() | Texts():
                    _scan(streams[event.stream], event, path)
                case Damage(at_byte, why):
                    problems.append(f"damage at byte {at_byte}: {why}")
                case _:
                    pass
    return streams, facts, problems


def _scan(stream: _Scanned, event: Samples | Texts, path: Path) -> None:
    if isinstance(event, Samples) and stream.header.rate > 0:
        for run in runs(event.stamps) if len(event.stamps) else ():
            stamps = event.stamps[run]
            stream.add(float(stamps[0]), float(stamps[-1]), path)
        return
    for mark in marks_of(event, stream.header.key, arrived=None):
        stream.marks.append((mark.stamp, mark.text))
        check_annotations(len(stream.marks), path)


def _annotations(stream: _Scanned) -> Iterator[Annotation]:
    at, before = 0, None
    for stamp, text in stream.marks:
        at = place(stream.segments, at, stamp, before)
        yield Annotation(stamp + stream.segments[at].offset, None, text)
        before = stamp


def _start(text: str) -> datetime | None:
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return None
    return parsed.astimezone(UTC) if parsed.tzinfo is not None else None


def _play(path: Path, streams: dict[int, _Scanned], piece_s: float) -> Iterator[Arrival]:
    players = {number: _StreamPlayer(one) for number, one in streams.items()}
    with open_xdf(path) as file:
        for event in guarded_events(file, name=str(path), any_time=False):
            match event:
                case Header(number, _):
                    yield from players[number].open()
                case Samples() | Texts():
                    yield from players[event.stream].play(event, piece_s)
                case _:
                    pass
    end = max((player.now for player in players.values()), default=0.0)
    for player in players.values():
        yield StreamLost(player.key, end, "end of the recording")


class _StreamPlayer:
    """Gives the samples of one stream in short pieces, each clock reading before its samples."""

    def __init__(self, stream: _Scanned) -> None:
        self._stream = stream
        self.key = stream.header.key
        self._at = 0
        self._before: float | None = None
        self._ahead = deque(stream.segments[0].readings)
        self.now = 0.0

    def open(self) -> Iterator[Arrival]:
        """Open the stream."""
        first, _ = next(self._stream.local(), (0.0, 0.0))
        yield from self._open(self._stream.header, first)

    def play(self, event: Samples | Texts, piece_s: float) -> Iterator[Arrival]:
        """Give an event's samples; a stream whose clock was set ends there, and opens anew."""
        for first, last, arrival in self._pieces(event, piece_s):
            at = place(self._stream.segments, self._at, first, self._before)
            if at != self._at:
                self._at = at
                self._ahead = deque(self._segment.readings)
                header = self._stream.header
                again = replace(header, uid=f"{header.uid}#{at}")
                local = max(self.now, first + self._segment.offset)
                yield StreamLost(self.key, local, "its clock was set")
                yield from self._open(again, local)
            # Readings made before a sample was stamped come before it.
            while self._ahead and self._ahead[0][0] <= last:
                time, offset = self._ahead.popleft()
                yield ClockReading(self.key, time + offset, offset)
            arrived = last + self._segment.offset
            self.now = max(self.now, arrived)
            self._before = last
            yield replace(arrival, arrived=arrived)

    @property
    def _segment(self) -> Segment:
        return self._stream.segments[self._at]

    def _open(self, header: StreamHeader, at: float) -> Iterator[Arrival]:
        yield StreamOpened(header, at)
        yield ClockReading(self.key, at, self._segment.offset)

    def _pieces(
        self, event: Samples | Texts, piece_s: float
    ) -> Iterator[tuple[float, float, Chunk | Mark]]:
        """Return first and last stamp on the sender's clock, and the samples, in short pieces."""
        rate = self._stream.header.rate
        if isinstance(event, Texts) or rate == 0:
            for mark in marks_of(event, self.key, arrived=None):
                yield mark.stamp, mark.stamp, mark
            return
        step = max(1, round(piece_s * rate))
        for run in runs(event.stamps) if len(event.stamps) else ():
            for first in range(run.start, run.stop, step):
                piece = slice(first, min(first + step, run.stop))
                stamps = event.stamps[piece]
                chunk = Chunk(self.key, event.values[piece], stamps, arrived=0.0)
                yield float(stamps[0]), float(stamps[-1]), chunk
