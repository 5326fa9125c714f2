"""Packs are not trusted: each way in which one can be damaged or hostile is refused by name."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hypnocast.errors import PackError
from hypnocast.stagers.onnx.inspection import inspect_onnx
from hypnocast.stagers.packs.catalogue import check_pack, find_packs, resolve_pack, show_pack
from hypnocast.stagers.packs.manifest import Generative, Manifest, Preprocess
from hypnocast.stagers.packs.pack import load_pack, read_manifest, verify_pack
from support.packs import make_tiny_pack, to_toml, write_manifest


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_pack(tmp_path_factory.mktemp("packs") / "tiny")


@pytest.fixture
def pack(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "tiny"))


def _edit(pack: Path, old: str, new: str) -> None:
    path = pack / "pack.toml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def _refused(pack: Path) -> str:
    with pytest.raises(PackError) as caught:
        load_pack(pack)
    assert verify_pack(pack)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_sound_pack_loads_and_its_digest_covers_every_file(sound: Path, tmp_path: Path) -> None:
    assert verify_pack(sound) == ()
    loaded = load_pack(sound)
    assert loaded.recipe.name == "spectral-448"
    assert loaded.path("CARD.md").is_file()
    other = load_pack(make_tiny_pack(tmp_path / "other", seed=1))
    assert loaded.digest != other.digest
    assert loaded.digest == load_pack(sound).digest


def test_one_changed_byte_in_any_file_is_refused_by_its_name(pack: Path) -> None:
    for name in read_manifest(pack).files:
        path = pack / name
        content = path.read_bytes()
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        assert name in _refused(pack)
        path.write_bytes(content)
    assert verify_pack(pack) == ()


def test_every_fault_is_listed_not_just_the_first(pack: Path) -> None:
    (pack / "CARD.md").write_text("other")
    (pack / "tokenizer.json").unlink()
    (pack / "notes.txt").write_text("?")
    faults = " ".join(check_pack(pack)["faults"])
    assert all(name in faults for name in ("CARD.md", "tokenizer.json", "notes.txt"))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("licence =", "license =", "license"),
        ('"layers" = 2', '"layers" = "2"', "model.layers"),
        ("context = {", 'context = { "sideways" = 1,', "context"),
        ('"layers" = 2', '"layers" = 2, "hidden" = 3', "model"),
        ('"temperature" = 1.0', '"temperature" = 0.0', "calibration.temperature"),
        ('"temperature" = 1.0', '"temperature" = nan', "calibration.temperature"),
        ("[0.2, 0.2, 0.2, 0.2, 0.2]", "[0.9, 0.2, 0.2, 0.2, 0.2]", "calibration"),
        ("[0.2, 0.2, 0.2, 0.2, 0.2]", "[0.2, 0.2, 0.2, 0.2]", "calibration.prior"),
        ("[0.6, 0.1, 0.1, 0.1, 0.1]", "[0.7, 0.1, 0.1, 0.1, 0.1]", "calibration.sequence"),
        ('"F4-M1"', '"F9-M1"', "montage.needed"),
        ('version = "0.0.1"', 'version = "new"', "version"),
        ('name = "tiny"', 'name = "../tiny"', "name"),
        ('"width" = 448', '"width" = 99999999', "model.preprocess.width"),
        ('"layers" = 2', '"layers" = 100000', "model.layers"),
        ('"image_token" = "', '"image_token" = "' + "<" * 100000, "model.image_token"),
        ('"W", "N1"', '"W", "W"', "model"),
        ("<|picture|>", "no picture", "prompt"),
        ('"scoring" = "prefill"', '"scoring" = "prefill", "rationale_key" = "why"', "prefill"),
        ('"scoring" = "prefill"', '"scoring" = "generate"', "generate needs schema"),
        ('"family" = "generative"', '"family" = "magic"', "model"),
        ('recipe = "spectral-448"', 'recipe = "no-such-recipe"', "recipe"),
        ('recipe = "spectral-448"', 'recipe = "clinical-448x224"', "recipe_digest"),
        ('recipe = "spectral-448"', 'recipe = "recipe.toml"', "recipe"),
        ('"decoder" = "decoder_model_merged.onnx"', '"decoder" = "gone.onnx"', "model.decoder"),
        ('"decoder" = "decoder_model_merged.onnx"', '"decoder" = "CARD.md"', "model.decoder"),
        ("format = ", "format = [", "pack.toml"),
    ],
)
def test_what_pack_toml_may_not_say_is_refused_with_its_path(
    pack: Path, old: str, new: str, expected: str
) -> None:
    _edit(pack, old, new)
    assert expected in _refused(pack)


@pytest.mark.parametrize(
    "name",
    ["../secret.txt", "/etc/hostname", "a/../../b.txt", "a\\b.txt", "./CARD.md", "", ".hidden.txt"],
)
def test_a_path_out_of_the_folder_is_refused(pack: Path, name: str) -> None:
    (pack.parent / "secret.txt").write_text("secret")
    manifest = read_manifest(pack)
    whole = msgspec.structs.replace(manifest, files=manifest.files | {name: "sha256:" + "0" * 64})
    _rewrite(pack, whole)
    assert "no plain path" in _refused(pack)


def _rewrite(pack: Path, manifest: Manifest) -> None:
    (pack / "pack.toml").write_text(to_toml(msgspec.to_builtins(manifest)), encoding="utf-8")


def test_what_is_not_listed_or_leads_elsewhere_is_refused(pack: Path) -> None:
    (pack / "extra.txt").write_text("who put me here?")
    assert "extra.txt" in _refused(pack)
    (pack / "extra.txt").unlink()
    (pack / "sub").mkdir()
    (pack / "sub" / "deep.md").write_text("hidden")
    assert "deep.md" in _refused(pack)
    shutil.rmtree(pack / "sub")
    card = pack / "CARD.md"
    outside = pack.parent / "card.md"
    shutil.move(card, outside)
    card.symlink_to(outside)
    assert "symbolic link" in _refused(pack)
    card.unlink()
    os.mkfifo(card)
    assert "no regular file" in _refused(pack)


def _npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"weights": 1}))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("model.pt", _zip(), ".pt"),
        ("model.pkl", pickle.dumps([1]), ".pkl"),
        ("pytorch_model.bin", pickle.dumps([1]), ".bin"),
        ("weights.npy", _npy(), ".npy"),
        ("notes.txt", pickle.dumps({"a": 1}), "pickle"),
        ("notes.json", _zip(), "pickle"),
        ("weights.f32", _npy(), "pickle"),
        ("run.py", b"print('hello')", ".py"),
        ("libcustom.so", b"\x7fELF", ".so"),
    ],
)
def test_files_that_can_carry_code_are_refused(
    pack: Path, name: str, content: bytes, expected: str
) -> None:
    (pack / name).write_bytes(content)
    write_manifest(pack, read_manifest(pack))
    message = _refused(pack)
    assert name in message
    assert expected in message


def _change_model(pack: Path, change: Callable[[Any], None]) -> str:
    """Change the decoder's ONNX file, put the digests right, and return why it is refused."""
    import onnx

    path = pack / "decoder_model_merged.onnx"
    model = onnx.load(str(path))
    change(model)
    path.write_bytes(model.SerializeToString())
    write_manifest(pack, read_manifest(pack))
    return _refused(pack)


