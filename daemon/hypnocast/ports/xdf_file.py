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
from hypnocast.ports.recording import Annotation, Recording, pseudonym
from hypnocast.ports.tape_reader import file_facts, guarded_events, marks_of, open_xdf
from hypnocast.ports.xdf_decode import Damage, FileHeader, Header, Offset, Samples, Texts

PIECE_S = 1.0
"""Samples come in pieces no longer than this, however long the file's chunks are."""


@dataclass(slots=True)
class _Scanned:
    header: StreamHeader
    readings: list[tuple[float, float]] = field(default_factory=list)
    """(time on the sender's clock, offset)."""
    first: float | None = None
    last: float = 0.0
    marks: list[tuple[float, str]] = field(default_factory=list)

    @property
    def offset(self) -> float:
        return self.readings[0][1] if self.readings else 0.0


def open_foreign_xdf(path: Path) -> Recording:
    """Open an XDF file that is no tape of ours."""
    facts: dict[str, str] = {}
    streams: dict[int, _Scanned] = {}
    problems: list[str] = []
    keys: set[str] = set()
    with open_xdf(path) as file:
        for event in guarded_events(file, name=str(path)):
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
                    _scan(streams[event.stream], event)
                case Damage(at_byte, why):
                    problems.append(f"damage at byte {at_byte}: {why}")
                case _:
                    pass
    with_samples = [one for one in streams.values() if one.first is not None]
    if not with_samples:
        raise TapeError("holds no samples", where=str(path))
    t0 = min((one.first or 0.0) + one.offset for one in with_samples)
    end = max(one.last + one.offset for one in with_samples)
    annotations = sorted(
        (
            Annotation(stamp + one.offset, None, text)
            for one in streams.values()
            for stamp, text in one.marks
        ),
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


def _scan(stream: _Scanned, event: Samples | Texts) -> None:
    if isinstance(event, Samples) and stream.header.rate > 0:
        stamps = event.stamps
        if len(stamps):
            stream.first = float(stamps[0]) if stream.first is None else stream.first
            stream.last = float(stamps[-1])
        return
    for mark in marks_of(event, stream.header.key, arrived=None):
        stream.first = mark.stamp if stream.first is None else stream.first
        stream.last = mark.stamp
        stream.marks.append((mark.stamp, mark.text))


def _start(text: str) -> datetime | None:
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return None
    return parsed.astimezone(UTC) if parsed.tzinfo is not None else None


def _play(path: Path, streams: dict[int, _Scanned], piece_s: float) -> Iterator[Arrival]:
    ahead = {number: deque(sorted(one.readings)) for number, one in streams.items()}
    now = 0.0
    with open_xdf(path) as file:
        for event in guarded_events(file, name=str(path)):
            match event:
                case Header(number, _):
                    one = streams[number]
                    at = (one.first or 0.0) + one.offset
                    yield StreamOpened(one.header, at)
                    yield ClockReading(one.header.key, at, one.offset)
                case Samples() | Texts():
                    one = streams[event.stream]
                    for stamp, arrival in _pieces(one, event, piece_s):
                        yield from _due(ahead[event.stream], one.header.key, stamp)
                        now = max(now, stamp + one.offset)
                        yield arrival
                case _:
                    pass
    for one in streams.values():
        yield StreamLost(one.header.key, now, "end of the recording")


def _pieces(
    stream: _Scanned, event: Samples | Texts, piece_s: float
) -> Iterator[tuple[float, Chunk | Mark]]:
    """Return (last stamp on the sender's clock, samples) in short pieces."""
    key, rate = stream.header.key, stream.header.rate
    if isinstance(event, Texts) or rate == 0:
        for mark in marks_of(event, key, arrived=None):
            yield mark.stamp, replace(mark, arrived=mark.stamp + stream.offset)
        return
    step = max(1, round(piece_s * rate))
    for first in range(0, len(event.stamps), step):
        stamps = event.stamps[first : first + step]
        last = float(stamps[-1])
        values = event.values[first : first + step]
        yield last, Chunk(key, values, stamps, arrived=last + stream.offset)


def _due(readings: deque[tuple[float, float]], key: str, stamp: float) -> Iterator[ClockReading]:
    """Give the readings made before a sample was stamped, so that they come before it."""
    while readings and readings[0][0] <= stamp:
        time, offset = readings.popleft()
        yield ClockReading(key, time + offset, offset)
