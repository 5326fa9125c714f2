"""Exports prove themselves, and refuse what would be wrong in the night."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from hypnocast.errors import PackError
from hypnocast.stagers.packs.pack import verify_pack
from support.needs import need_module

for name in ("torch", "transformers", "onnx", "onnxscript", "onnxruntime"):
    need_module(name)

import torch  # noqa: E402 - after what it needs was found

from hypnocast_models.cli import app  # noqa: E402
from hypnocast_models.export.generative import Parity  # noqa: E402
from hypnocast_models.export.graphs import refuse_frozen, write_graph  # noqa: E402


class Branching(torch.nn.Module):  # type: ignore[misc]  # torch is passed over by mypy
    """Does something else for a batch of three, which freezes the batch at export."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.shape[0] == 3 else x * 3


class Plain(torch.nn.Module):  # type: ignore[misc]  # torch is passed over by mypy
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


def test_a_dimension_that_would_be_frozen_is_an_error(tmp_path: Path) -> None:
    example, path = (torch.randn(3, 4),), tmp_path / "graph.onnx"
    with pytest.raises(PackError, match=r"graph\.onnx: cannot be exported with its free dim"):
        write_graph(Branching(), example, path, names=["x"], outputs=["y"], free=[{0: "batch"}])
    free = write_graph(Plain(), example, path, names=["x"], outputs=["y"], free=[{0: "batch"}])
    assert isinstance(free.shapes["x"][0], str)
    frozen = write_graph(Plain(), example, path, names=["x"], outputs=["y"], free=[{}])
    assert frozen.shapes["x"] == (3, 4)
    with pytest.raises(PackError, match="dimension 0 of input 'x' was frozen to 3"):
        refuse_frozen(frozen, ["x"], [{0: "batch"}])


def test_an_export_that_differs_is_refused() -> None:
    Parity(9e-5, same_tokens=True, tokens=8).demand(1e-4)
    with pytest.raises(PackError, match=r"2\.0e-04"):
        Parity(2e-4, same_tokens=True, tokens=8).demand(1e-4)
    with pytest.raises(PackError, match="NOT equal"):
        Parity(1e-6, same_tokens=False, tokens=8).demand(1e-4)


def by_command(kind: str, folder: Path, *options: str) -> str:
    """Write a small random model and export it; return what was reported."""
    run, weights = CliRunner(), folder / "weights"
    assert run.invoke(app, ["tiny", kind, str(weights)]).exit_code == 0
    made = run.invoke(
        app, ["export", str(weights), str(folder / "pack"), "--name", "tiny", *options]
    )
    assert made.exit_code == 0, made.output
    assert verify_pack(folder / "pack") == ()
    return made.output


def test_a_model_is_exported_in_lower_precision_by_one_command(tmp_path: Path) -> None:
    said = by_command("clip", tmp_path, "--precision", "fp16")
    assert "picture tower and embedded prompts" in said  # written in a stream, not traced
    assert "parity with transformers on 2 pages" in said


def test_a_model_that_does_not_fit_into_memory_is_not_proved_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hypnocast_models.tune.deliver.free_bytes", lambda: 1000)
    assert "not proved: the model in fp32 takes 0.0 GB" in by_command("clip", tmp_path)
