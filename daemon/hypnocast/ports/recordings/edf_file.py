"""EDF, EDF+, BDF and BDF+, read record by record: a night costs the memory of a few seconds.

The formats: https://www.edfplus.info/specs/ and https://www.biosemi.com/faq/file_format.htm.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hypnocast.core.types import FloatArray
from hypnocast.errors import TapeError
from hypnocast.ports.recordings.limits import (
    MAX_ANNOTATIONS,
    MAX_RECORD_BYTES,
    MAX_TEXT_CHARS,
    MAX_TIME,
    MIN_RECORD_S,
    check_annotations,
    check_duration,
)
from hypnocast.ports.stream_xml import MAX_RATE

_MAX_SIGNALS = 1024
_ANNOTATIONS = ("EDF Annotations", "BDF Annotations")
_PIECE = re.compile(rb"[^\x00]+")
_TAL = re.compile(rb"([+-]\d+(?:\.\d*)?)(?:\x15(\d+(?:\.\d*)?))?\x14(.*)", re.DOTALL)
_FIELDS = (("label", 16), ("transducer", 80), ("unit", 8), ("pmin", 8), ("pmax", 8))
_MORE = (("dmin", 8), ("dmax", 8), ("filter", 80), ("count", 8), ("reserved", 32))


@dataclass(frozen=True, slots=True)
class EdfSignal:
    """One signal as the header describes it."""

    label: str
    unit: str
    gain: float
    """Physical units per count."""
    offset: float
    """Physical value of count 0."""
    calibrated: bool
    """Whether the header's ranges make sense; otherwise values are bare counts."""
    per_record: int
    start: int
    """Where its samples begin within a record, in bytes."""


class Tal(NamedTuple):
    """A time-stamped annotation."""

    onset: float
    duration: float | None
    text: str


