"""A hostile pack: what one reader of protobuf would see and another not, and files that change."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from hypnocast.config.tables import Config, PackTable
from hypnocast.errors import ConfigError, PackError
from hypnocast.live.service.build import open_pack
from hypnocast.stagers.onnx.engine import Engine
from hypnocast.stagers.onnx.inspection import inspect_onnx
from hypnocast.stagers.packs.manifest import Generative
from hypnocast.stagers.packs.pack import load_pack, read_manifest, verify_pack
from support.packs import make_tiny_pack, write_manifest


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_pack(tmp_path_factory.mktemp("packs") / "tiny")


@pytest.fixture
def pack(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "tiny"))


# --- what is written otherwise than writers write it ----------------------------------------------


def _varint(number: int, spare: int = 0) -> bytes:
    """Write a number, in more bytes than it needs if asked."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    for _ in range(spare):
        out[-1] |= 0x80
        out.append(0)
    return bytes(out)


def _bytes_field(number: int, content: bytes, *, spare: int = 0, key: int | None = None) -> bytes:
    head = _varint((number << 3 | 2) if key is None else key, spare)
    return head + _varint(len(content)) + content


def _model(*nodes: bytes, more: bytes = b"") -> bytes:
    graph = b"".join(_bytes_field(1, node) for node in nodes) + _bytes_field(2, b"g") + more
    opset = _bytes_field(8, _varint(2 << 3) + _varint(17))
    return _varint(1 << 3) + _varint(8) + _bytes_field(7, graph) + opset


_PLAIN = _bytes_field(1, b"x") + _bytes_field(2, b"y") + _bytes_field(4, b"Identity")
_EVIL = b"evil.example"


def _outside(value: int) -> bytes:
    """A weight that lies outside to whoever reads its place in 32 bits."""
    tensor = _varint(1 << 3) + _varint(4) + _varint(2 << 3) + _varint(1)
    tensor += _bytes_field(8, b"w") + _bytes_field(9, bytes(16))
    return _bytes_field(5, tensor + _varint(14 << 3) + _varint(value))


HIDDEN: dict[str, tuple[bytes, Callable[[Any], bool]]] = {
    "a key in more bytes than it needs": (
        _model(_PLAIN + _bytes_field(7, _EVIL, spare=2)),
        lambda model: model.graph.node[0].domain == "evil.example",
    ),
    "a length in more bytes than it needs": (
        _model(_PLAIN + _varint(7 << 3 | 2) + _varint(len(_EVIL), 3) + _EVIL),
        lambda model: model.graph.node[0].domain == "evil.example",
    ),
    "an operator behind a number of the same field": (
        _model(
            _bytes_field(4, b"EvilGelu") + _bytes_field(7, b"com.microsoft")
            + _varint(4 << 3 | 1) + b"BiasGelu"
        ),
        lambda model: model.graph.node[0].op_type == "EvilGelu",
    ),
    "a place that is 1 in 32 bits": (
        _model(_PLAIN, more=_outside(2**32 + 1)),
        lambda model: model.graph.initializer[0].data_location == 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", HIDDEN)
def test_what_onnx_reads_and_a_simpler_reader_does_not_is_refused(tmp_path: Path, how: str) -> None:
    raw, seen = HIDDEN[how]
    path = tmp_path / "hidden.onnx"
    path.write_bytes(raw)
    assert seen(onnx.load_from_string(raw)), "ONNX itself does not see it: no attack"
    with pytest.raises(PackError, match=r"hidden\.onnx"):
        inspect_onnx(path, str(path))


@pytest.mark.parametrize(
    "raw",
    [
        _model(_PLAIN + _bytes_field(7, _EVIL, key=(7 << 3 | 2) + 2**32)),
        _model(_PLAIN + _bytes_field(60, b"?")),
        _model(_PLAIN) + _varint(7 << 3) + b"\xff" * 9 + b"\x02",
        _model(_PLAIN) + _varint(99 << 3) + _varint(1),
    ],
)
def test_keys_and_numbers_that_no_onnx_file_has_are_refused(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "odd.onnx"
    path.write_bytes(raw)
    with pytest.raises(PackError, match=r"odd\.onnx"):
        inspect_onnx(path, str(path))


def test_a_plain_model_of_the_same_making_is_sound(tmp_path: Path) -> None:
    """The attacks above are refused for what is in them, not for how they were built."""
    path = tmp_path / "plain.onnx"
    path.write_bytes(_model(_PLAIN, more=_outside(0)))
    assert inspect_onnx(path, str(path)).operators == {"Identity"}


# --- files that change ----------------------------------------------------------------------------


def _decoder(pack: Path) -> str:
    model = read_manifest(pack).model
    assert isinstance(model, Generative)
    return model.decoder


def test_a_model_that_is_replaced_after_it_was_verified_is_not_opened(pack: Path) -> None:
    loaded, name = load_pack(pack), _decoder(pack)
    Engine("cpu", 1).open(loaded, name)
    other = pack.parent / "other.onnx"
    other.write_bytes((pack / name).read_bytes() + _varint(1 << 3) + _varint(8))
    other.replace(pack / name)
    with pytest.raises(PackError, match="changed after the pack was verified"):
        Engine("cpu", 1).open(loaded, name)


def test_weights_that_are_replaced_after_they_were_verified_are_not_used(pack: Path) -> None:
    name = _decoder(pack)
    model = onnx.load(str(pack / name))
    onnx.save_model(
        model, str(pack / name), save_as_external_data=True, location="w.onnx_data",
        size_threshold=1024
    )  # fmt: skip
    write_manifest(pack, read_manifest(pack))
    assert verify_pack(pack) == ()
    loaded = load_pack(pack)
    graph = Engine("cpu", 1).open(loaded, name)
    assert graph.outputs
    weights = pack / "w.onnx_data"
    state = weights.stat()
    copy = pack.parent / "copy"
    copy.write_bytes(bytes(weights.stat().st_size))
    os.utime(copy, ns=(state.st_atime_ns, state.st_mtime_ns))
    copy.replace(weights)
    with pytest.raises(PackError, match=r"w\.onnx_data.*changed after"):
        Engine("cpu", 1).open(loaded, name)


def test_a_link_put_in_a_file_s_place_is_not_followed(pack: Path) -> None:
    loaded, name = load_pack(pack), _decoder(pack)
    same = pack.parent / "same.onnx"
    (pack / name).rename(same)
    (pack / name).symlink_to(same)
    with pytest.raises(PackError, match=name):
        Engine("cpu", 1).open(loaded, name)


@pytest.mark.parametrize("what", ["folder", "file"])
def test_a_pack_that_anybody_may_write_is_refused(pack: Path, what: str) -> None:
    place = pack if what == "folder" else pack / "CARD.md"
    place.chmod(0o777)
    with pytest.raises(PackError, match=r"anybody on this machine may write it.*chmod"):
        load_pack(pack)
    place.chmod(0o755)
    assert load_pack(pack).digest


def test_a_configuration_can_name_the_one_pack_that_it_wants(pack: Path) -> None:
    digest = load_pack(pack).digest
    config = Config(pack=PackTable(name=str(pack), digest=digest))
    assert open_pack(config).digest == digest
    (pack / "CARD.md").write_text("another card")
    write_manifest(pack, read_manifest(pack))
    with pytest.raises(ConfigError, match=r"pack\.digest: .*not sha256:"):
        open_pack(config)
