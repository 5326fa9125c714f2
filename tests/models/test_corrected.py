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
from hypnocast.stagers.packs.pack import load_pack
from support.brokers import free_port
from support.needs import need_module
from support.packs import make_tiny_pack
from support.taped_nights import tape_nights

for name in ("torch", "transformers", "peft", "accelerate", "onnx", "onnxscript", "onnxruntime"):
    need_module(name)

from hypnocast_models.cli import app  # noqa: E402 - after what it needs was found
from hypnocast_models.data import open_corrected  # noqa: E402
from hypnocast_models.readers.material import open_material, without_subjects  # noqa: E402
from hypnocast_models.tune.lessons import TrainingPages  # noqa: E402

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


def test_a_lab_learns_from_its_own_nights_and_sees_what_it_was_worth(
    corrected: Path, tmp_path: Path
) -> None:
    nights, weights, out = tmp_path / "nights", tmp_path / "weights", tmp_path / "out"
    for name, subject, weak in (("a", "ann", True), ("b", "ben", False)):
        _relabelled(corrected / "night1" / "lesson.npz", nights / name, subject, weak=weak)
    models("tiny", "llava", weights)
    words = ["learn", weights, nights, out, "--name", "mine", "--steps", 2, "--batch", 2]
    words += ["--pages", RECIPE.name, "--lora-rank", 4]
    with pytest.raises(CommandError, match="second opinion, which cannot judge"):
        models(*words, "--held-out", "ann")
    models(*words, "--held-out", "ben")
    found = json.loads((out / "learned.json").read_text(encoding="utf-8"))
    taught = {"other 1.2.0, sure of 0.9 (weak labels)": len(STAGES) - 1}
    assert found["teachers"] == taught
    assert found["before"]["pages"] == found["after"]["pages"] == len(STAGES) - 1
    made = load_pack(out / "pack")
    assert made.digest == found["pack"]
    assert "weak labels" in made.manifest.provenance.notes
    assert "weak labels" in (out / "pack" / "CARD.md").read_text(encoding="utf-8")


def test_a_page_of_half_the_weight_counts_half(corrected: Path, tmp_path: Path) -> None:
    _relabelled(corrected / "night1" / "lesson.npz", tmp_path / "a", "ann", weak=True)
    (night,) = open_material(tmp_path, RECIPE)
    drawn = TrainingPages([night], RECIPE).draw(np.arange(4), np.random.default_rng(0), 1.0)
    assert drawn.weights.tolist() == [0.5] * 4


def _relabelled(lesson: Path, folder: Path, subject: str, *, weak: bool) -> None:
    """Write a night anew as somebody else's."""
    folder.mkdir(parents=True)
    with np.load(lesson) as kept:
        arrays = {name: kept[name] for name in kept.files}
    facts = json.loads(arrays["facts"].tobytes())
    facts |= {"subject": subject, "session": f"night of {subject}", "weak": weak}
    if weak:
        facts["scorer"] = "other 1.2.0, sure of 0.9"
        arrays["weight"] = np.full(len(arrays["stage"]), 0.5, np.float32)
    arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    np.savez(folder / "lesson.npz", **arrays)
