"""The paper's experiment by one plan file, over archives that independent writers made."""

from __future__ import annotations

import csv
import json
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from support.made_up_archives import (
    ARCHIVES,
    RATE,
    channel,
    make_archive,
    second_expert,
    stages_of,
)
from support.models_cli import run
from support.needs import need_module

for name in ("torch", "transformers", "peft", "accelerate", "sklearn", "onnxruntime", "pyedflib"):
    need_module(name)

PLAN = Path(__file__).parents[2] / "docs" / "example-report" / "paper" / "experiment.toml"
CHANNELS = ("F4-A1", "C4-A1", "O2-A1", "LOC-A2", "ROC-A1", "X1")


def by_pyedflib(root: Path, person: int, pages: int) -> None:
    """Write a person of an ISRUC-form archive: signals by pyEDFlib, two experts."""
    import pyedflib

    stages = stages_of(pages, person)
    folder = root / str(person)
    folder.mkdir(parents=True)
    headers: list[dict[str, str | int | float | None]] = [
        {
            "label": label, "dimension": "uV", "sample_frequency": RATE, "physical_min": -500.0,
            "physical_max": 500.0, "digital_min": -32768, "digital_max": 32767,
            "transducer": "", "prefilter": "",
        }
        for label in CHANNELS
    ]  # fmt: skip
    edf = folder / f"{person}.edf"
    with pyedflib.EdfWriter(str(edf), len(CHANNELS), pyedflib.FILETYPE_EDF) as writer:
        writer.setSignalHeaders(headers)
        writer.setStartdatetime(datetime(2024, 3, 1, 22, 0))  # noqa: DTZ001 - EDF knows no zone
        signals = [channel(label, stages, person).clip(-499, 499) for label in CHANNELS]
        writer.writeSamples([np.ascontiguousarray(one) for one in signals])
    edf.rename(folder / f"{person}.rec")
    code = {"W": "0", "N1": "1", "N2": "2", "N3": "3", "R": "5"}
    for expert, said in ((1, stages), (2, second_expert(stages))):
        text = "\n".join(code[stage] for stage in said)
        (folder / f"{person}_{expert}.txt").write_text(text)


def by_mne(root: Path, person: int, pages: int) -> None:
    """Write a person of an SHHS-form archive: signals by MNE, stages as the NSRR's XML."""
    import mne

    stages = stages_of(pages, person)
    ARCHIVES["shhs"](root, person, stages)
    labels = ("EEG(sec)", "EEG", "EOG(L)", "EOG(R)", "EMG")
    rows = np.stack([channel(label, stages, person) for label in labels]) * 1e-6
    raw = mne.io.RawArray(rows, mne.create_info(list(labels), RATE, "eeg"), verbose="error")
    raw.set_meas_date(datetime(2024, 3, 1, 22, 0, tzinfo=UTC))
    path = root / f"edfs/shhs1/shhs1-{200000 + person}.edf"
    path.unlink()
    mne.export.export_raw(path, raw, physical_range=(-500, 500), verbose="error")


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("archives")
    for person in range(1, 5):
        by_pyedflib(root / "isruc", person, 15)
    make_archive("mass", root / "mass", people=2, pages=15)
    for person in (1, 2):
        by_mne(root / "shhs", person, 10)
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("weights")
    assert run(["tiny", "llava_next", str(root / "llava-next")]) == 0
    assert run(["tiny", "clip", str(root / "clip-large")]) == 0
    return root


