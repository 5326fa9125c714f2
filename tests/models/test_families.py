"""Every family: config → fine-tune 20 steps → export → verify → staged by the daemon's stager."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from hypnocast.core.pictures.recipe import builtin
from hypnocast.core.pictures.render import draw_page
from hypnocast.core.types import Look, Role
from hypnocast.core.verdicts.calibration import Calibration
from hypnocast.stagers.onnx.local import LocalStager
from hypnocast.stagers.packs.manifest import Provenance
from hypnocast.stagers.packs.pack import load_pack, verify_pack
from support.needs import need_module

for name in ("torch", "transformers", "peft", "accelerate", "onnx", "onnxscript", "onnxruntime"):
    need_module(name)

from hypnocast_models.data import ScoredRecording  # noqa: E402 - after what it needs was found
from hypnocast_models.export.label import Label  # noqa: E402
from hypnocast_models.export.model_files import (  # noqa: E402
    contrastive_pixels,
    describe_folder,
    read_config,
)
from hypnocast_models.export.precision import PRECISIONS, lower  # noqa: E402
from hypnocast_models.readers.night import ArrayNight  # noqa: E402
from hypnocast_models.tune.deliver import deliver  # noqa: E402
from hypnocast_models.tune.families import ALIKE, CONTRASTIVE, GENERATIVE, tiny  # noqa: E402
from hypnocast_models.tune.recipe import Training  # noqa: E402
from hypnocast_models.tune.run_folder import Cast  # noqa: E402
from hypnocast_models.tune.session import TuningSession  # noqa: E402

RECIPE = builtin("clinical-448x224")
LABEL = Label(
    name="tiny",
    version="0.0.1",
    recipe=RECIPE,
    calibration=Calibration(prior=(0.2,) * 5),
    provenance=Provenance(base="random", sources=(), seed=0, commit="0" * 40, command="pytest"),
)


def two_stage_night(pages: int = 24) -> ScoredRecording:
    """Slow large waves in N3, fast small ones in W: what any eye can distinguish."""
    rng = np.random.default_rng(0)
    at = np.arange(3000) / 100
    stages = np.tile(np.array([0, 3], np.uint8), pages // 2)
    rows = [
        (60 * np.sin(2 * np.pi * 1.0 * at) if stage else 10 * np.sin(2 * np.pi * 10 * at))
        + rng.normal(0, 2, at.size)
        for stage in stages
    ]
    return ScoredRecording(
        database="made-up",
        subject="subject00",
        night=1,
        rate=100.0,
        channel="EEG C4-M1",
        rows=np.stack(rows),
        stages=stages,
        epochs=np.arange(pages),
    )


@dataclass(frozen=True)
class Tuned:
    """A tiny model, tuned and exported."""

    folder: Path
    losses: list[float]
    lines: list[str]
    """What the export reported."""


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tuned]:
    """Return a family's tuned pack, made once: an export costs more than all the rest."""

    @cache
    def made(kind: str) -> Tuned:
        folder = tmp_path_factory.mktemp(kind)
        tiny(kind, folder / "weights")
        training = Training(steps=20, batch=4, accumulate=2, learning_rate=5e-3, lora_rank=4)
        session = TuningSession(folder / "weights", training)
        cast = Cast([ArrayNight(two_stage_night())], (), ())
        losses = session.train(folder, cast, folder / "run")
        lines: list[str] = []
        deliver(folder / "run" / "weights", LABEL, folder / "pack", progress=lines.append)
        return Tuned(folder / "pack", losses, lines)

    return made


OTHER_NAMES = [pytest.param(kind, marks=pytest.mark.long) for kind in ALIKE]


