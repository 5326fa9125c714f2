"""A pack is calibrated on people whom its model never saw, and edited by command."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import msgspec.toml
import numpy as np
import pytest

from hypnocast.core.types import STAGES
from hypnocast.stagers.packs.manifest import Manifest
from hypnocast.stagers.packs.pack import load_pack, verify_pack
from support.made_up_archives import make_archive
from support.models_cli import run
from support.needs import need_module
from support.packs import make_tiny_pack

for name in ("sklearn", "onnxruntime"):
    need_module(name)

from hypnocast_models.export.calibrating import fit_calibration  # noqa: E402 - after its needs
from hypnocast_models.export.sequence import HeldOutNight  # noqa: E402


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_pack(tmp_path_factory.mktemp("packs") / "tiny", recipe="clinical-448x224")


def _night(subject: str, seed: int, sharpness: float) -> HeldOutNight:
    """Somebody who stays long in each stage, and a model that is right but much too sure."""
    rng = np.random.default_rng(seed)
    stages = np.repeat(rng.permutation(np.arange(40) % 5), 8)
    scores = rng.normal(0, 1, (len(stages), 5))
    scores[np.arange(len(stages)), stages] += 1.2
    rows = sharpness * scores
    rows -= np.logaddexp.reduce(rows, axis=1, keepdims=True)
    return HeldOutNight(subject, rows, stages)


def test_a_model_that_is_too_sure_is_cooled_and_its_neighbours_count(pack: Path) -> None:
    nights = [_night(f"subject{k:02d}", k, 4.0) for k in range(4)]
    fit = fit_calibration(load_pack(pack), nights)
    assert 2.5 < fit.calibration.temperature < 6.0
    assert fit.after.value > fit.before.value + 0.1
    assert fit.error_after < fit.error_before
    assert fit.calibration.sequence is not None
    assert len(STAGES) == len(fit.calibration.prior)


def test_a_calibrated_pack_is_a_whole_pack(
    pack: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = make_archive("npz", tmp_path / "data", people=2)
    out = tmp_path / "calibrated"
    words = ["pack", "calibrate", str(pack), str(data), str(out), "--version", "0.2.0"]
    assert run(words) == 0
    assert "calibrated on others" in capfd.readouterr().out
    assert verify_pack(out) == ()
    made = load_pack(out).manifest
    assert (made.version, made.metrics[-1].name) == ("0.2.0", "kappa")
    assert run(words) == 2
    assert "holds other files" in capfd.readouterr().err
    shipped = Path(__file__).parents[2] / "models" / "packs" / "hypnocast-small"
    taught = [
        "pack",
        "calibrate",
        str(shipped),
        str(data),
        str(tmp_path / "no"),
        "--version",
        "1.0.0",
    ]
    assert run(taught) == 2
    assert "taught on subject01" in capfd.readouterr().err
    alone = ["pack", "calibrate", str(pack), str(data), str(tmp_path / "no"), "--version", "0.2.0"]
    assert run([*alone, "--subject", "subject01"]) == 2
    assert "two people" in capfd.readouterr().err


def test_a_pack_is_edited_by_its_keys(
    pack: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "edited"
    words = ["pack", "edit", str(pack), str(out)]
    assert run([*words, "--set", "licence=MIT", "--set", 'name="mine"']) == 0
    made = load_pack(out).manifest
    assert (made.licence, made.name) == ("MIT", "mine")
    for change, found in (
        ("no.such.key=1", "names no key"),
        ("licence", "names no key"),
        ("nonsense=1", "nonsense"),
        ("calibration.temperature=-1", "temperature"),
    ):
        other = tmp_path / "other"
        assert run(["pack", "edit", str(pack), str(other), "--set", change]) == 2
        assert found in capfd.readouterr().err
        assert not other.exists()


def test_files_and_a_draft_become_a_pack(pack: Path, tmp_path: Path) -> None:
    text = (pack / "pack.toml").read_text(encoding="utf-8").partition("\n[files]")[0]
    draft = tmp_path / "draft.toml"
    draft.write_text(re.sub(r"(?m)^(format|recipe_digest) = .*$", "", text), encoding="utf-8")
    made = tmp_path / "made"
    assert run(["pack", "make", str(pack), str(made), "--draft", str(draft)]) == 0
    assert load_pack(made).manifest == load_pack(pack).manifest


def test_the_draft_in_the_docs_has_every_key_that_is_needed() -> None:
    page = (Path(__file__).parents[2] / "docs" / "packs.md").read_text(encoding="utf-8")
    [draft] = re.findall(r"```toml\n(name = .*?)```", page, re.DOTALL)
    digest = f"sha256:{'0' * 64}"
    whole = {"format": "hypnocast.pack/1", "recipe_digest": digest, "files": {"a.onnx": digest}}
    assert msgspec.convert(whole | msgspec.toml.decode(draft), Manifest).name == "mine"
