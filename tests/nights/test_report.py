"""The night's report: everything that is known, undefined shown as undefined, nothing fetched."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest

from hypnocast.cli import run
from hypnocast.core.wire import payloads
from hypnocast.errors import InstallError
from hypnocast.nights.figures import Axis
from hypnocast.nights.night_view import view_of
from hypnocast.nights.report import report
from hypnocast.nights.sheet import save
from hypnocast.ports.journal.journal import Journal
from hypnocast.ports.journal.reader import NightRecord
from hypnocast.ports.journal.records import Batch, EventDraft, MarkRecord
from support.needs import need_program
from support.night_records import a_night, random_nights
from support.nights import instant

BERLIN = ZoneInfo("Europe/Berlin")
VOID = {"meta", "img", "br", "line", "rect", "path"}


class SheetReader(HTMLParser):
    """Reads a page as a browser does, and fails where tags do not match."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in {"script", "link", "iframe", "object"}
        for name, value in attrs:
            assert not name.startswith("on")
            assert name not in {"src", "href"} or (value or "").startswith("data:")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += f"{data} "


def sheet_of(record: NightRecord) -> str:
    page = report(view_of(record, now=0.0), BERLIN)
    assert not re.search(r"https?://|url\((?!#)", page)
    return " ".join(SheetReader(page).words.split())


def a_stretch(stage: payloads.StageName, pages: int) -> list[payloads.StageName | None]:
    return [stage] * pages


def test_every_kind_of_night_has_a_report() -> None:
    for record in random_nights(8):
        words = sheet_of(record)
        assert "Research software: no diagnosis, no alarm function" in words
        assert "SIMULATED" in words
        assert "S-001" in words


def test_what_is_undefined_is_shown_as_undefined() -> None:
    asleep_never = sheet_of(a_night(["W"] * 10))
    assert "Sleep onset latency undefined" in asleep_never
    assert "REM latency undefined" in asleep_never
    assert "Total sleep time 0.0 min" in asleep_never
    assert "Sleep efficiency 0.0 %" in asleep_never
    slept = sheet_of(a_night([*a_stretch("W", 4), *a_stretch("N2", 10), *a_stretch("R", 6)]))
    assert "Sleep onset latency 2.0 min" in slept
    assert "REM latency 5.0 min" in slept
    assert "Sleep efficiency 80.0 %" in slept
    assert "undefined" not in slept


def test_what_was_withheld_is_listed_with_the_reason_and_what_it_touches() -> None:
    words = sheet_of(a_night(["W", None, None, "N2", None, "N2"], reasons=("detached", "too_late")))
    assert "detached 2 1.0 min the EEG was detached" in words
    assert "too_late 1 0.5 min the model answered too late" in words
    assert "† pages without a stage" in words


def test_pages_for_review_are_listed_by_time() -> None:
    record = a_night(["N2"] * 5)
    events = [
        msgspec.structs.replace(e, review=e.epoch == 3, confidence=0.41) for e in record.events
    ]
    record = NightRecord(record.session, tuple(events), (), (), ())
    assert "23:01:30 · page 3 N2 41%" in sheet_of(record)


@pytest.mark.parametrize("evening", ["2026-03-28T21:10:00", "2026-10-24T20:10:00"])
def test_the_clock_below_a_figure_is_right_after_the_change_of_summer_time(evening: str) -> None:
    start = datetime.fromisoformat(evening).replace(tzinfo=UTC)
    axis = Axis(start, BERLIN, 960)
    ticks = re.findall(r'<text x="([0-9.]+)"[^>]*>(\d\d:\d\d)</text>', axis.hours(0.0, 1.0))
    assert len(ticks) >= 7
    page = axis.x(1.0) - axis.x(0.0)
    for x, shown in ticks:
        at = start + timedelta(seconds=30.0 * (float(x) - axis.x(0.0)) / page)
        nearest_minute = at + timedelta(seconds=30.0)  # places have one decimal
        assert f"{nearest_minute.astimezone(BERLIN):%H:%M}" == shown


def test_no_text_of_the_night_becomes_markup() -> None:
    mark = payloads.NightMark(at=instant(10), kind="note", text="<script>alert(1)</script>")
    assert "<script>alert(1)</script>" in sheet_of(a_night(["N2"], marks=[mark]))


@pytest.mark.parametrize(("form", "magic"), [("pdf", b"%PDF-"), ("png", b"\x89PNG\r\n")])
def test_a_browser_prints_it(tmp_path: Path, form: str, magic: bytes) -> None:
    need_program("chromium")
    path = tmp_path / f"night.{form}"
    save(report(view_of(random_nights(5)[4], now=0.0), BERLIN), path, form)
    assert path.read_bytes().startswith(magic)
    if form == "png":
        from PIL import Image

        with Image.open(path) as image:
            height, paper = image.height, image.getpixel((image.width // 2, image.height - 3))
        assert height > 2000
        assert paper in {(255, 255, 255), (255, 255, 255, 255)}


@pytest.mark.parametrize("verb", [["report", "latest"], ["why", "latest", "3"]])
def test_an_unknown_format_is_refused_before_anything_is_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: list[str]
) -> None:
    config = tmp_path / "hypnocast.toml"
    config.write_text(f'daemon.state_dir = "{tmp_path}"\n')
    assert run([*verb, "-f", "docx", "-c", str(config)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "docx" in line
    assert "html, pdf, png" in line


def test_a_browser_that_writes_nothing_is_reported_and_the_old_sheet_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = tmp_path / "chromium"
    browser.write_text("#!/bin/sh\nexit 0\n")
    browser.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    old = tmp_path / "night.pdf"
    old.write_text("of yesterday")
    with pytest.raises(InstallError, match="wrote nothing"):
        save("<p>", old, "pdf")
    assert old.read_text() == "of yesterday"


def test_without_a_browser_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InstallError, match="--format html"):
        save("<p>", tmp_path / "night.pdf", "pdf")


def test_the_commands_read_the_journal_of_the_state_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mark = payloads.NightMark(at=instant(30), kind="lights_off", text="")
    record = a_night(["W", "N2", None, "R"], marks=[mark])

    async def keep() -> None:
        async with Journal.open(tmp_path / "journal.sqlite") as journal:
            drafts = tuple(EventDraft(event) for event in record.events)
            marks = (MarkRecord("night", mark),)
            await journal.commit(Batch(sessions=(record.session,), events=drafts, marks=marks))

    asyncio.run(keep())
    config = tmp_path / "hypnocast.toml"
    config.write_text(f'[daemon]\nstate_dir = "{tmp_path}"\n')

    def obey(*words: str) -> str:
        assert run([*words, "--config", str(config)]) == 0
        return capsys.readouterr().out

    [line] = json.loads(obey("nights", "--json"))
    assert (line["session"], line["pages"], line["final"], line["withheld"]) == ("night", 4, 3, 1)
    assert "night" in obey("nights")
    sheet = tmp_path / "out" / "sheet.html"
    obey("report", "latest", "-o", str(sheet))
    assert "Night of S-001" in sheet.read_text(encoding="utf-8")
    for form in ("edf", "csv", "bids", "nsrr", "json"):
        for path in obey("export", "nig", "-f", form, "-o", str(tmp_path / form)).split():
            assert Path(path).stat().st_size > 0
    assert "Nobody has scored" in obey("corrections", "night")
    assert run(["report", "other", "--config", str(config)]) == 2
    assert "hypnocast nights" in capsys.readouterr().err
