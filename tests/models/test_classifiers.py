"""Image classifiers of any make become packs by one command, and give in them what they gave."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.made_up_archives import make_archive
from support.models_cli import run
from support.needs import need_module

for name in ("torch", "transformers", "optimum.exporters", "onnx", "onnxruntime"):
    need_module(name)

import torch  # noqa: E402 - after what it needs was found
import transformers as hf  # noqa: E402

from hypnocast.errors import ConfigError  # noqa: E402
from hypnocast_models.export.classifier import pixels_of, stage_order  # noqa: E402

WORDS = ("REM", "Wake", "N1", "N2", "N3")
"""Not in the order of the stages, so that a wrong order shows."""


def _vit(common: dict[str, Any]) -> Any:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = hf.ViTConfig(**sizes, intermediate_size=64, image_size=64, patch_size=16, **common)
    return hf.ViTForImageClassification(config)


def _resnet(common: dict[str, Any]) -> Any:
    config = hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], **common)
    return hf.ResNetForImageClassification(config)


def classifier(make: Callable[[dict[str, Any]], Any], folder: Path, words: Any = WORDS) -> Path:
    torch.manual_seed(0)
    named = dict(enumerate(words))
    model = make({"id2label": named, "label2id": {word: k for k, word in named.items()}}).eval()
    for weights in model.parameters():
        if weights.dim() > 1:  # what is drawn at random shows nothing of a page otherwise
            torch.nn.init.normal_(weights, std=0.2)
    model.save_pretrained(folder)
    hf.ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


def export(source: Path, pack: Path, *more: str) -> int:
    options = ["--name", "theirs", "--recipe", "paper-336"]
    return run(["export", str(source), str(pack), *options, *more])


@pytest.mark.parametrize("make", [_vit, _resnet], ids=["vit", "resnet"])
def test_a_classifier_gives_in_its_pack_what_it_gave(
    make: Callable[[dict[str, Any]], Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = classifier(make, tmp_path / "theirs")
    data = make_archive("edf", tmp_path / "data", people=1, pages=5)
    assert export(source, tmp_path / "pack", "--prove-on", str(data)) == 0
    (printed,) = [line for line in capfd.readouterr().out.splitlines() if "end to end" in line]
    assert float(printed.rpartition(" ")[2]) <= 1e-3
    assert run(["evaluate", str(tmp_path / "pack"), str(data)]) == 0


def test_a_plain_graph_needs_its_processor_and_its_labels(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    graph = tmp_path / "plain" / "model.onnx"
    graph.parent.mkdir()
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(48, 5)
    )
    pixels = torch.zeros(1, 3, 64, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
        torch.onnx.export(net, (pixels,), str(graph), input_names=["x"], dynamo=False)
    assert export(graph, tmp_path / "a") == 2
    assert "--labels" in capfd.readouterr().err
    assert export(graph, tmp_path / "a", "--labels", "W,N1,N2,N3,R") == 2
    assert "preprocessor_config.json" in capfd.readouterr().err
    how = {"size": {"height": 64, "width": 64}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (graph.parent / "preprocessor_config.json").write_text(json.dumps(how))
    assert export(graph, tmp_path / "a", "--labels", "W,N1,N2,N3,R") == 0
    how["size"] = {"height": 32, "width": 48}
    (graph.parent / "preprocessor_config.json").write_text(json.dumps(how))
    assert export(graph, tmp_path / "b", "--labels", "W,N1,N2,N3,R") == 1
    assert "does not take pixels" in capfd.readouterr().err


def test_classes_are_known_by_what_they_are_called() -> None:
    assert stage_order(WORDS, "here") == [1, 2, 3, 4, 0]
    assert stage_order(("Sleep stage W", "S1", "S2", "S4", "REM"), "here") == [0, 1, 2, 3, 4]
    with pytest.raises(ConfigError, match="none is W, N1"):
        stage_order(("LABEL_0", "LABEL_1"), "here")


def test_a_processor_is_read_as_it_is() -> None:
    how = pixels_of({"size": 224, "image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3]}, "here")
    assert (how.width, how.height, how.resample, how.fit) == (224, 224, "bilinear", "stretch")
    assert how.mean == (0.1, 0.2, 0.3)
    clip = {"size": {"shortest_edge": 336}, "do_center_crop": True, "resample": 3}
    how = pixels_of(clip | {"crop_size": {"height": 336, "width": 336}}, "here")
    assert (how.fit, how.resample) == ("crop", "bicubic")
    assert np.allclose(how.std, 1.0)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--precision", "int3"], "int3"),
        (["--name", "My Model"], "--name"),
        (["--version", "one"], "--version"),
        (["--recipe", "paper"], "paper"),
    ],
)
def test_what_an_export_would_be_refused_for_at_its_end_is_refused_at_once(
    words: list[str], expected: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ["--name", "theirs", *words]
    assert run(["export", str(tmp_path / "none"), str(tmp_path / "pack"), *options]) in {1, 2}
    (line,) = capfd.readouterr().err.splitlines()
    assert expected in line
