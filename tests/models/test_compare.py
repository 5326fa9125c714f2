"""Comparison: the figures are the textbook's, and who is left out is named."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hypnocast.core.types import STAGES, Stage
from hypnocast.errors import CommandError, TapeError
from hypnocast_models.compare.comparison import agree_on, compare, differences
from hypnocast_models.compare.consensus import consensus, density_agreement, hypnodensity
from hypnocast_models.compare.hypnogram import (
    ScoredHypnogram,
    align,
    night_name,
    read_hypnogram,
    read_scorer,
    subject_name,
    write_hypnogram,
)
from hypnocast_models.compare.measures import (
    FIGURES,
    bland_altman,
    borders,
    paired_difference,
    table_of,
    transitions_per_hour,
)
from hypnocast_models.data.recordings import open_recording
from hypnocast_models.scorers.yasa import written
from support.models_cli import run
from support.needs import need_data, need_module

START = datetime(2026, 3, 1, 22, 0, tzinfo=UTC)
stages = st.sampled_from(STAGES)
scorings = st.lists(st.tuples(stages, stages), min_size=2, max_size=120)


def night(
    letters: str, scorer: str = "expert", name: str = "n1", start: datetime | None = None
) -> ScoredHypnogram:
    """``W12 3R?``: one letter a page."""
    table = dict(zip("W123R", STAGES, strict=True))
    return ScoredHypnogram(scorer, name, name, tuple(table.get(x) for x in letters), start)


@settings(deadline=None, max_examples=60)
@given(pairs=scorings)
def test_figures_are_those_of_scikit_learn(pairs: list[tuple[Stage, Stage]]) -> None:
    need_module("sklearn")
    metrics = import_module("sklearn.metrics")
    truth = np.array([STAGES.index(a) for a, _ in pairs])
    other = np.array([STAGES.index(b) for _, b in pairs])
    table = table_of(truth, other)
    assert FIGURES["accuracy"](table) == pytest.approx(metrics.accuracy_score(truth, other))
    given_recall = metrics.recall_score(
        truth, other, labels=np.unique(truth), average="macro", zero_division=0
    )
    assert FIGURES["balanced_accuracy"](table) == pytest.approx(given_recall)
    if len(set(truth) | set(other)) > 1:
        assert FIGURES["kappa"](table) == pytest.approx(metrics.cohen_kappa_score(truth, other))
    f1 = metrics.f1_score(truth, other, labels=range(5), average=None, zero_division=0)
    for place, stage in enumerate(STAGES):
        if place in truth or place in other:
            assert FIGURES[f"f1_{stage}"](table) == pytest.approx(f1[place])
    counted = metrics.confusion_matrix(truth, other, labels=range(5))
    np.testing.assert_array_equal(table[:, :5], counted)


@given(pairs=scorings, withheld=st.sets(st.integers(0, 119)), unscored=st.sets(st.integers(0, 119)))
def test_withheld_pages_agree_with_nothing_and_unscored_pages_do_not_count(
    pairs: list[tuple[Stage, Stage]], withheld: set[int], unscored: set[int]
) -> None:
    truth = np.array([STAGES.index(a) for a, _ in pairs])
    other = np.array([STAGES.index(b) for _, b in pairs])
    other[[k for k in withheld if k < len(pairs)]] = -1
    truth[[k for k in unscored if k < len(pairs)]] = -1
    table = table_of(truth, other)
    assert table.sum() == (truth >= 0).sum()
    assert table[:, 5].sum() == ((truth >= 0) & (other < 0)).sum()
    assert np.trace(table[:, :5]) == ((truth == other) & (truth >= 0)).sum()


@given(lengths=st.lists(st.integers(12, 30), min_size=2, max_size=6), late=st.integers(-5, 5))
def test_a_scorer_who_is_late_by_some_pages_is_late_by_so_much_at_every_border(
    lengths: list[int], late: int
) -> None:
    truth = np.concatenate([np.full(n, k % 5) for k, n in enumerate(lengths)])
    other = np.roll(truth, late)
    if late > 0:
        other[:late] = truth[0]
    elif late < 0:
        other[late:] = truth[-1]
    found = borders(truth, other)
    assert found.missed == 0
    assert set(found.delays_s) == {late * 30.0}


def test_a_border_that_the_other_never_has_is_missed_not_averaged() -> None:
    found = borders(night("WWWW2222WWWW").numbers, night("WWWWWWWWWWWW").numbers)
    assert found.missed == 2
    assert found.delays_s == ()


def test_transitions_are_counted_between_scored_neighbours_only() -> None:
    assert transitions_per_hour(night("W1" * 60 + "W").numbers) == pytest.approx(120.0)
    assert transitions_per_hour(night("W?1?2?").numbers) != transitions_per_hour(
        night("WW11").numbers
    )
    assert np.isnan(transitions_per_hour(night("W?1").numbers))


def test_bland_altman_leaves_out_nights_in_which_a_statistic_is_undefined() -> None:
    found = bland_altman([(10.0, 12.0), (20.0, 26.0), (None, 3.0)])
    assert found is not None
    assert found.nights == 2
    assert found.bias == 4.0
    assert found.high - found.bias == pytest.approx(1.96 * np.std([2.0, 6.0], ddof=1))
    assert bland_altman([(None, 1.0)]) is None


def test_the_interval_of_a_difference_draws_the_same_subjects_for_both() -> None:
    rng = np.random.default_rng(0)
    truth = {f"s{k}": rng.integers(0, 5, 200) for k in range(8)}
    noisy = {
        s: np.where(rng.random(200) < 0.1 * k, rng.integers(0, 5, 200), t)
        for k, (s, t) in enumerate(truth.items())
    }
    ours = {s: table_of(truth[s], noisy[s]) for s in truth}
    same = paired_difference(ours, ours, FIGURES["kappa"])
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    perfect = {s: table_of(truth[s], truth[s]) for s in truth}
    better = paired_difference(perfect, ours, FIGURES["kappa"])
    assert 0 < better.low <= better.value <= better.high
    with pytest.raises(ValueError, match="same subjects"):
        paired_difference(ours, {"s0": ours["s0"]}, FIGURES["kappa"])


@given(
    letters=st.text("W123R?", min_size=5, max_size=40),
    shift=st.integers(-4, 4),
    part=st.floats(-14.0, 14.0),
)
def test_nights_that_know_their_time_are_matched_by_time(
    letters: str, shift: int, part: float
) -> None:
    begun = START + timedelta(seconds=30 * shift + part)
    one, two, lost = align(night(letters, start=START), night(letters, start=begun))
    first = max(0, shift)
    assert one.stages == night(letters).stages[first : first + len(letters) - abs(shift)]
    assert two.stages == night(letters).stages[max(0, -shift) :][: len(letters) - abs(shift)]
    assert lost == 2 * abs(shift)


def test_nights_without_a_common_page_are_refused() -> None:
    with pytest.raises(CommandError, match="no page in common"):
        align(night("WW", start=START), night("WW", start=START + timedelta(hours=9)))


def test_the_consensus_is_the_majority_and_a_tie_goes_to_the_best_agreeing_expert() -> None:
    one, two, three = (
        night(x, scorer) for x, scorer in (("W122R?", "a"), ("W123R?", "b"), ("W113W?", "c"))
    )
    agreed = consensus([one, two, three])
    assert agreed.stages == night("W123R?").stages
    tied = consensus([night("WWWW1", "a"), night("WWWW2", "b"), night("2222?", "c")])
    assert tied.stages[:4] == night("WWWW").stages
    assert tied.stages[4] is Stage.N1
    np.testing.assert_allclose(hypnodensity([one, two, three])[2], [0, 1 / 3, 2 / 3, 0, 0])
    with pytest.raises(CommandError, match="two experts"):
        consensus([one])


def test_experts_who_began_at_different_times_agree_on_the_same_pages() -> None:
    truth = "WW1223R?1W"
    experts = [
        night(truth, "a", start=START),
        night(truth[3:], "b", start=START + timedelta(seconds=90)),
        night(truth[1:-1], "c", start=START + timedelta(seconds=30)),
    ]
    for order in (experts, experts[::-1], experts[:2], experts[1::-1]):
        model = night(truth[2:], "model", start=START + timedelta(seconds=60))
        agreed = consensus(order)
        ours, theirs, _ = align(agreed, model)
        scored = [k for k, stage in enumerate(ours.stages) if stage is not None]
        assert len(scored) >= 5
        assert [ours.stages[k] for k in scored] == [theirs.stages[k] for k in scored]
        assert agreed.probabilities is not None
        assert len(agreed.probabilities) == len(agreed.stages)


def test_hypnodensities_agree_fully_only_where_they_are_alike() -> None:
    alike = hypnodensity([night("W12?"), night("W22?")])
    assert density_agreement(alike, alike) == pytest.approx(1.0)
    assert density_agreement(alike, alike[:, ::-1]) < 0.6
    assert np.isnan(density_agreement(alike, np.full_like(alike, np.nan)))


@given(letters=st.text("W123R?", min_size=1, max_size=50), with_chances=st.booleans())
def test_a_hypnogram_written_as_csv_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, letters: str, with_chances: bool
) -> None:
    path = tmp_path_factory.mktemp("csv") / "sub-07_night.csv"
    chances = np.random.default_rng(1).dirichlet(np.ones(5), len(letters)) if with_chances else None
    given_night = ScoredHypnogram("x", "n", "s", night(letters).stages, START, chances)
    path.write_text(write_hypnogram(given_night))
    read = read_hypnogram(path)
    assert read.stages == given_night.stages
    assert read.start == START
    assert read.subject == "sub-07"
    if chances is not None:
        assert read.probabilities is not None
        np.testing.assert_allclose(read.probabilities, chances, atol=1e-6)


@pytest.mark.parametrize(
    ("file", "subject"),
    [
        ("SC4011E0-PSG.edf", "SC401"),
        ("SC4012EC-Hypnogram.edf", "SC401"),
        ("sub-03_ses-2_task-sleep_events.tsv", "sub-03"),
        ("subject07-night2.csv", "subject07"),
        ("01-03-0001 Base.edf", "01-03-0001"),
    ],
)
def test_two_nights_of_one_person_count_as_one_subject(file: str, subject: str) -> None:
    assert subject_name(night_name(Path(file))) == subject


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("a.csv", "epoch,stage\n0,W\n0,N1\n", "line 3: epoch 0 comes twice"),
        ("a.csv", "epoch,stage\n0,W\n1,N7\n", "line 3: 'N7' is no sleep stage"),
        ("a.csv", "epoch,stage\n0,W\n90000,W\n", "far beyond"),
        ("a.csv", "", "holds no sleep stage"),
        ("a.txt", "0\n1\n7\n", "line 3: '7' is no sleep stage"),
        ("a.xml", "<PSGAnnotation><", "no well-formed XML"),
        ("a.xml", '<!DOCTYPE x [<!ENTITY a "b">]><x/>', "declares entities"),
        ("a.xml", "<Other/>", "begins with <Other>"),
        ("a.edf", "0       ", "too short"),
        ("a.png", "\x89PNG\r\n\x1a\n\x00\x00", "is no text"),
    ],
)
def test_a_broken_hypnogram_is_refused_by_name_and_line(
    tmp_path: Path, name: str, text: str, what: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(TapeError, match=name) as refused:
        read_hypnogram(tmp_path / name)
    assert what in str(refused.value)


def _scorer(folder: Path, noise: float, seed: int, scorers: int = 5) -> Path:
    """Write a folder of nights that differ from the truth in some pages."""
    folder.mkdir()
    for subject in range(scorers):
        truth = np.repeat(np.random.default_rng(subject).integers(0, 5, 20), 8)
        rng = np.random.default_rng([seed, subject])
        drawn = np.where(rng.random(truth.size) < noise, rng.integers(0, 5, truth.size), truth)
        lines = "".join(f"{STAGES[k].value}\n" for k in drawn)
        (folder / f"subject{subject:02d}.csv").write_text(lines)
    return folder


def test_folders_are_compared_by_one_command(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    truth, good, bad = (
        _scorer(tmp_path / name, noise, seed)
        for seed, (name, noise) in enumerate((("truth", 0.0), ("good", 0.1), ("bad", 0.5)))
    )
    (good / "subject09.csv").write_text("W\n")
    assert run(["compare", str(truth), str(good), str(bad), "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    first, second = document["comparisons"]
    assert first["pages"] == 5 * 160
    assert first["subjects"] == 5
    assert first["only_one_has"] == ["subject09"]
    assert first["figures"]["kappa"]["value"] > second["figures"]["kappa"]["value"]
    (gap,) = document["differences"].values()
    assert gap["kappa"][1] > 0
    one = [str(folder / "subject00.csv") for folder in (truth, good, bad)]
    assert run(["compare", *one, "--json"]) == 0
    (gap,) = json.loads(capfd.readouterr().out, parse_constant=pytest.fail)["differences"].values()
    assert gap["kappa"][1:] == [None, None]
    need_module("matplotlib")
    page = tmp_path / "report" / "compare.html"
    assert run(["compare", str(truth), str(good), "--html", str(page)]) == 0
    assert page.read_text().count("data:image/png;base64,") == 2
    assert "kappa," in page.with_name("compare-figures.csv").read_text()
    assert "left out, one side only: subject09" in capfd.readouterr().out
    assert run(["compare", str(truth), str(good), "--experts", "2"]) == 2
    assert "--experts 2" in capfd.readouterr().err
    assert run(["compare", str(truth), str(tmp_path / "none.csv")]) == 2


def test_experts_agree_before_a_scorer_is_judged_by_them() -> None:
    experts = [{"n": night(x, s, "n")} for x, s in (("W122", "a"), ("W123", "b"), ("W123", "c"))]
    truth = agree_on(experts)
    found = compare(truth, {"m": night("W123", "model", "m")})
    assert found.reference == "consensus"
    assert found.figures["kappa"].value == 1.0
    gap = differences(truth, {"m": night("W123", "m")}, {"k": night("WWWW", "k")})
    assert gap["accuracy"].value == pytest.approx(0.75)
    with pytest.raises(CommandError, match="no night in common"):
        agree_on([{"n": night("W"), "m": night("W")}, {"k": night("W"), "l": night("W")}])


def test_an_expert_in_arrays_yasa_and_a_pack_meet_in_one_table(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 5, 60).astype(np.uint8)
    epochs = np.arange(60) + 2  # two pages of the night are not in the file
    folders = [tmp_path / name for name in ("expert", "yasa", "staged")]
    for folder in folders:
        folder.mkdir()
    np.savez(
        folders[0] / "subject01.npz", x=np.ones((60, 500), np.int16), scale_uV=1.0, y=truth,
        fs=100, channel="C4-M1", epoch_index=epochs,
    )  # fmt: skip
    recording = open_recording(folders[0] / "subject01.npz")
    values = truth.astype(np.int64)
    values[:6] = (values[:6] + 1) % 5
    (folders[1] / "subject01.csv").write_text(written("subject01", recording, values))
    pack = ScoredHypnogram(
        "pack", "subject01", "subject01", tuple(STAGES[k] for k in [0, 0, *truth])
    )
    (folders[2] / "subject01.csv").write_text(write_hypnogram(pack))
    scorers = [read_scorer(str(folder)) for folder in folders]
    yasa, ours = (compare(scorers[0], other) for other in scorers[1:])
    assert yasa.figures["accuracy"].value == pytest.approx(54 / 60)
    assert ours.figures["accuracy"].value == 1.0


@pytest.mark.parametrize("name", ["dodh", pytest.param("dodo", marks=pytest.mark.long)])
def test_five_people_agree_as_scikit_learn_says(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Real experts: κ against the consensus of five is scikit-learn's on the same consensus."""
    need_module("sklearn")
    from sklearn.metrics import cohen_kappa_score

    file = need_data("dod-scorers") / f"{name}.npz"
    letters = np.array(["W", "N1", "N2", "N3", "R", "?"])
    pairs: dict[int, list[tuple[int, int]]] = {0: [], 4: []}
    with np.load(file, allow_pickle=False) as nights:
        for night in nights.files:
            scored = nights[night].astype(int)
            for expert, row in enumerate([*scored, scored[0], scored[4]]):
                folder = tmp_path / f"expert{expert}"
                folder.mkdir(exist_ok=True)
                text = "stage\n" + "\n".join(letters[row]) + "\n"
                (folder / f"{night}.csv").write_text(text)
            agreed = _by_majority(scored)
            known = agreed >= 0
            for expert in pairs:
                values = scored[expert][known].tolist()
                pairs[expert] += zip(agreed[known].tolist(), values, strict=True)
    experts = [str(tmp_path / f"expert{k}") for k in range(7)]
    assert run(["compare", *experts, "--experts", "5", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)["comparisons"]
    for one, expert in zip(found, (0, 4), strict=True):
        true, theirs = zip(*pairs[expert], strict=True)
        assert abs(one["figures"]["kappa"]["value"] - cohen_kappa_score(true, theirs)) < 1e-3


def _by_majority(scored: NDArray[np.int64]) -> NDArray[np.int64]:
    """Choose the commonest stage; of equals that of the expert nearest to the others."""
    counts = np.stack([(scored == stage).sum(axis=0) for stage in range(5)])
    nearness = []
    for expert, row in enumerate(scored):
        others = np.delete(scored, expert, axis=0)
        rest = np.stack([(others == stage).sum(axis=0) for stage in range(5)]).astype(float)
        some = (row >= 0) & (rest.sum(axis=0) > 0)
        density = rest / np.maximum(rest.sum(axis=0), 1)
        nearness.append(density[row[some], np.flatnonzero(some)].mean())
    order = sorted(range(len(scored)), key=lambda k: -nearness[k])
    agreed = np.full(scored.shape[1], -1)
    for page in np.flatnonzero(counts.sum(axis=0)):
        best = np.flatnonzero(counts[:, page] == counts[:, page].max())
        agreed[page] = next(scored[k, page] for k in order if scored[k, page] in best)
    return agreed
