"""Nights from disk come through the same door, at the same times, with the same values."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

import edfio
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hypnocast.core.types import (
    ChannelInfo,
    Chunk,
    ClockReading,
    FloatArray,
    Mark,
    Stage,
    StreamHeader,
    StreamLost,
    StreamOpened,
)
from hypnocast.errors import ConfigError, TapeError
from hypnocast.ports.hypnograms.scoring import scored_pages
from hypnocast.ports.hypnograms.stage_words import stage_of
from hypnocast.ports.recordings import xdf_encode as xdf
from hypnocast.ports.recordings.files import open_recording
from hypnocast.ports.recordings.recording import Annotation, Recording, file_start, pseudonym
from hypnocast.ports.stream_xml import write_header

SECONDS = 90
LABELS = ("F4-M1", "C4-M1", "Chin")
RATES = (128.0, 128.0, 256.0)
NAME = "MCH-0234567 F 02-MAY-1951 Haagse_Harry"


def night() -> list[FloatArray]:
    """Signals in µV that need all of EDF's range."""
    noise = np.random.default_rng(7)
    return [noise.normal(0.0, 60.0, int(SECONDS * rate)).clip(-490, 490) for rate in RATES]


def write_edf(path: Path, kind: str) -> None:
    """Write the night with edfio, an independent writer."""
    make: Any = edfio.Edf if kind == "edf" else edfio.Bdf
    signal: Any = edfio.EdfSignal if kind == "edf" else edfio.BdfSignal
    signals = [
        signal(data, rate, label=label, physical_dimension="uV", physical_range=(-500, 500))
        for data, rate, label in zip(night(), RATES, LABELS, strict=True)
    ]
    make(
        signals,
        patient=edfio.Patient(code="MCH-0234567", sex="F", name="Haagse_Harry"),
        recording=edfio.Recording(startdate=date(2026, 3, 29)),
        starttime=time(1, 30, 0),
        data_record_duration=1,
        annotations=[
            edfio.EdfAnnotation(3.5, None, "Lights off"),
            edfio.EdfAnnotation(0, 30, "Sleep stage W"),
            edfio.EdfAnnotation(30, 60, "Sleep stage 4"),
        ],
    ).write(path)


def write_xdf(path: Path) -> None:
    """Write the night as LabRecorder does: chunks of half a second, clock offsets now and then."""
    offset = 1000.25
    parts = [
        xdf.MAGIC
        + xdf.chunk(
            1,
            b"<?xml version='1.0'?><info><version>1.0</version>"
            b"<datetime>2026-03-29T01:30:00+0100</datetime></info>",
        )
    ]
    for number, (label, rate) in enumerate(zip(LABELS, RATES, strict=True), 1):
        header = StreamHeader(
            label, label, "EEG", label, label, "amp", rate, (ChannelInfo(label, "uV"),), "double64"
        )
        parts.append(xdf.chunk(2, write_header(header).encode(), number))
    for half in range(2 * SECONDS):
        for number, (rate, data) in enumerate(zip(RATES, night(), strict=True), 1):
            n = int(rate / 2)
            stamps = 500.0 + (half * n + np.arange(n)) / rate
            parts.append(
                xdf.samples(number, data[half * n : half * n + n, None], stamps, interval=1 / rate)
            )
            if half % 10 == 0:
                parts.append(xdf.clock_offset(number, at=half / 2 + 500.0 + offset, offset=offset))
    path.write_bytes(b"".join(parts))


