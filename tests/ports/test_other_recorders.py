"""Files of other recorders read as the field's own readers read them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import edfio
import mne
import numpy as np
import pytest
import pyxdf
from mne._fiff.constants import FIFF

from hypnocast import cli
from hypnocast.config.file import load_config
from hypnocast.core.montage.units import microvolts_per
from hypnocast.core.types import Chunk, ClockReading, Role, StreamLost, StreamOpened
from hypnocast.errors import TapeError
from hypnocast.nights.one_page import draw_from_file
from hypnocast.ports.hypnograms.scored_files import read_scoring
from hypnocast.ports.recordings.files import open_recording
from hypnocast.ports.recordings.recording import Recording
from hypnocast.ports.stream_xml import parse_header

RATE = 64.0


# --- EDF+ that begins within a second -------------------------------------------------------------


@pytest.mark.parametrize(("ending", "kind"), [("edf", edfio.Edf), ("bdf", edfio.Bdf)])
def test_a_recording_begins_at_the_fraction_of_a_second_that_its_first_record_names(
    tmp_path: Path, ending: str, kind: Any
) -> None:
    path = tmp_path / f"subsecond.{ending}"
    data = np.random.default_rng(1).normal(0, 50, 60 * int(RATE)).clip(-490, 490)
    signal: Any = {"edf": edfio.EdfSignal, "bdf": edfio.BdfSignal}[ending]
    kind(
        [signal(data, RATE, label="F4-M1", physical_dimension="uV", physical_range=(-500, 500))],
        recording=edfio.Recording(startdate=date(2026, 3, 1)),
        starttime=time(4, 5, 56, 394500),
        data_record_duration=1,
        annotations=[
            edfio.EdfAnnotation(0, 30, "Sleep stage W"),
            edfio.EdfAnnotation(30, 30, "Sleep stage N2"),
        ],
    ).write(path)
    read: Any = {"edf": edfio.read_edf, "bdf": edfio.read_bdf}[ending]
    theirs = read(path)
    ours = open_recording(path)
    assert ours.start is not None
    assert ours.start.replace(tzinfo=None) == datetime.combine(theirs.startdate, theirs.starttime)
    assert ours.start.microsecond == 394500
    values = [(a.onset, a.text) for a in ours.annotations]
    assert values == [(a.onset, a.text) for a in theirs.annotations]
    assert values == list(zip(*_mne_annotations(path), strict=True))
    first = next(a for a in ours.arrivals() if isinstance(a, Chunk))
    assert first.stamps[0] == 0.0


def test_the_records_of_a_discontinuous_file_count_from_its_first_sample(tmp_path: Path) -> None:
    path = tmp_path / "gaps.edf"
    path.write_bytes(discontinuous(onsets=(0.25, 1.25, 10.25), start="04.05.56"))
    ours = open_recording(path)
    assert ours.start is not None
    assert ours.start.replace(tzinfo=None) == datetime(2026, 3, 1, 4, 5, 56, 250000)  # noqa: DTZ001
    stamps = [a.stamps for a in ours.arrivals(1.0) if isinstance(a, Chunk)]
    np.testing.assert_allclose([s[0] for s in stamps], [0.0, 1.0, 10.0], atol=1e-9)
    assert ours.duration_s == pytest.approx(11.0)
    assert [a.onset for a in ours.annotations] == list(_mne_annotations(path)[0])


def _mne_annotations(path: Path) -> tuple[list[float], list[str]]:
    found = mne.read_annotations(path)
    return [float(onset) for onset in found.onset], [str(text) for text in found.description]


def discontinuous(*, onsets: Sequence[float], start: str) -> bytes:
    """Build an EDF+D file byte by byte: one signal of 64 Hz, records of 1 s, an annotation."""
    labels = [b"F4-M1", b"EDF Annotations"]
    counts = [int(RATE), 30]

    def each(width: int, *values: str) -> bytes:
        return b"".join(value.encode().ljust(width) for value in values)

    fixed = b"".join(
        text.encode().ljust(width)
        for text, width in (
            ("0", 8), ("X X X X", 80), ("Startdate 01-MAR-2026 X X X", 80), ("01.03.26", 8),
            (start, 8), (str(256 * 3), 8), ("EDF+D", 44), (str(len(onsets)), 8), ("1", 8), ("2", 4),
        )
    )  # fmt: skip
    described = b"".join(label.ljust(16) for label in labels) + b" " * 160
    described += each(8, "uV", "") + each(8, "-500", "-1") + each(8, "500", "1")
    described += each(8, "-32768", "-32768") + each(8, "32767", "32767") + b" " * 160
    described += each(8, *map(str, counts)) + b" " * 64
    records = []
    for number, onset in enumerate(onsets):
        samples = np.full(int(RATE), number, "<i2").tobytes()
        tals = f"+{onset:g}\x14\x14\x00".encode()
        if number == 0:
            tals += f"+{onset:g}\x1530\x14Sleep stage W\x14\x00".encode()
        records.append(samples + tals.ljust(60, b"\x00"))
    return fixed + described + b"".join(records)


# --- XDF whose sender's clock was set -------------------------------------------------------------


def _chunk(tag: int, content: bytes, stream: int | None = None) -> bytes:
    body = struct.pack("<H", tag)
    body += b"" if stream is None else struct.pack("<I", stream)
    return b"\x04" + struct.pack("<I", len(body) + len(content)) + body + content


def _header(number: int, name: str, kind: str, rate: float, form: str) -> bytes:
    channel = "<channel><label>F4-M1</label><unit>uV</unit></channel>" if rate else ""
    xml = (
        f"<?xml version='1.0'?><info><name>{name}</name><type>{kind}</type>"
        f"<channel_count>1</channel_count><nominal_srate>{rate:g}</nominal_srate>"
        f"<channel_format>{form}</channel_format><source_id>{name}</source_id>"
        f"<created_at>1</created_at><uid>u{number}</uid><hostname>amp</hostname>"
        f"<desc><channels>{channel}</channels></desc></info>"
    )
    return _chunk(2, xml.encode(), number)


def _samples(number: int, stamps: Sequence[float], values: Sequence[float]) -> bytes:
    rows = b"".join(
        b"\x08" + struct.pack("<df", stamp, value)
        for stamp, value in zip(stamps, values, strict=True)
    )
    return _chunk(3, b"\x04" + struct.pack("<I", len(stamps)) + rows, number)


def _text(number: int, stamp: float, text: str) -> bytes:
    row = b"\x08" + struct.pack("<d", stamp) + b"\x01" + bytes([len(text)]) + text.encode()
    return _chunk(3, b"\x01\x01" + row, number)


def rebooted(path: Path, *, set_to: float, seconds: int = 570, reboot: int = 300) -> None:
    """Write what a recorder writes whose sender's clock goes from 653000 s to ``set_to``."""
    recorder = 1000.0
    parts = [b"XDF:", _chunk(1, b"<info><version>1.0</version></info>")]
    parts += [
        _header(1, "amp", "EEG", RATE, "float32"),
        _header(2, "marks", "Markers", 0, "string"),
    ]
    for second in range(seconds):
        begun = 653_000.0 if second < reboot else set_to - reboot
        clock = begun + second
        stamps = clock + np.arange(int(RATE)) / RATE
        values = second + np.arange(int(RATE)) / RATE
        if second % 5 == 0:
            offset = recorder - begun
            for number in (1, 2):
                parts.append(_chunk(4, struct.pack("<dd", clock + 0.001, offset), number))
        if second % 60 == 30:
            parts.append(_text(2, clock, f"minute {second // 60}"))
        parts.append(_samples(1, stamps.tolist(), values.tolist()))
    path.write_bytes(b"".join(parts))


