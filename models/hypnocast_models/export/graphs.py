"""Writing one ONNX graph, and looking at what came out.

The exporter may freeze a dimension without a word where the model's code branches on it. So
the shapes of every input are read back from the file, and a dimension that should be free and
is not is an error.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from hypnocast.errors import PackError

OPSET = 20
LEGACY_OPSET = 18
LARGEST_FILE = 1_800_000_000
"""Bytes of weights above which they are kept beside the graph (protobuf ends at 2 GB)."""

_NOISY = "torch.onnx._internal.exporter._registration"
"""It misses torchvision, which nothing here needs."""

KEEP = "num_logits_to_keep"
"""The input that tells a decoder how many last positions need logits."""


@dataclass(frozen=True, slots=True)
class GraphFile:
    """A graph that was written."""

    path: Path
    shapes: Mapping[str, tuple[str | int, ...]]
    """Input → its dimensions; free ones by name."""

    def __str__(self) -> str:
        lines = [f"{self.path.name}  {weigh(self.path) / 1e6:.2f} MB"]
        lines += [f"    {name} {list(shape)}" for name, shape in self.shapes.items()]
        return "\n".join(lines)


def write_graph(
    module: nn.Module,
    inputs: tuple[Any, ...],
    path: Path,
    *,
    names: Sequence[str],
    outputs: Sequence[str],
    free: Sequence[Mapping[int, str]],
    traced: bool = False,
) -> GraphFile:
    """Export ``module``; ``free`` lists for each named input which dimensions must stay free.

    ``traced`` uses the older, tracing exporter, for models whose code asks tensors for
    numbers (Qwen2.5-VL's vision tower).
    """
    weights = sum(p.numel() * p.element_size() for p in module.parameters())
    common: dict[str, Any] = {"input_names": list(names), "output_names": list(outputs)}
    try:
        with warnings.catch_warnings():
            # Both exporters warn of their own internals on every call, one of them by its log.
            warnings.simplefilter("ignore")
            logging.getLogger(_NOISY).setLevel(logging.ERROR)
            if traced:
                axes = {n: dict(d) for n, d in zip(names, free, strict=True) if d}
                with TemporaryDirectory(dir=path.parent) as scratch:
                    # Above 2 GB this exporter writes a file for each tensor.
                    loose = Path(scratch) / path.name
                    torch.onnx.export(
                        module.eval(),
                        inputs,
                        str(loose),
                        dynamic_axes=axes,
                        opset_version=LEGACY_OPSET,
                        dynamo=False,
                        **common,
                    )
                    save_graph(onnx.load(str(loose)), path)
            else:
                torch.onnx.export(
                    module.eval(),
                    inputs,
                    str(path),
                    dynamic_shapes=_like(inputs, iter(free)),
                    opset_version=OPSET,
                    dynamo=True,
                    external_data=weights > LARGEST_FILE,
                    optimize=True,
                    verbose=False,
                    **common,
                )
    except torch.onnx.OnnxExporterError as error:
        raise PackError(
            f"cannot be exported with its free dimensions free: {str(error.__cause__)[:300]}",
            where=path.name,
            remedy="Something in the model's code branches on a size; wrap that part.",
        ) from error
    graph = read_shapes(path)
    refuse_frozen(graph, names, free)
    return graph


def save_graph(model: Any, path: Path) -> None:
    """Write a graph that is whole in memory; large weights go into one file beside it."""
    beside = path.with_name(path.name + ".data")
    beside.unlink(missing_ok=True)
    large = model.ByteSize() > LARGEST_FILE
    onnx.save_model(
        model,
        str(path),
        save_as_external_data=large,
        all_tensors_to_one_file=True,
        location=beside.name,
    )


def keep_last(path: Path, output: str) -> None:
    """Let a graph compute ``output`` for its last positions only: as many as a new input asks for.

    ``output`` is a matrix product over a vocabulary. Behind a prompt of a thousand tokens it
    would be computed a thousand times, and used once.
    """
    model = onnx.load(str(path), load_external_data=False)
    graph = model.graph
    place, head = next((i, n) for i, n in enumerate(graph.node) if output in n.output)
    if head.op_type != "MatMul":
        raise PackError(
            f"{output!r} is no plain matrix product but {head.op_type}",
            where=path.name,
            remedy="Only a head without bias can be computed for the last positions alone.",
        )
    kept = f"{head.input[0]}.kept"
    make = onnx.helper.make_node
    sliced = [
        make("Neg", [KEEP], ["keep.negative"]),
        make("Unsqueeze", ["keep.negative", "keep.axis0"], ["keep.from"]),
        make("Slice", [head.input[0], "keep.from", "keep.end", "keep.axis"], [kept]),
    ]
    head.input[0] = kept
    for number, node in enumerate(sliced):
        graph.node.insert(place + number, node)
    for name, value in (("keep.axis0", 0), ("keep.end", 2**62), ("keep.axis", 1)):
        graph.initializer.append(onnx.numpy_helper.from_array(np.array([value]), name))
    graph.input.append(onnx.helper.make_tensor_value_info(KEEP, onnx.TensorProto.INT64, []))
    shape = next(port for port in graph.output if port.name == output).type.tensor_type.shape
    shape.dim[1].dim_param = "kept"
    onnx.save_model(model, str(path))


def read_shapes(path: Path) -> GraphFile:
    """Read the shapes of all inputs back from a graph."""
    model = onnx.load(str(path), load_external_data=False)
    shapes = {
        port.name: tuple(d.dim_param or d.dim_value for d in port.type.tensor_type.shape.dim)
        for port in model.graph.input
    }
    return GraphFile(path, shapes)


def weigh(path: Path) -> int:
    """Size of a graph with its external data, in bytes."""
    return sum(part.stat().st_size for part in path.parent.glob(path.name + "*"))


def refuse_frozen(
    graph: GraphFile, names: Sequence[str], free: Sequence[Mapping[int, str]]
) -> None:
    """Refuse a graph in which a dimension that should be free has a number."""
    for name, dimensions in zip(names, free, strict=True):
        shape = graph.shapes.get(name)
        if shape is None:
            raise PackError(
                f"the exporter dropped the input {name!r}",
                where=graph.path.name,
                remedy="The model does not use it; leave it out of the export.",
            )
        for place in dimensions:
            if isinstance(shape[place], int):
                raise PackError(
                    f"dimension {place} of input {name!r} was frozen to {shape[place]}",
                    where=graph.path.name,
                    remedy="Something in the model's code branches on it; wrap that part.",
                )


def _like(inputs: Any, free: Any) -> Any:
    """Arrange the free dimensions in the same nesting as the inputs."""
    if isinstance(inputs, torch.Tensor):
        return dict.fromkeys(next(free), torch.export.Dim.DYNAMIC)
    return type(inputs)(_like(part, free) for part in inputs)