def signals_of(
    recording: Recording, chunk_s: float = 1.0
) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Return label → (times since the beginning on the local clock, values)."""
    headers: dict[str, StreamHeader] = {}
    offsets: dict[str, float] = {}
    got: dict[str, list[tuple[FloatArray, FloatArray]]] = {}
    for arrival in recording.arrivals(chunk_s):
        match arrival:
            case StreamOpened(header, _):
                headers[header.key] = header
            case ClockReading(stream, _, offset):
                offsets[stream] = offset
            case Chunk():
                times = arrival.stamps + offsets[arrival.stream] - recording.t0
                for place, channel in enumerate(headers[arrival.stream].channels):
                    values = arrival.samples[:, place].astype(np.float64)
                    got.setdefault(channel.label, []).append((times, values))
            case _:
                pass
    return {
        label: (np.concatenate([t for t, _ in parts]), np.concatenate([v for _, v in parts]))
        for label, parts in got.items()
    }


def test_edf_bdf_and_xdf_of_one_night_agree_to_their_resolution(tmp_path: Path) -> None:
    write_edf(tmp_path / "n.edf", "edf")
    write_edf(tmp_path / "n.bdf", "bdf")
    write_xdf(tmp_path / "n.xdf")
    steps = {"n.edf": 1000 / 65535, "n.bdf": 1000 / 16777215, "n.xdf": 0.0}
    for name, step in steps.items():
        recording = open_recording(tmp_path / name, timezone="Europe/Berlin")
        got = signals_of(recording)
        assert recording.start == datetime(2026, 3, 29, 0, 30, tzinfo=UTC)
        assert recording.duration_s == pytest.approx(SECONDS, abs=0.01)
        for label, rate, truth in zip(LABELS, RATES, night(), strict=True):
            times, values = got[label]
            assert len(values) == len(truth)
            assert np.abs(times - np.arange(len(truth)) / rate).max() < 1e-9
            assert np.abs(values - truth).max() <= 0.51 * step + 1e-9, name


@pytest.mark.parametrize("kind", ["edf", "bdf"])
def test_how_a_file_is_cut_into_chunks_changes_no_value(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"n.{kind}"
    write_edf(path, kind)
    whole = signals_of(open_recording(path), chunk_s=1000.0)
    for chunk_s in (0.1, 7.0):
        pieces = signals_of(open_recording(path), chunk_s=chunk_s)
        for label in LABELS:
            assert np.array_equal(whole[label][0], pieces[label][0])
            assert np.array_equal(whole[label][1], pieces[label][1])


def test_annotations_come_as_marks_and_as_scored_pages(tmp_path: Path) -> None:
    write_edf(tmp_path / "n.edf", "edf")
    recording = open_recording(tmp_path / "n.edf")
    arrivals = list(recording.arrivals())
    marks = [a for a in arrivals if isinstance(a, Mark)]
    assert [(m.stamp, m.text) for m in marks] == [
        (0.0, "Sleep stage W"),
        (3.5, "Lights off"),
        (30.0, "Sleep stage 4"),
    ]
    assert isinstance(arrivals[-1], StreamLost)
    pages = scored_pages(recording.annotations, anchor=recording.t0, epochs=4)
    assert pages == (Stage.W, Stage.N3, Stage.N3, None)


def test_no_name_leaves_the_file(tmp_path: Path) -> None:
    write_edf(tmp_path / "n.edf", "edf")
    plain = open_recording(tmp_path / "n.edf")
    keyed = open_recording(tmp_path / "n.edf", pseudonym_key=b"secret of the lab")
    for recording in (plain, keyed):
        assert "Haagse" not in recording.subject
        assert "0234567" not in recording.subject
    assert plain.subject != keyed.subject
    assert pseudonym(NAME, b"k1", b"") != pseudonym(NAME, b"k2", b"")
    assert pseudonym(NAME, b"", b"x") == pseudonym("somebody else", b"", b"x")


def test_the_gaps_of_a_discontinuous_file_are_missing_samples(tmp_path: Path) -> None:
    path = tmp_path / "n.edf"
    write_edf(path, "edf")
    raw = bytearray(path.read_bytes())
    raw[192:197] = b"EDF+D"
    path.write_bytes(shift_records(bytes(raw), after=60, by=20))
    times, values = signals_of(open_recording(path))["F4-M1"]
    assert len(values) == SECONDS * 128
    jumps = np.flatnonzero(np.diff(times) > 0.1)
    assert jumps.tolist() == [60 * 128 - 1]
    assert times[60 * 128] == pytest.approx(80.0)


def shift_records(raw: bytes, *, after: int, by: int) -> bytes:
    """Let records from ``after`` on begin ``by`` seconds later."""
    count = int(raw[252:256])
    header = 256 * (count + 1)
    per_record = [
        int(raw[256 + count * 216 + i * 8 : 256 + count * 216 + i * 8 + 8]) for i in range(count)
    ]
    size = sum(per_record) * 2
    records = [raw[at : at + size] for at in range(header, len(raw), size)]
    for index in range(after, len(records)):
        old = b"+%d\x14\x14\x00" % index
        new = b"+%d\x14\x14\x00" % (index + by)
        assert old in records[index]
        place = records[index].rindex(old)
        grown = records[index][:place] + new + records[index][place + len(old) :]
        records[index] = grown[:size].ljust(size, b"\x00")
    return raw[:header] + b"".join(records)


@pytest.mark.parametrize(
    ("text", "stage"),
    [
        ("Sleep stage W", Stage.W),
        ("Sleep stage 1", Stage.N1),
        ("Sleep stage N2", Stage.N2),
        ("Sleep stage 3", Stage.N3),
        ("Sleep stage 4", Stage.N3),
        ("Sleep stage R", Stage.R),
        ("S4", Stage.N3),
        ("REM", Stage.R),
        ("wake", Stage.W),
        ("NREM 2", Stage.N2),
        ("Sleep stage ?", None),
        ("Movement time", None),
        ("Arousal", None),
        ("Lights off", None),
    ],
)
def test_stages_are_read_by_both_rules_with_s3_and_s4_merged(
    text: str, stage: Stage | None
) -> None:
    assert stage_of(text) is stage


def test_a_page_has_the_stage_in_force_at_its_middle() -> None:
    scored = [Annotation(10.0, 30.0, "N1"), Annotation(40.0, 30.0, "N2")]
    assert scored_pages(scored, anchor=0.0, epochs=3) == (Stage.N1, Stage.N2, None)
    assert scored_pages(scored, anchor=10.0, epochs=2) == (Stage.N1, Stage.N2)


def test_zoneless_times_get_the_lab_s_zone() -> None:
    summer = file_start(datetime(2026, 7, 1, 23, 0), "Europe/Berlin")  # noqa: DTZ001 - as in files
    winter = file_start(datetime(2026, 1, 1, 23, 0), "Europe/Berlin")  # noqa: DTZ001 - as in files
    assert (summer.hour, winter.hour) == (21, 22)
    with pytest.raises(ConfigError, match="no time zone"):
        file_start(datetime(2026, 1, 1), "Mars/Olympus")  # noqa: DTZ001 - as in files


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_a_damaged_file_is_a_clear_error_or_what_can_be_read(
    tmp_path: Path, data: st.DataObject
) -> None:
    path = tmp_path / "broken"
    source = tmp_path / "whole.edf"
    if not source.exists():
        write_edf(source, "edf")
    raw = bytearray(source.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, 1400))
        raw[at] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(raw[: data.draw(st.integers(0, len(raw)))]))
    found = str(path)
    try:
        for _ in open_recording(path).arrivals(1000.0):
            pass
    except TapeError as error:
        found = str(error)
    assert str(path) in found


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    with pytest.raises(TapeError, match="neither EDF, BDF nor XDF"):
        open_recording(text)
    with pytest.raises(TapeError, match="cannot be opened"):
        open_recording(tmp_path / "absent.edf")
