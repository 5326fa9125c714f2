"""The benchmark command: it measures the real thing, and names what it could not measure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hypnocast.bench.figures import Figure, Report, Target
from hypnocast.bench.generate import measure as generate
from hypnocast.bench.night import replay_in_child, stage_by_yasa, write_edf
from hypnocast.bench.path import watch_beds
from hypnocast.bench.ward import SERVICE, Received
from hypnocast.cli import run
from hypnocast.errors import ConfigError
from hypnocast.stagers.packs.pack import load_pack
from support.daemons import command
from support.needs import need_program
from support.packs import make_tiny_pack


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_pack(tmp_path_factory.mktemp("pack") / "tiny")


def test_the_command_keeps_conditions_and_every_raw_sample(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "bench.json"
    assert run(["bench", "verdict", "generate", "--pack", str(pack), "-o", str(kept)]) == 0
    document = json.loads(kept.read_text())
    assert document["schema"] == "hypnocast.bench/1"
    assert document["conditions"]["cores"] >= 1
    assert document["conditions"]["pack_digest"] == load_pack(pack).digest
    assert all(len(figure["samples"]) == figure["count"] > 0 for figure in document["figures"])
    assert {figure["group"] for figure in document["figures"]} == {"verdict", "generate"}
    assert "session.run alone" in capsys.readouterr().out


def test_a_pack_that_writes_is_timed_by_steps_and_by_pages(tmp_path: Path) -> None:
    answer = {
        "type": "object",
        "properties": {"stage": {"enum": ["W", "N1", "N2", "N3", "R"]}},
        "required": ["stage"],
        "additionalProperties": False,
    }
    files = {"answer.json": json.dumps(answer)}
    writing = make_tiny_pack(
        tmp_path / "writing", scoring="generate", schema="answer.json", files=files
    )
    figures = {figure.name: figure for figure in generate(load_pack(writing), rounds=1, steps=2)}
    for beds in (1, 4):
        page, token = (figures[f"{what}, {beds} at once"] for what in ("a page", "a token"))
        assert (page.unit, token.unit) == ("s/page", "ms")
        assert all(value > 0.0 for value in (*page.samples, *token.samples))
        assert token.statistic("median") < 1e3 * page.statistic("median") * beds


def test_a_python_without_yasa_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be run"):
        stage_by_yasa(tmp_path / "no-python", tmp_path / "night.edf")


def test_an_unknown_group_is_misuse(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "speed"]) != 0
    assert "no group speed" in capsys.readouterr().err


def test_a_path_is_timed_from_the_closing_samples_to_the_acknowledgement(pack: Path) -> None:
    need_program("mosquitto")
    watch = watch_beds(load_pack(pack), beds=3, pages=2)
    assert sorted(watch.closed) == [(f"bed-0{bed}", page) for bed in (1, 2, 3) for page in (1, 2)]
    for key, closed in watch.closed.items():
        assert closed < watch.drawn[key] < watch.durable[key] < watch.acknowledged[key]
        assert watch.inferring(closed, watch.acknowledged[key]) > 0.0


def test_a_night_is_counted_whole(pack: Path, tmp_path: Path) -> None:
    night = tmp_path / "night.edf"
    write_edf(night, 125)
    found = replay_in_child(pack, night)
    assert found["pages"] == 125
    assert len(found["resident_mb"]) == 1
    assert found["peak_mb"] > 10.0
    assert found["resident_mb"][0] > 10.0


def test_a_missed_target_is_shown_as_missed() -> None:
    slow = Figure("path", "x", "ms", [1.0, 2.0, 90.0], (Target("at most", 5.0),))
    tail = Figure("path", "y", "ms", [1.0, 2.0, 90.0], (Target("at most", 60.0, "p99"),))
    assert slow.met
    assert not tail.met
    lines = list(Report({}, [slow, tail]).lines())
    assert lines[1].endswith("held")
    assert lines[2].endswith("MISSED")


def test_a_page_that_never_came_is_counted_as_lost() -> None:
    found = Received(terminal={("a", 0): 1.0, ("a", 2): 1.0, ("b", 0): 1.0})
    assert found.lost == 1


def test_the_ward_is_measured_in_the_environment_that_the_unit_sets() -> None:
    unit = Path(__file__).parents[2] / "systemd" / "hypnocast.service"
    lines = unit.read_text(encoding="utf-8").splitlines()
    values = [line.partition("=")[2].split() for line in lines if line.startswith("Environment=")]
    assert dict(word.split("=", 1) for words in values for word in words) == SERVICE


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_closed_loop_is_timed_from_the_newest_sample_to_the_verdict(pack: Path) -> None:
    need_program("mosquitto")
    outcome = command("bench", "loop", "--json", "--pack", str(pack))
    assert outcome.returncode == 0, outcome.stderr
    for figure in json.loads(outcome.stdout)["figures"]:
        assert figure["count"] >= 3
        # The filters need a second of signal after the window: nobody can be sooner.
        assert min(figure["samples"]) >= load_pack(pack).recipe.tail_s
