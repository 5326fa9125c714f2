"""Packs written in a stream give what transformers gives, for every kind and every precision."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hypnocast.core.pictures.recipe import builtin
from hypnocast.errors import ConfigError, PackError
from hypnocast.stagers.packs.manifest import Contrastive, Generative
from support.needs import need_module

for name in ("torch", "transformers", "peft", "onnx", "onnxruntime", "ml_dtypes"):
    need_module(name)

import onnxruntime as ort  # noqa: E402 - after what it needs was found
import torch  # noqa: E402

from hypnocast_models.export.label import plain_label  # noqa: E402
from hypnocast_models.export.quantise import quantise_blocks  # noqa: E402
from hypnocast_models.export.shards import Shards  # noqa: E402
from hypnocast_models.export.stream import PROMPTS, export_folder, weighing  # noqa: E402
from hypnocast_models.export.stream_pack import pack_folder  # noqa: E402
from hypnocast_models.tune.families import load, tiny  # noqa: E402

RECIPE = builtin("clinical-448x224")
GENERATIVE = ("llava", "llava_next", "qwen2_5_vl", "smolvlm")
EXACT = 1e-4
RELATIVE = {"fp32": 1e-5, "fp16": 3e-3, "int8": 0.2, "int4": 0.3, "int4-fp16": 0.3}
"""Of random weights, which suffer most."""


@pytest.fixture(scope="module", params=[*GENERATIVE, "clip", "siglip"])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model of each kind."""
    folder: Path = tmp_path_factory.mktemp("models") / request.param
    folder.mkdir()
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tiny(request.param, folder)
    if request.param == "llava_next":
        _change(folder, image_grid_pinpoints=[[56, 112], [112, 56], [112, 112]])
    return folder


