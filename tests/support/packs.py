"""Tiny packs with real ONNX graphs, made on the spot: real in every part, small in every size.

Their weights are random (by seed), so their opinions depend on the picture and mean nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from hypnocast.core.pictures.recipe import Recipe, builtin
from hypnocast.core.types import Picture, Role
from hypnocast.core.verdicts.calibration import Calibration, HiddenMarkov
from hypnocast.stagers.packs.manifest import (
    Context,
    Contrastive,
    Generative,
    Manifest,
    Metric,
    Model,
    PackMontage,
    Preprocess,
    Provenance,
    SignalInput,
    Signals,
    TrainingSource,
    Vote,
)
from support.needs import need_module

HIDDEN = 16
HEADS = 2
FEATURES = 4
"""Visual tokens of a picture."""
SIGNAL_SAMPLES = 2560
"""A page of the signal pack: 85.33 Hz."""
STAY = 0.8
FAVOUR = MappingProxyType({"W": 7.0, "R": 7.0, "N": 8.0, "1": 7.0, "2": 7.0, "3": 7.0})
"""Added to the logits of these letters, so that all five stages come up."""


def make_tiny_pack(
    folder: Path,
    seed: int = 0,
    family: Literal["generative", "contrastive", "signal"] = "generative",
    recipe: str = "spectral-448",
    *,
    context: Context | None = None,
    favour: Mapping[str, float] = FAVOUR,
    files: Mapping[str, str] = MappingProxyType({}),
    **changes: Any,
) -> Path:
    """Make a valid pack in ``folder`` and return it.

    ``favour`` is added to the logits of letters (generative). ``files`` are texts to put beside
    the rest, the recipe too where ``recipe`` names one. ``changes`` replace keys of the
    ``[model]`` table, e.g. ``answers``, ``scoring``.
    """
    need_module("onnx")
    folder.mkdir(parents=True, exist_ok=True)
    drawn = Recipe.parse(files[recipe], recipe) if recipe in files else builtin(recipe)
    rng = np.random.default_rng(seed)
    context = context or Context()
    sees = Preprocess(width=drawn.width, height=drawn.height)
    model: Model
    if family == "generative":
        model = _generative(folder, rng, sees, favour, {"prompt": _prompt(context), **changes})
    elif family == "contrastive":
        model = _contrastive(folder, rng, sees, changes)
    else:
        model = _signals(folder, rng, changes)
    (folder / "CARD.md").write_text("# A tiny pack\n\nRandom weights: its stages mean nothing.\n")
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    manifest = Manifest(
        format="hypnocast.pack/1",
        name="tiny",
        version="0.0.1",
        licence="Apache-2.0",
        intended_use="Tests only: its weights are random.",
        recipe=recipe,
        recipe_digest=drawn.digest,
        context=context,
        montage=PackMontage(needed=((Role.F4, Role.C4, Role.O2),), wanted=drawn.roles),
        model=model,
        calibration=Calibration(prior=(0.2,) * 5, sequence=_sleepy_chain()),
        provenance=Provenance(
            base="from scratch",
            sources=(
                TrainingSource(name="noise", licence="none", attribution="", subjects=(), pages=0),
            ),
            seed=seed,
            commit="0" * 40,
            command="make_tiny_pack",
        ),
        metrics=(Metric(name="kappa", value=0.0, on="nothing at all"),),
        files={},
    )
    return write_manifest(folder, manifest)


def write_manifest(folder: Path, manifest: Manifest) -> Path:
    """Write ``pack.toml`` with the digests of the files that lie in the folder."""
    files = {
        path.relative_to(folder).as_posix(): _digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "pack.toml"
    }
    whole = msgspec.structs.replace(manifest, files=files)
    (folder / "pack.toml").write_text(to_toml(msgspec.to_builtins(whole)), encoding="utf-8")
    return folder


def to_toml(table: Mapping[str, Any]) -> str:
    """Write a table as TOML, every inner table inline; None is left out."""
    return "".join(f"{key} = {_toml(value)}\n" for key, value in table.items() if value is not None)


def tiny_picture(epoch: int, seed: int, recipe: str = "spectral-448", ink: float = 0.05) -> Picture:
    """Make a picture in a recipe's size with random ink in it."""
    drawn = builtin(recipe)
    rng = np.random.default_rng(seed)
    coarse = rng.random((8, 8, 3)) ** 3
    shade = np.kron(coarse, np.ones((-(-drawn.height // 8), -(-drawn.width // 8), 1)))
    dots = rng.random((drawn.height, drawn.width, 1)) < ink
    rgb = (255 * shade[: drawn.height, : drawn.width] * dots).astype(np.uint8)
    return Picture(
        epoch=epoch,
        rgb=rgb,
        digest=f"sha256:{hashlib.sha256(rgb.tobytes()).hexdigest()}",
        recipe=drawn.digest,
        quality={},
        channels={},
    )


def _digest(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def _toml(value: Any) -> str:
    match value:
        case bool() | int() | float() | str():
            return json.dumps(value, ensure_ascii=False)
        case Mapping():
            inner = (f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items() if v is not None)
            return f"{{ {', '.join(inner)} }}"
        case Sequence():
            return f"[{', '.join(_toml(item) for item in value)}]"
        case _:
            raise TypeError(value)


def _sleepy_chain() -> HiddenMarkov:
    leave = (1 - STAY) / 4
    rows = [tuple(STAY if row == column else leave for column in range(5)) for row in range(5)]
    return HiddenMarkov(
        transitions=msgspec.convert(rows, tuple[tuple[float, float, float, float, float], ...]),  # type: ignore[arg-type]  # five rows, as range(5) says
        initial=(0.6, 0.1, 0.1, 0.1, 0.1),
    )


# --- graphs -----------------------------------------------------------------------------------


class GraphMaker:
    """Collects nodes and weights of one ONNX graph."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def node(self, operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        from onnx import helper

        name = f"t{len(self.nodes)}"
        names = [name] if outputs == 1 else [f"{name}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(operator, list(inputs), names, **attributes))
        return name

    def weight(self, array: NDArray[Any] | list[int]) -> str:
        from onnx import numpy_helper

        name = f"w{len(self.weights)}"
        values = np.asarray(array)
        if values.dtype == np.float64:
            values = values.astype(np.float32)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def save(
        self,
        path: Path,
        inputs: Mapping[str, tuple[int, Sequence[int | str]]],
        outputs: Mapping[str, tuple[str, Sequence[int | str]]],
    ) -> None:
        """Write the graph; ``outputs``: name, what it is called inside, and shape."""
        from onnx import TensorProto, checker, helper, save_model

        for name, (inside, _) in outputs.items():
            self.nodes.append(helper.make_node("Identity", [inside], [name]))
        graph = helper.make_graph(
            self.nodes,
            path.stem,
            [helper.make_tensor_value_info(n, kind, shape) for n, (kind, shape) in inputs.items()],
            [
                helper.make_tensor_value_info(n, TensorProto.FLOAT, shape)
                for n, (_, shape) in outputs.items()
            ],
            self.weights,
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="tests"
        )
        checker.check_model(model)
        save_model(model, str(path))


def _eye(path: Path, rng: np.random.Generator, sees: Preprocess, tokens: int, width: int) -> None:
    """An average over 8 × 8 fields, then one random layer: features × width numbers a picture."""
    from onnx import TensorProto

    g = GraphMaker()
    kernel = [sees.height // 8, sees.width // 8]
    pooled = g.node("AveragePool", "pixel_values", kernel_shape=kernel, strides=kernel)
    flat = g.node("Flatten", pooled)
    numbers = 3 * (sees.height // kernel[0]) * (sees.width // kernel[1])
    layer = g.weight(rng.normal(0, 6, (numbers, tokens * width)))
    bias = g.weight(rng.normal(0, 0.5, tokens * width))
    features = g.node("Tanh", g.node("Add", g.node("MatMul", flat, layer), bias))
    out = g.node("Reshape", features, g.weight([-1, width]))
    g.save(
        path,
        {"pixel_values": (TensorProto.FLOAT, ["n", 3, sees.height, sees.width])},
        {"image_features": (out, ["m", width])},
    )


def _embed(path: Path, rng: np.random.Generator, vocabulary: int) -> None:
    from onnx import TensorProto

    g = GraphMaker()
    table = g.weight(rng.normal(0, 1, (vocabulary, HIDDEN)))
    g.save(
        path,
        {"input_ids": (TensorProto.INT64, ["b", "s"])},
        {"inputs_embeds": (g.node("Gather", table, "input_ids"), ["b", "s", HIDDEN])},
    )


def _decoder(
    path: Path, rng: np.random.Generator, favoured: NDArray[np.float64], layers: int = 2
) -> None:
    """A causal decoder with attention, positions and key-values, as small as can be.

    ``favoured`` is added to the logits, so that all five stages come up.
    """
    from onnx import TensorProto

    g = GraphMaker()
    each = HIDDEN // HEADS
    total = g.node("Gather", g.node("Shape", "attention_mask"), g.weight(np.asarray(1)))
    new = g.node("Gather", g.node("Shape", "inputs_embeds"), g.weight(np.asarray(1)))
    zero, one = g.weight(np.asarray(0)), g.weight(np.asarray(1))
    keys = g.node("Range", zero, total, one)
    queries = g.node("Range", g.node("Sub", total, new), total, one)
    seen = g.node("LessOrEqual", keys, g.node("Unsqueeze", queries, g.weight([1])))
    mask = g.node("Where", seen, g.weight(np.asarray(0.0)), g.weight(np.asarray(-1e9)))
    places = g.weight(rng.normal(0, 0.5, (4096, HIDDEN)))
    x = g.node("Add", "inputs_embeds", g.node("Gather", places, "position_ids"))
    heads, merged = g.weight([0, 0, HEADS, each]), g.weight([0, 0, HIDDEN])
    past: dict[str, tuple[int, Sequence[int | str]]] = {}
    present: dict[str, tuple[str, Sequence[int | str]]] = {}

    def project(size: int = HIDDEN) -> str:
        return g.node("MatMul", x, g.weight(rng.normal(0, HIDDEN**-0.5, (HIDDEN, size))))

    def split() -> str:
        return g.node("Transpose", g.node("Reshape", project(), heads), perm=[0, 2, 1, 3])

    for layer in range(layers):
        query, joined = split(), {}
        for part in ("key", "value"):
            name = f"past_key_values.{layer}.{part}"
            past[name] = (TensorProto.FLOAT, ["b", HEADS, "p", each])
            joined[part] = g.node("Concat", name, split(), axis=2)
            present[f"present.{layer}.{part}"] = (joined[part], ["b", HEADS, "t", each])
        scores = g.node("MatMul", query, g.node("Transpose", joined["key"], perm=[0, 1, 3, 2]))
        weights = g.node("Softmax", g.node("Add", scores, mask), axis=-1)
        gathered = g.node(
            "Transpose", g.node("MatMul", weights, joined["value"]), perm=[0, 2, 1, 3]
        )
        flat = g.node("Reshape", gathered, merged)
        mixed = g.node("MatMul", flat, g.weight(rng.normal(0, 0.5, (HIDDEN, HIDDEN))))
        x = g.node("Tanh", g.node("Add", x, mixed))
    head = g.weight(rng.normal(0, 1.0, (HIDDEN, len(favoured))))
    logits = g.node("Add", g.node("MatMul", x, head), g.weight(favoured))
    inputs: dict[str, tuple[int, Sequence[int | str]]] = {
        "inputs_embeds": (TensorProto.FLOAT, ["b", "s", HIDDEN]),
        "attention_mask": (TensorProto.INT64, ["b", "t"]),
        "position_ids": (TensorProto.INT64, ["b", "s"]),
    }
    present["logits"] = (logits, ["b", "s", len(favoured)])
    g.save(path, inputs | past, present)


def _tokenizer(path: Path) -> dict[str, int]:
    """A tokenizer of single bytes: N1, N2 and N3 share their first token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    special = ["<pad>", "<s>", "</s>", "<image>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*special, *letters])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(path))
    return vocabulary


def _prompt(context: Context) -> str:
    return "Stages: " + "<|picture|>" * context.pictures + " Stage:"


def _generative(
    folder: Path,
    rng: np.random.Generator,
    sees: Preprocess,
    favour: Mapping[str, float],
    changes: Mapping[str, Any],
) -> Generative:
    vocabulary = _tokenizer(folder / "tokenizer.json")
    _eye(folder / "vision_encoder.onnx", rng, sees, FEATURES, HIDDEN)
    favoured = np.zeros(len(vocabulary))
    for letter, more in favour.items():
        favoured[vocabulary[letter]] = more
    _embed(folder / "embed_tokens.onnx", rng, len(vocabulary))
    _decoder(folder / "decoder_model_merged.onnx", rng, favoured)
    keys: dict[str, Any] = {
        "vision_encoder": "vision_encoder.onnx",
        "embed_tokens": "embed_tokens.onnx",
        "decoder": "decoder_model_merged.onnx",
        "tokenizer": "tokenizer.json",
        "preprocess": sees,
        "answers": ("W", "N1", "N2", "N3", "R"),
        "scoring": "prefill",
        "image_token": "<image>",
        "tokens_per_picture": FEATURES,
        "layers": 2,
        "kv_heads": HEADS,
        "head_dim": HIDDEN // HEADS,
        "bos_token": "<s>",
        "eos_token": "</s>",
    }
    return Generative(**(keys | dict(changes)))


def _contrastive(
    folder: Path, rng: np.random.Generator, sees: Preprocess, changes: Mapping[str, Any]
) -> Contrastive:
    _eye(folder / "image_encoder.onnx", rng, sees, 1, HIDDEN)
    prompts = rng.normal(0, 1, (5, HIDDEN)).astype("<f4")
    prompts /= np.linalg.norm(prompts, axis=1, keepdims=True)
    prompts.tofile(folder / "prompts.f32")
    keys: dict[str, Any] = {
        "image_encoder": "image_encoder.onnx",
        "preprocess": sees,
        "prompts": tuple(f"a page of {stage}" for stage in ("W", "N1", "N2", "N3", "R")),
        "prompt_stages": ("W", "N1", "N2", "N3", "R"),
        "prompt_embeddings": "prompts.f32",
        "dimensions": HIDDEN,
        "logit_scale": 10.0,
    }
    return Contrastive(**(keys | dict(changes)))


def _signals(folder: Path, rng: np.random.Generator, changes: Mapping[str, Any]) -> Signals:
    """One EEG, alone and with either eye; a small recurrent net that remembers pages for long."""
    for name, given in (("eeg", ["eeg"]), ("eeg_eog", ["eeg", "eog"])):
        _features(folder / f"{name}.onnx", rng, given)
    _recurrent(folder / "context.onnx", rng)
    votes = (
        Vote(graph="eeg.onnx", inputs=("eeg",)),
        Vote(graph="eeg_eog.onnx", inputs=("eeg", "left")),
        Vote(graph="eeg_eog.onnx", inputs=("eeg", "right")),
    )
    inputs = (
        SignalInput(name="eeg", roles=(Role.C4, Role.F4, Role.O2), high_hz=30.0),
        SignalInput(name="left", roles=(Role.E1,), high_hz=30.0),
        SignalInput(name="right", roles=(Role.E2,), high_hz=30.0),
    )
    described: dict[str, Any] = {
        "samples": SIGNAL_SAMPLES,
        "scaling": "page",
        "inputs": inputs,
        "votes": votes,
        "recurrent": "context.onnx",
        "state_shape": (2, HIDDEN),
    }
    return Signals(**{**described, **changes})


def _features(path: Path, rng: np.random.Generator, inputs: Sequence[str]) -> None:
    """How strong each of sixteen stretches of each signal is, and one random layer."""
    from onnx import TensorProto

    g = GraphMaker()
    stretch = SIGNAL_SAMPLES // HIDDEN
    strong = [
        g.node("AveragePool", g.node("Abs", name), kernel_shape=[stretch], strides=[stretch])
        for name in inputs
    ]
    flat = g.node("Flatten", g.node("Concat", *strong, axis=1))
    layer = g.weight(rng.normal(0, 1, (HIDDEN * len(inputs), HIDDEN)))
    features = g.node("Tanh", g.node("MatMul", flat, layer))
    shape: list[int | str] = ["n", 1, SIGNAL_SAMPLES]
    kinds = dict.fromkeys(inputs, (int(TensorProto.FLOAT), shape))
    g.save(path, kinds, {"features": (features, ["n", HIDDEN])})


def _recurrent(path: Path, rng: np.random.Generator) -> None:
    """Two rows of state: a running mean of the features, and what a random layer makes of it."""
    from onnx import TensorProto

    g = GraphMaker()
    now = g.node("Unsqueeze", "features", g.weight([1]))
    mixed = g.node("MatMul", "state", g.weight(rng.normal(0, 0.4, (HIDDEN, HIDDEN))))
    after = g.node("Tanh", g.node("Add", mixed, now))
    flat = g.node("Flatten", after)
    out = g.node("MatMul", flat, g.weight(rng.normal(0, 0.7, (2 * HIDDEN, 5))))
    g.save(
        path,
        {
            "features": (TensorProto.FLOAT, ["n", HIDDEN]),
            "state": (TensorProto.FLOAT, ["n", 2, HIDDEN]),
        },
        {
            "log_probabilities": (g.node("LogSoftmax", out, axis=1), ["n", 5]),
            "next_state": (after, ["n", 2, HIDDEN]),
        },
    )
