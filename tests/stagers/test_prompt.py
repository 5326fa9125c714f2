"""Pixels, prompts and answers, against the code the models were trained with where there is."""

from __future__ import annotations

import itertools
import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from hypnocast.errors import PackError
from hypnocast.stagers.generative.answers import AnswerTree
from hypnocast.stagers.generative.prompt import (
    build_prompt,
    encode_answers,
    encode_behind,
    load_tokenizer,
)
from hypnocast.stagers.generative.unfinished_json import lead_to
from hypnocast.stagers.onnx.pixels import prepare
from hypnocast.stagers.packs.manifest import Generative, Preprocess
from support.needs import need_module

RGB = np.random.default_rng(7).integers(0, 256, (224, 448, 3)).astype(np.uint8)
PATCHES = Preprocess(layout="patches", width=448, height=224, mean=(0.48,) * 3, std=(0.27,) * 3)


def _generative(**changes: Any) -> Generative:
    keys: dict[str, Any] = {
        "vision_encoder": "v.onnx",
        "embed_tokens": "e.onnx",
        "decoder": "d.onnx",
        "tokenizer": "tokenizer.json",
        "preprocess": Preprocess(width=448, height=224),
        "prompt": "look: <|picture|> and say:",
        "answers": ("W", "N1", "N2", "N3", "R"),
        "scoring": "prefill",
        "image_token": "<image>",
        "tokens_per_picture": 6,
        "layers": 1,
        "kv_heads": 1,
        "head_dim": 1,
    }
    return Generative(**(keys | changes))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    letters = ["</s>", "<image>", *sorted(pre_tokenizers.ByteLevel.alphabet()), ":W"]
    bpe = models.BPE({token: number for number, token in enumerate(letters)}, [(":", "W")])
    made = Tokenizer(bpe)
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["</s>", "<image>"])
    made.enable_truncation(4)
    made.enable_padding(length=50)
    path = tmp_path_factory.mktemp("tokens") / "tokenizer.json"
    made.save(str(path))
    return load_tokenizer(path)


# --- pixels -----------------------------------------------------------------------------------


# torch and transformers are imported by name: type checkers would read all of them.


def test_patches_are_those_of_the_qwen_image_processor() -> None:
    need_module("transformers")
    need_module("torch")
    qwen = import_module("transformers.models.qwen2_vl.image_processing_qwen2_vl")
    processor = qwen.Qwen2VLImageProcessor(do_resize=False)
    expected = processor(images=[RGB], return_tensors="np")["pixel_values"]
    mean, std = tuple(processor.image_mean), tuple(processor.image_std)
    how = Preprocess(layout="patches", width=448, height=224, mean=mean, std=std)
    np.testing.assert_allclose(prepare([RGB], how)[0], expected, atol=2e-6)


def test_positions_are_those_of_qwen_for_three_pictures(tokenizer: Tokenizer) -> None:
    need_module("transformers")
    need_module("torch")
    torch = import_module("torch")
    qwen = import_module("transformers.models.qwen2_5_vl.modeling_qwen2_5_vl")
    model = _generative(
        preprocess=PATCHES,
        rope="mrope",
        tokens_per_picture=128,
        prompt="first <|picture|> then <|picture|> then <|picture|> say:",
    )
    prompt = build_prompt(tokenizer, model)
    image = tokenizer.token_to_id("<image>")
    start = tokenizer.token_to_id("Ġ")
    config = import_module("transformers").Qwen2_5_VLConfig(
        image_token_id=image, video_token_id=9999, vision_start_token_id=start
    )

    class Bare:
        def __init__(self) -> None:
            self.config = config

    ids = torch.tensor(prompt.ids)[None]
    grid = torch.tensor([[1, 16, 32]] * 3)
    positions, delta = qwen.Qwen2_5_VLModel.get_rope_index(Bare(), ids, image_grid_thw=grid)
    np.testing.assert_array_equal(prompt.positions, positions[:, 0].numpy())
    assert prompt.next_position == len(prompt.ids) + int(delta)


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_pixels_are_scaled_as_the_manifest_says(dtype: Any) -> None:
    how = Preprocess(width=448, height=224, mean=(0.5, 0.4, 0.0), std=(0.5, 0.2, 1.0), dtype=dtype)
    got = prepare([RGB, RGB[::-1]], how)
    assert got.shape == (2, 3, 224, 448)
    assert got.dtype == dtype
    expected = RGB.transpose(2, 0, 1).astype(np.float64)
    if dtype != "uint8":
        mean, std = (np.asarray(v)[:, None, None] for v in (how.mean, how.std))
        expected = (expected / 255 - mean) / std
    np.testing.assert_allclose(got[0], expected, atol=2e-3 if dtype == "float16" else 1e-6)
    np.testing.assert_array_equal(got[1], got[0][:, ::-1])


