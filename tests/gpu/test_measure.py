"""The script that is prepared for a GPU runs whole without one, on a tiny model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.needs import need_module

SCRIPT = Path(__file__).with_name("measure.py")


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_script_for_a_gpu_measures_every_group_of_a_tiny_model_on_a_cpu(
    tmp_path: Path,
) -> None:
    for name in ("torch", "transformers", "onnx", "onnxruntime", "ml_dtypes"):
        need_module(name)
    words = ["--cpu", "--sizes", "tiny", "--precisions", "int4-fp16", "--beds", "2"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path), *words],
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads((tmp_path / "gpu.json").read_text())
    rows = {row["what"]: row for row in found["rows"]}
    failed = {what: row["note"] for what, row in rows.items() if row["value"] is None}
    assert (done.returncode, failed) == (0, {}), done.stderr
    for what in (
        "pack",
        "warm",
        "2 at once",
        "tokens, 4 at once",
        "a token with I/O binding",
        "2 beds: close to PUBACK less inference",
        "2 beds over LSL: first verdict",
    ):
        assert any(name.endswith(what) for name in rows), what
    assert rows["tiny int4-fp16: 2 beds over LSL: pages lost"]["value"] == 0
    assert "| what | on | value | unit | note |" in done.stdout
    assert found["seconds"] < 600
