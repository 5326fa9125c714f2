"""Rolling verdicts judged: the daemon's windows, the expert's moments, and what being sure buys."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hypnocast.core.types import PAGE_S, STAGES
from hypnocast.stagers.onnx.local import LocalStager
from hypnocast.stagers.packs.pack import load_pack
from hypnocast_models.compare.rolling import RolledNight, roll_night, rolling_figures
from hypnocast_models.readers.datasets import find_nights, open_night
from hypnocast_models.staging.night import stage_night
from support.made_up_archives import make_archive
from support.models_cli import run
from support.packs import make_tiny_pack

W, N2 = 0, 2


def a_night(ends: list[float], ours: list[int], expert: list[int], sure: float) -> RolledNight:
    chances = np.full((len(ends), len(STAGES)), (1 - sure) / 4)
    chances[np.arange(len(ends)), ours] = sure
    stages = np.array(expert)
    changes = tuple(
        (ends[k - 1], expert[k]) for k in range(1, len(ends)) if expert[k] != expert[k - 1]
    )
    return RolledNight(
        "n", "s", 10.0, np.array(ends), stages, np.array(ours), chances, 1.0, changes
    )


def test_a_change_is_followed_from_the_experts_moment_to_the_verdict_with_its_tail() -> None:
    ends = [30.0 + 10 * k for k in range(10)]
    expert = [W] * 4 + [N2] * 6  # the page that begins at 60 s
    night = a_night(ends, [W] * 6 + [N2] * 4, expert, 0.9)
    judged = rolling_figures([night])
    assert judged["changes"] == judged["changes_found"] == 1
    assert judged["delay_s"]["median"] == 90.0 + 1.0 - 60.0
    by_stage = {(row["stage"], row["least"]): row for row in judged["sure"]}
    assert by_stage["N2", 0.9]["precision"] == 1.0
    assert by_stage["N2", 0.9]["share"] == round(4 / 6, 4)
    assert by_stage["W", 0.9]["precision"] == round(4 / 6, 4)
    assert by_stage["W", 0.95]["verdicts"] == 0


def test_whole_pages_are_what_evaluate_judges_and_longer_hops_a_part_of_shorter_ones(
    tmp_path: Path,
) -> None:
    make_archive("edf", tmp_path / "data", people=1, pages=8)
    pack = load_pack(make_tiny_pack(tmp_path / "pack", seed=3))
    night = open_night(find_nights(tmp_path / "data")[0])
    stager = LocalStager(pack, "cpu")
    rolled = roll_night(night, pack, stager, 10.0)
    whole = rolled.every(PAGE_S)
    alone = roll_night(night, pack, stager, PAGE_S)
    staged = stage_night(night, pack, stager).hypnogram
    stager.close()
    assert rolled.ends.tolist() == [30.0 + 10 * k for k in range(3 * 7 + 1)]
    np.testing.assert_array_equal(whole.ours, staged.numbers)
    np.testing.assert_array_equal(whole.ours, alone.ours)
    np.testing.assert_allclose(whole.probabilities, alone.probabilities, atol=1e-6)
    assert staged.probabilities is not None
    np.testing.assert_allclose(whole.probabilities, staged.probabilities, atol=1e-6)
    expert = [STAGES.index(s) for s in night.stages if s is not None]
    assert whole.expert.tolist() == expert


def test_the_command_lists_every_hop_and_refuses_one_that_fits_no_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_archive("edf", tmp_path / "data", people=1, pages=6)
    pack = make_tiny_pack(tmp_path / "pack", seed=3)
    words = ["rolling", str(pack), str(tmp_path / "data"), "--out", str(tmp_path / "judged.json")]
    assert run([*words, "--hop", "15", "--hop", "30"]) == 0
    judged = json.loads((tmp_path / "judged.json").read_text())
    assert [one["hop_s"] for one in judged["hops"]] == [15.0, 30.0]
    assert judged["hops"][0]["verdicts"] == 2 * judged["hops"][1]["verdicts"] - 1
    assert run([*words, "--hop", "7"]) == 2
    assert "no hop" in capsys.readouterr().err
