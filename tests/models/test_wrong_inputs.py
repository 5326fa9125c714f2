"""What a researcher may get wrong: one line that says what, exit code 2, nothing left behind."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.models_cli import run
from support.needs import need_module
from support.researcher_lab import make_lab

for name in ("torch", "transformers", "peft", "onnxruntime", "sklearn"):
    need_module(name)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_lab(tmp_path_factory.mktemp("lab"))


TUNE, EXPORT, JUDGE = "finetune clip archive", "export clip", "evaluate pack archive"
MISUSE = {
    # finetune
    "finetune none archive {out}": "there is no model in it",
    "finetune clip nowhere {out}": "is no folder",
    "finetune clip empty {out}": "holds no recordings",
    f"{TUNE} full": "holds other files",
    f"{TUNE} {{out}} --recipe grand": "there is no recipe of training 'grand'",
    f"{TUNE} {{out}} --recipe broken.toml": "broken.toml",
    f"{TUNE} {{out}} --recipe unknown.toml": "stepps",
    f"{TUNE} {{out}} --without 7": "there is no subject 7",
    f"{TUNE} {{out}} --without 1 --without 2": "every subject is held out",
    f"{TUNE} {{out}} --steps 0": "steps",
    f"{TUNE} {{out}} --steps many": "--steps",
    f"{TUNE} {{out}} --batch 0": "batch",
    f"{TUNE} {{out}} --accumulate 0": "accumulate",
    f"{TUNE} {{out}} --learning-rate -1": "learning_rate",
    f"{TUNE} {{out}} --lora-rank -4": "lora_rank",
    f"{TUNE} {{out}} --pages crayon": "there is no recipe called 'crayon'",
    f"{TUNE} {{out}} --kind mars": "there is no reader 'mars'",
    f"{TUNE} {{out}} --log paper": "'paper' is none of",
    f"{TUNE} {{out}} --mains 42": "42 Hz is no mains frequency",
    f"{TUNE} {{out}} --hypnograms nowhere": "is no folder",
    f"{TUNE} {{out}} --hypnograms empty": "has no hypnogram of",
    "finetune clip one {out} --validate 0.5": "one subject cannot both teach and judge",
    # export
    "export empty {out} --name mine": "there is no model in it",
    "export adapter {out} --name mine": "is an adapter for /nowhere",
    "export broken.onnx {out} --name mine --labels W,N1,N2,N3,R": "broken.onnx",
    f"{EXPORT} {{out}} --name 'Bad Name'": "'Bad Name'",
    f"{EXPORT} {{out}} --name mine --version one": "'one'",
    f"{EXPORT} {{out}} --name mine --precision int3": "'int3' is none of",
    f"{EXPORT} {{out}} --name mine --recipe crayon": "there is no recipe called 'crayon'",
    f"{EXPORT} {{out}}": "--name",
    # evaluate, rolling
    "evaluate pack nowhere --out {out}": "is no folder",
    f"{JUDGE} --out {{out}} --subject 9": "there is no subject 9",
    f"{JUDGE} --out {{out}} --gain 0": "0 is no gain",
    f"{JUDGE} --out {{out}} --min-coverage 2": "less than or equal to 1",
    f"{JUDGE} --out {{out}} --mains 42": "42 Hz is no mains frequency",
    "rolling pack archive --out {out} --hop 7": "7 s is no hop",
    # stage, draw
    "stage nowhere --out {out} --pack ./pack": "is no folder",
    "stage archive --out {out} --pack ./pack --retries -1": "greater than or equal to 0",
    "stage archive --out {out} --pack ./pack --scheduler tcp://127.0.0.1:1": "no scheduler answers",
    "draw archive --out {out} --recipe crayon": "there is no recipe called 'crayon'",
    "draw empty --out {out}": "holds no recordings",
    # compare
    "compare a none --html {out}": "none",
    "compare a empty --html {out}": "holds no hypnograms",
    "compare a b --experts 2 --html {out}": "leaves no scorer",
    "compare a b --timezone Mars/North --html {out}": "Mars/North",
    # experiment
    "experiment none.toml . --out {out} --report {out}": "cannot be opened",
    "experiment broken.toml . --out {out} --report {out}": "is no TOML",
    "experiment arm.toml . --out {out} --report {out}": "tunned",
    "experiment folds.toml . --out {out} --report {out}": "cannot be dealt to 9 folds",
    "experiment plan.toml . --packs empty --out {out} --report {out}": "there is no model in it",
    # packs
    "pack calibrate ./pack archive full --version 0.2.0": "holds other files",
    "pack calibrate ./pack archive {out} --version two": "'two'",
    "pack calibrate ./pack archive {out} --version 0.2.0 --subject 9": "there is no subject 9",
    "pack edit ./pack {out} --set licence": "names no key",
    "pack edit ./pack {out} --set nonsense.key=1": "names no key",
    "pack edit ./pack {out} --set family=3": "family",
    "pack edit ./pack full --set licence=MIT": "holds other files",
    "pack make archive {out} --draft none.toml": "cannot be opened",
    "pack make archive {out} --draft broken.toml": "is no TOML",
    "pack make archive {out} --draft draft.toml": "missing required field",
    "tiny gpt {out}": "there is no tiny model called 'gpt'",
}


@pytest.mark.parametrize("line", MISUSE)
def test_misuse_is_one_line_exit_2_and_leaves_nothing(
    lab: Path,
    tmp_path: Path,
    line: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(lab)
    out = tmp_path / "out"
    before = {path: path.stat().st_mtime_ns for path in lab.rglob("*")}
    assert run(shlex.split(line.format(out=out))) == 2
    complaints = capfd.readouterr().err.splitlines()
    assert [one.partition(":")[0] for one in complaints] == ["hypnocast-models"], complaints
    assert MISUSE[line] in complaints[0]
    assert not out.exists()
    assert {path: path.stat().st_mtime_ns for path in lab.rglob("*")} == before


def test_there_are_more_than_thirty() -> None:
    assert len(MISUSE) > 30


BAD_ARRAYS: dict[str, dict[str, Any]] = {
    "stages": {"y": np.full(6, 9)},
    "rows": {"x": np.zeros((2, 3, 4), np.int16)},
    "rate": {"fs": 0},
    "scale": {"scale_uV": float("nan")},
    "count": {"y": np.zeros(3, int)},
    "places": {"epoch_index": np.zeros(6, int)},
}


@pytest.mark.parametrize("fault", BAD_ARRAYS)
def test_a_broken_recording_is_one_line_and_exit_1(
    lab: Path, tmp_path: Path, fault: str, capfd: pytest.CaptureFixture[str]
) -> None:
    sound: dict[str, Any] = {"x": np.ones((6, 300), np.int16), "y": np.zeros(6, int), "fs": 10.0,
             "scale_uV": 0.1, "channel": "C4-M1"}  # fmt: skip
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "subject01.npz"
    np.savez(path, **{**sound, **BAD_ARRAYS[fault]})
    out = tmp_path / "out"
    assert run(["finetune", str(lab / "clip"), str(path.parent), str(out)]) == 1
    [complaint] = capfd.readouterr().err.splitlines()
    assert str(path) in complaint
    assert not out.exists()
