"""Scorers' corrections: read from what scoring software writes, laid beside the night, kept."""

from __future__ import annotations

import asyncio
import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypnocast.config.tables import Config, DaemonTable, SiteTable
from hypnocast.core.night.agreement import compare
from hypnocast.core.pictures.render import picture_digest
from hypnocast.core.types import STAGES as ALL
from hypnocast.core.types import Stage
from hypnocast.core.wire import payloads
from hypnocast.errors import CommandError, TapeError
from hypnocast.nights.corrections import add_scoring, as_text, comparisons
from hypnocast.nights.export import export_night
from hypnocast.nights.night_view import NightView, SecondHypnogram, open_night, view_of
from hypnocast.nights.report import report
from hypnocast.nights.training_pages import (
    scorer_teacher,
    second_teacher,
    write_training_pages,
)
from hypnocast.ports.hypnograms.night_files import NightHypnogram, write_edf
from hypnocast.ports.hypnograms.scored_files import read_scoring
from hypnocast.ports.journal.journal import Journal
from hypnocast.ports.journal.records import Batch, EventDraft, MarkRecord
from hypnocast.simulate import SimulatedSource
from support.brokers import free_port
from support.needs import need_module
from support.night_records import STAGES, a_night
from support.nights import T0
from support.packs import make_tiny_pack
from support.taped_nights import tape_nights

UTC_ZONE = ZoneInfo("UTC")
BERLIN = ZoneInfo("Europe/Berlin")
OURS: list[payloads.StageName | None] = ["W", "N1", "N2", "N2", None, "N3", "R", "R", "W", "N2"]
THEIRS: list[payloads.StageName | None] = ["W", "N2", "N2", "N2", "N3", "N3", "R", None, "W", "N1"]


@dataclass
class Kept:
    config: Config

    @property
    def view(self) -> NightView:
        return open_night(self.config, "night")


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    """A journal with one night, and a daemon that holds it."""
    record = a_night(OURS)
    config = Config(
        daemon=DaemonTable(state_dir=str(tmp_path / "state")), site=SiteTable(timezone="UTC")
    )

    async def keep() -> None:
        async with Journal.open(tmp_path / "state" / "journal.sqlite") as journal:
            drafts = tuple(EventDraft(event) for event in record.events)
            await journal.commit(Batch(sessions=(record.session,), events=drafts))

    asyncio.run(keep())
    return Kept(config)


def scored(stages: Sequence[payloads.StageName | None], start: datetime = T0) -> NightHypnogram:
    return NightHypnogram(start, UTC_ZONE, "S", "theirs", tuple(stages), ())


def test_any_export_of_a_scoring_is_read_back(tmp_path: Path) -> None:
    theirs = view_of(a_night(THEIRS, name="theirs"), now=0.0)
    for form in ("edf", "csv", "bids", "nsrr"):
        for path in export_night(theirs, form, tmp_path, UTC_ZONE):
            if path.suffix == ".json":
                continue
            pages = read_scoring(path).pages(0.0, len(THEIRS))
            assert [page.value if page else None for page in pages] == THEIRS, path.name


def test_a_scoring_is_kept_and_compared(kept: Kept, tmp_path: Path) -> None:
    path = tmp_path / "scored.edf"
    write_edf(scored(THEIRS), path)
    added = add_scoring(kept.config, kept.view, path, scorer="mk")
    assert (added.pages, added.outside) == (9, 0)
    assert f"{added.offset_pages:g}" == "0"
    view = kept.view
    assert list(view.scorers["mk"]) == THEIRS
    found = comparisons(view)["mk"]
    assert found["pages"] == 8
    assert found["agreement"] == pytest.approx(6 / 8)
    assert (found["scorer_only"], found["hypnocast_only"]) == (1, 1)
    assert any("agreement 75.0%" in line for line in as_text(view))
    # What was published is never changed by it.
    assert list(view.stages) == OURS
    sheet = report(view, BERLIN)
    assert "Scorer mk" in sheet
    assert "agreement 75.0%" in sheet


