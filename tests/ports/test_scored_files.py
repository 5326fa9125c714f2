"""Scored nights as laboratories have them are read, or refused by name and line."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo

import mne
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypnocast.core.night.agreement import compare
from hypnocast.core.types import STAGES, Stage
from hypnocast.core.wire import payloads
from hypnocast.errors import TapeError
from hypnocast.ports.hypnograms.night_files import NightHypnogram
from hypnocast.ports.hypnograms.scored_files import read_scoring
from hypnocast.ports.hypnograms.stage_words import SCHEMES, stage_of
from hypnocast.ports.hypnograms.vendor_files import VENDOR_FORMATS
from hypnocast_models.compare.hypnogram import read_hypnogram

W, N1, N2, N3, R = STAGES


def read(path: Path, text: str | bytes, scheme: str | None = None) -> list[Stage | None]:
    """Write a file and read it on a grid that begins with it."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    scoring = read_scoring(path, scheme=scheme)
    pages = int((scoring.end - scoring.anchor) // 30)
    assert read_hypnogram(path, scheme=scheme).stages == scoring.pages(scoring.anchor, pages)
    return list(scoring.pages(scoring.anchor, pages))


SAMPLES = Path(__file__).parent / "scored"
BEGUN = datetime(2026, 3, 1, 23, 58, 30)  # noqa: DTZ001 - files know no zone


@pytest.mark.parametrize("name", sorted(p.name for p in SAMPLES.iterdir() if p.suffix != ".md"))
def test_a_sample_of_every_format_is_read(name: str) -> None:
    scoring = read_scoring(SAMPLES / name)
    assert scoring.pages(scoring.anchor, 6) == (W, N1, N2, N3, R, None)
    if scoring.start is not None:
        assert scoring.start == BEGUN
    elif scoring.clock_s is not None:
        assert scoring.behind(BEGUN) == 0.0
        assert scoring.behind(BEGUN + timedelta(minutes=3)) == 180.0
    assert read_hypnogram(SAMPLES / name).stages[:5] == (W, N1, N2, N3, R)


def test_files_that_give_a_time_are_laid_by_it() -> None:
    dated = {"domino-de.txt", "domino-en.txt", "domino-20s.txt", "remlogic-fr.txt", "polysmith.xml"}
    dated |= {"noxturnal.csv", "noxturnal-fr.csv", "sleepware.rml", "wonambi.xml"}
    clocked = {"remlogic.txt", "alice.csv", "luna-headless.annot"}
    for path in SAMPLES.iterdir():
        if path.suffix != ".md":
            scoring = read_scoring(path)
            assert (scoring.start is not None) == (path.name in dated), path.name
            assert (scoring.behind(BEGUN) is not None) == (path.name in dated | clocked), path.name


BROKEN = {
    "domino-de.txt": ("; Wach", "; Wachs", "line 8: 'Wachs' is no sleep stage"),
    "domino-en.txt": ("23:59:00,000; N1", "23:59:00,000 N1", "line 9"),
    "remlogic.txt": ("\t23:59:00\t", "\t23:99:00\t", "line 19: '23:99:00' is no time"),
    "remlogic-fr.txt": ("SLEEP-S2\t30", "SLEEP-S2\tx", "line 13: 'x' is no duration"),
    "alice.csv": ("PM,N1", "PM,N8", "line 3: 'N8' is no sleep stage"),
    "sleepworks.tsv": ("30.0\t30.0", "30.0\t-30.0", "line 4: '-30.0' is no duration"),
    "luna.annot": ("N1\t.\t.\t30\t60", "N1\t.\t.\t30\tx", "line 4: 'x' is no number for a time"),
    "sleepware.rml": ('Type="NonREM2"', 'Type="NonREM7"', "'NonREM7' at 60 s is no sleep stage"),
    "polysmith.xml": (">2</xdf:Stage>", ">X</xdf:Stage>", "epoch 3: 'X' is no sleep stage"),
    "wonambi.xml": ("NREM2", "NREM9", "'NREM9' at 60 s is no sleep stage"),
    "nsrr.xml": ("Stage 2 sleep|2", "Stage 2 sleep|8", "stage code '8'"),
    "yasa.csv": ("2,N2", "2,N2x", "line 4: 'N2x' is no sleep stage"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_by_its_line(tmp_path: Path, name: str) -> None:
    old, new, fault = BROKEN[name]
    text = (SAMPLES / name).read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / name
    path.write_text(text.replace(old, new, 1), encoding="utf-8", newline="")
    with pytest.raises(TapeError) as refused:
        read_scoring(path)
    assert fault in str(refused.value)


night_stages = st.lists(st.sampled_from(["W", "N1", "N2", "N3", "R", None]), min_size=1)


@settings(deadline=None, max_examples=20)
@given(stages=night_stages, start=st.datetimes(datetime(2001, 1, 1), datetime(2080, 1, 1)))  # noqa: DTZ001
def test_what_is_written_for_a_program_is_read_back_stage_by_stage(
    tmp_path_factory: pytest.TempPathFactory,
    stages: list[payloads.StageName | None],
    start: datetime,
) -> None:
    whole = start.replace(microsecond=0)
    given = (*stages, "N2", "W", "R")
    night = NightHypnogram(whole.replace(tzinfo=UTC), ZoneInfo("UTC"), "S", "night", given, ())
    for ending, write in VENDOR_FORMATS.values():
        path = tmp_path_factory.mktemp("written") / f"night{ending}"
        path.write_text(write(night), encoding="utf-8", newline="")
        scoring = read_scoring(path)
        anchor = scoring.behind(whole) or 0.0
        pages = scoring.pages(anchor, len(given))
        theirs = cast("list[payloads.StageName | None]", [s and s.value for s in pages])
        assert theirs == list(given), ending
        assert compare(given, theirs).kappa == 1.0


# --- tables ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    ["onset\tduration\ttrial_type", "onset\tduration\tvalue", "onset\tduration\tstage_hum"],
)
def test_runs_of_a_bids_table_are_read_by_corrections_and_by_compare(
    tmp_path: Path, head: str
) -> None:
    rows = ["0\t90\tW", "30\t0\tarousal", "90\t60\tN1", "150\t150\tN2", "300\tn/a\tn/a"]
    found = read(tmp_path / "sub-01_events.tsv", "\n".join([head, *rows]))
    assert found[:10] == [W] * 3 + [N1] * 2 + [N2] * 5
    assert found[:10] == _pages_of_mne(_annotations(rows))


def _annotations(rows: Sequence[str]) -> Any:
    """Make MNE's annotations of a table's rows, as MNE-BIDS does."""
    cells = [row.split("\t") for row in rows if "n/a" not in row]
    onsets, durations, words = zip(*cells, strict=True)
    return mne.Annotations([float(x) for x in onsets], [float(x) for x in durations], words)


def _pages_of_mne(annotations: Any) -> list[Stage | None]:
    """Cut stages into pages of 30 s as MNE does."""
    raw = mne.io.RawArray(
        np.zeros((1, 300)), mne.create_info(["F4"], 1.0, "eeg"), verbose="ERROR"
    ).set_annotations(annotations, verbose="ERROR")
    kinds = {"W": 1, "N1": 2, "N2": 3}
    events, _ = mne.events_from_annotations(raw, kinds, chunk_duration=30.0, verbose="ERROR")
    stages = {number: Stage(word) for word, number in kinds.items()}
    assert [int(at) for at in events[:, 0]] == list(range(0, 300, 30))
    return [stages[int(number)] for number in events[:, 2]]


def test_annotations_that_mne_wrote_are_read_as_mne_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "night-annot.txt"
    _annotations(["0\t90\tW", "90\t60\tN1", "150\t150\tN2"]).save(path)
    scoring = read_scoring(path)
    found = list(scoring.pages(scoring.anchor, 10))
    assert found == _pages_of_mne(mne.read_annotations(path))


@pytest.mark.parametrize(
    "text",
    [
        "# MNE-Annotations\n# onset, duration, description\n0,60,W\n60,90,Stage N2\n",
        "0,60,W\n60,90,N2\n",
        "0\t60\tW\n60\t90\tN2\n",
    ],
)
def test_durations_count_where_no_line_names_the_columns(tmp_path: Path, text: str) -> None:
    assert read(tmp_path / "hypnogram.txt", text) == [W, W, N2, N2, N2]


@pytest.mark.parametrize(
    ("text", "stages"),
    [
        ("1,W\n2,N1\n3,R\n", [W, N1, R]),
        ("0;W\n30;N1\n60;R\n", [W, N1, R]),
        ("22:15:00,W\n22:15:30,N1\n22:16:30,R\n", [W, N1, None, R]),
        (
            "timestamp,stage\n2026-03-14T22:15:00+01:00,W\n2026-03-14T22:16:00+01:00,R\n",
            [W, None, R],
        ),
    ],
)
def test_a_count_or_a_time_before_the_stage_is_used(
    tmp_path: Path, text: str, stages: list[Stage | None]
) -> None:
    assert read(tmp_path / "hypnogram.csv", text) == stages


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("0\t0\n1\t0\n2\t0\n2\t1\n5\t0\n", "which holds the stages is not known"),
        ("W,N1\nN2,N2\n", "which holds the stages is not known"),
        ("0,W\n60,N1\n90,N2\n", "which holds the stages is not known"),
        ("epoch,scorer1,scorer2\n1,W,W\n2,N1,W\n", "'epoch', 'scorer1', 'scorer2'"),
    ],
)
def test_columns_without_names_are_not_guessed_at(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(TapeError, match=what):
        read(tmp_path / "hypnogram.txt", text)


def test_deep_sleep_by_its_other_names_is_n3(tmp_path: Path) -> None:
    text = "epoch,stage\n0,SWS\n1,Slow wave sleep\n2,Sommeil paradoxal\n"
    assert read(tmp_path / "hypnogram.csv", text) == [N3, N3, R]


@pytest.mark.parametrize("head", ["Sleep Stage", "sleep_stage", " SLEEP  STAGE ", "Schlafstadium"])
def test_a_header_is_known_whatever_its_spaces(tmp_path: Path, head: str) -> None:
    assert read(tmp_path / "a.csv", f"Epoch,{head}\n0,W\n1,Sleep stage ?\n2,N2\n") == [W, None, N2]


def test_epochs_that_are_counted_from_one_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    assert read(path, "epoch,stage\n1,W\n2,N1\n3,N2\n") == [W, N1, N2]
    assert read_scoring(path).notes == ("its epochs are counted from 1: epoch 1 is the first page",)
    assert read_hypnogram(path).notes == read_scoring(path).notes
    path.write_text("epoch,stage\n1,W\n5,N1\n")
    assert read_scoring(path).pages(0.0, 6) == (None, W, None, None, None, N1)
    assert read_scoring(path).notes == ("its epochs are taken to be counted from 0",)


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1", "cp1252"]
)
def test_text_is_read_in_every_encoding_that_windows_writes(tmp_path: Path, encoding: str) -> None:
    text = "Zeit,Ereignis,Bemerkung\r\n22:00:00,Wach,müde\r\n22:00:30,N2,größer\r\n"
    assert read(tmp_path / "a.csv", text.encode(encoding)) == [W, N2]


