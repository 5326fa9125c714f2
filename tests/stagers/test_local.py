"""The local stager: its opinions are those of the graphs, however it gets there."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime as ort
import pytest
from tokenizers import Tokenizer

from hypnocast.core.types import FloatArray, Look, Picture
from hypnocast.core.verdicts.sequence_filter import log_normalise
from hypnocast.errors import InferenceError, InstallError, PackError
from hypnocast.stagers.fallback import FallbackStager
from hypnocast.stagers.onnx.engine import Engine, Graph, Provider, installed_runtime
from hypnocast.stagers.onnx.local import LocalStager
from hypnocast.stagers.onnx.pixels import prepare
from hypnocast.stagers.packs.manifest import Context, Contrastive, Generative
from hypnocast.stagers.packs.pack import Pack, load_pack
from support.packs import FAVOUR, make_tiny_pack, tiny_picture

PICTURES = tuple(tiny_picture(epoch, seed=epoch) for epoch in range(5))
ALONE = tuple(Look((picture,)) for picture in PICTURES)
BLACK = np.zeros_like(PICTURES[0].rgb)


def _pack(folder: Path, **how: Any) -> Pack:
    return load_pack(make_tiny_pack(folder / "tiny", **how))


def _expected(pack: Pack, look: Look, written: str = "") -> FloatArray:
    """Score each answer by itself, in one run from the first token, without any key-values."""
    model = pack.manifest.model
    assert isinstance(model, Generative)
    embed, vision, decoder = (
        ort.InferenceSession(str(pack.path(name)), providers=["CPUExecutionProvider"])
        for name in (model.embed_tokens, model.vision_encoder, model.decoder)
    )
    tokenizer = Tokenizer.from_file(str(pack.path(model.tokenizer)))
    places = model.image_token * model.tokens_per_picture
    begin = model.prompt.replace("<|picture|>", places) + written
    pictures = [BLACK if picture is None else picture.rgb for picture in look.pictures]
    seen = vision.run(None, {"pixel_values": prepare(pictures, model.preprocess)})[0]
    image, first = tokenizer.token_to_id("<image>"), tokenizer.token_to_id("<s>")
    before = 1 + len(tokenizer.encode(begin, add_special_tokens=False).ids)
    scores = []
    for answer in model.answers:
        ids = [first, *tokenizer.encode(begin + answer, add_special_tokens=False).ids]
        embeds = embed.run(None, {"input_ids": np.asarray([ids])})[0]
        embeds[0, np.asarray(ids) == image] = seen
        nothing = np.zeros((1, model.kv_heads, 0, model.head_dim), np.float32)
        feeds: dict[str, Any] = {
            f"past_key_values.{layer}.{part}": nothing
            for layer in range(model.layers)
            for part in ("key", "value")
        }
        feeds |= {
            "inputs_embeds": embeds,
            "attention_mask": np.ones((1, len(ids)), np.int64),
            "position_ids": np.arange(len(ids))[None],
        }
        logits = log_normalise(decoder.run(["logits"], feeds)[0][0].astype(np.float64))
        scores.append(sum(logits[at - 1, ids[at]] for at in range(before, len(ids))))
    return log_normalise(np.asarray(scores))


class CountingEngine(Engine):
    """The engine, and how often and with how much each graph was run."""

    def __init__(self, provider: Provider = "cpu", threads: int | None = 1) -> None:
        super().__init__(provider, threads)
        self.runs: Counter[str] = Counter()
        self.pictures = 0

    def open(self, pack: Pack, name: str) -> Graph:
        engine, path = self, pack.path(name)

        class Counted(Graph):
            def run(self, feeds: Mapping[str, Any], *, stay: Any = ()) -> dict[str, Any]:
                engine.runs[path.stem] += 1
                engine.pictures += len(feeds.get("pixel_values", ()))
                return super().run(feeds, stay=stay)

        session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return Counted(session, path.name)


ANSWERS = {
    "one token each": (("W", "1", "2", "3", "R"), {"decoder_model_merged": 1}),
    "a shared beginning": (("W", "N1", "N2", "N3", "R"), {"decoder_model_merged": 1}),
    "whole words": (("Wake", "N1", "N2", "N3", "REM"), {"decoder_model_merged": 2}),
    "one within another": (("W", "N", "N2", "N3", "R"), {"decoder_model_merged": 2}),
}


@pytest.mark.parametrize("answers", ANSWERS)
def test_answers_are_scored_as_if_each_were_read_by_itself_with_no_run_too_many(
    tmp_path: Path, answers: str
) -> None:
    texts, runs = ANSWERS[answers]
    pack = _pack(tmp_path, answers=texts)
    engine = CountingEngine()
    stager = LocalStager(pack, make_engine=lambda *_: engine)
    engine.runs.clear()
    opinions = stager.judge(ALONE)
    assert engine.runs["decoder_model_merged"] == runs["decoder_model_merged"]
    assert engine.runs["vision_encoder"] == 1
    end = "</s>" if answers == "one within another" else ""
    found = _pack_with_ends(pack, end)
    for opinion, look in zip(opinions, ALONE, strict=True):
        np.testing.assert_allclose(
            opinion.log_probabilities, _expected(found, look), atol=1e-4, rtol=0
        )
        assert opinion.epoch == look.page.epoch
        assert opinion.provider == "cpu"
    assert len({opinion.log_probabilities.tobytes() for opinion in opinions}) == len(opinions)


def _pack_with_ends(pack: Pack, end: str) -> Pack:
    model = pack.manifest.model
    assert isinstance(model, Generative)
    ended = msgspec.structs.replace(model, answers=tuple(text + end for text in model.answers))
    manifest = msgspec.structs.replace(pack.manifest, model=ended)
    return dataclasses.replace(pack, manifest=manifest)


@pytest.mark.parametrize("family", ["generative", "contrastive"])
def test_a_page_is_judged_the_same_alone_and_among_others(tmp_path: Path, family: str) -> None:
    stager = LocalStager(_pack(tmp_path, family=family), "cpu", 1)
    together = stager.judge(ALONE * 4)
    assert len(together) == 20
    for opinion, look in zip(together, ALONE * 4, strict=True):
        (alone,) = stager.judge([look])
        np.testing.assert_allclose(opinion.log_probabilities, alone.log_probabilities, atol=1e-5)


def test_contrastive_is_the_scaled_cosine_with_the_prompts(tmp_path: Path) -> None:
    pack = _pack(tmp_path, family="contrastive")
    model = pack.manifest.model
    assert isinstance(model, Contrastive)
    tower = ort.InferenceSession(str(pack.path(model.image_encoder)))
    rows = tower.run(None, {"pixel_values": prepare([p.rgb for p in PICTURES], model.preprocess)})
    prompts = np.fromfile(pack.path(model.prompt_embeddings), "<f4").reshape(5, -1)
    lengths = np.linalg.norm(rows[0], axis=1)[:, None] * np.linalg.norm(prompts, axis=1)
    expected = log_normalise(model.logit_scale * (rows[0] @ prompts.T) / lengths)
    got = [opinion.log_probabilities for opinion in LocalStager(pack, "cpu").judge(ALONE)]
    np.testing.assert_allclose(got, expected, atol=1e-5)


def _neighbours(*pictures: Picture | None) -> Look:
    return Look(pictures, center=1)


def test_neighbours_are_looked_at_once_and_a_missing_one_is_black(tmp_path: Path) -> None:
    pack = _pack(tmp_path, context=Context(before=1, after=1))
    engine = CountingEngine()
    stager = LocalStager(pack, make_engine=lambda *_: engine)
    engine.pictures = 0
    one, two, three, *_ = PICTURES
    looks = [
        _neighbours(None, one, None),
        _neighbours(None, one, two),
        _neighbours(one, two, None),
        _neighbours(one, two, three),
        _neighbours(two, three, None),
    ]
    opinions = [stager.judge([look])[0] for look in looks]
    assert engine.pictures == 3
    for opinion, look in zip(opinions, looks, strict=True):
        assert opinion.epoch == look.page.epoch
        np.testing.assert_allclose(opinion.log_probabilities, _expected(pack, look), atol=1e-4)
    for opinion, again in zip(opinions, stager.judge(looks), strict=True):
        np.testing.assert_allclose(opinion.log_probabilities, again.log_probabilities, atol=1e-5)


def test_looks_that_do_not_fit_the_pack_are_refused(tmp_path: Path) -> None:
    stager = LocalStager(_pack(tmp_path), "cpu")
    with pytest.raises(InferenceError, match="shown 3"):
        stager.judge([_neighbours(None, PICTURES[0], None)])
    with pytest.raises(InferenceError, match="another recipe"):
        stager.judge([Look((tiny_picture(0, 0, recipe="clinical-448x224"),))])
    stager.close()
    with pytest.raises(InferenceError, match="closed"):
        stager.judge(ALONE)


# --- answers that are written -----------------------------------------------------------------

STAGE_ONLY = {
    "type": "object",
    "properties": {"stage": {"enum": ["W", "N1", "N2", "N3", "R"]}},
    "required": ["stage"],
    "additionalProperties": False,
}
REASONED = {
    "type": "object",
    "properties": {
        "why": {"type": "string"},
        "rules": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
        "stage": {"enum": ["W", "N1", "N2", "N3", "R"]},
    },
    "required": ["why", "rules", "stage"],
    "additionalProperties": False,
}
DENSE = dict.fromkeys("ĠĊĉč", -30.0)
"""No blanks between the parts of an answer."""


def _writing(folder: Path, schema: Mapping[str, Any], **how: Any) -> Pack:
    how = {"favour": {**FAVOUR, **DENSE}} | how
    return _pack(
        folder,
        scoring="generate",
        schema="answer.json",
        rationale_key="why",
        rules_key="rules",
        files={"answer.json": json.dumps(schema)},
        **how,
    )


def test_the_stage_is_read_where_it_is_written(tmp_path: Path) -> None:
    pack = _writing(tmp_path, STAGE_ONLY)
    for opinion, look in zip(LocalStager(pack, "cpu").judge(ALONE), ALONE, strict=True):
        expected = _expected(pack, look, written='{"stage":"')
        np.testing.assert_allclose(opinion.log_probabilities, expected, atol=1e-4)
        assert opinion.rationale is None


def test_rationale_and_rules_are_kept(tmp_path: Path) -> None:
    closing = {**FAVOUR, **DENSE, '"': 11.0, "]": 13.0}
    stager = LocalStager(_writing(tmp_path, REASONED, favour=closing, max_tokens=400), "cpu")
    opinions = stager.judge(ALONE)
    assert all(isinstance(opinion.rationale, str) for opinion in opinions)
    assert all(isinstance(opinion.rules, tuple) for opinion in opinions)
    assert len({opinion.rationale for opinion in opinions}) > 1
    for opinion, look in zip(opinions, ALONE, strict=True):
        (alone,) = stager.judge([look])
        assert alone.rationale == opinion.rationale
        np.testing.assert_allclose(alone.log_probabilities, opinion.log_probabilities, atol=1e-5)


def test_an_answer_too_long_is_closed_and_the_stage_read_from_there(tmp_path: Path) -> None:
    pack = _writing(tmp_path, REASONED, max_tokens=4)
    for opinion, look in zip(LocalStager(pack, "cpu").judge(ALONE), ALONE, strict=True):
        expected = _expected(pack, look, written='{"stage": "')
        np.testing.assert_allclose(opinion.log_probabilities, expected, atol=1e-4)
        assert opinion.rationale is None
    longer = _writing(tmp_path / "longer", REASONED, max_tokens=12)
    (opinion,) = LocalStager(longer, "cpu").judge(ALONE[:1])
    assert opinion.rationale is not None
    assert len(opinion.rationale) == 12 - len('{"why":"')


def test_time_is_a_limit_too(tmp_path: Path) -> None:
    pack = _writing(tmp_path, REASONED, max_tokens=4096, max_seconds=1e-3)
    (opinion,) = LocalStager(pack, "cpu").judge(ALONE[:1])
    assert np.isfinite(opinion.log_probabilities).all()


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {key: value for key, value in STAGE_ONLY.items() if key != "type"},
        STAGE_ONLY | {"properties": {"stage": {"enum": [["W"]]}}},
        STAGE_ONLY | {"properties": {"stage": {"type": "string"}}},
        STAGE_ONLY | {"required": []},
        STAGE_ONLY | {"properties": {"stage": {"enum": ["W", "S"]}}},
        STAGE_ONLY | {"properties": {"stage": STAGE_ONLY["properties"]["stage"], "x": 3}},  # type: ignore[index]  # a dict, said above
    ],
)
def test_a_schema_without_a_choice_of_stages_is_refused(
    tmp_path: Path, schema: Mapping[str, Any]
) -> None:
    with pytest.raises(PackError, match=r"answer\.json"):
        LocalStager(_writing(tmp_path, schema), "cpu")


# --- manifests that the tokenizer contradicts -------------------------------------------------


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"image_token": "<picture>"}, "image_token"),
        ({"bos_token": "<bos>"}, "bos_token"),
        ({"prompt": "look: <|picture|>"}, "after the last picture"),
        ({"prompt": "<image><|picture|> Stage:"}, "prompt"),
        ({"eos_token": None, "answers": ("W", "N", "N2", "N3", "R")}, "eos_token"),
        ({"layers": 3}, "layers"),
        ({"kv_heads": 3}, "kv_heads"),
        ({"tokens_per_picture": 5}, "tokens_per_picture"),
    ],
)
def test_a_manifest_that_contradicts_the_files_is_refused(
    tmp_path: Path, change: Mapping[str, Any], expected: str
) -> None:
    with pytest.raises(PackError, match=expected):
        LocalStager(_pack(tmp_path, **change), "cpu")


# --- faults -----------------------------------------------------------------------------------


class FailingDevice(Engine):
    """An engine that claims to be a GPU and fails with an error of the runtime from some run on."""

    def __init__(self, good_runs: int) -> None:
        super().__init__("cpu", 1)
        self.provider = "cuda"
        self.left = good_runs

    def open(self, pack: Pack, name: str) -> Graph:
        engine, path = self, pack.path(name)

        class Session:
            def __init__(self) -> None:
                self._session = ort.InferenceSession(str(path))

            def __getattr__(self, name: str) -> Any:
                return getattr(self._session, name)

            def run(self, names: Sequence[str] | None, feeds: Mapping[str, Any]) -> Any:
                engine.left -= 1
                return self._session.run(names, feeds if engine.left >= 0 else {})

        return Graph(Session(), path.name)


def test_a_gpu_that_fails_in_the_night_is_replaced_by_the_cpu_and_no_page_is_lost(
    tmp_path: Path,
) -> None:
    pack = _pack(tmp_path)
    stager = LocalStager(pack, make_engine=lambda *_: FailingDevice(good_runs=15))
    assert stager.provider == "cuda"
    opinions = [stager.judge([look])[0] for look in ALONE * 3]
    providers = [opinion.provider for opinion in opinions]
    assert providers[0] == "cuda"
    assert providers == sorted(providers, reverse=True)
    assert stager.provider == providers[-1] == "cpu"
    assert stager.failure is not None
    assert FallbackStager([stager], on_step=lambda _: None).degraded == (
        f"model: {stager.failure}",
    )
    expected = LocalStager(pack, "cpu").judge(ALONE * 3)
    for opinion, right in zip(opinions, expected, strict=True):
        np.testing.assert_allclose(opinion.log_probabilities, right.log_probabilities, atol=1e-5)


def test_a_gpu_that_fails_at_once_leaves_the_cpu(tmp_path: Path) -> None:
    stager = LocalStager(_pack(tmp_path), make_engine=lambda *_: FailingDevice(good_runs=0))
    assert stager.provider == "cpu"
    assert len(stager.judge(ALONE)) == len(ALONE)


def test_values_bound_to_a_device_give_the_same_opinions(tmp_path: Path) -> None:
    class Bound(Engine):
        def open(self, pack: Pack, name: str) -> Graph:
            return Graph(ort.InferenceSession(pack.read(name)), name, device="cpu")

    for number, how in enumerate(
        (_pack(tmp_path / "prefill"), _writing(tmp_path / "generate", REASONED, max_tokens=20))
    ):
        bound = LocalStager(how, make_engine=lambda *_: Bound("cpu")).judge(ALONE)
        plain = LocalStager(how, "cpu").judge(ALONE)
        for left, right in zip(bound, plain, strict=True):
            np.testing.assert_allclose(left.log_probabilities, right.log_probabilities, atol=1e-5)
            assert (left.rationale is None) == (number == 0)


def test_an_answer_that_is_no_number_is_an_error_not_a_stage(tmp_path: Path) -> None:
    pack = _pack(tmp_path, favour={**FAVOUR, "N": float("nan")})
    with pytest.raises(InferenceError, match="no number"):
        LocalStager(pack, "cpu")


def _pretend(folder: Path, name: str) -> None:
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")


def test_both_or_neither_onnx_runtime_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert installed_runtime() == "cpu"
    with pytest.raises(InstallError, match="onnxruntime-gpu"):
        Engine("cuda")
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    with pytest.raises(InstallError, match="neither"):
        installed_runtime()
    _pretend(tmp_path, "onnxruntime-gpu")
    assert installed_runtime() == "gpu"
    _pretend(tmp_path, "onnxruntime")
    with pytest.raises(InstallError, match="pip uninstall"):
        installed_runtime()