def test_a_later_correction_goes_first_and_scorers_stay_apart(kept: Kept, tmp_path: Path) -> None:
    for name, scorer, words in (("a", "mk", "W\nN2\n"), ("b", "mk", "N1\n\n"), ("c", "jb", "R\n")):
        (tmp_path / name).write_text(f"stage\n{words}")
        add_scoring(kept.config, kept.view, tmp_path / name, scorer=scorer)
    assert kept.view.scorers["mk"][:3] == ("N1", "N2", None)
    assert kept.view.scorers["jb"][:2] == ("R", None)


def test_a_file_that_gives_its_time_is_laid_by_it(kept: Kept, tmp_path: Path) -> None:
    path = tmp_path / "later.edf"
    write_edf(scored(["R", "N3"], start=datetime(2026, 3, 1, 22, 1, 30, tzinfo=UTC)), path)
    added = add_scoring(kept.config, kept.view, path, scorer="mk")
    assert added.offset_pages == 3.0
    assert kept.view.scorers["mk"][2:6] == (None, "R", "N3", None)
    added = add_scoring(kept.config, kept.view, path, scorer="jb", offset=9)
    assert (added.pages, added.outside) == (1, 1)
    assert kept.view.scorers["jb"][9] == "R"
    far = tmp_path / "far.edf"
    write_edf(scored(["R"], start=datetime(2026, 4, 1, tzinfo=UTC)), far)
    with pytest.raises(CommandError, match="--offset"):
        add_scoring(kept.config, kept.view, far, scorer="mk")