# --- digits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("digits", "stages"),
    [
        ("0 1 2 3", [W, N1, N2, N3]),
        ("0 1 2 3 5", [W, N1, N2, N3, R]),
        ("0 2 4 5 9", [W, N2, N3, R, None]),
        ("0 2.0 3 -2", [W, N2, N3, None]),
    ],
)
def test_digits_are_read_where_every_scheme_says_the_same(
    tmp_path: Path, digits: str, stages: list[Stage | None]
) -> None:
    assert read(tmp_path / "a.txt", "\n".join(digits.split())) == stages
    table = "epoch,stage\n" + "\n".join(f"{n},{d}" for n, d in enumerate(digits.split()))
    assert read(tmp_path / "a.csv", table) == stages


def test_digits_that_programs_read_differently_ask_for_a_scheme_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("0\n1\n2\n3\n4\n")
    with pytest.raises(TapeError, match=r"is 4 REM or stage 4.*--scheme nsrr or .*--scheme yasa"):
        read_scoring(path)
    assert read(path, path.read_text(), "yasa") == [W, N1, N2, N3, R]
    assert read(path, path.read_text(), "nsrr") == [W, N1, N2, N3, N3]
    with pytest.raises(TapeError, match="'4' is no sleep stage"):
        read_scoring(path, scheme="isruc")
    with pytest.raises(TapeError, match="no scheme 'sandman'"):
        read_scoring(path, scheme="sandman")
    path.write_text("1\n2\n" * 60)
    with pytest.raises(TapeError, match="--scheme"):
        read_scoring(path)  # A night without a zero may count wake as 1.
    assert set(SCHEMES) == {"nsrr", "isruc", "yasa"}