class EdfFile:
    """An open file: header, records and annotations."""

    def __init__(self, path: Path) -> None:
        """Read and check the header."""
        self.path = path
        with self._open() as file:
            fixed = file.read(256)
            if len(fixed) < 256:
                raise self._fault("is too short for an EDF or BDF header")
            self.is_bdf = fixed[:8] == b"\xffBIOSEMI"
            if not self.is_bdf and fixed[:8].strip() != b"0":
                raise self._fault("is neither EDF nor BDF")
            self.width = 3 if self.is_bdf else 2
            text = fixed.decode("latin-1")
            count = self._int(text[252:256], "number of signals", 1, _MAX_SIGNALS)
            described = file.read(256 * count)
        if len(described) < 256 * count:
            raise self._fault("ends within its header")
        self.patient = text[8:88].strip()
        self.recording = text[88:168].strip()
        self.reserved = text[192:236].strip()
        self.discontinuous = self.reserved[:5] in ("EDF+D", "BDF+D")
        begun = _start(text[168:176], text[176:184], self.recording)
        self.record_s = self._float(text[244:252], "duration of a record")
        self.identity_free = fixed[168:] + described
        """The header without whom and where: what a pseudonym may be made of."""
        self.header_bytes = 256 * (count + 1)
        self.all_signals = self._signals(described.decode("latin-1"), count)
        self.record_bytes = sum(s.per_record for s in self.all_signals) * self.width
        if not 0 < self.record_bytes <= MAX_RECORD_BYTES:
            raise self._fault(f"has records of {self.record_bytes} bytes")
        self.signals = tuple(s for s in self.all_signals if s.label not in _ANNOTATIONS)
        self._annotated = tuple(s for s in self.all_signals if s.label in _ANNOTATIONS)
        if self.signals and not MIN_RECORD_S <= self.record_s < 86_400:
            raise self._fault(f"has records of {self.record_s:g} s")
        for signal in self.signals:
            if signal.per_record > MAX_RATE * self.record_s:
                rate = signal.per_record / self.record_s
                raise self._fault(f"gives {signal.label} {rate:.3g} samples a second")
        announced = self._int(text[236:244], "number of records", -1, 10**9)
        self.announced = announced
        """How many records the header announces; −1 while the file is being recorded."""
        there = self.on_disk()
        self.records = there  # as edfio and MNE count them, whatever the header says
        self.truncated = announced > there
        """Whether the header announces more than there is."""
        if self.signals:
            check_duration(self.records * self.record_s, path)
        self._begins = self._first_onset()
        self.start = _later(begun, self._begins)
        """When the first sample was recorded, local and zoneless; None where it is not given."""

    def on_disk(self) -> int:
        """Return how many whole records the file has now: more than at first, while it grows."""
        return max(0, self.path.stat().st_size - self.header_bytes) // self.record_bytes

    def read(self, first: int, count: int) -> tuple[list[float], list[FloatArray]]:
        """Return the onsets (s) of some records, and each signal's values, a row for each."""
        with self._open() as file:
            file.seek(self.header_bytes + first * self.record_bytes)
            raw = file.read(count * self.record_bytes)
        whole = len(raw) // self.record_bytes
        bodies = np.frombuffer(raw, np.uint8, whole * self.record_bytes).reshape(whole, -1)
        onsets = [self._onset(body, first + index) for index, body in enumerate(bodies)]
        return onsets, [self._physical(bodies, signal) for signal in self.signals]

    def annotations(self, first: int = 0, last: int | None = None) -> Iterator[Tal]:
        """Return the annotations of all or some records, without those that keep the time.

        Onsets count from the first sample, as the records' own do. More annotations than a night
        can have are refused.
        """
        if not self._annotated:
            return
        count = 0
        with self._open() as file:
            for index in range(first, self.records if last is None else last):
                for number, signal in enumerate(self._annotated):
                    file.seek(self.header_bytes + index * self.record_bytes + signal.start)
                    raw = file.read(signal.per_record * self.width)
                    for place, tals in enumerate(_tals(raw)):
                        for tal in tals:
                            if tal.text or (number, place) != (0, 0):
                                count += 1
                                check_annotations(count, self.path)
                                self._check_time(tal)
                                yield tal._replace(onset=self._since_begin(tal.onset))

    def _first_onset(self) -> float:
        """Return by how much the first sample is later than the header's whole second."""
        if not self._annotated or not self.records:
            return 0.0
        keeper = self._annotated[0]
        with self._open() as file:
            file.seek(self.header_bytes + keeper.start)
            for tals in _tals(file.read(keeper.per_record * self.width)):
                return 0.0 if tals[0].text else tals[0].onset
        return 0.0

    def _check_time(self, tal: Tal) -> None:
        if not max(abs(tal.onset), tal.duration or 0.0) <= MAX_TIME:
            raise self._fault(f"has an annotation at {tal.onset:g} s for {tal.duration or 0:g} s")

    def _since_begin(self, onset: float) -> float:
        """Count an onset from the first sample; decimals that subtraction made are rounded off."""
        return round(onset - self._begins, 9) if self._begins else onset

    def _onset(self, body: NDArray[np.uint8], index: int) -> float:
        if self.discontinuous and self._annotated:
            keeper = self._annotated[0]
            raw = body[keeper.start : keeper.start + keeper.per_record * self.width]
            for tals in _tals(raw.tobytes()):
                self._check_time(tals[0])
                return self._since_begin(tals[0].onset)
            raise self._fault(f"record {index} does not say when it begins")
        return index * self.record_s

    def _physical(self, bodies: NDArray[np.uint8], signal: EdfSignal) -> FloatArray:
        """Give one signal of some records, a row for each."""
        values: FloatArray = np.multiply(
            self._counts(bodies, signal), signal.gain, dtype=np.float64
        )
        values += signal.offset
        return values

    def _counts(self, bodies: NDArray[np.uint8], signal: EdfSignal) -> NDArray[np.integer[Any]]:
        raw = bodies[:, signal.start : signal.start + signal.per_record * self.width]
        if self.width == 2:
            return np.ascontiguousarray(raw).view("<i2")
        wide = np.zeros((len(raw), signal.per_record, 4), np.uint8)
        wide[:, :, 1:] = raw.reshape(len(raw), -1, 3)
        shifted: NDArray[np.int32] = wide.view("<i4")[:, :, 0] >> 8
        return shifted

    def _signals(self, text: str, count: int) -> tuple[EdfSignal, ...]:
        columns: dict[str, list[str]] = {}
        at = 0
        for name, width in (*_FIELDS, *_MORE):
            columns[name] = [
                text[at + i * width : at + (i + 1) * width].strip() for i in range(count)
            ]
            at += width * count
        signals, start = [], 0
        for i in range(count):
            label = columns["label"][i]
            per_record = self._int(columns["count"][i], f"samples of {label}", 0, 10**7)
            gain, offset, calibrated = 1.0, 0.0, False
            if label not in _ANNOTATIONS:
                low, high, dlow, dhigh = (
                    self._float(columns[name][i], f"{name} of {label}")
                    for name in ("pmin", "pmax", "dmin", "dmax")
                )
                calibrated = low != high and dlow != dhigh
                if calibrated:
                    gain = (high - low) / (dhigh - dlow)
                    offset = low - dlow * gain
            signals.append(
                EdfSignal(label, columns["unit"][i], gain, offset, calibrated, per_record, start)
            )
            start += per_record * self.width
        return tuple(signals)

    def _open(self) -> BinaryIO:
        try:
            return self.path.open("rb")
        except OSError as error:
            raise self._fault(f"cannot be opened ({os.strerror(error.errno or 0)})") from error

    def _fault(self, what: str) -> TapeError:
        return TapeError(what, where=str(self.path))

    def _int(self, text: str, what: str, low: int, high: int) -> int:
        with suppress(ValueError):
            if low <= int(text) <= high:
                return int(text)
        raise self._fault(f"gives {text.strip()!r} as {what}")

    def _float(self, text: str, what: str) -> float:
        with suppress(ValueError):
            if np.isfinite(value := float(text.replace(",", "."))):
                return value
        raise self._fault(f"gives {text.strip()!r} as {what}")


