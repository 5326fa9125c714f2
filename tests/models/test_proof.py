"""A pack says what its model says, by the model's own processor; a worse one is refused."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

from hypnocast.core.pictures.recipe import builtin
from hypnocast.errors import ConfigError, PackError
from support.needs import need_module

for name in ("torch", "transformers", "onnx", "onnxruntime", "ml_dtypes"):
    need_module(name)

import torch  # noqa: E402 - after what it needs was found
import transformers as hf  # noqa: E402

from hypnocast_models.export.asking import ask_stage_first  # noqa: E402
from hypnocast_models.export.label import AnswerForm, plain_label  # noqa: E402
from hypnocast_models.export.stream_pack import pack_folder  # noqa: E402
from hypnocast_models.tune.deliver import pages_to_prove  # noqa: E402
from hypnocast_models.tune.families import tiny  # noqa: E402
from hypnocast_models.tune.proof import EXACT, Proof, prove  # noqa: E402

RECIPE = builtin("clinical-448x224")
GRIDS = [[56, 112], [112, 56], [112, 112]]
SQUARE = {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}}
PROCESSORS = {
    "clip": lambda: hf.CLIPImageProcessor(**SQUARE),
    "siglip": lambda: hf.SiglipImageProcessor(size={"height": 56, "width": 56}),
    "llava": lambda: hf.CLIPImageProcessor(**SQUARE),
    "llava_next": lambda: hf.LlavaNextImageProcessor(**SQUARE, image_grid_pinpoints=GRIDS),
    "qwen2_5_vl": hf.Qwen2VLImageProcessor,
    "smolvlm": lambda: hf.SmolVLMImageProcessor(max_image_size={"longest_edge": 64}),
    "idefics3": lambda: hf.Idefics3ImageProcessor(max_image_size={"longest_edge": 64}),
}


def _weights(kind: str, folder: Path) -> Path:
    """Write a small random model with a processor, as a downloaded folder has one."""
    folder.mkdir()
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tiny(kind, folder)
        if kind == "llava_next":
            config = folder / "config.json"
            changed = json.loads(config.read_text()) | {"image_grid_pinpoints": GRIDS}
            config.write_text(json.dumps(changed))
        PROCESSORS[kind]().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", PROCESSORS)
def test_an_exact_pack_says_what_the_model_says_of_pages(kind: str, tmp_path: Path) -> None:
    source = _weights(kind, tmp_path / "weights")
    ask = AnswerForm if kind == "llava" else ask_stage_first
    pack = pack_folder(
        source, tmp_path / "pack", "fp32", plain_label("exact", "0.1.0", RECIPE), ask=ask
    )
    proof = prove(pack, source, pages_to_prove(RECIPE, None, 3))
    assert proof.largest < EXACT
    assert (proof.pages, proof.same_stages) == (3, 3)
    proof.demand()


def test_a_proof_shows_how_far_a_lower_precision_is_off(tmp_path: Path) -> None:
    source = _weights("qwen2_5_vl", tmp_path / "weights")
    pack = pack_folder(source, tmp_path / "pack", "int4", plain_label("small", "0.1.0", RECIPE))
    proof = prove(pack, source, pages_to_prove(RECIPE, None, 2))
    assert EXACT < proof.largest < 1.0
    with pytest.raises(PackError, match="it differs from the model"):
        proof.demand()
    assert str(proof).startswith("parity with transformers and its processor on 2 pages: max |Δ| ")


@pytest.mark.parametrize("kind", ["siglip", "qwen2_5_vl", "smolvlm"])
def test_without_the_models_own_processor_pages_are_prepared_as_the_pack_says(
    kind: str, tmp_path: Path
) -> None:
    source = _weights(kind, tmp_path / "weights")
    (source / "preprocessor_config.json").unlink()
    label = plain_label("exact", "0.1.0", RECIPE)
    proof = prove(
        pack_folder(source, tmp_path / "pack", "fp32", label),
        source,
        pages_to_prove(RECIPE, None, 2),
    )
    proof.demand()
    assert str(proof).startswith("parity with transformers on 2 pages: ")


def test_tiles_are_not_proved_without_the_models_own_processor(tmp_path: Path) -> None:
    source = _weights("llava_next", tmp_path / "weights")
    pack = pack_folder(source, tmp_path / "pack", "fp32", plain_label("exact", "0.1.0", RECIPE))
    (source / "preprocessor_config.json").unlink()
    with pytest.raises(ConfigError, match="own processor is not known"):
        prove(pack, source, pages_to_prove(RECIPE, None, 1))
    with pytest.raises(PackError):
        Proof(2, 0.0, 1).demand()
