"""Small files that would cost everything: each is refused, or read in bounded memory and time.

Every file is read by ``replay`` and ``page`` in a process of its own that may have 2 GB of
addresses. It must end by itself, with one line or with what could be read.
"""

from __future__ import annotations

import gzip
import resource
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import edfio
import numpy as np
import pytest

from hypnocast.ports.recordings.limits import MAX_DAMAGES, MAX_RECORD_BYTES

LIMIT = 2 * 1024**3
PATIENCE_S = 60.0

_READ = """
import sys
from pathlib import Path
from hypnocast.errors import HypnocastError
from hypnocast.ports.hypnograms.scored_files import read_scoring
from hypnocast.ports.recordings.files import open_recording
path = Path(sys.argv[1])
lines = []
try:
    recording = open_recording(path)
    lines.append(f"{recording.duration_s:.0f} s, {len(recording.problems)} problems")
    for _ in recording.arrivals():
        pass
    lines.append("played")
except HypnocastError as error:
    lines.append(str(error))
try:
    read_scoring(path)
except HypnocastError as error:
    pass
print("; ".join(lines))
"""


def _read(path: Path) -> str:
    """Read a file as a recording and as a scoring, in a process of 2 GB."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))

    done = subprocess.run(
        [sys.executable, "-c", _READ, str(path)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        preexec_fn=limit,
        env={"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (line,) = done.stdout.splitlines()
    return line


# --- EDF ------------------------------------------------------------------------------------------


def _edf(
    *, record_s: str = "1", records: int = -1, per_record: int = 128, tals: int = 0,
    reserved: str = "EDF+C",
) -> bytes:  # fmt: skip
    """Write a header of one signal, and of annotations where asked."""
    counts = [per_record, *([tals] if tals else [])]
    labels = ["F4-M1", "EDF Annotations"][: len(counts)]

    def each(width: int, *values: str) -> bytes:
        return b"".join(value.encode().ljust(width) for value in values[: len(counts)])

    fixed = b"".join(
        text.encode().ljust(width)
        for text, width in (
            ("0", 8), ("X X X X", 80), ("Startdate 01-MAR-2026 X X X", 80), ("01.03.26", 8),
            ("22.00.00", 8), (str(256 * (len(counts) + 1)), 8), (reserved, 44),
            (str(records), 8), (record_s, 8), (str(len(counts)), 4),
        )
    )  # fmt: skip
    described = each(16, *labels) + each(80, "", "") + each(8, "uV", "") + each(8, "-500", "-1")
    described += each(8, "500", "1") + each(8, "-32768", "-32768") + each(8, "32767", "32767")
    return fixed + described + each(80, "", "") + each(8, *map(str, counts)) + each(32, "", "")


def _sparse(path: Path, head: bytes, size: int) -> Path:
    with path.open("wb") as file:
        file.write(head)
        file.truncate(size)
    return path


def _tal(onset: str, text: str, duration: str = "") -> bytes:
    lasts = f"\x15{duration}" if duration else ""
    return f"{onset}{lasts}\x14{text}\x14\x00".encode()


def _annotated(path: Path, tals: bytes, *, reserved: str = "EDF+C") -> Path:
    size = (len(tals) + 2) // 2
    keeper = b"+0\x14\x14\x00"
    head = _edf(tals=size + len(keeper), reserved=reserved)
    body = np.zeros(128, "<i2").tobytes() + (keeper + tals).ljust(2 * (size + len(keeper)), b"\0")
    path.write_bytes(head + body * 2)
    return path


def _many_small(path: Path) -> Path:
    """Three hundred thousand annotations of one letter."""
    return _annotated(path, b"".join(_tal(f"+{n}", "a") for n in range(300_000)))


def _one_letter_texts(path: Path) -> Path:
    return _annotated(path, b"+0" + b"\x14a" * 2_000_000 + b"\x14\x00")


def _nothing_but_ends(path: Path) -> Path:
    return _annotated(path, b"+0" + b"\x14" * 4_000_000 + b"\x00")


EDF: dict[str, tuple[Callable[[Path], Path], str]] = {
    "records of a microsecond": (
        lambda path: _sparse(path, _edf(record_s="1e-6", per_record=1), 1_500_000_000),
        "records of 1e-06 s",
    ),
    "a billion samples a second": (
        lambda path: _sparse(path, _edf(record_s="0.01", per_record=9_000_000), 100_000_000),
        "bytes",
    ),
    "a rate beyond any amplifier": (
        lambda path: _sparse(path, _edf(per_record=1_000_000), 100_000_000),
        "samples a second",
    ),
    "records of 60 MB": (
        lambda path: _sparse(path, _edf(record_s="600", per_record=10_000_000)
                             .replace(b"10000000", b"9999999 "), 300_000_000),
        "records of 19999998 bytes",
    ),
    "a file of a year": (
        lambda path: _sparse(path, _edf(record_s="3600", per_record=1), 20_000),
        "days apart",
    ),
    "300 MB of annotations": (_many_small, "more than 200000 annotations"),
    "texts without end at one time": (_one_letter_texts, "more than 200000 annotations"),
    "nothing but ends of texts": (_nothing_but_ends, "annotations"),
    "an onset out of range": (
        lambda path: _annotated(path, _tal("+" + "9" * 300, "a")), "has an annotation at 1e+300"
    ),
    "a duration out of range": (
        lambda path: _annotated(path, _tal("+1", "Sleep stage W", "9" * 400)), "for inf s"
    ),
    "a record that begins in the next million years": (
        lambda path: _annotated(path, _tal("+1", "a"), reserved="EDF+D"), "s"
    ),
}  # fmt: skip


@pytest.mark.attack("files")
@pytest.mark.parametrize("attack", EDF)
def test_an_edf_file_costs_no_more_than_it_may(tmp_path: Path, attack: str) -> None:
    make, fault = EDF[attack]
    assert fault in _read(make(tmp_path / "attack.edf"))


def test_a_record_as_large_as_records_get_is_still_read(tmp_path: Path) -> None:
    count = 10 * 60 * 256 * 32
    assert count * 2 < MAX_RECORD_BYTES
    path = tmp_path / "large.edf"
    signal = edfio.EdfSignal(np.zeros(60 * 256), 256, label="F4-M1", physical_range=(-1, 1))
    edfio.Edf([signal], data_record_duration=60).write(path)
    assert _read(path) == "60 s, 0 problems; played"


# --- XDF ------------------------------------------------------------------------------------------


def _chunk(tag: int, content: bytes, stream: int | None = None, length: int | None = None) -> bytes:
    body = struct.pack("<H", tag) + (b"" if stream is None else struct.pack("<I", stream)) + content
    return b"\x04" + struct.pack("<I", len(body) if length is None else length) + body


_BOUNDARY = bytes.fromhex("43a546dccbf5410fb30ed5467383cbe4")


def _head(*, form: str = "float32", rate: str = "128") -> bytes:
    xml = (
        "<?xml version='1.0'?><info><name>amp</name><type>EEG</type><channel_count>1"
        f"</channel_count><nominal_srate>{rate}</nominal_srate><channel_format>{form}"
        "</channel_format><source_id>amp</source_id><uid>u</uid><hostname>h</hostname><desc>"
        "<channels><channel><label>F4-M1</label><unit>uV</unit></channel></channels></desc></info>"
    )
    return b"XDF:" + _chunk(1, b"<info><version>1.0</version></info>") + _chunk(2, xml.encode(), 1)


def _sample(stamp: float, value: float = 1.0) -> bytes:
    return _chunk(3, b"\x01\x01\x08" + struct.pack("<df", stamp, value), 1)


_SOUND = b"".join(_sample(100.0 + n / 128) for n in range(1280))


def _lying(count: int) -> bytes:
    """Chunks that say they are as long as the file may be, each behind a boundary."""
    return b"".join(_chunk(5, _BOUNDARY) + _chunk(3, b"", 1, 60_000_000) for _ in range(count))


XDF: dict[str, tuple[str, bytes, str]] = {
    "lengths that lie": ("xdf", _head() + _SOUND + _lying(60_000), "10 s, 1001 problems; played"),
    "lengths that lie, packed": (
        "xdfz", gzip.compress(_head() + _SOUND + _lying(60_000)), "10 s, 1001 problems; played"
    ),
    "two gigabytes in three megabytes": (
        "xdfz", gzip.compress(_head() + _SOUND + bytes(300_000_000), 9), "times its size"
    ),
    "stamps of 1e300": (
        "xdf", _head() + _SOUND + _sample(1e300) + _sample(float("nan")), "10 s, 2 problems; played"
    ),
    "stamps of a thousand years": ("xdf", _head() + _SOUND + _sample(3e10), "days apart"),
    "a clock offset without end": (
        "xdf", _head() + _chunk(4, struct.pack("<dd", 100.0, float("inf")), 1) + _SOUND,
        "10 s, 1 problems; played",
    ),
    "a chunk of thirty million samples": (
        "xdf", _head(form="int8") + _chunk(3, b"\x04" + struct.pack("<I", 30_000_000)
                                          + b"\x00\x01" * 30_000_000, 1) + _SOUND,
        "holds no samples",
    ),
    "a million texts in a chunk": (
        "xdf", _head(form="string", rate="0")
        + _chunk(3, b"\x04" + struct.pack("<I", 2_000_000) + b"\x00\x01\x00" * 2_000_000, 1),
        "holds no samples",
    ),
    "marks without end": (
        "xdf", _head(form="string", rate="0")
        + _chunk(3, b"\x04" + struct.pack("<I", 100_000) + b"\x00\x01\x00" * 100_000, 1) * 3,
        "more than 200000 annotations",
    ),
    "clocks that leap with every sample": (
        "xdf", _head() + b"".join(_sample(1000.0 * (n % 2)) for n in range(30_000)),
        "leap more than",
    ),
}  # fmt: skip


@pytest.mark.attack("files")
@pytest.mark.parametrize("attack", XDF)
def test_an_xdf_file_costs_no_more_than_it_may(tmp_path: Path, attack: str) -> None:
    ending, raw, fault = XDF[attack]
    path = tmp_path / f"attack.{ending}"
    path.write_bytes(raw)
    assert fault in _read(path)


def test_damage_is_stepped_over_up_to_a_thousand_times(tmp_path: Path) -> None:
    path = tmp_path / "damaged.xdf"
    path.write_bytes(_head() + _lying(MAX_DAMAGES // 2) + _chunk(5, _BOUNDARY) + _SOUND)
    assert _read(path).endswith("played")


def test_a_packed_recording_is_read_like_a_plain_one(tmp_path: Path) -> None:
    path = tmp_path / "night.xdfz"
    path.write_bytes(gzip.compress(_head() + _SOUND))
    assert _read(path) == "10 s, 0 problems; played"
    path.write_bytes(gzip.compress(_head() + _SOUND)[:-400])
    assert _read(path).endswith("played")
