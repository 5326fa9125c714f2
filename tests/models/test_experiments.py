"""Experiments: from a TOML file to tables, without a subject on both sides, and resumable."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypnocast.core.types import STAGES, FloatArray, Page, Role
from hypnocast.core.verdicts.calibration import Calibration, HiddenMarkov
from hypnocast.core.verdicts.sequence_filter import run_filter
from hypnocast.errors import ConfigError
from hypnocast.simulate import SimulatedNight
from hypnocast.simulate.montages import CLINICAL
from hypnocast.simulate.waves import RATE as SIMULATED
from hypnocast_models.data.recordings import page_of
from hypnocast_models.experiments.archives import fold_of_each
from hypnocast_models.experiments.corrupt import STRETCH_S, corrupt
from hypnocast_models.experiments.look_ahead import WHOLE_NIGHT, follow
from hypnocast_models.experiments.part import Part
from hypnocast_models.experiments.plan import Kind, read_experiment
from hypnocast_models.experiments.run import run_experiment, steps
from hypnocast_models.readers.datasets import find_nights, open_night
from support.models_cli import run
from support.needs import need_module
from support.packs import make_tiny_pack

RATE = 100
KINDS: tuple[Kind, ...] = ("noise", "dropout", "drift", "mains", "clipping", "detached")


def _page(seed: int, missing_from: int = RATE * 30) -> Page:
    samples = 30.0 * np.random.default_rng(seed).standard_normal(RATE * 30)
    samples[missing_from:] = np.nan
    channels = {role: (samples, float(RATE), role.value) for role in (Role.F4, Role.E1)}
    return page_of(channels, seed, 0.0, 0.0)


@settings(deadline=None, max_examples=40)
@given(
    kind=st.sampled_from(KINDS),
    share=st.sampled_from([0.0, 0.3, 0.7, 0.9]),
    seed=st.integers(0, 99),
)
def test_damage_hits_its_share_of_the_time_and_nothing_else(
    kind: Kind, share: float, seed: int
) -> None:
    page = _page(seed, missing_from=RATE * 20)
    hurt = corrupt(page, kind, share, seed)
    again = corrupt(page, kind, share, seed)
    for role, signal in page.signals.items():
        before, after = signal.samples, hurt.signals[role].samples
        np.testing.assert_array_equal(after, again.signals[role].samples)
        assert np.isnan(after[RATE * 20 :]).all()
        stretches = (before != after)[: RATE * 20].reshape(-1, round(STRETCH_S * RATE))
        hit = stretches.any(axis=1)
        assert abs(hit.mean() - share) < 0.25
        if share == 0:
            assert not hit.any()
    if kind in ("dropout", "noise", "detached"):
        one, two = (
            page.signals[role].samples[: RATE * 20] != hurt.signals[role].samples[: RATE * 20]
            for role in (Role.F4, Role.E1)
        )
        np.testing.assert_array_equal(one, two)


def _chain(seed: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    rng = np.random.default_rng(seed)
    logs = np.log(rng.dirichlet(np.ones(5), 12))
    logs[rng.random(12) < 0.2] = np.nan
    logs[0] = np.log(rng.dirichlet(np.ones(5)))
    return logs, rng.dirichlet(np.full(5, 5.0)), rng.dirichlet(np.ones(5), 5)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000))
def test_looking_nowhere_ahead_is_the_daemons_own_filter(seed: int) -> None:
    logs, prior, transitions = _chain(seed)
    rows = tuple(tuple(float(x) for x in row) for row in transitions)
    start = tuple(float(x) for x in prior)
    chain = HiddenMarkov(transitions=rows, initial=start)  # type: ignore[arg-type]  # five by five
    found = run_filter(Calibration(prior=start, sequence=chain), logs, np.ones(len(logs)))  # type: ignore[arg-type]  # five numbers
    ours = follow(logs, prior, transitions, 0)
    known = np.isfinite(found).all(axis=1)
    np.testing.assert_allclose(ours[known], found[known], atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), ahead=st.integers(0, 11), page=st.integers(0, 11))
def test_a_verdict_knows_so_many_pages_ahead_and_not_one_more(
    seed: int, ahead: int, page: int
) -> None:
    logs, prior, transitions = _chain(seed)
    other = logs.copy()
    other[page + ahead + 1 :] = np.log(np.random.default_rng(seed + 1).dirichlet(np.ones(5)))
    one, two = (follow(x, prior, transitions, ahead)[page] for x in (logs, other))
    np.testing.assert_allclose(one, two, atol=1e-12)
    np.testing.assert_allclose(
        follow(logs, prior, transitions, 11),
        follow(logs, prior, transitions, WHOLE_NIGHT),
        atol=1e-9,
    )


def _arrays(folder: Path, subjects: int, pages: int = 40) -> None:
    """Write simulated nights of one EEG, 5 s of each page, as the reader's arrays."""
    folder.mkdir(parents=True)
    for subject in range(subjects):
        night = SimulatedNight(subject, stages=[STAGES[page // 4 % 5] for page in range(pages)])
        whole = night.samples(0.0, pages * 30.0, leads=CLINICAL[1:2])[:, 0]
        np.savez(
            folder / f"subject{subject:02d}.npz",
            x=np.rint(whole.reshape(pages, -1)[:, : 5 * SIMULATED] * 10).astype(np.int16),
            scale_uV=0.1, y=np.array([STAGES.index(s) for s in night.stages], np.uint8),
            fs=SIMULATED, channel="C4-M1",
        )  # fmt: skip


PLAN = """
title = "A small one"
folds = 2
seeds = [0]
data = {{ folder = "here", subjects = 4, pages = 20, without = ["subject04"] }}
cross = {{ folder = "there", pages = 10 }}
corruption = {{ arms = ["clinical", "signal"], kinds = ["noise"], shares = [0.9], pages = 10 }}
[[arm]]
name = "clinical"
recipe = "clinical-448x224"
context = 1
[[arm]]
name = "signal"
family = "signal"
[[arm]]
name = "pack"
family = "pack"
recipe = "clinical-448x224"
pack = "{pack}"
"""


def test_an_experiment_runs_by_one_command_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    need_module("sklearn")
    need_module("matplotlib")
    _arrays(tmp_path / "data/here", 5)
    _arrays(tmp_path / "data/there", 1)
    pack = make_tiny_pack(tmp_path / "pack", family="contrastive", recipe="clinical-448x224")
    plan_file = tmp_path / "plan.toml"
    plan_file.write_text(PLAN.format(pack=pack))
    out, report = tmp_path / "out", tmp_path / "report"
    command = ["experiment", str(plan_file), str(tmp_path / "data")]
    command += ["--out", str(out), "--report", str(report), "--workers", "2"]
    assert run(command) == 0
    made = {path: path.stat().st_mtime_ns for path in out.rglob("*.npz")}
    names = {path.name for path in report.iterdir()}
    assert names >= {"index.html", "arms.csv", "arms.png", "differences.csv", "corruption.csv"}
    arms = list(csv.DictReader((report / "arms.csv").read_text().splitlines()))
    causal = {row["arm"]: float(row["kappa"]) for row in arms if row["verdict knows"] == "causal"}
    assert causal["signal"] > 0.2
    assert set(causal) == {"clinical", "signal", "pack"}
    assert all(float(r["kappa low"]) <= float(r["kappa"]) <= float(r["kappa high"]) for r in arms)
    hurt = list(csv.DictReader((report / "corruption.csv").read_text().splitlines()))
    assert {(r["arm"], r["damage"]) for r in hurt} == {
        (arm, kind) for arm in ("clinical", "signal") for kind in ("none", "noise")
    }
    plan = read_experiment(plan_file)
    results = run_experiment(plan, tmp_path / "data", out)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.npz")} == made
    assert "subject04" not in {one.subject for one in results.judged if one.condition != "cross"}
    # Each arm sees or stages four sound nights, two of them four in two states, two the other
    # set; both trained arms are fitted for two folds and for the other set.
    assert steps(plan, tmp_path / "data") == 4 * 3 + 4 * 2 * 2 + 2 + 2 * 3
    for one in results.judged:
        if one.condition == "sound":
            assert one.stages.size == 20
    plan_file.write_text(PLAN.format(pack=pack).replace("seeds = [0]", "seeds = [1]"))
    assert run(command) == 2


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ('folder = "here"', 'kind = "simulated", folder = "here"', "unless its kind is simulated"),
        ("folds = 2", "folds = 1", "folds"),
        ('kinds = ["noise"]', 'kinds = ["rain"]', "corruption.kinds"),
        ('"signal"]', '"nobody"]', "there is no arm 'nobody'"),
        ('name = "signal"', 'name = "clinical"', "two arms have one name"),
        ("context = 1", "colour = 1", "colour"),
        ("context = 1", 'channels = ["ECG"]', "does not draw ECG"),
        ('family = "signal"', 'family = "pack"', "names its pack"),
        ('recipe = "clinical-448x224"\ncontext', 'recipe = "x"\ncontext', "no recipe called 'x'"),
        ("title =", "title", "is no TOML"),
    ],
)
def test_a_wrong_plan_is_refused_by_its_key(tmp_path: Path, old: str, new: str, what: str) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(PLAN.format(pack="x").replace(old, new, 1))
    with pytest.raises(ConfigError) as refused:
        read_experiment(path)
    assert what in str(refused.value)


@given(
    numbers=st.sets(st.integers(0, 99), min_size=4, max_size=20),
    folds=st.integers(2, 4),
    named=st.booleans(),
)
def test_every_subject_is_in_one_fold_and_every_fold_has_subjects(
    numbers: set[int], folds: int, named: bool
) -> None:
    subjects = [f"subject{n:02d}" if named else f"s{n:02d}x" for n in sorted(numbers)]
    dealt = fold_of_each(subjects, folds)
    assert set(dealt) == set(subjects)
    assert set(dealt.values()) == set(range(folds))
    if named and {n % folds for n in numbers} == set(range(folds)):
        assert dealt == {f"subject{n:02d}": n % folds for n in numbers}


def test_a_part_of_a_night_is_its_middle_renumbered(tmp_path: Path) -> None:
    _arrays(tmp_path / "d", 1)
    night = open_night(find_nights(tmp_path / "d")[0])
    part = Part.of(night, 10)
    assert part.stages == night.stages[15:25]
    (role,) = part.channels
    np.testing.assert_array_equal(
        part.page(0, 30.0, 1.0).signals[role].samples,
        night.page(15, 30.0, 1.0).signals[role].samples,
    )
    assert part.page(3, 0.0, 0.0).epoch == 3


def test_a_part_of_a_night_with_holes_is_where_most_pages_are_scored(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "subject01.npz",
        x=np.ones((4, 500), np.int16), scale_uV=1.0, y=np.zeros(4, np.uint8), fs=100,
        channel="C4-M1", epoch_index=np.array([0, 50, 90, 91]),
    )  # fmt: skip
    part = Part.of(open_night(find_nights(tmp_path)[0]), 10)
    assert sum(stage is not None for stage in part.stages) == 2
    assert Part.of(part.whole, 0).count == 92