def _on_the_recorder_s_clock(recording: Recording) -> tuple[list[float], list[float]]:
    offset, times, values = 0.0, [], []
    for arrival in recording.arrivals():
        match arrival:
            case ClockReading(stream="amp"):
                offset = arrival.offset
            case Chunk(stream="amp"):
                times += (arrival.stamps + offset).tolist()
                values += arrival.samples[:, 0].tolist()
            case _:
                pass
    return times, values


@pytest.mark.parametrize("set_to", [260.0, 652_000.0, 653_420.0, 5e6])
def test_a_sender_whose_clock_was_set_is_laid_where_pyxdf_lays_it(
    tmp_path: Path, set_to: float
) -> None:
    path = tmp_path / "clock_resets.xdf"
    rebooted(path, set_to=set_to)
    theirs, _ = pyxdf.load_xdf(str(path), dejitter_timestamps=False)
    amp, marks = (
        next(s for s in theirs if s["info"]["name"] == [name]) for name in ("amp", "marks")
    )
    ours = open_recording(path)
    times, values = _on_the_recorder_s_clock(ours)
    assert ours.duration_s == pytest.approx(570, abs=0.1)
    np.testing.assert_allclose(times, amp["time_stamps"], atol=2e-3)
    np.testing.assert_array_equal(values, amp["time_series"][:, 0])
    assert [a.text for a in ours.annotations] == [row[0] for row in marks["time_series"]]
    np.testing.assert_allclose([a.onset for a in ours.annotations], marks["time_stamps"], atol=2e-3)
    assert any("its clock was set 1x" in problem for problem in ours.problems)
    opened = [a for a in ours.arrivals() if isinstance(a, StreamOpened) and a.header.key == "amp"]
    lost = [a for a in ours.arrivals() if isinstance(a, StreamLost) and a.stream == "amp"]
    assert (len(opened), len(lost)) == (2, 2)
    assert all(a < b for a, b in pairwise(times))


def test_one_wrong_reading_among_good_ones_sets_no_clock(tmp_path: Path) -> None:
    path = tmp_path / "outlier.xdf"
    rebooted(path, set_to=653_300.0)  # The clock runs on: nothing was set.
    raw = path.read_bytes()
    old = struct.pack("<dd", 653_100.001, 1000.0 - 653_000.0)
    assert raw.count(old) == 2
    path.write_bytes(raw.replace(old, struct.pack("<dd", 653_100.001, 7.0 - 653_000.0)))
    ours = open_recording(path)
    assert not ours.problems
    assert ours.duration_s == pytest.approx(570, abs=0.1)
    assert timedelta(seconds=ours.duration_s) < timedelta(minutes=10)


