"""ONNX graphs written node by node, with every weight sent straight to one data file.

One tensor is in memory at a time: mapped, quantised some rows at a time, appended. No PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

from hypnocast_models.export.quantise import BLOCK, Array, per_output, quantise_blocks

Weights = Literal["fp32", "fp16", "int8x8", "int8", "int4"]
"""How a weight is kept and multiplied.

``fp32`` exact; ``fp16`` half, activations too; ``int8`` and ``int4`` in blocks, each with a scale
(``MatMulNBits``: small, quick for single tokens); ``int8x8`` with a scale for each output and, at
run time, for each token (``DynamicQuantizeMatMul``: reads prompts and pictures quickly).
"""

FLOAT, HALF, INT64 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64
INT32 = TensorProto.INT32

_ALIGN = 4096
"""Weights start at whole memory pages, so that they can be mapped where they lie."""

_ROWS_AT_ONCE = 2**23
"""Numbers of a weight that are quantised at once."""

_MICROSOFT = frozenset({
    "DynamicQuantizeMatMul", "FastGelu", "GatherBlockQuantized", "Gelu", "GroupQueryAttention",
    "MatMulNBits", "MultiHeadAttention", "QuickGelu", "RotaryEmbedding",
    "SkipSimplifiedLayerNormalization",
})  # fmt: skip
_TINY = 1e-30


class GraphWriter:
    """An ONNX graph under construction, with its weights in a file beside it."""

    def __init__(
        self, path: Path, weights: Weights, block: int = BLOCK, *, half: bool = False
    ) -> None:
        """Keep where the graph goes, and how its weights are kept unless set otherwise.

        ``half``: activations are fp16 whatever the weights, as attention on a GPU needs it.
        """
        self.path, self.weights, self.block = path, weights, block
        self.float = HALF if half or weights == "fp16" else FLOAT
        """The type of activations."""
        self._data: BinaryIO = path.with_name(path.name + ".data").open("wb")
        self._nodes: list[Any] = []
        self._initializers: dict[str, Any] = {}
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._rows: dict[str, tuple[str, str]] = {}

    # --- nodes -------------------------------------------------------------------------------

    def node(self, kind: str, *inputs: str | None, **attributes: Any) -> str:
        """Add a node with one output, and return its name."""
        return self.nodes(kind, *inputs, outputs=[True], **attributes)[0]

    def nodes(
        self, kind: str, *inputs: str | None, outputs: Sequence[bool | str], **attributes: Any
    ) -> list[str]:
        """Add a node; return the names of its outputs (``False``: left out, text: its name)."""
        name = f"{kind}_{len(self._nodes)}"
        names = [
            wanted if isinstance(wanted, str) else f"{name}.{place}" if wanted else ""
            for place, wanted in enumerate(outputs)
        ]
        self._nodes.append(
            helper.make_node(
                kind,
                [given or "" for given in inputs],
                names,
                name,
                domain="com.microsoft" if kind in _MICROSOFT else "",
                **attributes,
            )
        )
        return names

    def cast(self, x: str) -> str:
        """Turn numbers into the type of activations."""
        return self.node("Cast", x, to=self.float)

    def constant(self, value: Any, name: str = "") -> str:
        """Keep a small array in the graph itself, where shape inference can see it."""
        array = np.asarray(value)
        name = name or f"constant_{len(self._initializers)}"
        self._initializers[name] = numpy_helper.from_array(array, name)
        return name

    def real(self, value: Any) -> str:
        """Keep a small array of the type of activations."""
        kind = np.float16 if self.float == HALF else np.float32
        return self.constant(np.asarray(value, kind))

    def reshape(self, x: str, *shape: int) -> str:
        """Give numbers another shape (0: as before, -1: the rest)."""
        return self.node("Reshape", x, self.constant(np.array(shape)))

    # --- weights -----------------------------------------------------------------------------

    def store(self, name: str, shape: Sequence[int], pieces: Iterable[Array]) -> str:
        """Append the pieces of one array to the data file, and declare it."""
        self._data.write(bytes(-self._data.tell() % _ALIGN))
        offset, kind = self._data.tell(), 0
        for piece in pieces:
            kind = helper.np_dtype_to_tensor_dtype(piece.dtype)
            self._data.write(np.ascontiguousarray(piece).data)
        tensor = TensorProto(name=name, data_type=kind, dims=list(shape))
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (
            ("location", self._data_name),
            ("offset", offset),
            ("length", self._data.tell() - offset),
        ):
            tensor.external_data.add(key=key, value=str(value))
        self._initializers[name] = tensor
        return name

    def share(self, owner: GraphWriter, name: str, shape: Sequence[int]) -> str:
        """Declare a weight that lies in another graph's data file, seen in another shape."""
        tensor = TensorProto()
        tensor.CopyFrom(owner._initializers[name])
        tensor.dims[:] = shape
        self._initializers[name] = tensor
        return name

    def vector(self, name: str, array: Array) -> str:
        """Store a small weight in the type of activations."""
        return self.store(name, array.shape, [array.astype(self._kind)])

    def blocks(self, name: str, weight: Array, bits: int, *, flat: bool = False) -> tuple[str, str]:
        """Store a weight in blocks, some rows at a time; return names of numbers and scales."""
        rows, columns = weight.shape
        step = max(1, _ROWS_AT_ONCE // columns)
        scales: list[Array] = []

        def pieces() -> Iterable[Array]:
            for start in range(0, rows, step):
                part = weight[start : start + step].astype(np.float32)
                numbers, scale = quantise_blocks(part, bits, self.block)
                scales.append(scale.astype(self._kind))
                yield numbers

        count, size = -(-columns // self.block), self.block * bits // 8
        shape = (rows, count * size) if flat else (rows, count, size)
        numbers = self.store(name, shape, pieces())
        return numbers, self.store(f"{name}.scales", (rows, count), scales)

    # --- layers ------------------------------------------------------------------------------

    def linear(
        self,
        x: str,
        name: str,
        weight: Array,
        bias: Array | None = None,
        weights: Weights | None = None,
    ) -> str:
        """Multiply by a weight of (outputs, inputs), and add the bias."""
        rows, columns = weight.shape
        added = None if bias is None else self.vector(f"{name}.bias", bias)
        match weights or self.weights:
            case "int4" | "int8" as kind:
                bits = 4 if kind == "int4" else 8
                numbers, scales = self.blocks(name, weight, bits)
                return self.node(
                    "MatMulNBits", x, numbers, scales, None, None, added,
                    K=columns, N=rows, bits=bits, block_size=self.block, accuracy_level=4,
                )  # fmt: skip
            case "int8x8":
                product = self._int8_by_int8(x, name, weight)
            case _:
                step = max(1, _ROWS_AT_ONCE // columns)
                pieces = (
                    weight[start : start + step].astype(self._kind)
                    for start in range(0, rows, step)
                )
                stored = self.store(name, (rows, columns), pieces)
                # ONNX Runtime turns it over once, when the pack is opened.
                turned = self.node("Transpose", stored, perm=[1, 0])
                product = self.node("MatMul", x, turned)
        return product if added is None else self.node("Add", product, added)

    def _int8_by_int8(self, x: str, name: str, weight: Array) -> str:
        """Multiply int8 by int8 with a scale for each token.

        The operator has one scale for a whole call: one outlying token would leave nothing of
        the others. Tokens are brought to the same size before it and back behind it.
        """
        if x not in self._rows:
            size = self.node(
                "ReduceMax", self.node("Abs", x), self.constant(np.array([-1])), keepdims=1
            )
            size = self.node("Max", size, self.real(_TINY))
            self._rows[x] = self.node("Div", x, size), size
        scaled, size = self._rows[x]
        rows, columns = weight.shape
        codes, scale = per_output(weight)
        stored = self.store(name, (columns, rows), [codes.T])
        scales = self.vector(f"{name}.scales", scale)
        return self.node("Mul", self.node("DynamicQuantizeMatMul", scaled, stored, scales), size)

    def layer_norm(self, x: str, name: str, gamma: Array, beta: Array, epsilon: float) -> str:
        """Normalise to mean 0 and deviation 1."""
        return self.node(
            "LayerNormalization",
            x,
            self.vector(f"{name}.weight", gamma),
            self.vector(f"{name}.bias", beta),
            axis=-1,
            epsilon=epsilon,
        )

    def rms_norm(
        self, x: str, added: str | None, name: str, gamma: Array, epsilon: float
    ) -> tuple[str, str]:
        """Normalise x (+ added) by its root mean square; return the normed and the sum."""
        weight = self.vector(name, gamma)
        if added is None:
            normed = self.node(
                "SimplifiedLayerNormalization", x, weight, axis=-1, stash_type=1, epsilon=epsilon
            )
            return normed, x
        normed, _, _, total = self.nodes(
            "SkipSimplifiedLayerNormalization", x, added, weight,
            outputs=[True, False, False, True], epsilon=epsilon,
        )  # fmt: skip
        return normed, total

    # --- the whole ---------------------------------------------------------------------------

    def add_input(self, name: str, kind: int, shape: Sequence[str | int]) -> str:
        """Declare an input."""
        self._inputs.append(helper.make_tensor_value_info(name, kind, list(shape)))
        return name

    def gives(self, name: str, kind: int, shape: Sequence[str | int], source: str = "") -> None:
        """Declare an output; where it has another name inside, that is its ``source``."""
        if source:
            self._nodes.append(helper.make_node("Cast", [source], [name], name, to=kind))
        self._outputs.append(helper.make_tensor_value_info(name, kind, list(shape)))

    def finish(self) -> int:
        """Write the graph; return the bytes of graph and weights."""
        graph = helper.make_graph(
            self._nodes, self.path.stem, self._inputs, self._outputs, [*self._initializers.values()]
        )
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        save(helper.make_model(graph, opset_imports=opsets, ir_version=10), str(self.path))
        size = self._data.tell()
        self._data.close()
        if size == 0:
            self.path.with_name(self._data_name).unlink()
        return size + self.path.stat().st_size

    @property
    def _data_name(self) -> str:
        return self.path.name + ".data"

    @property
    def _kind(self) -> Any:
        return np.float16 if self.float == HALF else np.float32