def test_letters_among_digits_identify_their_scheme(tmp_path: Path) -> None:
    """Profusion's text: W 1 2 3 4 R."""
    assert read(tmp_path / "a.txt", "W\n1\n2\n3\n4\nR\n?\n") == [W, N1, N2, N3, N3, R, None]


# --- what is refused ------------------------------------------------------------------------------


def _workbook(path: Path) -> bytes:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return path.read_bytes()


@pytest.mark.parametrize(
    ("name", "raw", "looks", "instead"),
    [
        ("a.ndb", b"SQLite format 3\x00" + bytes(100), "Noxturnal", "events as CSV"),
        ("a.pdf", b"%PDF-1.7\n" + bytes(100), "PDF report", "stages as text"),
        ("a.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100), "Excel", "Save the sheet"),
        ("a.mat", b"MATLAB 5.0 MAT-file" + bytes(100), "MATLAB", "stages as CSV"),
        ("a.eeg", b"EEG-1100A V01.00" + bytes(100), "Nihon Kohden", "OpenXDF"),
        ("a.erd", b"\xca\x4d\x00\x01" + bytes(range(256)), "Natus SleepWorks", "EDF"),
        ("a.sdy", b"\x00\x01\x02\x80" * 99, "Compumedics Profusion", "Profusion XML"),
        ("a.xyz", b"\x00\x01\x02\x80" * 99, "no format that is known", "EDF+, CSV or text"),
    ],
)
def test_a_vendor_s_file_is_refused_with_what_it_is_and_what_to_export(
    tmp_path: Path, name: str, raw: bytes, looks: str, instead: str
) -> None:
    path = tmp_path / name
    path.write_bytes(raw)
    with pytest.raises(TapeError) as refused:
        read_scoring(path)
    for part in (str(path), looks, instead):
        assert part in str(refused.value)


def test_a_workbook_is_distinguished_from_another_archive(tmp_path: Path) -> None:
    path = tmp_path / "scored.xlsx"
    _workbook(path)
    with pytest.raises(TapeError, match=r"an Excel workbook.*Save the sheet as CSV"):
        read_scoring(path)


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=300), st.sampled_from(["a.csv", "a.txt", "a.xml", "a.rml", "a.edf"]))
def test_any_bytes_are_a_scoring_or_one_clear_line(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes, name: str
) -> None:
    path = tmp_path_factory.mktemp("any") / name
    path.write_bytes(raw)
    said = str(path)
    try:
        assert read_scoring(path).spans
    except TapeError as error:
        said = str(error)
    assert str(path) in said
    assert "\n" not in said