def test_tiles_come_row_by_row_and_the_whole_picture_last() -> None:
    how = Preprocess(layout="tiles", width=224, height=112, tile_rows=2, tile_columns=2)
    got = prepare([RGB, RGB], how)
    assert got.shape == (10, 3, 112, 224)
    whole = RGB.transpose(2, 0, 1) / 255
    np.testing.assert_allclose(got[1], whole[:, :112, 224:], atol=1e-6)
    np.testing.assert_allclose(got[2], whole[:, 112:, :224], atol=1e-6)
    assert abs(float(got[4].mean()) - float(whole.mean())) < 0.01
    np.testing.assert_array_equal(got[:5], got[5:])


# --- prompt and answers -----------------------------------------------------------------------


def test_features_stand_where_the_prompt_puts_the_picture(tokenizer: Tokenizer) -> None:
    prompt = build_prompt(tokenizer, _generative())
    assert prompt.slots.tolist() == list(range(6, 12))
    assert prompt.lead == 6
    assert prompt.positions.tolist() == list(range(len(prompt.ids)))
    tiled = _generative(
        preprocess=Preprocess(layout="tiles", width=224, height=112, tile_columns=2),
        picture_prompt="[<|tile|>][<|tile|>]{<|tile|>}",
    )
    slots = build_prompt(tokenizer, tiled).slots
    assert slots.tolist() == [7, 8, 11, 12, 15, 16]


def test_text_is_tokenised_with_its_neighbours(tokenizer: Tokenizer) -> None:
    melting = _generative(prompt="<|picture|> say:")
    with pytest.raises(PackError, match="melts"):
        encode_answers(tokenizer, melting)
    answers = encode_answers(tokenizer, _generative(prompt="<|picture|> say: "))
    assert [len(answer) for answer in answers] == [1, 2, 2, 2, 1]
    assert len(tokenizer.encode("x" * 100).ids) == 100


def test_texts_to_learn_may_be_any_number_and_the_same(tokenizer: Tokenizer) -> None:
    asked = _generative(prompt="<|picture|> say: ")
    (five, *_) = encode_answers(tokenizer, asked)
    assert encode_behind(tokenizer, asked, [asked.answers[0]] * 2) == [five, five]


@given(
    answers=st.lists(
        st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple),
        min_size=5,
        max_size=5,
        unique=True,
    ),
    seed=st.integers(0, 1000),
)
def test_the_tree_asks_for_every_beginning_once_and_adds_up(
    answers: list[tuple[int, ...]], seed: int
) -> None:
    if any(one != two and two[: len(one)] == one for one in answers for two in answers):
        with pytest.raises(ValueError, match="beginning"):
            AnswerTree.grow(answers)
        return
    tree = AnswerTree.grow(answers)
    rng = np.random.default_rng(seed)
    inner = {answer[:at] for answer in answers for at in range(len(answer))}
    given_by_paths = {path[: at + 1] for path in tree.paths for at in range(len(path))} | {()}
    assert given_by_paths == inner
    assert not any(two[: len(one)] == one for one, two in itertools.permutations(tree.paths, 2))
    after = {path: rng.normal(0, 1, (2, 4)) for path in inner}
    scores = tree.score(after)
    for bed in range(2):
        likelihoods = []
        for answer in answers:
            product = 1.0
            for at, token in enumerate(answer):
                weights = np.exp(after[answer[:at]][bed])
                product *= weights[token] / weights.sum()
            likelihoods.append(product)
        np.testing.assert_allclose(
            np.exp(scores[bed]), np.asarray(likelihoods) / sum(likelihoods), rtol=1e-9
        )


# --- unfinished answers -----------------------------------------------------------------------

texts = st.text(max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@given(
    members=st.dictionaries(texts.filter(lambda key: key != "stage"), values, max_size=4),
    cut=st.integers(0, 400),
    ascii_only=st.booleans(),
)
def test_an_answer_can_be_closed_wherever_it_breaks_off(
    members: dict[str, Any], cut: int, *, ascii_only: bool
) -> None:
    written = json.dumps(members | {"stage": "N2"}, ensure_ascii=ascii_only).encode()[:cut]
    keep, more = lead_to(written, "stage")
    closed = json.loads(written[:keep] + more + b'W"}')
    assert closed.pop("stage") == "W"
    for key, value in closed.items():
        if value != members[key]:
            assert isinstance(value, str)
            assert members[key].startswith(value.rstrip("\ufffd"))


def test_the_tokenizer_file_must_be_one(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")
    with pytest.raises(PackError, match="tokenizer"):
        load_tokenizer(path)