# --- headers that count wrongly, files without signals --------------------------------------------


def test_records_beyond_those_that_the_header_counts_are_read_as_edfio_reads_them(
    tmp_path: Path,
) -> None:
    path = _write_gear(tmp_path / "gear.edf", "F4-M1")
    content = bytearray(path.read_bytes())
    content[236:244] = b"300".ljust(8)
    path.write_bytes(content)
    ours = open_recording(path)
    with pytest.warns(UserWarning, match="indicates 300 data records, but file contains 600"):
        theirs = edfio.read_edf(path, lazy_load_data=False)
    assert ours.duration_s == theirs.duration == 600
    assert ours.problems == ("the file holds 600 records, its header says 300",)


def test_a_file_of_annotations_alone_is_no_recording_and_says_where_it_belongs(
    tmp_path: Path,
) -> None:
    path = tmp_path / "hypnogram.edf"
    stages = [edfio.EdfAnnotation(30.0 * at, 30.0, f"Sleep stage {at}") for at in (1, 2)]
    edfio.Edf([], annotations=stages).write(path)
    with pytest.raises(TapeError, match="a hypnogram goes to"):
        open_recording(path)
    assert [span.duration for span in read_scoring(path).spans] == [30.0, 30.0]


# --- units as mne-lsl writes them -----------------------------------------------------------------


def _mne_lsl_header(unit: str, *, kind: str = "2", marks: bool = True) -> str:
    """Write a header with one channel as mne_lsl.lsl.StreamInfo.set_channel_info does."""
    own = f"<kind>{kind}</kind><coil_type>1</coil_type><coord_frame>4</coord_frame>"
    own += "<range_cal>1.0</range_cal><loc><R0>0</R0></loc>"
    return (
        "<info><name>MNE-LSL-Player</name><type>eeg</type><channel_count>1</channel_count>"
        "<nominal_srate>256</nominal_srate><channel_format>double64</channel_format>"
        "<source_id>MNE-LSL</source_id><uid>u</uid><hostname>h</hostname><desc><channels>"
        f"<channel><label>F4-M1</label><type>eeg</type><unit>{unit}</unit>{own if marks else ''}"
        "</channel></channels></desc></info>"
    )


@pytest.mark.parametrize(
    ("unit", "microvolts"),
    [
        (str(int(FIFF.FIFF_UNITM_NONE)), 1e6),
        (str(int(FIFF.FIFF_UNITM_M)), 1e3),
        (str(int(FIFF.FIFF_UNITM_MU)), 1.0),
        (str(int(FIFF.FIFF_UNITM_N)), 1e-3),
        (str(int(FIFF.FIFF_UNITM_K)), None),
    ],
)
def test_a_unit_as_a_power_of_ten_is_believed_from_mne_lsl_alone(
    unit: str, microvolts: float | None
) -> None:
    def worth(xml: str) -> float | None:
        (channel,) = parse_header(xml).header.channels
        return microvolts_per(channel.unit, channel.scale)

    assert worth(_mne_lsl_header(unit)) == microvolts
    assert worth(_mne_lsl_header(unit, marks=False)) is None
    assert worth(_mne_lsl_header(unit, kind="502")) is None  # "misc" is no voltage.
    assert worth(_mne_lsl_header("uV")) == 1.0


# --- recordings of which no channel fits ----------------------------------------------------------


def _write_gear(path: Path, label: str) -> Path:
    data = np.random.default_rng(2).normal(0, 30, 600 * int(RATE)).clip(-490, 490)
    edfio.Edf(
        [
            edfio.EdfSignal(
                data, RATE, label=label, physical_dimension="uV", physical_range=(-500, 500)
            )
        ]
    ).write(path)
    return path


@pytest.mark.parametrize("verb", ["page", "replay"])
def test_a_recording_of_which_no_channel_fits_is_refused_with_what_it_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    path = _write_gear(tmp_path / "gear.edf", "Channel 7")
    arguments = [verb, str(path), *(["0"] if verb == "page" else [])]
    assert cli.run(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    for part in ("gear.edf", "'Channel 7' (uV, 64 Hz)", "wanted are F4-M1, C4-M1", "[[bed]]"):
        assert part in line


def test_a_recording_is_read_by_the_names_of_a_bed(tmp_path: Path) -> None:
    path = _write_gear(tmp_path / "gear.edf", "Channel 7")
    toml = tmp_path / "hypnocast.toml"
    toml.write_text(
        '[[bed]]\nid = "amp"\nstreams = [{ name = "amp" }]\nroles = { "F4-M1" = "Channel 7" }\n'
    )
    drawn = draw_from_file(load_config(toml), path, 1, "clinical-448x224", bed="amp")
    assert drawn.picture.channels == {Role.F4: "Channel 7"}
