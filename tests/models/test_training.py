"""Training can be repeated, stopped at any moment and gone on with, and records what it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from support.made_up_archives import make_archive
from support.models_cli import run
from support.needs import need_module

for name in ("torch", "transformers", "peft", "accelerate", "safetensors"):
    need_module(name)

from safetensors.numpy import load_file  # noqa: E402 - after what it needs was found

from hypnocast.errors import ConfigError  # noqa: E402
from hypnocast_models.tune.recipe import read_training, recipe_names, training_toml  # noqa: E402
from hypnocast_models.tune.run_folder import provenance_of  # noqa: E402


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_archive("npz", tmp_path_factory.mktemp("data"), people=3, pages=15)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    assert run(["tiny", "llava", str(folder)]) == 0
    return folder


def arguments(weights: Path, data: Path, out: Path, *more: str) -> list[str]:
    steps = ["--steps", "8", "--every", "2", "--batch", "2", "--learning-rate", "1e-2"]
    return ["finetune", str(weights), str(data), str(out), *steps, "--lora-rank", "4", *more]


def losses(out: Path) -> list[float]:
    rows = [json.loads(line) for line in (out / "training.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def same_weights(one: Path, other: Path) -> bool:
    first = load_file(one / "weights" / "model.safetensors")
    second = load_file(other / "weights" / "model.safetensors")
    return all(np.array_equal(first[name], second[name]) for name in first)


def wait_for_step(out: Path, step: int) -> None:
    """Wait until a run has made so many steps."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        log = out / "training.jsonl"
        if log.is_file() and len(log.read_text().splitlines()) >= step:
            return
        time.sleep(0.02)
    pytest.fail("the run made no steps")


