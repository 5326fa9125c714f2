"""The public face: three lines from a recording to its hypnogram, and one picture everywhere."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hypnocast
from hypnocast.config.tables import Config
from hypnocast.config.tables import PackTable as PackConfig
from hypnocast.core.pictures.recipe import builtin
from hypnocast.core.pictures.render import picture_digest
from hypnocast.core.types import Picture
from hypnocast.errors import CommandError, TapeError
from hypnocast.nights.replay import Replayed, ReplaySettings, replay
from support.made_up_archives import RATE, channel, stages_of, write_edf
from support.needs import need_module
from support.packs import make_tiny_pack

LABELS = ("F4-M1", "C4-M1", "O2-M1", "E1-M2", "E2-M2", "Chin1-Chin2")
PAGES = 6


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    stages = stages_of(PAGES, 1)
    return write_edf(tmp_path_factory.mktemp("edf") / "night.edf", LABELS, stages, 1, stages)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_pack(tmp_path_factory.mktemp("pack") / "tiny", recipe="clinical-448x224")


async def _replayed(pack: Path, recording: Path) -> Replayed:
    replayed = Replayed()
    config = Config(pack=PackConfig(name=str(pack)))
    await replay(config, ReplaySettings(recording), watchers=(replayed,))
    return replayed


def test_a_page_has_the_same_pixels_wherever_it_is_drawn(
    night: Path, pack: Path, tmp_path: Path
) -> None:
    for name in ("torch", "mne"):
        need_module(name)
    import mne

    from hypnocast_models.readers.datasets import find_nights
    from hypnocast_models.readers.datasets import open_night as open_scored
    from hypnocast_models.staging.archive import drawing_plan, work_on
    from hypnocast_models.staging.night import pictures_of
    from hypnocast_models.tune.lessons import TrainingPages

    recipe = builtin("clinical-448x224")
    (found,) = find_nights(night.parent)
    scored = open_scored(found)
    raw = mne.io.read_raw_edf(night, verbose="error")
    samples = np.stack([raw.get_data(picks=[name])[0] * 1e6 for name in LABELS])
    work_on(drawing_plan(recipe.name, tmp_path), found)
    with np.load(tmp_path / "night.npz") as kept:
        drawn = [picture_digest(rgb) for rgb in kept["rgb"]]
    lessons = TrainingPages([scored], recipe)
    taught = lessons.draw(np.arange(PAGES), np.random.default_rng(0), 1.0).pictures
    events = asyncio.run(_replayed(pack, night)).events
    everywhere: dict[str, list[str | None]] = {
        "draw": list(drawn),
        "finetune": [picture_digest(rgb) for rgb in taught],
        "evaluate and stage": [
            one.digest for one in pictures_of(scored, recipe) if isinstance(one, Picture)
        ],
        "replay": [event.digests.picture for event in events[:PAGES]],
        "path": [hypnocast.draw(night, k, recipe=recipe.name).digest for k in range(PAGES)],
        "mne.Raw": [hypnocast.draw(raw, k, recipe=recipe.name).digest for k in range(PAGES)],
        "array": [
            hypnocast.draw(samples, k, recipe=recipe.name, rate=RATE, channels=LABELS).digest
            for k in range(PAGES)
        ],
    }
    for where, digests in everywhere.items():
        assert digests == drawn, where


def test_stages_are_those_of_a_replay(night: Path, pack: Path) -> None:
    staged = hypnocast.stage(night, pack)
    events = asyncio.run(_replayed(pack, night)).events
    assert [event.stage for event in events] == list(staged.hypnogram.stages)
    assert [event.reason for event in events] == list(staged.hypnogram.reasons)
    for event, shares in zip(events, staged.hypnogram.probabilities, strict=True):
        found = event.probabilities
        assert found is not None
        np.testing.assert_allclose(
            [found.W, found.N1, found.N2, found.N3, found.R], shares, atol=1e-6
        )


def test_a_hypnogram_is_what_other_programs_read(night: Path, pack: Path) -> None:
    found = hypnocast.stage(night, pack).hypnogram
    assert len(found) == PAGES
    assert found.to_numpy().shape == (PAGES,)
    assert found.start is not None
    assert str(found).startswith(f"{PAGES} pages by ")
    need_module("mne")
    annotations = found.to_annotations()
    assert annotations.duration.tolist() == [30.0] * PAGES
    assert set(annotations.description) <= {
        "Sleep stage W", "Sleep stage 1", "Sleep stage 2", "Sleep stage 3", "Sleep stage R"
    }  # fmt: skip


def test_a_night_that_breaks_off_ends_with_a_page_that_is_withheld(pack: Path) -> None:
    samples = channel("F4-M1", stages_of(3, 2), 2)[: round(70 * RATE)]
    found = hypnocast.stage(samples, pack, rate=RATE, channels=["F4-M1"]).hypnogram
    assert found.reasons == (None, None, "session_end")
    assert found.stages[2] is None


def test_a_page_is_explained_and_shown(night: Path, pack: Path, tmp_path: Path) -> None:
    opened = hypnocast.open_night(night)
    assert opened.pages == PAGES
    assert opened.channels["F4-M1"] == "F4-M1"
    rests = opened.explain(1, pack)
    assert set(rests.channels) == set(opened.channels)
    assert rests.sentence.startswith(rests.stage)
    opened.draw(1).save(tmp_path / "page.png")
    assert (tmp_path / "page.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("source", "how"),
    [
        (np.zeros((1, 4000)), {}),
        (np.zeros((1, 4000)), {"rate": 100.0, "channels": ["F4-M1", "C4-M1"]}),
        (np.zeros((1, 4000)), {"rate": 0.0, "channels": ["F4-M1"]}),
        (np.zeros((1, 2, 3)), {"rate": 100.0, "channels": ["F4-M1"]}),
        (np.array([["a"]]), {"rate": 100.0, "channels": ["F4-M1"]}),
    ],
)
def test_an_array_that_cannot_be_a_night_is_refused_by_name(
    source: Any, how: dict[str, Any]
) -> None:
    with pytest.raises(CommandError):
        hypnocast.open_night(source, **how)


def test_a_page_that_is_not_there_is_refused(night: Path) -> None:
    with pytest.raises(TapeError, match="has no page 99"):
        hypnocast.draw(night, 99)


def test_the_face_costs_the_daemon_nothing_and_imports_no_mne() -> None:
    program = (
        "import sys, hypnocast; assert 'hypnocast.api' not in sys.modules; hypnocast.stage;"
        "assert 'mne' not in sys.modules; print(sorted(hypnocast.__all__))"
    )
    outcome = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "open_night" in outcome.stdout


def test_every_cell_of_the_notebook_runs(
    night: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    need_module("mne")
    shutil.copyfile(night, tmp_path / "night.edf")
    monkeypatch.chdir(tmp_path)
    book = json.loads((Path(__file__).parents[1] / "examples" / "notebook.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"]
    names: dict[str, Any] = {}
    for cell in cells:
        exec(compile(cell, "notebook.ipynb", "exec"), names)  # noqa: S102 - our own notebook
    assert f"{PAGES} pages by hypnocast-small" in capsys.readouterr().out
