"""A finished recording, published as if it were being recorded now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np

from hypnocast.bridge.gear import BridgeRun, marker_header
from hypnocast.bridge.recorded_streams import LISTENER_S, PIECE_S, in_pieces, published
from hypnocast.core.types import (
    Arrival,
    Chunk,
    ClockReading,
    Mark,
    StreamHeader,
    StreamOpened,
)
from hypnocast.ports.lsl.library import load_pylsl
from hypnocast.ports.recordings.files import ANNOTATIONS_KEY, open_recording

_POLL_S = 0.05
_LEAD_S = 0.5
_FOREIGN_S = 60.0
"""A stamp so far from when its chunk came was not brought to the recording's clock."""


def begins_as_xdf(path: Path) -> bool:
    """Return whether a file is XDF, which no recorder writes for others to read along."""
    try:
        with path.open("rb") as file:
            return file.read(4).startswith((b"XDF:", b"\x1f\x8b"))
    except OSError:
        return False


class PlayedFile:
    """A tape, XDF, EDF or BDF file from its beginning to its end, in real time."""

    def __init__(self, path: Path, name: str, names: Mapping[str, str]) -> None:
        """Take the file, its streams' name (empty: their own) and other names for channels."""
        self._path = path
        self._recording = open_recording(path)
        headers = list(self._recording.headers)
        if self._recording.annotations and all(each.format != "string" for each in headers):
            headers.append(replace(marker_header("file", "night"), key=ANNOTATIONS_KEY))
        self._headers = published(headers, name, names)
        self._clock = load_pylsl().local_clock

    @property
    def name(self) -> str:
        """What people know it by."""
        return str(self._path)

    def arrivals(self, run: BridgeRun) -> Iterator[Arrival]:
        """Give everything when it is due; streams stay open to the end, as amplifiers' do."""
        now: float = self._clock()
        for header in self._headers.values():
            yield StreamOpened(header, now)
        patience = now + LISTENER_S
        while not run.listened_to() and self._clock() < patience and not run.stop.wait(_POLL_S):
            pass
        shift = self._clock() + _LEAD_S - self._recording.t0
        for piece in self._pieces():
            if run.stop.wait(max(0.0, piece.arrived + shift - self._clock())):
                return
            match piece:
                case Chunk():
                    at = piece.arrived + shift
                    yield Chunk(piece.stream, piece.samples, piece.stamps + shift, at)
                case Mark():
                    yield Mark(piece.stream, piece.stamp + shift, piece.text, piece.stamp + shift)

    def _pieces(self) -> Iterator[Chunk | Mark]:
        """Give pieces of chunks, and texts, on the recording's clock, in the order of time."""
        offsets: dict[str, float] = {}
        recorded = self._recording.arrivals(PIECE_S)
        for _, together in groupby(recorded, lambda each: getattr(each, "arrived", None)):
            coming: list[Chunk | Mark] = []
            for arrival in together:
                match arrival:
                    case ClockReading():
                        offsets[arrival.stream] = arrival.offset
                    case Chunk() if header := self._headers.get(arrival.stream):
                        offset = offsets.get(arrival.stream, 0.0)
                        coming += in_pieces(_placed(arrival, header, offset), header.rate)
                    case Mark() if header := self._headers.get(arrival.stream):
                        at = arrival.stamp + offsets.get(arrival.stream, 0.0)
                        coming.append(Mark(header.key, at, arrival.text, at))
            yield from sorted(coming, key=lambda each: each.arrived)


def _placed(chunk: Chunk, header: StreamHeader, offset: float) -> Chunk:
    """Bring a chunk to the recording's clock."""
    stamps = chunk.stamps + offset
    if stamps.size and abs(chunk.arrived - float(stamps[-1])) > _FOREIGN_S:
        stamps = stamps + (chunk.arrived - float(stamps[-1]))
    return Chunk(header.key, chunk.samples, np.asarray(stamps, dtype=np.float64), chunk.arrived)