def _external(location: str) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        tensor = model.graph.initializer[-1]
        tensor.ClearField("raw_data")
        tensor.data_location = 1
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", location

    return change


@pytest.mark.parametrize(
    "location", ["../secret.data", "/etc/passwd", "weights.data", "tokenizer.json", ""]
)
def test_weights_outside_the_pack_are_refused(pack: Path, location: str) -> None:
    (pack.parent / "secret.data").write_bytes(b"0" * 4096)
    message = _change_model(pack, _external(location))
    assert "decoder_model_merged.onnx" in message
    assert location in message


def test_weights_in_a_listed_data_file_are_allowed(pack: Path) -> None:
    import onnx

    path = pack / "decoder_model_merged.onnx"
    model = onnx.load(str(path))
    onnx.save_model(
        model,
        str(path),
        save_as_external_data=True,
        location="decoder_model_merged.onnx_data",
        size_threshold=0,
    )
    write_manifest(pack, read_manifest(pack))
    assert verify_pack(pack) == ()


def _hide_in_subgraph(model: Any) -> None:
    from onnx import TensorProto, helper

    inner = helper.make_graph(
        [helper.make_node("Shell", [], ["y"], domain="evil.example")],
        "inner",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    outer = helper.make_graph(
        [helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)],
        "outer",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    node = helper.make_node("If", ["c"], ["z"], then_branch=outer, else_branch=outer)
    model.graph.node.append(node)


def _rename_domain(domain: str, operator: str) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        model.graph.node[0].domain = domain
        model.graph.node[0].op_type = operator

    return change


def _huge_input(model: Any) -> None:
    dim = model.graph.input[0].type.tensor_type.shape.dim
    dim[0].dim_value, dim[1].dim_value = 1 << 31, 1 << 31


def _huge_weight(model: Any) -> None:
    model.graph.initializer[-1].dims[0] = 1 << 40


def _wrong_weight(model: Any) -> None:
    model.graph.initializer[-1].dims[0] += 1


def _own_function(model: Any) -> None:
    model.functions.add().name = "f"


def _nest(model: Any) -> None:
    graph = model.graph
    for _ in range(20):
        attribute = graph.node.add(op_type="If").attribute.add()
        attribute.name = "then_branch"
        graph = attribute.g


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_rename_domain("evil.example", "Shell"), "evil.example::Shell"),
        (_rename_domain("com.microsoft", "EPContext"), "EPContext"),
        (_rename_domain("com.microsoft", "PythonOp"), "PythonOp"),
        (_hide_in_subgraph, "evil.example::Shell"),
        (_huge_input, "impossible shape"),
        (_huge_weight, "impossible shape"),
        (_wrong_weight, "declares shape"),
        (_own_function, "functions"),
        (_nest, "nested"),
    ],
)
def test_onnx_files_with_something_up_their_sleeve_are_refused(
    pack: Path, change: Callable[[Any], None], expected: str
) -> None:
    assert expected in _change_model(pack, change)