def _tals(raw: bytes) -> Iterator[list[Tal]]:
    for piece in _PIECE.finditer(raw):
        found = _TAL.fullmatch(piece[0])
        if found is None:
            continue
        duration = float(found[2]) if found[2] else None
        texts = found[3].removesuffix(b"\x14").split(b"\x14", MAX_ANNOTATIONS)
        yield [Tal(float(found[1]), duration, _words(text)) for text in texts]


def _words(raw: bytes) -> str:
    text = raw[: 4 * MAX_TEXT_CHARS].decode("utf-8", "replace").strip()
    return text[:MAX_TEXT_CHARS]


def _later(begun: datetime | None, seconds: float) -> datetime | None:
    try:
        return None if begun is None else begun + timedelta(seconds=seconds)
    except OverflowError:
        return None


def _start(date: str, time: str, recording: str) -> datetime | None:
    """Return when the recording began, local and zoneless; EDF+'s own date goes first."""
    clock = re.fullmatch(r"\s*(\d\d)[.:](\d\d)[.:](\d\d)\s*", time)
    if clock is None:
        return None
    hours = ":".join(clock.groups())
    words = recording.split()
    with suppress(ValueError, IndexError):
        if words[0] == "Startdate":
            return datetime.strptime(f"{words[1].title()} {hours}", "%d-%b-%Y %H:%M:%S")  # noqa: DTZ007 - files know no zone
    day = re.fullmatch(r"\s*(\d\d)[.:/-](\d\d)[.:/-](\d\d)\s*", date)
    if day is None:
        return None
    year = int(day[3]) + (1900 if int(day[3]) >= 85 else 2000)
    with suppress(ValueError):
        return datetime.fromisoformat(f"{year}-{day[2]}-{day[1]}T{hours}")
    return None
