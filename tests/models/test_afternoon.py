"""The page that leads from an archive to a pack at the bedside, line by line."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from hypnocast.cli import run as run_daemon
from support.made_up_archives import make_archive
from support.models_cli import run as run_models
from support.needs import need_module

for name in ("torch", "transformers", "peft", "onnxruntime", "sklearn"):
    need_module(name)

PAGE = Path(__file__).parents[2] / "docs" / "afternoon.md"


def _lines() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("pip ")]


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_every_line_of_the_afternoon_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    make_archive("isruc", tmp_path / "archive", people=4, pages=15)
    monkeypatch.chdir(tmp_path)
    lines = _lines()
    assert len(lines) >= 11
    for line in lines:
        program, *words = shlex.split(line)
        if program == "printf":
            subprocess.run(["sh", "-c", line], check=True)
            continue
        status = {"hypnocast": run_daemon, "hypnocast-models": run_models}[program](words)
        assert status == 0, f"{line}: {capfd.readouterr().err}"
    figures = json.loads((tmp_path / "figures.json").read_text())["gains"]["1"]["filtered"]
    assert set(figures["subjects"]) == {"3", "4"}
    assert len(list((tmp_path / "staged").glob("*.csv"))) == 4
    taught = (tmp_path / "packs" / "mine-calibrated" / "pack.toml").read_text()
    assert 'subjects = ["1", "2"]' in taught