@pytest.mark.parametrize("content", [b"", b"not onnx at all", b"\x3a\xff\xff\xff\xff\x0f", b"\x00"])
def test_an_onnx_file_that_is_none_is_refused(pack: Path, content: bytes) -> None:
    (pack / "embed_tokens.onnx").write_bytes(content)
    write_manifest(pack, read_manifest(pack))
    assert "embed_tokens.onnx" in _refused(pack)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    keep=st.floats(0.0, 1.0),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=12),
)
def test_no_damage_to_an_onnx_file_does_more_than_refuse_it(
    sound: Path, tmp_path: Path, keep: float, flips: list[tuple[float, int]]
) -> None:
    content = bytearray((sound / "vision_encoder.onnx").read_bytes())
    content = content[: int(keep * len(content)) + 1]
    for place, byte in flips:
        content[int(place * len(content))] = byte
    path = tmp_path / "damaged.onnx"
    path.write_bytes(content)
    with contextlib.suppress(PackError):
        assert inspect_onnx(path, "damaged").nodes >= 0


def test_a_folder_without_a_pack_is_distinguished(tmp_path: Path) -> None:
    assert "pack.toml" in _refused(tmp_path)
    (tmp_path / "pack.toml").write_bytes(b"#" * (2 << 20))
    assert "larger" in _refused(tmp_path)


def test_preprocessing_that_cannot_be_cut_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple"):
        Preprocess(layout="patches", width=450, height=224)
    with pytest.raises(ValueError, match="tiles"):
        Preprocess(width=448, height=224, tile_rows=2)


def test_packs_are_found_by_name_and_the_most_particular_first(sound: Path, tmp_path: Path) -> None:
    make_tiny_pack(tmp_path / "home" / "hypnocast" / "packs" / "mine", seed=5)
    broken = tmp_path / "home" / "hypnocast" / "packs" / "broken"
    broken.mkdir()
    (broken / "pack.toml").write_text("name = 3")
    environment = {
        "HYPNOCAST_PACKS": str(sound.parent),
        "XDG_DATA_HOME": str(tmp_path / "home"),
    }
    found = [pack for pack in find_packs(environment) if pack.origin != "shipped"]
    assert [(pack.name, pack.origin, pack.fault is None) for pack in found] == [
        ("tiny", "environment", True),
        ("broken", "user", False),
        ("tiny", "user", True),
    ]
    assert resolve_pack("tiny", environment) == sound
    assert resolve_pack(str(tmp_path / "x" / "y"), environment) == tmp_path / "x" / "y"
    with pytest.raises(PackError, match="tiny"):
        resolve_pack("nobody", environment)


def test_a_pack_can_be_shown_as_plain_data(sound: Path) -> None:
    found = show_pack(sound)
    assert found["name"] == "tiny"
    assert found["digest"].startswith("sha256:")
    assert msgspec.json.decode(msgspec.json.encode(found)) == found
    checked = check_pack(sound)
    assert checked["sound"]
    assert checked["files"] == len(found["files"])


def test_the_manifest_reads_back_as_it_was_written(sound: Path) -> None:
    manifest = read_manifest(sound)
    assert isinstance(manifest.model, Generative)
    assert manifest.model.prompt == "Stages: <|picture|> Stage:"
    assert manifest.montage.needed == (("F4-M1", "C4-M1", "O2-M1"),)
