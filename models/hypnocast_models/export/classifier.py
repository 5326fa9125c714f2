"""Image classifiers of any make as packs: transformers, optimum, or a plain ONNX file.

A classifier is served as a contrastive pack. Its logits become a unit vector with one dimension
more, and the five stages are that space's own axes: the cosine of picture and stage, times the
scale, is the logit again. So the daemon needs no family for them.

Models in transformers' layout go through optimum's exporter, which knows every image classifier
there; what optimum or timm exported itself is used as it is.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from hypnocast.core.types import STAGES, FloatArray, Pixels
from hypnocast.errors import ConfigError, PackError
from hypnocast.ports.hypnograms.stage_words import stage_of
from hypnocast.stagers.onnx.pixels import prepare
from hypnocast.stagers.packs.manifest import Contrastive, Preprocess

GRAPH, AXES = "image_classifier.onnx", "stages.f32"
SCALE = 1024.0
"""Length up to which logits are kept as they are; none of a classifier comes near it."""
BOUND = 1e-3
"""Largest difference of a log-probability to the model's own, on the pages it was tried on."""
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Source:
    """A classifier that was found: its graph, its processor, its classes."""

    graph: Path
    processor: Mapping[str, Any]
    labels: tuple[str, ...]
    reference: Callable[[Sequence[Pixels]], FloatArray] | None
    """The model's own processor and forward: pages → logits. None where there is only a graph."""


def is_classifier(path: Path) -> bool:
    """Return whether this is a classifier: an ONNX file, a folder of one, or a transformers one."""
    if path.suffix == ".onnx" or (path / "model.onnx").is_file():
        return True
    config = _json(path / "config.json")
    return any(name.endswith("ForImageClassification") for name in config.get("architectures", ()))


def export_classifier(
    path: Path,
    folder: Path,
    pages: Sequence[Pixels],
    *,
    labels: Sequence[str] = (),
    progress: Progress = lambda _: None,
) -> Contrastive:
    """Write the graph and the axes of the stages, and prove it on pages as they were drawn."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as scratch:
        source = _find(path, Path(scratch), labels)
        order = stage_order(source.labels, str(path))
        how = pixels_of(source.processor, str(path))
        _wrap(source.graph, order, folder / GRAPH)
        largest = _largest_gap(source, order, how, folder / GRAPH, pages)
    if source.reference is not None:
        progress(f"end to end on {len(pages)} pages: max |Δ log-probability| {largest:.1e}")
    if largest > BOUND:
        raise PackError(
            f"log-probabilities differ from the model's own by {largest:.1e}",
            where=str(path),
            remedy=f"At most {BOUND:g} is allowed: its processor prepares pages in a way that "
            "packs cannot (resize, crop, rescale); train it with a plain resize.",
        )
    np.eye(len(STAGES), len(STAGES) + 1, dtype="<f4").tofile(folder / AXES)
    return Contrastive(
        image_encoder=GRAPH,
        preprocess=how,
        prompts=tuple(source.labels[place] for place in order),
        prompt_stages=("W", "N1", "N2", "N3", "R"),
        prompt_embeddings=AXES,
        dimensions=len(STAGES) + 1,
        logit_scale=SCALE,
    )


def stage_order(labels: Sequence[str], where: str) -> list[int]:
    """Give the place of each stage among a model's classes, by what the classes are called."""
    places: dict[str, int] = {}
    for place, label in enumerate(labels):
        stage = stage_of(label)
        if stage is not None and stage.value not in places:
            places[stage.value] = place
    missing = [stage.value for stage in STAGES if stage.value not in places]
    if missing:
        raise ConfigError(
            f"its classes are {', '.join(labels) or 'not named'}: none is {', '.join(missing)}",
            where=where,
            remedy="Give them in the model's order, --labels W,N1,N2,N3,R.",
        )
    return [places[stage.value] for stage in STAGES]


def pixels_of(processor: Mapping[str, Any], where: str) -> Preprocess:
    """Read from ``preprocessor_config.json`` how a page becomes numbers."""
    size = processor.get("size") or {}
    if isinstance(size, int):
        size = {"height": size, "width": size}
    edge = size.get("shortest_edge")
    crop = processor.get("crop_size") or {}
    if isinstance(crop, int):
        crop = {"height": crop, "width": crop}
    fit: Literal["stretch", "crop"] = "stretch"
    if edge is not None and processor.get("do_center_crop") and crop.get("height") == edge:
        size, fit = {"height": edge, "width": edge}, "crop"
    if "height" not in size or "width" not in size:
        raise ConfigError(
            "does not say to which height and width a page is resized",
            where=f"{where}: preprocessor_config.json",
            remedy='Give it beside the model: {"size": {"height": 224, "width": 224}, '
            '"image_mean": [...], "image_std": [...]}.',
        )
    plain = processor.get("do_normalize", True)
    mean = processor.get("image_mean") if plain else None
    std = processor.get("image_std") if plain else None
    return Preprocess(
        width=int(size["width"]),
        height=int(size["height"]),
        mean=_three(mean, 0.0),
        std=_three(std, 1.0),
        resample=_RESAMPLE.get(processor.get("resample", 2), "bilinear"),
        fit=fit,
    )