@pytest.mark.parametrize("kind", [*GENERATIVE, *CONTRASTIVE, *OTHER_NAMES])
def test_a_tiny_model_is_tuned_exported_verified_and_staged(
    kind: str, tuned: Callable[[str], Tuned]
) -> None:
    made = tuned(kind)
    assert np.mean(made.losses[-4:]) < np.mean(made.losses[:4])
    assert verify_pack(made.folder) == ()
    assert any("2 pages: max |Δ|" in line and "2 stages equal" in line for line in made.lines)

    night = two_stage_night(4)
    stager = LocalStager(load_pack(made.folder), "cpu", threads=1)
    looks = []
    for row in range(4):
        page = night.page(row, RECIPE.context_s, RECIPE.tail_s, Role.C4, 1.0)
        looks.append(Look(pictures=(draw_page(page, RECIPE, 50, {}, {Role.C4: "C4-M1"}),)))
    opinions = stager.judge(looks)
    stager.close()
    assert [o.epoch for o in opinions] == [0, 1, 2, 3]
    rows = np.stack([o.log_probabilities for o in opinions])
    np.testing.assert_allclose(np.exp(rows).sum(axis=1), 1.0, atol=1e-6)
    # Tuned on wake and deep sleep alone: one of the two is its answer for each page.
    assert set(rows.argmax(axis=1)) <= {0, 3}


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    """A pack of a model whose decoder turns by a rule that the writer does not know."""
    folder = tmp_path_factory.mktemp("traced")
    tiny("llava", folder / "weights")
    config = folder / "weights" / "config.json"
    facts = json.loads(config.read_text())
    facts["text_config"]["rope_scaling"] = {"rope_type": "linear", "factor": 2.0}
    config.write_text(json.dumps(facts))
    lines: list[str] = []
    deliver(folder / "weights", LABEL, folder / "pack", progress=lines.append)
    return Tuned(folder / "pack", [], lines)


def test_what_the_writer_does_not_know_is_traced_and_said_to_be(traced: Tuned) -> None:
    assert traced.lines[0].startswith("traced by PyTorch: rotation 'linear'")
    assert any("greedy tokens equal" in line for line in traced.lines)
    assert verify_pack(traced.folder) == ()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_lower_precision_stays_a_verified_pack(
    precision: str, traced: Tuned, tmp_path: Path
) -> None:
    copy = shutil.copytree(traced.folder, tmp_path / "pack")
    lines: list[str] = []
    lowered = lower(load_pack(copy), precision, lines.append)
    assert lines[0].startswith(f"{precision}: probabilities moved")
    assert verify_pack(copy) == ()
    assert lowered.digest != load_pack(traced.folder).digest


def test_the_colours_of_a_tower_are_its_own_processors(tmp_path: Path) -> None:
    """A LLaVA with a SigLIP tower, and weights whose processor has numbers of its own."""
    llava, siglip = tmp_path / "llava", tmp_path / "siglip"
    tiny("llava", llava)
    tiny("siglip", siglip)
    config = read_config(llava)
    clip_mean = describe_folder(llava, config, 448, 224).preprocess.mean
    assert clip_mean[0] == pytest.approx(0.48145466)
    half = (0.5, 0.5, 0.5)
    assert contrastive_pixels(siglip, read_config(siglip), clip=False).mean == half
    config["vision_config"]["model_type"] = "siglip_vision_model"
    assert describe_folder(llava, config, 448, 224).preprocess.mean == half
    fields = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "resample": 2}
    (llava / "preprocessor_config.json").write_text(json.dumps(fields))
    how = describe_folder(llava, config, 448, 224).preprocess
    assert (how.mean, how.std, how.resample) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bilinear")


def test_a_page_is_whole_where_it_was_taught_whole_whatever_its_processor_does(
    tmp_path: Path,
) -> None:
    """CLIP's processor cuts the middle out, LLaVA-NeXT's cuts tiles; `finetune` does neither."""
    tiny("clip", tmp_path / "clip")
    tiny("llava_next", tmp_path / "next")
    square = {"do_center_crop": True, "size": {"shortest_edge": 56}}
    (tmp_path / "clip" / "preprocessor_config.json").write_text(json.dumps(square))
    folder, config = tmp_path / "clip", read_config(tmp_path / "clip")
    assert contrastive_pixels(folder, config, clip=True).fit == "crop"
    assert contrastive_pixels(folder, config, clip=True, whole=True).fit == "stretch"
    folder, config = tmp_path / "next", read_config(tmp_path / "next")
    config["image_grid_pinpoints"] = [[56, 112], [112, 56], [112, 112]]
    assert describe_folder(folder, config, 448, 224).preprocess.tiles == 3
    assert describe_folder(folder, config, 448, 224, whole=True).preprocess.tiles == 1