def tiny_plan(path: Path, *parts: str, steps: int) -> Path:
    """Make of the documented plan one of tiny size; of its tables only those that are named."""
    text = PLAN.read_text(encoding="utf-8")
    change = f"steps = {steps}, batch = 2, accumulate = 1, every = {steps}"
    for old, new in (
        ("folds = 5", "folds = 2"),
        ("change = {}", f'change = {{{change}, validate = 0.0, precision = "fp32"}}'),
        ("pages = 60", "pages = 5"),
        ("pages = 120", "pages = 5"),
        ("pages = 20", "pages = 3"),
        ("shares = [0.0, 0.3, 0.7, 0.9]", "shares = [0.7]"),
        ('kinds = ["noise", "dropout", "drift", "mains", "clipping", "detached"]',
         'kinds = ["noise", "detached"]'),
        ('without = [["E1-M2", "E2-M2"], ["Chin"], ["E1-M2", "E2-M2", "Chin"], ',
         'without = [["E1-M2", "E2-M2"], '),
    ):  # fmt: skip
        assert old in text, old
        text = text.replace(old, new)
    head, *tables = text.split("\n[")
    kept = [f"[{one}" for one in tables if not parts or any(part in one for part in parts)]
    path.write_text("\n".join([head, *kept]), encoding="utf-8")
    tomllib.loads(path.read_text(encoding="utf-8"))
    return path


def table(report: Path, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader((report / f"{name}.csv").read_text(encoding="utf-8").splitlines()))


def test_a_model_is_tuned_exported_judged_ablated_and_explained_by_one_plan(
    archives: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tiny_plan(tmp_path / "plan.toml", "isruc", '"clip"\nfamily', "ablation]", steps=2)
    text = plan.read_text().replace('arms = ["llava-r16", "clip", "signal"]', 'arms = ["clip"]')
    text += '\n[explanation]\narms = ["clip"]\npages = 2\n'
    plan.write_text(text)
    out, report = tmp_path / "out", tmp_path / "report"
    words = ["experiment", str(plan), str(archives), "--packs", str(weights)]
    words += ["--out", str(out), "--report", str(report)]
    assert run(words) == 0, capsys.readouterr().err
    arms = {row["verdict knows"] for row in table(report, "arms")}
    assert arms == {"each page alone", "causal", "one page ahead", "whole night"}
    assert [row["without"] for row in table(report, "ablation")] == [
        "none", "E1-M2, E2-M2", "C4-M1, O2-M1",
    ]  # fmt: skip
    scorers = {(row["scorer"], row["against"]) for row in table(report, "experts")}
    assert {("expert 2", "expert 1"), ("clip", "their consensus")} <= scorers
    assert sum(int(row["pages"]) for row in table(report, "explanation")) == 2 * 4
    made = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    kept = [path for path in made if path.name != "experiment.json"]
    assert run(words) == 0
    assert [path.stat().st_mtime_ns for path in kept] == [made[path] for path in kept]


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_the_papers_experiment_runs_whole_over_three_archives(
    archives: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tiny_plan(tmp_path / "plan.toml", steps=4)
    out, report = tmp_path / "out", tmp_path / "report"
    words = ["experiment", str(plan), str(archives), "--packs", str(weights)]
    words += ["--out", str(out), "--report", str(report)]
    assert run(words) == 0, capsys.readouterr().err
    tuned = table(report, "tuned")
    assert [row["arm"] for row in tuned] == ["llava-r16"] * 3 + ["clip"] * 3
    for path in out.rglob("tuned.json"):
        facts = json.loads(path.read_text())
        assert facts["steps"] == 4
        assert any("parity" in line for line in facts["export"])
    assert {row["archive"] for row in table(report, "archives")} == {"isruc", "mass"}
    others = table(report, "cross-dataset")
    assert {(row["data set"], float(row["withheld"])) for row in others} == {("shhs", 0.0)}
    three = {"llava-r16", "clip", "signal"}
    for name in ("arms", "archives", "corruption", "ablation", "cross-dataset"):
        assert {row["arm"] for row in table(report, name)} == three, name
    assert {row["arm"] for row in table(report, "explanation")} == three - {"signal"}
    page = (report / "index.html").read_text(encoding="utf-8")
    assert all(f'src="{one}.png"' in page for one in ("arms", "corruption", "ablation"))
    assert (report / "compare.html").is_file()