_RESAMPLE: Mapping[int, Literal["bicubic", "bilinear", "lanczos"]] = {
    1: "lanczos",
    2: "bilinear",
    3: "bicubic",
}


def _three(values: Any, otherwise: float) -> tuple[float, float, float]:
    if values is None:
        return (otherwise,) * 3
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _find(path: Path, scratch: Path, labels: Sequence[str]) -> Source:
    if path.suffix == ".onnx" or (path / "model.onnx").is_file():
        graph = path if path.suffix == ".onnx" else path / "model.onnx"
        beside = graph.parent
        named = tuple(labels) or _labels(_json(beside / "config.json"))
        return Source(graph, _json(beside / "preprocessor_config.json"), named, None)
    from optimum.exporters.onnx import main_export

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter warns of its own internals
            main_export(
                str(path), scratch, task="image-classification", do_validation=False,
                device="cpu", local_files_only=True,
            )  # fmt: skip
    except (ValueError, KeyError, RuntimeError) as error:  # what optimum refuses with
        raise PackError(
            f"optimum cannot export it: {' '.join(str(error).split())[:300]}", where=str(path)
        ) from error
    config = _json(path / "config.json")
    named = tuple(labels) or _labels(config)
    processor = _json(path / "preprocessor_config.json")
    return Source(scratch / "model.onnx", processor, named, _own_forward(path))


def _own_forward(path: Path) -> Callable[[Sequence[Pixels]], FloatArray]:
    """Return what the model's own processor and forward make of pages."""

    def logits(pages: Sequence[Pixels]) -> FloatArray:
        import torch
        from PIL import Image
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        processor = AutoImageProcessor.from_pretrained(path, local_files_only=True, use_fast=False)
        model = AutoModelForImageClassification.from_pretrained(path, local_files_only=True).eval()
        with torch.no_grad():
            inputs = processor([Image.fromarray(page) for page in pages], return_tensors="pt")
            found: FloatArray = model(**inputs).logits.double().numpy()
        return found

    return logits


def _wrap(graph: Path, order: Sequence[int], target: Path) -> None:
    """Put the unit vector behind a classifier's logits, and name its ends as a pack does."""
    from hypnocast_models.export.graphs import save_graph  # with PyTorch: a graph alone needs none

    model = onnx.load(str(graph))
    (pixels, *others), outputs = model.graph.input, model.graph.output
    given = {one.name for one in model.graph.initializer}
    if [one for one in others if one.name not in given] or not outputs:
        raise PackError("needs one input, the pixels, and gives logits", where=str(graph))
    logits = next((one.name for one in outputs if one.name == "logits"), outputs[0].name)
    old, new = pixels.name, "pixel_values"
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
    pixels.name = new
    add = model.graph.node.append
    constants: dict[str, NDArray[Any]] = {
        "hc_order": np.array(order, np.int64),
        "hc_scale": np.array(1.0 / SCALE, np.float32),
        "hc_one": np.array(1.0, np.float32),
        "hc_axis": np.array([1], np.int64),
    }
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    add(helper.make_node("Gather", [logits, "hc_order"], ["hc_stages"], axis=1))
    add(helper.make_node("Mul", ["hc_stages", "hc_scale"], ["hc_short"]))
    add(helper.make_node("Mul", ["hc_short", "hc_short"], ["hc_squares"]))
    add(helper.make_node("ReduceSum", ["hc_squares", "hc_axis"], ["hc_length"], keepdims=1))
    add(helper.make_node("Sub", ["hc_one", "hc_length"], ["hc_left"]))
    add(helper.make_node("Sqrt", ["hc_left"], ["hc_rest"]))
    add(helper.make_node("Concat", ["hc_short", "hc_rest"], ["image_embeds"], axis=1))
    del model.graph.output[:]
    ends: list[str | int | None] = ["pictures", len(STAGES) + 1]
    model.graph.output.append(
        helper.make_tensor_value_info("image_embeds", TensorProto.FLOAT, ends)
    )
    save_graph(model, target)


def _largest_gap(
    source: Source, order: Sequence[int], how: Preprocess, graph: Path, pages: Sequence[Pixels]
) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    pixels = prepare(pages, how)
    try:
        logits = np.concatenate(
            [session.run(None, {"pixel_values": one[None]})[0] for one in pixels]
        ).astype(np.float64)
    except Exception as error:  # whatever the runtime raises, it cannot be served
        raise PackError(
            f"does not take pixels {list(pixels[:1].shape)}: {' '.join(str(error).split())[:200]}",
            where=str(graph),
            remedy="preprocessor_config.json beside it must say the size it was made for.",
        ) from error
    if not np.isfinite(logits).all():
        raise PackError("gives logits that are no numbers, or beyond all bounds", where=str(graph))
    if source.reference is None:
        return 0.0
    ours = _log_softmax(SCALE * logits[:, : len(STAGES)])
    theirs = _log_softmax(source.reference(pages)[:, list(order)])
    return float(np.abs(ours - theirs).max())


def _log_softmax(rows: NDArray[np.float64]) -> FloatArray:
    shifted = rows - rows.max(axis=1, keepdims=True)
    normal: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return normal


def _labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    named = config.get("id2label") or {}
    return tuple(named[key] for key in sorted(named, key=int))


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"is no JSON: {error}", where=str(path)) from error
    return found if isinstance(found, dict) else {}
