"""Exports: whoever reads them sees the same night, whatever they read."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET
from zoneinfo import ZoneInfo

import msgspec
import pytest

from hypnocast.core.wire import payloads
from hypnocast.errors import CommandError
from hypnocast.nights.export import FORMATS, export_night
from hypnocast.nights.night_view import NightView, view_of
from hypnocast.ports.hypnograms.scored_files import read_scoring
from hypnocast.ports.journal.records import Correction
from support.needs import need_module
from support.night_records import a_night, random_nights
from support.nights import instant

BERLIN = ZoneInfo("Europe/Berlin")
CODES = {"0": "W", "1": "N1", "2": "N2", "3": "N3", "5": "R", "9": None}
LIGHTS = {"Lights off", "Lights on"}

Said = tuple[float, float | None, str]

MNE = """
import json, sys, mne
texts = {}
for path in sys.argv[1:]:
    read = mne.read_annotations(path)
    texts[path] = [list(one) for one in zip(read.onset, read.duration, read.description)]
json.dump(texts, sys.stdout, default=float)
"""


@pytest.fixture(scope="module")
def views() -> list[NightView]:
    return [view_of(record, now=0.0) for record in random_nights(50)]


@pytest.fixture(scope="module")
def files(views: list[NightView], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("nights")
    return [export_night(view, "edf", folder, BERLIN)[0] for view in views]


def hypnogram(rows: Sequence[Said], pages: int) -> list[str | None]:
    """Return the annotations' stage of each page; fail where they give it twice or never."""
    stages: list[str | None] = ["never"] * pages
    for onset, duration, text in rows:
        if not text.startswith("Sleep stage "):
            continue
        assert duration == pytest.approx(30.0)
        epoch, rest = divmod(onset, 30.0)
        assert rest == 0.0
        assert stages[int(epoch)] == "never"
        stages[int(epoch)] = None if text == "Sleep stage ?" else text.removeprefix("Sleep stage ")
    return stages


def check(view: NightView, found: Sequence[Said]) -> None:
    assert hypnogram(found, view.night.epochs) == list(view.stages)
    lights = sorted((round(onset, 3), text) for onset, _, text in found if text in LIGHTS)
    values = [mark for mark in view.night.marks if mark.kind.startswith("lights")]
    assert [text for _, text in lights] == [
        "Lights off" if mark.kind == "lights_off" else "Lights on" for mark in values
    ]
    for (onset, _), mark in zip(lights, values, strict=True):
        assert instant(onset) == mark.at


def test_edfio_reads_the_same_nights(views: list[NightView], files: list[Path]) -> None:
    from edfio import read_edf

    for view, path in zip(views, files, strict=True):
        edf = read_edf(path)
        check(view, [(one.onset, one.duration, one.text) for one in edf.annotations])
        assert edf.patient.code == "S-001"
        assert f"{edf.startdate} {edf.starttime}" == "2026-03-01 23:00:00"


def test_pyedflib_reads_the_same_nights(views: list[NightView], files: list[Path]) -> None:
    need_module("pyedflib")
    from pyedflib import EdfReader

    for view, path in zip(views, files, strict=True):
        with EdfReader(str(path)) as reader:
            onsets, durations, texts = reader.readAnnotations()
        check(view, list(zip(onsets.tolist(), durations.tolist(), texts.tolist(), strict=True)))


def test_mne_reads_the_same_nights(views: list[NightView], files: list[Path]) -> None:
    need_module("mne")
    answer = subprocess.run(
        [sys.executable, "-c", MNE, *map(str, files)], check=True, capture_output=True, text=True
    )
    document = json.loads(answer.stdout)
    for view, path in zip(views, files, strict=True):
        check(view, [(onset, duration, text) for onset, duration, text in document[str(path)]])


def test_nsrr_files_give_the_same_nights(views: list[NightView], tmp_path: Path) -> None:
    for view in views:
        profusion, nsrr = export_night(view, "nsrr", tmp_path, BERLIN)
        root = ET.fromstring(profusion.read_text(encoding="utf-8"))  # noqa: S314 - our own file
        assert root.tag == "CMPStudyConfig"
        assert root.findtext("EpochLength") == "30"
        assert [CODES[s.text or ""] for s in root.iter("SleepStage")] == list(view.stages)
        stages: list[str | None] = []
        whole = ET.fromstring(nsrr.read_text(encoding="utf-8"))  # noqa: S314 - our own file
        for event in whole.iter("ScoredEvent"):
            if event.findtext("EventType") != "Stages|Stages":
                assert event.findtext("ClockTime") == "00.00.00 23.00.00"
                continue
            code = (event.findtext("EventConcept") or "").split("|")[1]
            assert float(event.findtext("Start") or "") == 30.0 * len(stages)
            stages += [CODES[code]] * round(float(event.findtext("Duration") or "") / 30.0)
        assert stages == list(view.stages)


