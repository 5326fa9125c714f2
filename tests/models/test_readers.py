"""Each data set is read in its true form, as other people's programs write it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import date, time
from importlib import import_module
from pathlib import Path
from typing import Any

import edfio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypnocast.core.types import PAGE_S, STAGES, FloatArray, Role, Stage
from hypnocast.errors import CommandError, HypnocastError, TapeError
from hypnocast.ports.hypnograms.stage_words import stage_of
from hypnocast_models.readers.datasets import DATASETS, find_nights, open_night
from hypnocast_models.readers.night import ScoredNight
from hypnocast_models.readers.scoring import expert_scoring
from support.models_cli import run
from support.needs import need_module

W, N1, N2, N3, R = STAGES
PAGES = 6
RATE = 64.0


def signal(label: str, rate: float = RATE, unit: str = "uV", pages: int = PAGES) -> Any:
    """Noise that is a function of the label, as EDF keeps it."""
    data = noise(label, rate, pages)
    scale = {"uV": 1.0, "mV": 1e-3}[unit]
    return edfio.EdfSignal(
        data * scale,
        rate,
        label=label,
        physical_dimension=unit,
        physical_range=(-500 * scale, 500 * scale),
    )


def noise(label: str, rate: float = RATE, pages: int = PAGES) -> FloatArray:
    rng = np.random.default_rng(list(label.encode()))
    return rng.normal(0.0, 40.0, int(pages * PAGE_S * rate)).clip(-490, 490)


def write(
    path: Path,
    signals: Sequence[Any],
    notes: Sequence[tuple[float, float | None, str]] = (),
    start: time = time(22, 0, 0),
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    edfio.Edf(
        signals,
        recording=edfio.Recording(startdate=date(2024, 3, 1)),
        starttime=start,
        data_record_duration=1 if signals else None,
        annotations=[edfio.EdfAnnotation(*note) for note in notes],
    ).write(path)
    return path


def epochs(
    words: Sequence[str], length: float = PAGE_S, first: float = 0.0, head: str = "Sleep stage "
) -> list[tuple[float, float | None, str]]:
    return [(first + k * length, length, f"{head}{word}") for k, word in enumerate(words)]


def only(root: Path, kind: str) -> ScoredNight:
    """Open the one recording under a folder, found without being named."""
    (found,) = find_nights(root)
    assert found.dataset == kind
    return open_night(found)


def proper(night: ScoredNight, role: Role, epoch: int) -> FloatArray:
    return night.page(epoch, 0.0, 0.0).signals[role].samples


# --- one test a data set --------------------------------------------------------------------------


def test_sleep_edf_is_read_with_r_and_k_merged(tmp_path: Path) -> None:
    write(
        tmp_path / "SC4011E0-PSG.edf",
        [
            signal("EEG Fpz-Cz"),
            signal("EEG Pz-Oz"),
            signal("EOG horizontal"),
            signal("EMG submental", 1.0),
        ],
    )
    runs = [
        (0.0, 60.0, "Sleep stage W"),
        (60.0, 30.0, "Sleep stage 4"),
        (90.0, 30.0, "Movement time"),
    ]
    tail = [(120.0, 30.0, "Sleep stage 3"), (150.0, 30.0, "Sleep stage ?")]
    write(tmp_path / "SC4011EH-Hypnogram.edf", [], runs + tail)
    night = only(tmp_path, "sleep-edf")
    assert (night.name, night.subject) == ("SC4011", "SC401")
    assert night.stages == (W, W, N3, None, N3)
    assert night.scorings[0].rules == "R&K"
    assert night.channels[Role.F4] == "Fpz-Cz"
    assert night.channels[Role.O2] == "Pz-Oz"
    assert Role.CHIN not in night.channels  # an envelope at 1 Hz is no EMG to draw
    expected = noise("EEG Fpz-Cz")[int(60 * RATE) : int(90 * RATE)]
    np.testing.assert_allclose(proper(night, Role.F4, 2), expected, atol=0.03)


@pytest.mark.parametrize("length", [20.0, 30.0])
def test_mass_is_read_in_epochs_of_20_and_of_30_seconds(tmp_path: Path, length: float) -> None:
    labels = ("EEG F4-CLE", "EEG C4-CLE", "EEG O2-CLE", "EOG Left Horiz", "EOG Right Horiz")
    chins = ("EMG Chin1", "EMG Chin2")
    write(tmp_path / "01-02-0007 PSG.edf", [signal(x) for x in (*labels, *chins)])
    words = ["W", "1", "1", "2", "2", "R"] if length == 20 else ["W", "1", "2", "R"]
    write(tmp_path / "01-02-0007 Base.edf", [], epochs(words, length, first=4.0))
    night = only(tmp_path, "mass")
    assert night.stages == (W, N1, N2, R)
    assert night.scorings[0].anchor == 4.0
    assert ("scored in epochs of 20 s" in night.oddities) == (length == 20)
    assert set(night.channels) == set(Role) - {Role.ECG}
    between = (noise("EMG Chin1") - noise("EMG Chin2"))[int(34 * RATE) : int(64 * RATE)]
    np.testing.assert_allclose(proper(night, Role.CHIN, 1), between, atol=0.06)
    for role, label in ((Role.E1, "EOG Left Horiz"), (Role.E2, "EOG Right Horiz")):
        eye = noise(label)[int(34 * RATE) : int(64 * RATE)]  # as recorded, not one minus the other
        np.testing.assert_allclose(proper(night, role, 1), eye, atol=0.03)


@pytest.mark.parametrize("form", ["edf", "txt"])
def test_hmc_is_read_from_its_edf_or_its_text(tmp_path: Path, form: str) -> None:
    labels = ("EEG F4-M1", "EEG C4-M1", "EEG O2-M1", "EMG chin", "EOG E1-M2", "EOG E2-M2", "ECG")
    write(tmp_path / "SN001.edf", [signal(label) for label in labels])
    notes = [(31.0, 0.0, "Lights off@@EEG F4-A1"), *epochs(["W", "N1", "N3", "R"])]
    if form == "edf":
        write(tmp_path / "SN001_sleepscoring.edf", [], notes)
    else:
        rows = [f"2001-01-01,22:00:00,{on},{length},{text},EEG F4-A1" for on, length, text in notes]
        head = "Date, Time, Recording onset, Duration, Annotation, Linked channel"
        (tmp_path / "SN001_sleepscoring.txt").write_text("\n".join([head, *rows]))
    night = only(tmp_path, "hmc")
    assert night.stages == (W, N1, N3, R)
    assert night.scorings[0].rules == "AASM"
    assert night.scorings[0].lights_off == 31.0
    assert set(night.channels) == set(Role)


XML = """<?xml version="1.0" encoding="UTF-8"?>
<PSGAnnotation><SoftwareVersion>Compumedics</SoftwareVersion><EpochLength>30</EpochLength>
<ScoredEvents>
<ScoredEvent><EventType/><EventConcept>Recording Start Time</EventConcept><Start>0</Start>
<Duration>150.0</Duration><ClockTime>00.00.00 22.00.00</ClockTime></ScoredEvent>
<ScoredEvent><EventType>Respiratory|Respiratory</EventType>
<EventConcept>SpO2 artifact|SpO2 artifact</EventConcept><Start>3.1</Start><Duration>9</Duration>
</ScoredEvent>{events}</ScoredEvents></PSGAnnotation>"""
STAGE = (
    "<ScoredEvent><EventType>Stages|Stages</EventType><EventConcept>{0}</EventConcept>"
    "<Start>{1}</Start><Duration>{2}</Duration></ScoredEvent>"
)
PROFUSION = (
    "<CMPStudyConfig><EpochLength>30</EpochLength><SleepStages>{}</SleepStages></CMPStudyConfig>"
)


@pytest.mark.parametrize("form", ["nsrr", "profusion"])
def test_shhs_is_read_from_its_folders(tmp_path: Path, form: str) -> None:
    labels = ("EEG(sec)", "EEG", "EOG(L)", "EOG(R)", "EMG", "ECG")
    units = {"ECG": "mV"}
    write(
        tmp_path / "polysomnography/edfs/shhs1/shhs1-200001.edf",
        [signal(label, unit=units.get(label, "uV")) for label in labels],
    )
    spans = [("Wake|0", 0, 60), ("Stage 1 sleep|1", 60, 30), ("Stage 4 sleep|4", 90, 30)]
    spans += [("REM sleep|5", 120, 30), ("Unscored|9", 150, 30)]
    events = "".join(STAGE.format(*span) for span in spans)
    codes = "".join(f"<SleepStage>{code}</SleepStage>" for code in (0, 0, 1, 4, 5, 9))
    text = XML.format(events=events) if form == "nsrr" else PROFUSION.format(codes)
    folder = tmp_path / f"polysomnography/annotations-events-{form}/shhs1"
    folder.mkdir(parents=True)
    (folder / f"shhs1-200001-{form}.xml").write_text(text)
    night = only(tmp_path, "shhs")
    assert (night.name, night.subject) == ("shhs1-200001", "200001")
    assert night.stages == (W, W, N1, N3, R, None)
    assert night.channels[Role.C4] == "C4-M1"
    expected = noise("EEG")[: int(PAGE_S * RATE)]
    np.testing.assert_allclose(proper(night, Role.C4, 0), expected, atol=0.03)
    for role, label in ((Role.E1, "EOG(L)"), (Role.E2, "EOG(R)")):
        np.testing.assert_allclose(proper(night, role, 0), noise(label)[: expected.size], atol=0.03)
    heart = proper(night, Role.ECG, 0)
    np.testing.assert_allclose(heart, noise("ECG")[: heart.size], atol=0.03)


def test_isruc_is_read_with_both_experts(tmp_path: Path) -> None:
    labels = ("F3-A2", "C3-A2", "O1-A2", "F4-A1", "C4-A1", "O2-A1", "LOC-A2", "ROC-A1", "X1", "X2")
    for where in ("subgroupI/7/7", "subgroupII/3/1/1", "subgroupII/3/2/2"):
        path = write(tmp_path / f"{where}.edf", [signal(label) for label in labels])
        path.rename(path.with_suffix(".rec"))
        for expert, codes in ((1, "0 1 2 3 5 5 5"), (2, "0 2 2 3 5")):
            scores = path.with_name(f"{path.stem}_{expert}.txt")
            scores.write_text("\n".join([*codes.split(), "", ""]))
    nights = [open_night(found) for found in find_nights(tmp_path)]
    assert {n.subject for n in nights} == {"subgroupI-7", "subgroupII-3"}
    assert len({n.name for n in nights}) == 3
    first = nights[0]
    assert [scoring.stages[1] for scoring in first.scorings] == [N1, N2]
    assert "its experts scored different numbers of pages" in first.oddities
    assert "scored beyond the end of the signals" in first.oddities
    assert first.channels[Role.CHIN] == "Chin"
    assert first.channels[Role.F4] == "F4-M1"
    assert np.isnan(proper(first, Role.F4, PAGES)).all()


def test_bids_is_read_with_the_units_and_the_stages_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "sub-01/ses-2/eeg"
    path = write(folder / "sub-01_ses-2_task-sleep_eeg.edf", [signal("F4-M1"), signal("EMG Chin")])
    lines = [
        "onset\tduration\ttrial_type",
        "0\t30\tWake",
        "30\t60\tN2",
        "90\tn/a\tREM",
        "5\t0\tarousal",
    ]
    path.with_name("sub-01_ses-2_task-sleep_events.tsv").write_text("\n".join(lines))
    table = "name\ttype\tunits\nF4-M1\tEEG\tmV\nEMG Chin\tEMG\tn/a\n"
    path.with_name("sub-01_ses-2_task-sleep_channels.tsv").write_text(table)
    night = only(tmp_path, "bids")
    assert night.subject == "sub-01"
    assert night.stages == (W, N2, N2, R)
    np.testing.assert_allclose(
        proper(night, Role.F4, 0) / 1000, noise("F4-M1")[: int(PAGE_S * RATE)], atol=0.03
    )


def test_plain_edf_plus_of_another_writer_is_read(tmp_path: Path) -> None:
    need_module("pyedflib")
    pyedflib = import_module("pyedflib")
    path = tmp_path / "night.edf"
    writer = pyedflib.EdfWriter(str(path), 1, file_type=pyedflib.FILETYPE_EDFPLUS)
    keys = {"label": "F4-M1", "dimension": "uV", "sample_frequency": 64}
    writer.setSignalHeader(
        0, keys | {"physical_max": 500, "physical_min": -500, "digital_max": 32767,
                   "digital_min": -32768, "prefilter": "", "transducer": ""}
    )  # fmt: skip
    writer.writeSamples([noise("F4-M1")])
    for onset, length, text in epochs(["W", "N1", "N2"]):
        writer.writeAnnotation(onset, length, text)
    writer.close()
    night = only(tmp_path, "edf")
    assert night.stages == (W, N1, N2)
    expected = noise("F4-M1")[int(30 * RATE) : int(60 * RATE)]
    np.testing.assert_allclose(proper(night, Role.F4, 1), expected, atol=0.03)


def test_arrays_give_the_pages_they_hold_and_nothing_else(tmp_path: Path) -> None:
    counts = np.arange(3 * 500, dtype=np.int16).reshape(3, 500)
    np.savez(
        tmp_path / "subject01-night2.npz",
        x=counts, scale_uV=0.5, y=np.array([0, 4, 2], np.uint8), fs=100, channel="Fpz-Cz",
        epoch_index=np.array([0, 1, 4]),
    )  # fmt: skip
    night = only(tmp_path, "npz")
    assert night.stages == (W, R, None, None, N2)
    assert night.subject == "subject01"
    page = proper(night, Role.F4, 1)
    np.testing.assert_array_equal(page[:500], counts[1] * 0.5)
    assert np.isnan(page[500:]).all()
    assert np.isnan(proper(night, Role.F4, 2)).all()
    assert "only the first 5 s of a page" in night.oddities


# --- what all have in common ----------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(
    epoch=st.integers(0, PAGES - 1),
    context=st.sampled_from([0.0, 5.0, 30.0]),
    tail=st.sampled_from([0.0, 1.0, 3.5]),
    record=st.sampled_from([1, 5, 15]),
)
def test_a_page_is_the_recording_cut_where_the_daemon_cuts_it(
    tmp_path_factory: pytest.TempPathFactory, epoch: int, context: float, tail: float, record: int
) -> None:
    path = tmp_path_factory.mktemp("edf") / "n.edf"
    edfio.Edf(
        [signal("F4-M1")],
        data_record_duration=record,
        annotations=[edfio.EdfAnnotation(*note) for note in epochs(["W"] * PAGES)],
    ).write(path)
    page = only(path.parent, "edf").page(epoch, context, tail)
    got = page.signals[Role.F4].samples
    whole = noise("F4-M1")
    wanted = np.arange(got.size) + round((epoch * PAGE_S - context) * RATE)
    inside = (wanted >= 0) & (wanted < whole.size)
    assert got.size == round((context + PAGE_S + tail) * RATE)
    np.testing.assert_array_equal(np.isnan(got), ~inside)
    np.testing.assert_allclose(got[inside], whole[wanted[inside]], atol=0.03)
    np.testing.assert_array_equal(got[inside] * 64, np.rint(got[inside] * 64))


def test_gaps_of_a_discontinuous_recording_stay_empty(tmp_path: Path) -> None:
    path = write(tmp_path / "n.edf", [signal("F4-M1")], epochs(["W"] * PAGES))
    raw = path.read_bytes().replace(b"EDF+C", b"EDF+D", 1)
    # Move all records from the 40th second on by ten seconds.
    for second in range(PAGES * 30 - 1, 39, -1):
        old, new = f"+{second}\x14\x14".encode(), f"+{second + 10}\x14\x14".encode()
        raw = raw.replace(old + b"\x00" * (len(new) - len(old)), new, 1)
    path.write_bytes(raw)
    night = only(tmp_path, "edf")
    assert "the recording has gaps (EDF+D)" in night.oddities
    page = proper(night, Role.F4, 1)
    np.testing.assert_array_equal(
        np.isnan(page), (np.arange(page.size) >= 10 * RATE) & (np.arange(page.size) < 20 * RATE)
    )
    whole = noise("F4-M1")
    np.testing.assert_allclose(
        page[int(20 * RATE) :], whole[int(40 * RATE) : int(50 * RATE)], atol=0.03
    )


def test_the_merging_of_r_and_k_is_written_down() -> None:
    words = ("W", "S1", "S2", "S3", "S4", "R", "MT")
    assert [stage_of(word) for word in words] == [W, N1, N2, N3, N3, R, None]


def _mass(root: Path) -> Path:
    return write(root / "a PSG.edf", [signal("EEG F4-CLE", pages=1)])


def _shhs(root: Path, xml: str) -> Path:
    path = write(root / "shhs1-1.edf", [signal("EEG", pages=1)])
    path.with_name("shhs1-1-nsrr.xml").write_text(xml)
    return path


def _isruc(root: Path, codes: str) -> Path:
    path = write(root / "1/1.edf", [signal("F4-A1", pages=1)])
    path.with_name("1_1.txt").write_text(codes)
    return path.rename(path.with_suffix(".rec"))


def _cut(root: Path) -> Path:
    path = write(root / "night.edf", [signal("F4-M1", pages=1)])
    path.write_bytes(path.read_bytes()[:300])
    return path


def _array(root: Path) -> Path:
    path = root / "subject01.npz"
    path.write_bytes(b"PK\x03\x04 no zip")
    return path


BROKEN: dict[str, tuple[Callable[[Path], Path], str]] = {
    "no base": (_mass, "a Base.edf: its Base file with the stages is missing"),
    "no xml": (
        lambda root: write(root / "shhs1-1.edf", [signal("EEG", pages=1)]),
        "shhs1-1-nsrr.xml: its XML with the stages is missing",
    ),
    "xml cut": (lambda root: _shhs(root, XML[:90]), "is no well-formed XML"),
    "xml empty": (lambda root: _shhs(root, XML.format(events="")), "holds no sleep stage"),
    "xml code": (
        lambda root: _shhs(root, XML.format(events=STAGE.format("X|77", 0, 30))),
        "stage code '77' is not one of NSRR's",
    ),
    "xml time": (
        lambda root: _shhs(root, XML.format(events=STAGE.format("Wake|0", "x", 30))),
        "'x' is no number for Start",
    ),
    "xml year": (
        lambda root: _shhs(root, XML.format(events=STAGE.format("Wake|0", 0, 1e9))),
        "its stages reach to",
    ),
    "digits": (lambda root: _isruc(root, "0\n4\n"), "1_1.txt, line 2: '4' is no sleep stage"),
    "no digits": (lambda root: _isruc(root, "\n"), "holds no sleep stage"),
    "cut": (_cut, "ends within its header"),
    "unscored": (
        lambda root: write(root / "night.edf", [signal("F4-M1", pages=1)]),
        "holds no sleep stages among its annotations",
    ),
    "no array": (_array, "subject01.npz"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_recording_is_one_clear_line(tmp_path: Path, case: str) -> None:
    make, what = BROKEN[case]
    make(tmp_path)
    (found,) = find_nights(tmp_path)
    with pytest.raises(HypnocastError) as refused:
        open_night(found)
    assert what in str(refused.value)
    assert "\n" not in str(refused.value)


@settings(deadline=None, max_examples=60)
@given(damage=st.binary(max_size=400), at=st.integers(0, 900))
def test_no_damage_to_an_xml_or_a_text_gives_anything_but_a_clear_error(
    tmp_path_factory: pytest.TempPathFactory, damage: bytes, at: int
) -> None:
    path = tmp_path_factory.mktemp("damage") / "a.xml"
    whole = XML.format(events=STAGE.format("Wake|0", 0, 60)).encode()
    path.write_bytes(whole[:at] + damage + whole[at + len(damage) :])
    for scheme in (None, "isruc"):
        try:
            scoring = expert_scoring(path, scheme=scheme)
        except TapeError as error:
            found = str(error)
        else:
            found = str(path)
            assert all(stage is None or isinstance(stage, Stage) for stage in scoring.stages)
        assert str(path) in found


def test_a_local_copy_is_checked_and_broken_files_are_counted_not_fatal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for number in (1, 2, 3):
        path = write(tmp_path / f"SN00{number}.edf", [signal("EEG F4-M1"), signal("EEG C4-M1")])
        if number != 2:
            scored = path.with_name(f"{path.stem}_sleepscoring.edf")
            write(scored, [], epochs(["W", "N1", "N2", "N2"]))
    loud = edfio.EdfSignal(
        noise("x") * 0, RATE, label="EEG F4-M1", physical_dimension="uV", physical_range=(-1, 1)
    )
    write(tmp_path / "SN003.edf", [loud])
    assert run(["datasets", str(tmp_path), "--json"]) == 1
    document = json.loads(capfd.readouterr().out)
    assert (document["dataset"], document["nights"], document["subjects"]) == ("hmc", 2, 2)
    assert document["hours"] == round(8 * 30 / 3600, 2)
    assert document["stages"] == {"W": 2, "N1": 2, "N2": 4}
    assert document["channels"] == {"F4-M1": {"F4-M1": 2}, "C4-M1": {"C4-M1": 1}}
    assert document["odd_nights"] == {"SN003": ["F4-M1 is flat on every page looked at"]}
    (line,) = document["broken"]
    assert "SN002_sleepscoring" in line
    assert run(["datasets", str(tmp_path)]) == 1
    assert "1 recordings could not be read" in capfd.readouterr().out


def test_a_folder_without_recordings_and_an_unknown_reader_are_misuse(tmp_path: Path) -> None:
    assert run(["datasets", str(tmp_path)]) == 2
    assert run(["datasets", str(tmp_path), "--kind", "xyz"]) == 2
    with pytest.raises(CommandError, match="no folder"):
        find_nights(tmp_path / "nowhere")
    assert set(DATASETS) >= {"isruc", "mass", "shhs", "sleep-edf", "hmc", "edf", "bids", "npz"}