def started(words: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a run as a shell starts it with `&`: SIGINT ignored from the beginning."""
    with log.open("wb") as found:
        return subprocess.Popen(
            [sys.executable, "-m", "hypnocast_models.cli", *words],
            stdout=subprocess.DEVNULL,
            stderr=found,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),  # noqa: PLW1509
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )


@pytest.fixture(scope="module")
def undisturbed(
    weights: Path, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Return a run of 40 steps that nothing ended, made once for each rank."""

    @cache
    def made(rank: str) -> Path:
        folder = tmp_path_factory.mktemp("whole")
        words = arguments(weights, data, folder / "run", "--steps", "40", "--lora-rank", rank)
        assert started(words, folder / "log").wait(240) == 0, (folder / "log").read_text()[-2000:]
        return folder / "run"

    return made


@pytest.mark.parametrize(
    ("how", "rank"),
    [
        pytest.param((signal.SIGTERM, signal.SIGKILL), "4", id="term-kill-lora"),
        pytest.param((signal.SIGINT,), "4", id="int-lora", marks=pytest.mark.long),
        pytest.param((signal.SIGKILL,), "0", id="kill-full", marks=pytest.mark.long),
        pytest.param((signal.SIGTERM,), "0", id="term-full", marks=pytest.mark.long),
        pytest.param((signal.SIGINT,), "0", id="int-full", marks=pytest.mark.long),
    ],
)
def test_a_run_that_was_ended_goes_on_to_the_same_bits(
    how: tuple[signal.Signals, ...],
    rank: str,
    *,
    weights: Path,
    data: Path,
    undisturbed: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    more = ("--steps", "40", "--lora-rank", rank)
    cut, log = tmp_path / "cut", tmp_path / "again.log"
    whole = undisturbed(rank)
    before = 0
    for end in how:  # one after the other, each of a run that went on
        process = started(arguments(weights, data, cut, *more), tmp_path / "cut.log")
        wait_for_step(cut, before + 5)
        process.send_signal(end)
        assert process.wait(240) == (-9 if end is signal.SIGKILL else 128 + end)
        assert before + 5 <= len(losses(cut)) < 40
        before = len(losses(cut))
        if end is not signal.SIGKILL:  # the step under way was kept
            assert (cut / f"checkpoint-{before}" / "whole").is_file()
    again = started(arguments(weights, data, cut, *more), log)
    assert again.wait(240) == 0, log.read_text()[-2000:]
    assert losses(cut) == losses(whole)
    assert same_weights(cut, whole)


def test_the_seed_decides_and_nothing_else(weights: Path, data: Path, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for folder, seed in zip(folders, ("1", "1", "2"), strict=True):
        assert run(arguments(weights, data, folder, "--seed", seed, "--steps", "3")) == 0
    first, same, other = folders
    assert losses(first) == losses(same)
    assert same_weights(first, same)
    assert losses(first) != losses(other)


def test_a_folder_goes_on_with_nothing_but_its_own_run(
    weights: Path, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    held = ("--without", "subject02")
    assert run(arguments(weights, data, out, *held)) == 0
    for more, found in (
        ((*held, "--seed", "5"), "recipe.seed"),
        ((*held, "--steps", "9"), "recipe.steps"),
        ((), "held_out"),
    ):
        assert run(arguments(weights, data, out, *more)) == 2
        assert found in capfd.readouterr().err
    run_of = json.loads((out / "run.json").read_text())
    assert (run_of["taught"], run_of["held_out"]) == (["subject01", "subject03"], ["subject02"])
    assert (out / "adapter" / "adapter_config.json").is_file()
    again = tmp_path / "again"
    words = ["finetune", str(weights), str(data), str(again), "--recipe", str(out / "recipe.toml")]
    assert run([*words, *held]) == 0
    assert same_weights(out, again)
    origin = provenance_of(out / "weights", "0" * 40)
    assert origin is not None
    assert origin.sources[0].subjects == ("subject01", "subject03")


def test_subjects_that_judge_are_taught_nothing_and_the_best_is_kept(
    weights: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert run(arguments(weights, data, out, "--validate", "0.34")) == 0
    run_of = json.loads((out / "run.json").read_text())
    assert len(run_of["judging"]) == 1
    assert not set(run_of["judging"]) & set(run_of["taught"])
    rows = [json.loads(line) for line in (out / "training.jsonl").read_text().splitlines()]
    judged = [row for row in rows if "eval_kappa" in row]
    assert [row["step"] for row in judged] == [2, 4, 6, 8]
    assert all(-1 <= row["eval_kappa"] <= 1 for row in judged)
    shown = {path.name for path in (out / "judged").iterdir()}
    assert {f"confusion-{step:06d}.png" for step in (2, 4, 6, 8)} <= shown
    assert any(name.startswith("misjudged") for name in shown)


def test_perception_teaches_the_eye_under_lora(weights: Path, data: Path, tmp_path: Path) -> None:
    out, recipe = tmp_path / "run", tmp_path / "recipe.toml"
    shipped = read_training("small", {"gradient_checkpointing": True})  # as recipes of real size
    recipe.write_text(training_toml(shipped), encoding="utf-8")
    sizes = ("--perception-steps", "4", "--steps", "1", "--recipe", str(recipe))
    assert run(arguments(weights, data, out, *sizes)) == 0
    before = load_file(weights / "model.safetensors")
    after = load_file(out / "weights" / "model.safetensors")
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert any("vision_tower" in name for name in moved)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--steps", "0"], "steps"),
        (["--accumulate", "0"], "accumulate"),
        (["--batch", "0"], "batch"),
        (["--learning-rate", "0"], "learning_rate"),
        (["--lora-rank", "-1"], "lora_rank"),
        (["--validate", "1.5"], "validate"),
        (["--recipe", "clinical-448x224"], "--pages"),
        (["--pages", "no-such"], "pages"),
        (["--log", "paper"], "tensorboard"),
        (["--without", "subject2"], "no subject subject2"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_loaded(
    words: list[str], expected: str, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["finetune", str(tmp_path), str(data), str(tmp_path / "run"), *words]) == 2
    err = capfd.readouterr().err.splitlines()
    assert len(err) == 1
    assert expected in err[0]
    assert not (tmp_path / "run").exists()


def test_every_recipe_that_ships_can_be_read() -> None:
    assert set(recipe_names()) == {"paper-clip", "paper-llava-next", "sleepvlm", "small"}
    assert read_training("paper-llava-next", {}).lora_rank == 16
    assert read_training("sleepvlm", {"steps": 7}).steps == 7
    with pytest.raises(ConfigError, match="no recipe of training"):
        read_training("paper", {})