def _change(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def _open(path: Path) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _near(got: Any, wanted: Any, precision: str) -> None:
    got, wanted = np.asarray(got, np.float64), np.asarray(wanted.detach(), np.float64)
    assert got.shape == wanted.shape
    if precision == "fp32":
        assert np.abs(got - wanted).max() < EXACT
    assert np.linalg.norm(got - wanted) / np.linalg.norm(wanted) < RELATIVE[precision]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int4", "int4-fp16"])
def test_what_is_written_says_what_transformers_says(
    source: Path, tmp_path: Path, precision: Any
) -> None:
    table = export_folder(source, tmp_path / "out", precision, recipe=RECIPE)
    torch.manual_seed(1)
    model, tokenizer = load(source)
    with torch.no_grad():
        if isinstance(table, Contrastive):
            _same_vectors(model.float().eval(), tokenizer, table, tmp_path / "out", precision)
        else:
            _same_features(model.float().eval(), table, tmp_path / "out", precision)
            _same_logits(model.float().eval(), table, tmp_path / "out", precision)


def _same_vectors(model: Any, words: Any, table: Contrastive, out: Path, precision: str) -> None:
    unit = torch.nn.functional.normalize
    side = table.preprocess.height
    pixels = torch.randn(2, 3, side, side)
    got = _open(out / table.image_encoder).run(None, {"pixel_values": pixels.numpy()})[0]
    _near(got, unit(model.get_image_features(pixel_values=pixels), dim=-1), precision)
    clip = model.config.model_type == "clip"
    how = {"padding": True} if clip else {"padding": "max_length", "max_length": 64}
    tokens = words(list(PROMPTS), return_tensors="pt", **how)
    mask = {"attention_mask": tokens["attention_mask"]} if clip else {}
    wanted = unit(model.get_text_features(input_ids=tokens["input_ids"], **mask), dim=-1)
    stored = np.fromfile(out / table.prompt_embeddings, "<f4").reshape(wanted.shape)
    _near(stored, wanted, "fp32")


def _same_features(model: Any, table: Generative, out: Path, precision: str) -> None:
    how, kind = table.preprocess, model.config.model_type
    see = model.model.get_image_features
    if kind == "qwen2_5_vl":
        grid = [1, how.height // how.patch_size, how.width // how.patch_size]
        pixels = torch.randn(2, grid[1] * grid[2], 1176)
        wanted = torch.cat(list(see(pixels.flatten(0, 1), torch.tensor([grid] * 2))))
    elif kind == "smolvlm":
        pixels = torch.randn(2, 3, how.height, how.width)
        wanted = see(pixels[:, None]).flatten(0, 1)
    elif kind == "llava":
        pixels = torch.randn(2, 3, how.height, how.width)
        wanted = torch.cat(list(see(pixels)))
    else:
        pixels = torch.randn(6, 3, how.height, how.width)
        tiles = pixels.reshape(2, 3, *pixels.shape[1:])
        first = torch.cat([tiles[:, 2:], tiles[:, :2]], 1)  # its processor has the whole first
        wanted = torch.cat(list(see(first, torch.tensor([[224, 448]] * 2))))
    got = _open(out / table.vision_encoder).run(None, {"pixel_values": pixels.numpy()})[0]
    assert len(got) == 2 * table.tokens_per_picture
    _near(got, wanted, precision)


def _same_logits(model: Any, table: Generative, out: Path, precision: str) -> None:
    ids = torch.randint(5, 390, (2, 24))
    embeds = model.get_input_embeddings()(ids)
    got = _open(out / table.embed_tokens).run(None, {"input_ids": ids.numpy()})[0]
    _near(got, embeds, precision)
    places = torch.arange(24)[None].expand(2, -1).contiguous()
    if table.rope == "mrope":
        steps = torch.arange(24)
        places = torch.stack([places, places + steps % 3, places + steps % 5])
    language = getattr(model.model, "language_model", None) or model.model.text_model
    read = language(inputs_embeds=embeds, position_ids=places, use_cache=False)
    session = _open(out / table.decoder)
    kind = np.float16 if precision.endswith("fp16") else np.float32
    feeds = {
        port.name: np.zeros((2, port.shape[1], 0, port.shape[3]), kind)
        for port in session.get_inputs()
        if port.name.startswith("past")
    }
    feeds |= {
        "inputs_embeds": embeds.numpy().astype(kind),
        "attention_mask": np.ones((2, 24), np.int64),
        "position_ids": places.numpy(),
        "num_logits_to_keep": np.array(24),
    }
    logits = session.run(["logits"], feeds)[0]
    _near(logits, model.lm_head(read.last_hidden_state), precision)


def test_a_pack_written_in_a_stream_is_verified_and_judged_by_the_daemon(
    source: Path, tmp_path: Path
) -> None:
    from hypnocast.core.types import Look, Picture
    from hypnocast.stagers.onnx.local import LocalStager

    values: list[str] = []
    pack = pack_folder(
        source,
        tmp_path / "pack",
        "int4",
        plain_label("streamed", "0.1.0", RECIPE),
        progress=values.append,
    )
    black = np.zeros((RECIPE.height, RECIPE.width, 3), np.uint8)
    picture = Picture(3, black, "black", RECIPE.digest, quality={}, channels={})
    opinion = LocalStager(pack, "cpu", 1).judge([Look((picture,))])[0]
    assert np.isclose(np.exp(opinion.log_probabilities).sum(), 1.0)
    assert any("peak resident" in line for line in values)


@pytest.mark.parametrize(
    ("kind", "adapted", "whole"),
    [
        ("qwen2_5_vl", ["q_proj", "down_proj", "attn.proj"], None),
        ("llava", ["q_proj"], ["multi_modal_projector"]),
        ("smolvlm", ["q_proj"], ["connector"]),
    ],
)
def test_an_adapter_is_merged_on_the_way(
    tmp_path: Path, kind: str, adapted: list[str], whole: list[str] | None
) -> None:
    """Also one beside which a projector was trained whole, as `finetune` does."""
    from peft import LoraConfig, get_peft_model

    source = tmp_path / "base"
    source.mkdir()
    tiny(kind, source)
    model, _ = load(source)
    asked = LoraConfig(r=4, lora_alpha=16, target_modules=adapted, modules_to_save=whole)
    tuned = get_peft_model(model, asked)
    torch.manual_seed(3)
    for parameter_name, parameter in tuned.named_parameters():
        if "lora_B" in parameter_name or "modules_to_save" in parameter_name:
            torch.nn.init.normal_(parameter, std=0.1)
    tuned.save_pretrained(str(tmp_path / "adapter"))
    merged = tmp_path / "merged"
    tuned.merge_and_unload().save_pretrained(merged)
    ours, theirs = Shards(source, tmp_path / "adapter"), Shards(merged)
    changed = {
        name for name in theirs._places if not np.array_equal(ours[name], Shards(source)[name])
    }
    for name in theirs._places:
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-6)
    assert sum("q_proj" in name for name in changed) >= 2
    assert whole is None or any("proj" in name and "q_proj" not in name for name in changed)


@pytest.mark.parametrize(("block", "head"), [(64, "int8"), (128, "fp32")])
def test_block_and_head_are_choices(tmp_path: Path, block: int, head: str | None) -> None:
    source = tmp_path / "base"
    source.mkdir()
    torch.manual_seed(0)
    tiny("qwen2_5_vl", source)
    kept = weighing("int4", head=head, block=block)
    table = export_folder(source, tmp_path / "out", kept, recipe=RECIPE)
    assert isinstance(table, Generative)
    model, _ = load(source)
    with torch.no_grad():
        _same_logits(model.float().eval(), table, tmp_path / "out", "int4")


def test_a_block_that_is_not_written_is_refused(tmp_path: Path) -> None:
    tiny("qwen2_5_vl", tmp_path)
    with pytest.raises(PackError, match="width of 64 is not made of whole blocks of 128"):
        export_folder(tmp_path, tmp_path / "out", weighing("int4", block=128), recipe=RECIPE)
    with pytest.raises(ConfigError, match="blocks of 48 with a head in int4 are not written"):
        weighing("int4", block=48)


def test_a_model_that_is_not_known_is_refused_by_name(tmp_path: Path) -> None:
    tiny("llava", tmp_path)
    _change(tmp_path, model_type="kosmos-2")
    with pytest.raises(PackError, match="kosmos-2"):
        export_folder(tmp_path, tmp_path / "out", "int4", recipe=RECIPE)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_block_loses_half_a_step_at_most(bits: int) -> None:
    weight = np.random.default_rng(0).standard_normal((5, 75)).astype(np.float32)
    numbers, scales = quantise_blocks(weight.copy(), bits)
    codes = numbers.astype(np.int16)
    if bits == 4:
        codes = np.stack([codes & 15, codes >> 4], -1).reshape(5, 3, 32)
    restored = ((codes - 2 ** (bits - 1)) * scales[..., None]).reshape(5, -1)[:, :75]
    step = np.repeat(np.abs(scales), 32, axis=1)[:, :75]
    # The number opposite the farthest one may lie a whole step beyond the highest code.
    assert (np.abs(restored - weight) <= 1.001 * step).all()
    assert np.median(np.abs(restored - weight) / step) < 0.5


def test_a_stage_that_comes_first_is_read_off_where_the_answer_begins(
    source: Path, tmp_path: Path
) -> None:
    from hypnocast.core.types import Look, Picture
    from hypnocast.stagers.onnx.local import LocalStager
    from hypnocast_models.export.asking import ask_stage_first

    packs = [
        pack_folder(
            source, tmp_path / kind, kind, plain_label(kind, "0.1.0", RECIPE), ask=ask_stage_first
        )
        for kind in ("fp32", "int8")
    ]
    rng = np.random.default_rng(4)
    looks = [
        Look((Picture(epoch, rgb, f"{epoch}", RECIPE.digest, quality={}, channels={}),))
        for epoch, rgb in enumerate(
            rng.integers(0, 256, (3, RECIPE.height, RECIPE.width, 3), dtype=np.uint8)
        )
    ]
    together = [LocalStager(pack, "cpu", 1).judge(looks) for pack in packs]
    alone = LocalStager(packs[0], "cpu", 1).judge(looks[1:2])[0]
    np.testing.assert_allclose(alone.log_probabilities, together[0][1].log_probabilities, atol=1e-5)
    for exact, small in zip(*together, strict=True):
        np.testing.assert_allclose(exact.log_probabilities, small.log_probabilities, atol=0.5)
