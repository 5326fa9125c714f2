"""An evaluation shows what the daemon would publish, beside what else could be used."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from hypnocast.errors import InstallError
from support.made_up_nights import night
from support.models_cli import run
from support.needs import need_module

for name in ("torch", "matplotlib", "sklearn"):
    need_module(name)

from hypnocast_models.cli import app  # noqa: E402 - after what it needs was found

PACK = Path(__file__).parents[2] / "models" / "packs" / "hypnocast-small"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made-up")
    for at in range(2):
        made = night(30, seed=at, subject=f"subject{at:02d}")
        np.savez(
            folder / f"{made.subject}-night1.npz",
            x=np.rint(made.rows * 100).astype(np.int16),
            y=made.stages,
            fs=made.rate,
            scale_uV=0.01,
            channel=made.channel,
        )
    return folder


def test_one_page_has_the_pack_beside_other_scorers_and_its_plots(
    database: Path, tmp_path: Path
) -> None:
    out, report = tmp_path / "figures.json", tmp_path / "report.html"
    arguments = ["evaluate", str(PACK), str(database), "--out", str(out), "--report", str(report)]
    outcome = CliRunner().invoke(app, arguments)
    assert outcome.exit_code == 0, outcome.output
    found = json.loads(out.read_text(encoding="utf-8"))["gains"]["1"]["filtered"]
    assert found["pages"] == 60
    html = report.read_text(encoding="utf-8")
    rows = re.findall(r"<tr><td>([^<]*)</td><td>([^<]*)</td>", html)
    scorers = dict(reversed(rows))  # the first table counts
    kappa, low, high = found["kappa"]
    assert scorers["hypnocast-small " + _version()] == f"{kappa:.3f} [{low:.3f}, {high:.3f}]"
    assert -1 <= float(scorers["gradient boosting, fitted on other subjects"].split()[0]) <= 1
    assert float(scorers["always N2"].split()[0]) == 0.0
    assert html.count("<img") == 3 + 2


def test_the_report_has_everybody_at_every_gain_and_how_far_the_pack_is_ahead(
    database: Path, tmp_path: Path
) -> None:
    out, report = tmp_path / "figures.json", tmp_path / "report.html"
    gains = ["--gain", "1", "--gain", "0.5"]
    arguments = ["evaluate", str(PACK), str(database), "--out", str(out), "--report", str(report)]
    outcome = CliRunner().invoke(app, [*arguments, *gains, "--beside", str(PACK)])
    assert outcome.exit_code == 0, outcome.output
    found = json.loads(out.read_text(encoding="utf-8"))
    everybody = found["beside"]
    (again,) = (name for name in everybody if name.startswith(f"hypnocast-small {_version()} ("))
    assert everybody[again]["0.5"]["pack_minus_this"][0] == 0.0
    boosting = everybody["gradient boosting, fitted on other subjects"]
    assert set(boosting) == {"1", "0.5"}
    for gain, figures in found["gains"].items():
        (kappa, *_), (other, *_) = figures["filtered"]["kappa"], boosting[gain]["kappa"]
        assert boosting[gain]["pack_minus_this"][0] == pytest.approx(kappa - other, abs=2e-4)
    html = report.read_text(encoding="utf-8")
    assert "<th>×1</th><th>×0.5</th>" in html
    assert "κ of the pack minus κ of" in html


def test_an_environment_without_yasa_is_named(
    database: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", str(PACK), str(database), "--report", str(tmp_path / "report.html")]
    assert run([*arguments, "--yasa", "/usr/bin/python3"]) == InstallError.exit_code
    printed = capfd.readouterr().err
    assert "/usr/bin/python3: YASA did not stage there: ModuleNotFoundError" in printed
    assert "hypnocast'" not in printed  # nothing of Hypnocast is looked for there


@pytest.mark.parametrize("verb", [["evaluate", str(PACK)], ["yasa"]])
def test_a_subject_that_is_not_there_is_refused_by_name(
    database: Path, verb: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run([*verb, str(database), "--subject", "subject01", "--subject", "subject77"]) == 2
    printed = capfd.readouterr().err
    assert "no subject subject77" in printed
    assert "subject00, subject01" in printed


def test_results_that_cannot_be_written_are_refused_before_the_work(
    database: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("no folder")
    out = tmp_path / "file" / "below" / "figures.json"
    assert run(["evaluate", str(PACK), str(database), "--out", str(out)]) == 1
    printed = capfd.readouterr()
    [refusal] = [line for line in printed.err.splitlines() if not line.startswith("warning: ")]
    assert str(out.parent) in refusal
    assert "κ" not in printed.out


def _version() -> str:
    text = (PACK / "pack.toml").read_text(encoding="utf-8")
    found = re.search(r'^version = "(.+)"', text, re.MULTILINE)
    assert found is not None
    return found[1]
