"""Second opinions in the morning: the report, and whether the pack should be changed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from hypnocast.commands.nights import nights as nights_command
from hypnocast.config.tables import Config, DaemonTable
from hypnocast.core.night.agreement import compare
from hypnocast.core.types import STAGES
from hypnocast.core.wire.payloads import StageName
from hypnocast.live.service.build import JOURNAL
from hypnocast.nights.comparing import compare_nights, compared_json, compared_lines, gain
from hypnocast.nights.night_view import NightView, open_night
from hypnocast.nights.report import report
from hypnocast.nights.second_section import MOST_SHOWN, worth_showing
from hypnocast.ports.journal.journal import Journal
from hypnocast.ports.journal.records import Batch, BesideRecord, Correction, EventDraft
from support.night_records import random_nights

BERLIN = ZoneInfo("Europe/Berlin")
PNG = b"\x89PNG\r\n\x1a\nnot a picture"


def _other(stage: StageName) -> StageName:
    names: tuple[StageName, ...] = ("W", "N1", "N2", "N3", "R")
    return names[(names.index(stage) + 1) % 5]


async def _keep(folder: Path) -> None:
    """Two nights: the pack beside parts on every third page, and the scorer is with it."""
    async with Journal.open(folder / JOURNAL) as journal:
        for record in random_nights(6)[4:]:
            values, corrections = [], []
            staged = [e for e in record.events if e.status == "final" and e.stage is not None]
            for event in staged:
                assert event.stage is not None
                stage = _other(event.stage) if event.epoch % 3 == 0 else event.stage
                chances = np.full(5, 0.05)
                chances[[one.value for one in STAGES].index(stage)] = 0.8
                values.append(
                    BesideRecord(
                        session=event.session,
                        epoch=event.epoch,
                        pack="sha256:" + "1" * 64,
                        name="other 1.0.0",
                        stage=stage,
                        reason=None,
                        probabilities=chances,
                        log_probabilities=np.log(chances),
                        coverage=1.0,
                    )
                )
                corrections.append(
                    Correction(event.session, event.epoch, stage, "anna", record.session.opened)
                )
            await journal.commit(
                Batch(
                    sessions=(record.session,),
                    events=tuple(EventDraft(event) for event in record.events),
                    beside=tuple(values),
                    corrections=tuple(corrections),
                )
            )


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("state")
    asyncio.run(_keep(folder))
    return Config(daemon=DaemonTable(state_dir=str(folder)))


@pytest.fixture(scope="module")
def view(config: Config) -> NightView:
    return open_night(config, "latest")


def test_pages_on_which_a_second_pack_parts_are_for_review(view: NightView) -> None:
    (second,) = view.seconds
    expected = tuple(
        epoch for epoch, stage in enumerate(view.stages) if stage is not None and epoch % 3 == 0
    )
    assert second.parted == expected
    assert set(expected) <= set(view.night.review)
    assert "No page is marked for review" not in report(view, BERLIN)


def test_the_report_shows_both_hypnograms_kappa_and_the_surest_partings(view: NightView) -> None:
    (second,) = view.seconds
    shown = worth_showing(view, second)
    assert len(shown) == min(MOST_SHOWN, len(second.parted))
    sheet = report(view, BERLIN, {shown[0]: PNG})
    kappa = compare(view.stages, second.stages).kappa
    assert "Second opinion: other 1.0.0" in sheet
    assert "Hypnogram of other 1.0.0" in sheet
    assert f"{kappa:.2f}" in sheet
    assert f'alt="page {shown[0]}"' in sheet
    assert sheet.count("no picture kept") == len(shown) - 1
    for epoch in second.parted:
        assert f"page {epoch}" in sheet


def test_many_nights_say_whether_the_pack_should_be_changed(config: Config) -> None:
    found = compare_nights(config)
    assert len(found) == 2
    for night in found:
        (against,) = night.against
        assert against.beside.kappa == 1.0
        assert against.speaking.pages == against.beside.pages == night.between.pages
    better = gain(found, "anna")
    assert better is not None
    assert better[0] > 0.0
    assert better[1] > 0.0
    values = "\n".join(compared_lines(found))
    assert "other 1.0.0 agrees better" in values
    assert [row["session"] for row in compared_json(found)] == [night.session for night in found]


def test_the_command_says_what_to_do_where_no_pack_is_beside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def empty() -> None:
        async with Journal.open(tmp_path / JOURNAL):
            pass

    asyncio.run(empty())
    file = tmp_path / "hypnocast.toml"
    file.write_text(f'[daemon]\nstate_dir = "{tmp_path}"\n', encoding="utf-8")
    nights_command(file, compare=True)
    assert "[[pack.beside]]" in capsys.readouterr().out
