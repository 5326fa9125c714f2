"""Recordings from disk: EDF, BDF, other people's XDF and our own tapes, through one door."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from hypnocast.core.types import (
    Arrival,
    ChannelInfo,
    Chunk,
    ClockReading,
    FloatArray,
    Mark,
    StreamHeader,
    StreamLost,
    StreamOpened,
)
from hypnocast.errors import TapeError
from hypnocast.ports.recordings.edf_file import EdfFile
from hypnocast.ports.recordings.limits import check_annotations, check_duration
from hypnocast.ports.recordings.recording import Annotation, Recording, file_start, pseudonym
from hypnocast.ports.recordings.tape_reader import TapeDecision, is_tape, read_tape, tape_facts
from hypnocast.ports.recordings.xdf_decode import Damage
from hypnocast.ports.recordings.xdf_file import open_foreign_xdf

ANNOTATIONS_KEY = "annotations"
_END = "end of the recording"


def open_recording(path: Path, *, timezone: str = "UTC", pseudonym_key: bytes = b"") -> Recording:
    """Open a recording by what is in it, not by its name.

    ``timezone`` names the zone of the clock that the file's zoneless times were read from.
    """
    try:
        with path.open("rb") as file:
            begin = file.read(8)
    except OSError as error:
        raise TapeError(
            f"cannot be opened ({error.strerror})",
            where=str(path),
            remedy="Name a file that can be read.",
        ) from error
    if begin.startswith((b"XDF:", b"\x1f\x8b")):
        if is_tape(path):
            return _open_tape(path)
        return open_foreign_xdf(path)
    if begin == b"\xffBIOSEMI" or begin.strip() == b"0":
        return _open_edf(path, timezone, pseudonym_key)
    raise TapeError(
        "is neither EDF, BDF nor XDF", where=str(path), remedy="Export the night as EDF+"
    )


# -- tapes ---------------------------------------------------------------------------------------


def _open_tape(path: Path) -> Recording:
    facts = tape_facts(path)
    damage: list[Damage] = []
    headers: dict[str, StreamHeader] = {}
    annotations: list[Annotation] = []
    decisions: list[str] = []
    first, last = np.inf, -np.inf
    for item in read_tape(path, on_damage=damage.append, signals=False):
        match item:
            case TapeDecision(text, _):
                decisions.append(text)
            case StreamOpened(header, at):
                headers[header.key] = header
                first, last = min(first, at), max(last, at)
            case Chunk():
                first, last = min(first, item.arrived), max(last, item.arrived)
            case Mark():
                annotations.append(Annotation(item.arrived, None, item.text))
            case _:
                pass
    problems = [f"damage at byte {one.at_byte}: {one.why}" for one in damage]
    if facts.get("part", "1") != "1":
        # Samples are counted from the tape's beginning, and so are the decisions about them.
        decisions.clear()
        problems.append(
            "this is not the first part of its tape: pages are decided anew, not as in that night"
        )
    check_annotations(len(annotations), path)
    t0 = _finite(facts.get("lsl_time", ""))
    if t0 is None:
        t0 = float(first) if np.isfinite(first) else 0.0
    length = max(0.0, float(last) - t0) if np.isfinite(last) else 0.0
    check_duration(length, path)
    return Recording(
        path=path,
        format="tape",
        subject=facts.get("subject") or pseudonym("", b"", repr(facts).encode()),
        start=_time_of(facts.get("utc_time", ""), facts.get("datetime", "")),
        t0=t0,
        duration_s=length,
        headers=tuple(headers.values()),
        annotations=tuple(annotations),
        problems=tuple(problems),
        decisions=tuple(decisions),
        play=lambda _chunk_s: (
            item for item in read_tape(path) if not isinstance(item, TapeDecision)
        ),
    )


def _finite(text: str) -> float | None:
    """Read a number; a damaged one is none."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if np.isfinite(number) else None


def _time_of(seconds: str, text: str) -> datetime | None:
    try:
        if seconds:
            return datetime.fromtimestamp(float(seconds), UTC)
        return datetime.fromisoformat(text).astimezone(UTC) if text else None
    except (ValueError, OverflowError):
        return None


# -- EDF and BDF ---------------------------------------------------------------------------------