async def test_corrections_are_accepted_while_the_daemon_runs(kept: Kept, tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("W\nN1\n")
    async with Journal.open(kept.config.state_dir / "journal.sqlite") as journal:
        added = await asyncio.to_thread(
            add_scoring, kept.config, kept.view, tmp_path / "s.csv", scorer="mk"
        )
        assert added.pages == 2
        note = payloads.NightMark(at="2026-03-01T22:00:00.000Z", kind="note", text="")
        committed = await journal.commit(Batch(marks=(MarkRecord("night", note),)))
        assert committed.durable
        assert not journal.condition.why


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("epoch,stage\n0,W\n1,N7\n", "line 3"),
        ("epoch,stage\nzero,W\n", "line 2"),
        ("stage\n?\n\n", "no sleep stage"),
        ("epoch,stage\ninf,W\n", "line 2"),
        ("epoch,stage\n0,W\nnan,W\n", "line 3"),
        (f"stage\n{'W' * 200_000}\n", "field"),
        (
            "<CMPStudyConfig><EpochLength>inf</EpochLength></CMPStudyConfig>",
            "'inf' is no number",
        ),
        ("", "no sleep stage"),
        ("<CMPStudyConfig><SleepStages><SleepStage>x</SleepStage></SleepStages>", "XML"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><PSGAnnotation/>", "entities"),
    ],
)
def test_what_is_no_scoring_is_refused(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "scored"
    path.write_text(text)
    with pytest.raises(TapeError, match=what):
        read_scoring(path)


def test_a_row_of_a_bids_table_lasts_as_long_as_it_says(tmp_path: Path) -> None:
    path = tmp_path / "sub-01_events.tsv"
    rows = ["onset\tduration\ttrial_type", "0\t90\tW", "90\t60\tN1", "150\t150\tN2"]
    path.write_text("\n".join(rows))
    expected = ["W"] * 3 + ["N1"] * 2 + ["N2"] * 5
    pages = read_scoring(path).pages(0.0, 10)
    assert [page.value if page else None for page in pages] == expected


stage_lists = st.lists(st.sampled_from([*STAGES, None]), max_size=60)


@settings(deadline=None)
@given(stage_lists, stage_lists)
def test_kappa_is_that_of_scikit_learn(
    ours: list[payloads.StageName | None], theirs: list[payloads.StageName | None]
) -> None:
    need_module("sklearn")
    from sklearn.metrics import cohen_kappa_score, confusion_matrix

    compared = compare(ours, theirs)
    both = [(a, b) for a, b in zip(ours, theirs, strict=False) if a and b]
    assert compared.pages == len(both)
    missing = sum(stage is not None for stage in theirs) - len(both)
    assert compared.not_ours == missing
    if not both or len({*(a for a, _ in both), *(b for _, b in both)}) == 1:
        assert compared.kappa is None
        return
    a, b = zip(*both, strict=True)
    matrix = confusion_matrix(b, a, labels=list(STAGES))
    assert np.array_equal(matrix, compared.confusion)
    assert compared.kappa == pytest.approx(cohen_kappa_score(a, b))


def test_a_lesson_holds_what_the_model_saw_and_how_the_scorer_staged_it(tmp_path: Path) -> None:
    pack = make_tiny_pack(tmp_path / "tiny")
    sim = SimulatedSource(1, seed=2, stages=[Stage.W, Stage.N2, Stage.N2, Stage.R])
    taped = asyncio.run(tape_nights(tmp_path / "state", pack, sim, port=free_port()))
    view = open_night(taped.config, "latest")
    (tmp_path / "s.csv").write_text("epoch,stage\n0,W\n2,N3\n")
    add_scoring(taped.config, view, tmp_path / "s.csv", scorer="mk")
    view = open_night(taped.config, "latest")
    assert (
        write_training_pages(taped.config, view, tmp_path / "lesson", scorer_teacher(view, "mk"))
        == 2
    )
    assert sorted(path.name for path in (tmp_path / "lesson").iterdir()) == [
        "lesson.npz",
        "pages.csv",
    ]
    with np.load(tmp_path / "lesson" / "lesson.npz", allow_pickle=False) as lesson:
        pictures, stages, epochs = lesson["pictures"], lesson["stage"], lesson["epoch"]
        facts = json.loads(lesson["facts"].tobytes())
    assert [ALL[k] for k in stages] == [Stage.W, Stage.N3]
    assert epochs.tolist() == [0, 2]
    seen = [view.page(epoch).digests.picture for epoch in (0, 2)]
    assert [picture_digest(picture) for picture in pictures] == seen
    assert facts["recipe"] == view.page(0).digests.recipe
    rows = list(csv.DictReader((tmp_path / "lesson" / "pages.csv").read_text().splitlines()))
    assert [row["picture"] for row in rows] == seen
    with pytest.raises(CommandError, match="scored by mk"):
        scorer_teacher(view, "jb")
    no_tape, half = tmp_path / "no-tape.xdf", tmp_path / "half"
    no_tape.write_bytes(b"no tape")
    with pytest.raises(TapeError, match="no-tape"):
        write_training_pages(taped.config, view, half, scorer_teacher(view, "mk"), tape=no_tape)
    assert list(half.iterdir()) == []


def test_a_second_opinion_teaches_where_it_is_sure_and_is_marked_as_weak(tmp_path: Path) -> None:
    pack = make_tiny_pack(tmp_path / "tiny")
    sim = SimulatedSource(1, seed=2, stages=[Stage.W, Stage.N2, Stage.N2, Stage.R])
    taped = asyncio.run(tape_nights(tmp_path / "state", pack, sim, port=free_port()))
    view = open_night(taped.config, "latest")
    second = SecondHypnogram("other 1.2.0", ("W", "N2", None, "R"), (0.95, 0.6, 0.0, 0.9), ())
    view = replace(view, seconds=(second,))
    teacher = second_teacher(view, "other", 0.9)
    assert write_training_pages(taped.config, view, tmp_path / "lesson", teacher) == 2
    with np.load(tmp_path / "lesson" / "lesson.npz", allow_pickle=False) as lesson:
        facts = json.loads(lesson["facts"].tobytes())
        assert lesson["epoch"].tolist() == [0, 3]
        assert [ALL[k] for k in lesson["stage"]] == [Stage.W, Stage.R]
        assert lesson["weight"].tolist() == pytest.approx([0.95, 0.9])
    assert facts["weak"]
    assert facts["scorer"] == "other 1.2.0, sure of 0.9"
    with pytest.raises(CommandError, match=r"other 1\.2\.0"):
        second_teacher(view, "gssc", 0.9)
