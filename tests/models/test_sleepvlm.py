"""The public SleepVLM weights become a pack by one command: shown with tiny random ones."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from hypnocast.core.pictures.recipe import builtin
from hypnocast.errors import ConfigError
from hypnocast.simulate import SimulatedSource
from hypnocast.stagers.packs.manifest import Context, Generative
from hypnocast.stagers.packs.pack import load_pack, verify_pack
from support.brokers import free_port
from support.made_up_archives import make_archive
from support.models_cli import run
from support.needs import need_module
from support.ward_lab import HandDriven, night, running_ward

for name in ("torch", "transformers", "onnx", "onnxscript", "onnxruntime", "llguidance"):
    need_module(name)

from hypnocast_models.cli import app  # noqa: E402 - after what it needs was found
from hypnocast_models.export.model_files import describe_folder, read_config  # noqa: E402
from hypnocast_models.export.packing import write_pack  # noqa: E402
from hypnocast_models.readers.datasets import find_nights, open_night  # noqa: E402
from hypnocast_models.tune.families import load, tiny  # noqa: E402
from hypnocast_models.tune.lessons import TrainingPages  # noqa: E402
from hypnocast_models.tune.sleepvlm import as_sleepvlm  # noqa: E402

RULES = "You score sleep. Answer as JSON with "
REASONED = RULES + "reasoning_text, applicable_rules, sleep_stage."
SHORT = RULES + "applicable_rules, sleep_stage."
BED = "bed-01"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    tiny("qwen2_5_vl", folder)
    return folder


def _asked(weights: Path, prompt: str, folder: Path) -> tuple[Generative, Context, dict[str, str]]:
    _, tokenizer = load(weights)
    described = describe_folder(weights, read_config(weights), 448, 224)
    path = folder / "prompt.md"
    path.write_text(prompt)
    asked = as_sleepvlm(described, tokenizer, path)
    return asked.table, asked.context, dict(asked.files)


def test_it_is_asked_as_it_was_trained(weights: Path, tmp_path: Path) -> None:
    table, context, files = _asked(weights, REASONED, tmp_path)
    assert (context.before, context.after) == (1, 1)
    found = table.prompt
    assert found.startswith(f"<|im_start|>system\n{REASONED}<|im_end|>\n<|im_start|>user\n")
    assert found.endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert found.count("<|vision_start|><|picture|><|vision_end|>") == 3
    assert (table.rationale_key, table.rules_key) == ("reasoning_text", "applicable_rules")
    (schema,) = map(json.loads, files.values())
    assert list(schema["properties"]) == ["reasoning_text", "applicable_rules", "sleep_stage"]
    short, _, files = _asked(weights, SHORT, tmp_path)
    assert short.rationale_key is None
    (schema,) = map(json.loads, files.values())
    assert schema["required"] == ["applicable_rules", "sleep_stage"]


def test_another_prompt_or_another_model_is_refused(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no system prompt of SleepVLM"):
        _asked(weights, "You are a pirate.", tmp_path)
    (tmp_path / "llava").mkdir()
    tiny("llava", tmp_path / "llava")
    with pytest.raises(ConfigError, match=r"no Qwen2\.5-VL"):
        _asked(tmp_path / "llava", SHORT, tmp_path)


async def test_one_command_makes_a_pack_that_stages_in_the_daemon(
    weights: Path, tmp_path: Path
) -> None:
    prompt, pack = tmp_path / "prompt.md", tmp_path / "pack"
    prompt.write_text(REASONED)
    command = ["export", str(weights), str(pack), "--name", "sleepvlm", "--precision", "int4"]
    made = CliRunner().invoke(app, [*command, "--sleepvlm-prompt", str(prompt)])
    assert made.exit_code == 0, made.output
    assert "parity with transformers on 2 pages" in made.output
    assert verify_pack(pack) == ()
    names = {path.name for path in pack.iterdir()}
    beside = {name for name in names if name.endswith(".data")}
    assert "vision_encoder.onnx.data" in beside
    assert all(name.removesuffix(".data") in names for name in beside)
    _write_little(pack)
    source = HandDriven(night(SimulatedSource([BED], seed=3, pages=3, truth=False)))
    async with running_ward(tmp_path, pack, source, free_port()) as running:
        events = await running.go_to(1000.0 + 96.0, BED, 2)
        first = [event for event in running.events if event.epoch == 0]
    assert [event.status for event in first] == ["provisional", "final"]
    assert all(event.rationale is not None for event in events)
    shares = msgspec.to_builtins(events[0].probabilities)
    assert np.isclose(sum(shares.values()), 1.0, atol=1e-5)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_its_recipe_teaches_rationales_over_three_pages_and_its_pack_is_judged(
    weights: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = make_archive("isruc", tmp_path / "data", people=2, pages=4)
    out, pack = tmp_path / "run", tmp_path / "pack"
    sizes = ["--steps", "2", "--batch", "1", "--accumulate", "1", "--perception-steps", "1"]
    tuning = ["finetune", str(weights), str(data), str(out), "--recipe", "sleepvlm", *sizes]
    assert run([*tuning, "--every", "3"]) == 0, capfd.readouterr().err
    rows = [json.loads(line) for line in (out / "training.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3]
    assert any("eval_kappa" in row for row in rows)
    assert run(["export", str(out / "weights"), str(pack), "--name", "reasoned"]) == 0
    manifest = load_pack(pack).manifest
    assert isinstance(manifest.model, Generative)
    assert (manifest.model.scoring, manifest.context) == ("generate", Context(before=1, after=1))
    assert "N2.spindle" in manifest.model.prompt
    short = tmp_path / "short"
    assert run(["pack", "edit", str(pack), str(short), "--set", "model.max_tokens=64"]) == 0
    figures = tmp_path / "figures.json"
    assert run(["evaluate", str(short), str(data), "--out", str(figures)]) == 0
    found = json.loads(figures.read_text())["gains"]["1"]["filtered"]
    assert (found["pages"], found["coverage"]) == (8, 1.0)


def test_an_answer_says_what_is_measured_before_the_experts_stage(tmp_path: Path) -> None:
    data = make_archive("edf", tmp_path / "data", people=1, pages=15)
    night = open_night(find_nights(data)[0])
    lessons = TrainingPages([night], builtin("clinical-448x224"), around=1, reasoned=True)
    lesson = lessons.draw(np.arange(15), np.random.default_rng(0), 1.0)
    assert len(lesson.pictures) == 3 * 15
    assert not lesson.pictures[0].any()  # there is no page before the first
    answers = [json.loads(answer) for answer in lesson.answers]
    assert [answer["sleep_stage"] for answer in answers] == [s.value for s in night.stages if s]
    assert all(
        list(one) == ["reasoning_text", "applicable_rules", "sleep_stage"] for one in answers
    )
    deep = [one for one in answers if one["sleep_stage"] == "N3"]
    assert all("N3.slow" in one["applicable_rules"] for one in deep)
    assert all("slow waves over" in one["reasoning_text"] for one in deep)


def _write_little(folder: Path) -> None:
    """Let random weights write no more than a few words: they would not stop by themselves.

    Some 43 tokens are the most that can pass before the first word of a rationale.
    """
    facts = msgspec.to_builtins(load_pack(folder).manifest)
    facts["model"]["max_tokens"] = 64
    write_pack(folder, {key: facts[key] for key in facts if key not in ("format", "files")})