def _open_edf(path: Path, timezone: str, key: bytes) -> Recording:
    file = EdfFile(path)
    if not file.signals or not file.records:
        raise TapeError(
            "holds no signals, annotations at most",
            where=str(path),
            remedy="Name the recording; a hypnogram goes to `corrections --add` or `compare`.",
        )
    last_onset = file.read(file.records - 1, 1)[0][0]
    check_duration(last_onset, path)
    kind = "BDF" if file.is_bdf else "EDF"
    problems = []
    if file.truncated:
        problems.append("the file is shorter than its header says")
    if 0 <= file.announced < file.records:
        problems.append(f"the file holds {file.records} records, its header says {file.announced}")
    if file.start is None:
        problems.append("the header gives no valid date and time")
    annotations = tuple(
        Annotation(tal.onset, tal.duration, tal.text) for tal in file.annotations() if tal.text
    )
    groups = edf_streams(file)
    return Recording(
        path=path,
        format=file.reserved[:5] if file.reserved[3:4] == "+" else kind,
        subject=pseudonym(file.patient, key, file.identity_free),
        start=None if file.start is None else file_start(file.start, timezone),
        t0=0.0,
        duration_s=last_onset + file.record_s,
        headers=tuple(header for header, _ in groups),
        annotations=annotations,
        problems=tuple(problems),
        decisions=(),
        play=lambda chunk_s: _play_edf(file, groups, annotations, chunk_s),
    )


def edf_streams(file: EdfFile) -> list[tuple[StreamHeader, list[int]]]:
    """Make one stream of all signals that share a rate; return it with their places."""
    by_count: dict[int, list[int]] = {}
    for place, signal in enumerate(file.signals):
        if signal.per_record:
            by_count.setdefault(signal.per_record, []).append(place)
    groups = []
    for count, places in by_count.items():
        rate = count / file.record_s
        channels = tuple(
            ChannelInfo(
                file.signals[p].label,
                (file.signals[p].unit if file.signals[p].calibrated else "") or None,
            )
            for p in places
        )
        key = f"{rate:g}-hz"
        groups.append((_header(key, "PSG", rate, channels, "double64"), places))
    return groups


def _header(
    key: str, kind: str, rate: float, channels: tuple[ChannelInfo, ...], stream_format: str
) -> StreamHeader:
    return StreamHeader(
        key=key,
        name=key,
        type=kind,
        source_id=key,
        uid=key,
        host="",
        rate=rate,
        channels=channels,
        format=stream_format,
    )


def _play_edf(
    file: EdfFile,
    groups: list[tuple[StreamHeader, list[int]]],
    annotations: tuple[Annotation, ...],
    chunk_s: float,
) -> Iterator[Arrival]:
    marks = _header(ANNOTATIONS_KEY, "Markers", 0.0, (ChannelInfo("text"),), "string")
    for header in (*(header for header, _ in groups), marks):
        yield StreamOpened(header, 0.0)
        yield ClockReading(header.key, 0.0, 0.0)
    waiting = sorted(annotations, key=lambda one: one.onset)
    step = max(1, round(chunk_s / file.record_s))
    given, end = 0, 0.0
    for first in range(0, file.records, step):
        onsets, values = file.read(first, min(step, file.records - first))
        end = onsets[-1] + file.record_s
        while given < len(waiting) and waiting[given].onset < end:
            mark = waiting[given]
            yield Mark(ANNOTATIONS_KEY, mark.onset, mark.text, arrived=end)
            given += 1
        for run in _runs(onsets, file.record_s):
            begin = onsets[run.start] if file.discontinuous else None
            for header, places in groups:
                index = first * file.signals[places[0]].per_record
                samples = np.stack([values[place][run].reshape(-1) for place in places]).T
                stamps = _stamps(header.rate, len(samples), begin=begin, index=index)
                yield Chunk(header.key, samples, stamps, arrived=end)
    for mark in waiting[given:]:
        yield Mark(ANNOTATIONS_KEY, mark.onset, mark.text, arrived=end)
    for header in (*(header for header, _ in groups), marks):
        yield StreamLost(header.key, end, _END)


def _runs(onsets: list[float], record_s: float) -> Iterator[slice]:
    """Split records where one does not begin at the end of the one before."""
    begun = 0
    for place in range(1, len(onsets)):
        if abs(onsets[place] - onsets[place - 1] - record_s) > 1e-6:
            yield slice(begun, place)
            begun = place
    yield slice(begun, len(onsets))


def _stamps(rate: float, count: int, *, begin: float | None, index: int) -> FloatArray:
    """Stamp samples from ``begin`` on; without it by their number in the file."""
    steps = np.arange(count)
    return (index + steps) / rate if begin is None else begin + steps / rate
