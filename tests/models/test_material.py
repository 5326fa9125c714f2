"""Whatever archive a lab has can be learned from and judged on, and a page is the same in both."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hypnocast.core.pictures.recipe import builtin
from hypnocast.core.types import Picture, Role
from hypnocast.stagers.packs.manifest import Context
from support.made_up_archives import ARCHIVES, make_archive, stages_of, write_edf
from support.models_cli import run
from support.needs import need_module
from support.packs import make_tiny_pack

for name in ("torch", "transformers", "accelerate", "onnxruntime"):
    need_module(name)

from hypnocast_models.data.recordings import role_of  # noqa: E402
from hypnocast_models.experiments.archives import chosen_nights  # noqa: E402
from hypnocast_models.experiments.plan import Data  # noqa: E402
from hypnocast_models.readers.datasets import find_nights, open_night  # noqa: E402
from hypnocast_models.readers.material import open_material  # noqa: E402
from hypnocast_models.staging.archive import drawing_plan, work_on  # noqa: E402 - after what it needs
from hypnocast_models.staging.night import pictures_of  # noqa: E402
from hypnocast_models.tune.lessons import TrainingPages  # noqa: E402

RECIPE = builtin("clinical-448x224")


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_pack(tmp_path_factory.mktemp("packs") / "tiny", recipe=RECIPE.name)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    assert run(["tiny", "clip", str(folder)]) == 0
    return folder


@pytest.mark.parametrize(
    ("channel", "role"),
    [
        ("EEG Fpz-Cz", Role.F4),
        ("EEG F4-A1", Role.F4),
        ("C3-A2", Role.C4),
        ("O2-M1", Role.O2),
        ("EEG", Role.C4),
        ("what is it", Role.C4),
    ],
)
def test_a_single_eeg_fills_the_role_that_it_would_have_live(channel: str, role: Role) -> None:
    assert role_of(channel, 100.0) is role


@pytest.mark.parametrize("kind", ARCHIVES)
def test_a_page_is_taught_judged_and_drawn_alike(kind: str, tmp_path: Path) -> None:
    (found, *_) = find_nights(make_archive(kind, tmp_path / "data", people=1, pages=5))
    assert found.dataset == kind
    night = open_night(found)
    judged = [one.rgb for one in pictures_of(night, RECIPE) if isinstance(one, Picture)]
    lessons = TrainingPages([night], RECIPE)
    taught = lessons.draw(np.arange(len(lessons)), np.random.default_rng(0), 1.0).pictures
    work_on(drawing_plan(RECIPE.name, tmp_path), found)
    with np.load(tmp_path / f"{found.name}.npz") as kept:
        drawn = kept["rgb"]
    assert len(taught) == len(judged) == len(drawn) == 5
    for one, other, third in zip(taught, judged, drawn, strict=True):
        assert np.array_equal(one, other)
        assert np.array_equal(one, third)


@pytest.mark.parametrize("kind", [*ARCHIVES, "drawn"])
def test_every_archive_is_tuned_on_and_judged_on(
    kind: str, pack: Path, weights: Path, tmp_path: Path
) -> None:
    data = make_archive("isruc" if kind == "drawn" else kind, tmp_path / "data")
    if kind == "drawn":
        recording = data
        data = tmp_path / "drawn"
        drawing = ["draw", str(recording), "--out", str(data), "--recipe", RECIPE.name]
        assert run([*drawing, "--workers", "1"]) == 0
    tuning = ["finetune", str(weights), str(data), str(tmp_path / "run"), "--steps", "2"]
    assert run([*tuning, "--batch", "4"]) == 0
    assert len((tmp_path / "run" / "training.jsonl").read_text().splitlines()) == 2
    out = tmp_path / "figures.json"
    assert run(["evaluate", str(pack), str(data), "--out", str(out)]) == 0
    found = json.loads(out.read_text())["gains"]["1"]["filtered"]
    assert found["pages"] == 30
    assert len(found["subjects"]) == 2
    assert found["coverage"] > 0.9


def test_a_subject_that_is_not_there_holds_nobody_out(
    weights: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = make_archive("npz", tmp_path / "data")
    tuning = ["finetune", str(weights), str(data), str(tmp_path / "run"), "--steps", "1"]
    assert run([*tuning, "--without", "subject2"]) == 2
    assert "no subject subject2. There are subject01, subject02" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()
    assert run([*tuning, "--without", "subject01", "--without", "subject02"]) == 2
    with pytest.raises(Exception, match="no subject subject2"):
        chosen_nights(Data(folder="data", without=("subject2",)), tmp_path)


def test_a_pack_judged_on_people_it_was_taught_on_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pack = Path(__file__).parents[2] / "models" / "packs" / "hypnocast-small"
    data = make_archive("npz", tmp_path / "data")
    out = tmp_path / "figures.json"
    assert run(["evaluate", str(pack), str(data), "--out", str(out)]) == 0
    printed = capfd.readouterr().err
    assert "lists subject01, subject02 among the subjects of" in printed
    assert json.loads(out.read_text())["warnings"]
    staging = ["stage", str(data), "--out", str(tmp_path / "staged"), "--pack", str(pack)]
    assert run([*staging, "--workers", "1"]) == 0
    assert "lists subject01, subject02 among" in capfd.readouterr().err
    assert run(["compare", str(data), str(tmp_path / "staged")]) == 0
    assert "lists subject01, subject02 among" in capfd.readouterr().err
    assert run(["evaluate", str(pack), str(make_archive("mass", tmp_path / "other"))]) == 0
    assert "lists" not in capfd.readouterr().err


def test_pages_that_are_all_withheld_and_a_look_at_both_neighbours_are_judged(
    tmp_path: Path,
) -> None:
    both = make_tiny_pack(tmp_path / "both", recipe=RECIPE.name, context=Context(before=1, after=1))
    data = make_archive("npz", tmp_path / "data", people=1)
    out, report = tmp_path / "figures.json", tmp_path / "report.html"
    judging = ["evaluate", str(both), str(data), "--out", str(out), "--report", str(report)]
    assert run(judging) == 0
    found = json.loads(out.read_text())["gains"]["1"]["filtered"]
    assert found["kappa"][1:] == [None, None]  # of one subject there is no interval
    assert run([*judging, "--gain", "1000"]) == 0
    found = json.loads(out.read_text())["gains"]["1000"]["filtered"]
    assert found["coverage"] == 0.0
    assert found["risk_coverage"] == []


def _arrays(**changed: object) -> dict[str, object]:
    good: dict[str, object] = {
        "x": np.zeros((3, 3000), np.int16),
        "y": np.array([0, 1, 2]),
        "fs": 100.0,
        "scale_uV": 1.0,
        "channel": "F4-M1",
    }
    good |= changed
    return {key: value for key, value in good.items() if value is not None}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"x": np.zeros(3000)}, "x: needs numbers"),
        ({"x": np.zeros((3, 0))}, "x: needs numbers"),
        ({"x": np.array([["a", "b"]] * 3)}, "x: needs numbers"),
        ({"x": np.full((3, 3000), np.nan)}, "or none at all"),
        ({"x": np.full((3, 3000), np.inf)}, "infinite"),
        ({"x": np.zeros((3, 3001), np.int16)}, "longer than a page"),
        ({"y": np.array([0, 1])}, "y: needs one"),
        ({"y": np.array([0.0, 1.0, 2.0])}, "y: needs one"),
        ({"y": np.array([0, 1, 7])}, "other stages"),
        ({"fs": 0.0}, "no sampling rate"),
        ({"fs": np.nan}, "no sampling rate"),
        ({"fs": np.array([100.0, 100.0])}, "cannot be read"),
        ({"scale_uV": np.nan}, "no scale"),
        ({"scale_uV": 0.0}, "no scale"),
        ({"epoch_index": np.array([0, 1, 10**9])}, "epoch_index"),
        ({"epoch_index": np.array([0, 1, 1])}, "epoch_index"),
        ({"channel": None}, "lacks channel"),
        ({"y": np.array([None] * 3, dtype=object)}, "cannot be read"),
    ],
)
def test_arrays_that_would_teach_nonsense_are_refused_in_one_line(
    changed: dict[str, object], expected: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "subject01.npz", **_arrays(**changed))  # type: ignore[arg-type]
    arguments = ["finetune", str(tmp_path), str(tmp_path), str(tmp_path / "run")]
    assert run(arguments) in {1, 2}
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert expected in lines[0]
    assert not (tmp_path / "run").exists()


def test_pages_of_both_kinds_lie_side_by_side(tmp_path: Path) -> None:
    data = make_archive("npz", tmp_path / "data", people=2)
    (first, _) = find_nights(data)
    work_on(drawing_plan(RECIPE.name, data), first)  # over the arrays that it was drawn from
    kinds = [type(night).__name__ for night in open_material(data, RECIPE)]
    assert sorted(kinds) == ["ArrayNight", "PictureNight"]


def test_recordings_that_nobody_scored_are_staged_and_a_table_beside_is_read(
    pack: Path, tmp_path: Path
) -> None:
    stages = stages_of(5, 1)
    night = write_edf(tmp_path / "data" / "bare.edf", ("F4-M1", "E1-M2"), stages, 1)
    out = tmp_path / "staged"
    staging = ["stage", str(night.parent), "--out", str(out), "--pack", str(pack)]
    assert run([*staging, "--workers", "1"]) == 0
    assert len((out / "bare.csv").read_text().splitlines()) == 1 + 5
    assert run(["evaluate", str(pack), str(night.parent)]) == 1
    table = "epoch,stage\n" + "".join(f"{k},{stage}\n" for k, stage in enumerate(stages))
    elsewhere = tmp_path / "scored"
    elsewhere.mkdir()
    (elsewhere / "bare.csv").write_text(table)
    named = ["--hypnograms", str(elsewhere)]
    assert run(["evaluate", str(pack), str(night.parent), *named]) == 0
    night.with_suffix(".csv").write_text(table)
    (found,) = find_nights(night.parent)
    assert [stage.value for stage in open_night(found).stages if stage] == stages