def test_bids_csv_and_json_give_the_same_nights(views: list[NightView], tmp_path: Path) -> None:
    for view in views:
        events, sidecar = export_night(view, "bids", tmp_path, BERLIN)
        session = view.session.id.replace("-", "")
        assert events.name == f"sub-S001_ses-{session}_task-sleep_events.tsv"
        rows = list(
            csv.DictReader(io.StringIO(events.read_text(encoding="utf-8")), dialect="excel-tab")
        )
        assert all(set(row) <= set(json.loads(sidecar.read_text())) for row in rows)
        onsets = [float(row["onset"]) for row in rows]
        assert onsets == sorted(onsets)
        pages = [row for row in rows if row["epoch"] != "n/a"]
        shown = [None if row["trial_type"] == "n/a" else row["trial_type"] for row in pages]
        assert shown == list(view.stages)
        [table] = export_night(view, "csv", tmp_path, BERLIN)
        lines = list(csv.DictReader(io.StringIO(table.read_text(encoding="utf-8"))))
        assert [line["stage"] or None for line in lines] == list(view.stages)
        assert [line["reason"] or None for line in lines] == list(view.night.reasons)
        [whole] = export_night(view, "json", tmp_path, BERLIN)
        document = json.loads(whole.read_text())
        assert msgspec.convert(document["night"], payloads.Night) == view.night
        assert msgspec.convert(document["events"], tuple[payloads.StageEvent, ...]) == view.pages


def test_a_provisional_page_is_not_exported_as_settled() -> None:
    record = a_night(["N2", "N3"])
    last = msgspec.structs.replace(record.events[-1], status="provisional", revision=0)
    view = view_of(replace(record, events=(record.events[0], last)), now=0.0)
    assert view.night.stages == ("N2", "N3")
    assert view.stages == ("N2", None)


def test_no_night_of_a_ward_writes_over_another(tmp_path: Path) -> None:
    ids = ("lab.bed-1.20260301T220000000Z", "lab.bed-2.20260301T220000000Z",
           "lab.bed-1.20260301T221500000Z")  # fmt: skip
    for form in FORMATS:
        written: list[Path] = []
        for name in ids:
            record = a_night(["W", "N2"], name=name)
            unnamed = replace(record, session=replace(record.session, subject=None))
            written += export_night(view_of(unnamed, now=0.0), form, tmp_path / form, BERLIN)
        assert len(written) == len(set(written)), form


def test_a_page_that_the_journal_lost_keeps_its_columns(tmp_path: Path) -> None:
    record = a_night(["W", "N2", "N3"])
    correction = Correction("night", 1, "R", "mk", instant(0.0), "")
    lost = replace(record, events=(record.events[0], record.events[2]), corrections=(correction,))
    [path] = export_night(view_of(lost, now=0.0), "csv", tmp_path, BERLIN)
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    assert [row["status"] for row in rows] == ["final", "unknown", "final"]
    assert [row["scorer_mk"] for row in rows] == ["", "R", ""]


def test_any_id_and_any_time_fit_an_edf_header(tmp_path: Path) -> None:
    name = f"lab.{'b' * 64}.20260301T220000000Z.replay"
    record = a_night(["W", "N2"], name=name)
    # A recording that does not give its date is played from 1970.
    dateless = msgspec.structs.replace(record.events[0], start="1970-01-01T00:00:00.000Z")
    old = replace(
        record,
        session=replace(record.session, start="1970-01-01T00:00:00.000Z"),
        events=(dateless,),
    )
    for shown, found in ((record, ["W", "N2"]), (old, ["W"])):
        [path] = export_night(view_of(shown, now=0.0), "edf", tmp_path, BERLIN)
        pages = read_scoring(path).pages(0.0, len(found))
        assert [page.value if page else None for page in pages] == found


def test_an_unknown_format_is_refused_by_name(tmp_path: Path, views: list[NightView]) -> None:
    with pytest.raises(CommandError, match="xlsx"):
        export_night(views[1], "xlsx", tmp_path, BERLIN)
    assert len(FORMATS) == 16
