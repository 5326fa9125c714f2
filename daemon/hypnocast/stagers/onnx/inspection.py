"""Looks into an ONNX file without trusting it, before ONNX Runtime is let near it.

An ONNX file is a protobuf message. The few fields that can do harm are walked here, in the
graph and in every subgraph: files the model would read (external data, compiled contexts),
operators that are no part of ONNX Runtime, and shapes that no machine could hold.
Only this module knows field numbers; they are those of ``onnx.proto``.

Two readers of protobuf may read one file differently where it is not written as writers write
it. So whatever is not canonical is refused: numbers in more bytes than they need or larger than
64 bits, keys beyond 32 bits, fields that ``onnx.proto`` does not have or has as another kind.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from hypnocast.errors import PackError

_Kinds = Mapping[int, frozenset[int]]

MAX_ELEMENTS = 2**33
"""No tensor of a model may declare more elements: 32 GiB in float32."""
MAX_DEPTH = 16
"""Graphs within graphs, at most."""

_BITS = {
    1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64,
    14: 64, 15: 128, 16: 16, 17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2,
}  # fmt: skip
"""Bits of one element by TensorProto.DataType; strings (8) have no fixed size."""
_KINDS = frozenset(_BITS) | {0, 8}
_PLACES = frozenset({0, 1})
_MAX_KEY = 2**32 - 1

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_INTS = frozenset({_VARINT, _BYTES})
"""A repeated number comes alone or packed."""


def _message(bytes_: str, numbers: str = "", packed: str = "", floats: str = "") -> _Kinds:
    """Return which wire types each field of a message may have."""
    kinds: dict[int, frozenset[int]] = {}
    for names, allowed in (
        (bytes_, frozenset({_BYTES})),
        (numbers, frozenset({_VARINT})),
        (packed, _INTS),
        (floats, frozenset({_FIXED32, _FIXED64, _BYTES})),
    ):
        kinds |= {int(name): allowed for name in names.split()}
    return MappingProxyType(kinds)


_MODEL = _message("2 3 4 6 7 8 14 20 25", "1 5")
_OPSET = _message("1", "2")
_GRAPH = _message("1 2 5 10 11 12 13 14 15 16")
_NODE = _message("1 2 3 4 5 6 7 8 9")
_ATTRIBUTE = _message("1 4 5 6 9 10 11 13 14 15 21 22 23", "3 20", "8", "2 7")
_TENSOR = _message("3 6 8 9 12 13 16", "2 14", "1 5 7 11", "4 10")
_ENTRY = _message("1 2")
_SPARSE = _message("1 2", packed="3")
_VALUE_INFO = _message("1 2 3 4")
_TYPE = _message("1 4 5 6 7 8 9")
_TENSOR_TYPE = _message("2", "1")
_SEQUENCE_TYPE = _message("1")
_SHAPE = _message("1")
_DIMENSION = _message("2 3", "1")

KNOWN_DOMAINS = frozenset({"", "ai.onnx"})
MICROSOFT_OPERATORS = frozenset({
    "Attention", "BiasAdd", "BiasGelu", "BiasSoftmax", "BiasSplitGelu", "CausalConvWithState",
    "DequantizeLinear", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul",
    "EmbedLayerNormalization", "FastGelu", "FusedConv", "FusedGemm", "FusedMatMul",
    "FusedMatMulActivation", "GatherBlockQuantized", "Gelu", "GemmFloat8", "GroupNorm",
    "GroupQueryAttention", "MatMulBnb4", "MatMulFpQ4", "MatMulInteger16",
    "MatMulIntegerToFloat", "MatMulNBits", "MulInteger", "MultiHeadAttention", "NhwcConv",
    "NhwcFusedConv", "NhwcMaxPool", "PackedAttention", "PackedMultiHeadAttention", "QAttention",
    "QEmbedLayerNormalization", "QGemm", "QLinearAdd", "QLinearAveragePool", "QLinearConcat",
    "QLinearConv", "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearMul",
    "QLinearReduceMean", "QLinearSigmoid", "QLinearSoftmax", "QLinearWhere", "QOrderedMatMul",
    "QuantizeLinear", "QuickGelu", "ReduceSumInteger", "RelativePositionBias",
    "RotaryEmbedding", "SimplifiedLayerNormalization", "SkipGroupNorm",
    "SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "Trilu",
})  # fmt: skip
"""What optimisers and quantisers write, and what reads no file and calls no code."""


@dataclass(slots=True)
class OnnxFacts:
    """What a walk through a model found."""

    external: set[str] = field(default_factory=set)
    """Places of tensors kept outside the file, as the model names them."""
    operators: set[str] = field(default_factory=set)
    opsets: dict[str, int] = field(default_factory=dict)
    nodes: int = 0


def inspect_onnx(path: Path, where: str) -> OnnxFacts:
    """Walk a model and refuse what is hostile; ``where`` is what an error calls the file."""
    facts = OnnxFacts()
    if path.stat().st_size == 0:
        raise _damaged(where)
    with path.open("rb") as file:
        # Not closed by hand: an error on its way up still holds views of it.
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        _Walk(where, facts).model(memoryview(mapped))
    return facts


def _damaged(where: str) -> PackError:
    return PackError(
        "not an ONNX model, or a damaged one", where=where, remedy="Get the pack again."
    )


def _hostile(what: str, where: str) -> PackError:
    return PackError(what, where=where, remedy="Do not use this pack; ask who made it.")


@dataclass(frozen=True, slots=True)
class _Walk:
    where: str
    facts: OnnxFacts

    def model(self, view: memoryview) -> None:
        graphs = 0
        for number, value in self._fields(view, _MODEL):
            match number, value:
                case 7, memoryview():
                    graphs += 1
                    self._graph(value, depth=0)
                case 8, memoryview():
                    domain, version = "", 0
                    for inner, item in self._fields(value, _OPSET):
                        if inner == 1 and isinstance(item, memoryview):
                            domain = self._text(item)
                        elif inner == 2 and isinstance(item, int):
                            version = item
                    self.facts.opsets[domain] = version
                case 20, _:
                    raise _hostile("the model carries training code", self.where)
                case 25, _:
                    raise _hostile("the model defines functions of its own", self.where)
                case _:
                    pass
        if graphs != 1:
            raise _damaged(self.where)

    def _graph(self, view: memoryview, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise _hostile(f"graphs are nested more than {MAX_DEPTH} deep", self.where)
        for number, value in self._fields(view, _GRAPH):
            if not isinstance(value, memoryview):
                continue
            match number:
                case 1:
                    self._node(value, depth)
                case 5:
                    self._tensor(value)
                case 15:
                    self._sparse(value)
                case 11 | 12 | 13:
                    self._value_info(value)
                case _:
                    pass

    def _node(self, view: memoryview, depth: int) -> None:
        self.facts.nodes += 1
        operator, domain = "", ""
        for number, value in self._fields(view, _NODE):
            if not isinstance(value, memoryview):
                continue
            if number == 4:
                operator = self._text(value)
            elif number == 7:
                domain = self._text(value)
            elif number == 5:
                self._attribute(value, depth)
        name = f"{domain}::{operator}" if domain else operator
        known = domain in KNOWN_DOMAINS or (
            domain == "com.microsoft" and operator in MICROSOFT_OPERATORS
        )
        if not known:
            raise _hostile(f"operator {name!r} is no part of plain ONNX Runtime", self.where)
        self.facts.operators.add(name)

    def _attribute(self, view: memoryview, depth: int) -> None:
        for number, value in self._fields(view, _ATTRIBUTE):
            if not isinstance(value, memoryview):
                continue
            match number:
                case 5 | 10:
                    self._tensor(value)
                case 6 | 11:
                    self._graph(value, depth + 1)
                case 22 | 23:
                    self._sparse(value)
                case _:
                    pass

    def _sparse(self, view: memoryview) -> None:
        dims: list[int] = []
        for number, value in self._fields(view, _SPARSE):
            if number == 3:
                dims += self._integers(value)
            elif number in {1, 2} and isinstance(value, memoryview):
                self._tensor(value)
        self._size(dims)

    def _tensor(self, view: memoryview) -> None:
        dims: list[int] = []
        kind, raw = 0, None
        outside: dict[str, str] = {}
        is_outside = False
        for number, value in self._fields(view, _TENSOR):
            match number, value:
                case 1, _:
                    dims += self._integers(value)
                case 2, int():
                    kind = self._one_of(value, _KINDS)
                case 9, memoryview():
                    raw = len(value)
                case 13, memoryview():
                    entry = {n: self._text(v) for n, v in self._fields(value, _ENTRY)}
                    outside[entry.get(1, "")] = entry.get(2, "")
                case 14, int():
                    is_outside = self._one_of(value, _PLACES) == 1
                case _:
                    pass
        elements = self._size(dims)
        if is_outside or outside:
            self._outside(outside)
        elif raw is not None and kind in _BITS and raw != math.ceil(elements * _BITS[kind] / 8):
            raise _hostile(f"a tensor declares shape {dims} but holds {raw} bytes", self.where)

    def _outside(self, entry: dict[str, str]) -> None:
        location = entry.get("location", "")
        if not location:
            raise _hostile("a tensor is kept outside the file, but not where", self.where)
        if not all(entry.get(key, "0").isdecimal() for key in ("offset", "length")):
            raise _hostile(f"external data {location!r} has no proper offset", self.where)
        self.facts.external.add(location)

    def _value_info(self, view: memoryview) -> None:
        for number, value in self._fields(view, _VALUE_INFO):
            if number == 2 and isinstance(value, memoryview):
                self._type(value, depth=0)

    def _type(self, view: memoryview, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise _hostile(f"types are nested more than {MAX_DEPTH} deep", self.where)
        for number, value in self._fields(view, _TYPE):
            if number in {1, 8} and isinstance(value, memoryview):
                for inner, item in self._fields(value, _TENSOR_TYPE):
                    if inner == 2 and isinstance(item, memoryview):
                        self._shape(item)
            elif number in {4, 9} and isinstance(value, memoryview):
                for inner, item in self._fields(value, _SEQUENCE_TYPE):
                    if inner == 1 and isinstance(item, memoryview):
                        self._type(item, depth + 1)

    def _shape(self, view: memoryview) -> None:
        dims = [
            item
            for number, value in self._fields(view, _SHAPE)
            if number == 1 and isinstance(value, memoryview)
            for inner, item in self._fields(value, _DIMENSION)
            if inner == 1 and isinstance(item, int)
        ]
        self._size([_signed(d) for d in dims])

    def _size(self, dims: list[int]) -> int:
        if len(dims) > 64 or any(d < 0 for d in dims) or math.prod(dims) > MAX_ELEMENTS:
            raise _hostile(f"a tensor declares the impossible shape {dims[:8]}", self.where)
        return math.prod(dims)

    def _integers(self, value: int | memoryview) -> list[int]:
        if isinstance(value, int):
            return [_signed(value)]
        numbers, at = [], 0
        while at < len(value):
            number, at = self._varint(value, at)
            numbers.append(_signed(number))
        return numbers

    def _text(self, value: int | memoryview) -> str:
        if isinstance(value, int) or len(value) > 4096:
            raise _damaged(self.where)
        try:
            return str(value, "utf-8")
        except UnicodeDecodeError as error:
            raise _damaged(self.where) from error

    def _fields(self, view: memoryview, kinds: _Kinds) -> Iterator[tuple[int, int | memoryview]]:
        """Yield (field number, number or bytes) of one message; single floats are left out."""
        at, end = 0, len(view)
        while at < end:
            key, at = self._varint(view, at)
            number, kind = key >> 3, key & 7
            if key > _MAX_KEY or kind not in kinds.get(number, frozenset()):
                raise _hostile(
                    f"a field that ONNX does not have (number {number}, kind {kind})", self.where
                )
            if kind == _VARINT:
                value, at = self._varint(view, at)
                yield number, value
                continue
            length = {_FIXED64: 8, _FIXED32: 4}.get(kind, 0)
            if kind == _BYTES:
                length, at = self._varint(view, at)
            if length > end - at:
                raise _damaged(self.where)
            if kind == _BYTES:
                yield number, view[at : at + length]
            at += length

    def _varint(self, view: memoryview, at: int) -> tuple[int, int]:
        """Read a number; one in more bytes than it needs, or beyond 64 bits, is refused."""
        number = 0
        for shift in range(0, 70, 7):
            if at >= len(view):
                break
            byte = view[at]
            at += 1
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                if (shift and not byte) or number >= 2**64:
                    raise _hostile("a number that is not written as ONNX writes it", self.where)
                return number, at
        raise _damaged(self.where)

    def _one_of(self, value: int, known: frozenset[int]) -> int:
        """Return an enumeration's value; others read it in 32 bits, so none may be larger."""
        if value not in known:
            raise _hostile(f"{value} where ONNX has a small number", self.where)
        return value


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number