@pytest.mark.timeout(60)
def test_brackets_without_an_end_are_read_over_at_once(tmp_path: Path) -> None:
    path = tmp_path / "night.txt"
    path.write_text("E" + "[" * 100_000 + "\tstage\n1\tW\n2\tN1\n")
    scoring = read_scoring(path)
    assert scoring.pages(scoring.anchor, 2) == (Stage.W, Stage.N1)


def test_words_of_many_programs_are_stages() -> None:
    given = {
        W: "W wake Wach SLEEP-S0 Wake|0 SDO:WakeState Éveil WK",
        N1: "N1 S1 NREM1 NonREM1 SLEEP-S1 sleep-n1 SRO:Stage1Sleep Sleep_stage_N1",
        N3: "N3 N4 S3 S4 NonREM4 SLEEP-S4 SDO:NonRapidEyeMovementSleep-N3",
        R: "R REM Rem SLEEP-REM sleep-rem SDO:RapidEyeMovementSleep",
        None: "? MT SLEEP-MT SLEEP-UNSCORED NotScored Artefakt n/a Arousal Hypopnea",
    }
    for stage, words in given.items():
        for word in words.split():
            assert stage_of(word) is stage, word
    assert stage_of("Sleep stage ?") is None
    assert stage_of("Stage 2 sleep|2") is N2
