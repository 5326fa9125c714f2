"""The loop of a lab: a night, a scorer's corrections, a file, a model tuned on it."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from hypnocast.cli import run
from hypnocast.core.pictures.recipe import builtin
from hypnocast.core.pictures.render import picture_digest
from hypnocast.core.types import Stage
from hypnocast.errors import CommandError, RecipeError, TapeError
from hypnocast.nights.night_view import open_night
from hypnocast.simulate import SimulatedSource
from support.brokers import free_port
from support.needs import need_module
from support.packs import make_tiny_pack
from support.taped_nights import tape_nights

for name in ("torch", "transformers", "peft", "accelerate", "onnx", "onnxscript", "onnxruntime"):
    need_module(name)

from hypnocast_models.cli import app  # noqa: E402 - after what it needs was found
from hypnocast_models.data import open_corrected  # noqa: E402
from hypnocast_models.readers.material import open_material, without_subjects  # noqa: E402

RECIPE = builtin("clinical-448x224")
STAGES = [Stage.W, Stage.N3] * 6
FIRST = "epoch,stage\n" + "".join(f"{k},{stage}\n" for k, stage in enumerate(STAGES[:-1]))


@pytest.fixture(scope="module")
def corrected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands write of a night that somebody scored."""
    folder = tmp_path_factory.mktemp("night")
    pack = make_tiny_pack(folder / "tiny", recipe=RECIPE.name)
    sim = SimulatedSource(1, seed=2, stages=STAGES)
    taped = asyncio.run(tape_nights(folder / "state", pack, sim, port=free_port()))
    file = folder / "hypnocast.toml"
    state = taped.config.daemon.state_dir
    file.write_text(f'daemon.state_dir = "{state}"\npack.name = "{pack}"\n')
    (folder / "scored.csv").write_text(FIRST)
    options = ["corrections", "latest", "--config", str(file), "--scorer", "mk"]
    assert run([*options, "--add", str(folder / "scored.csv")]) == 0
    assert run([*options, "--pages", str(folder / "mylab" / "night1")]) == 0
    view = open_night(taped.config, "latest")
    night = open_corrected(folder / "mylab" / "night1" / "lesson.npz", RECIPE)
    seen = [view.page(int(epoch)).digests.picture for epoch in night.epochs]
    assert [picture_digest(night.picture(epoch)) for epoch in night.epochs] == seen
    assert [night.stages[k] for k in night.epochs] == [STAGES[k] for k in night.epochs]
    assert (night.name, night.scorer) == (view.session.id, "mk")
    return folder / "mylab"


def models(*words: object) -> None:
    """Run ``hypnocast-models``."""
    app([str(word) for word in words], standalone_mode=False)


def test_a_model_learns_from_corrected_pages(corrected: Path, tmp_path: Path) -> None:
    weights, out = tmp_path / "weights", tmp_path / "run"
    models("tiny", "llava", weights)
    tuning = ["--steps", 8, "--batch", 4, "--learning-rate", 1e-2, "--lora-rank", 4]
    models("finetune", weights, corrected, out, *tuning)
    lines = (out / "training.jsonl").read_text(encoding="utf-8").splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert len(losses) == 8
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    assert (out / "weights" / "config.json").exists()


def test_corrected_nights_lie_beside_recordings_and_are_held_out_by_subject(
    corrected: Path, tmp_path: Path
) -> None:
    both = tmp_path / "both"
    shutil.copytree(corrected, both)
    np.savez(
        both / "subject07-night1.npz",
        x=np.zeros((3, 3000), np.int16),
        scale_uV=np.float64(1.0),
        y=np.array([0, 2, 4], np.uint8),
        fs=np.float64(100.0),
        channel=np.array("EEG C4-M1"),
    )
    recording, night = open_material(both, RECIPE)
    assert (len(recording.stages), len(night.stages)) == (3, 11)
    (left,) = without_subjects([recording, night], [night.subject])
    assert left.subject == "subject07"
    with pytest.raises(CommandError, match="held out"):
        without_subjects([recording, night], [night.subject, "subject07"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(CommandError, match="no recordings that a reader knows"):
        open_material(tmp_path / "empty", RECIPE)


def test_pages_of_another_recipe_and_broken_files_are_refused(
    corrected: Path, tmp_path: Path
) -> None:
    path = corrected / "night1" / "lesson.npz"
    with pytest.raises(RecipeError, match="another recipe"):
        open_corrected(path, builtin("spectral-448"))
    broken = tmp_path / "lesson.npz"
    whole = path.read_bytes()
    for size in (0, 100, len(whole) // 2, len(whole) - 10):
        broken.write_bytes(whole[:size])
        with pytest.raises(TapeError, match="is no night of pictures"):
            open_corrected(broken, RECIPE)
    with pytest.raises(TapeError, match="perception"):
        models("finetune", _tiny(tmp_path), corrected, tmp_path / "run", "--perception-steps", 2)


def _tiny(folder: Path) -> Path:
    models("tiny", "llava", folder / "weights")
    return folder / "weights"
