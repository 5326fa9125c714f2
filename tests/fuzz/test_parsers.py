"""Bad inputs to every parser that meets the outside: refused in words or read, nothing else.

The short form; ``python -m fuzz.run 20000`` is the long one.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz.learn import corpus, learn
from fuzz.run import Fed, feed, limited, one
from fuzz.targets import FuzzTarget, targets

INPUTS = 300
SPOKEN = {"MQTT command", "messages to viewers", "pack.toml", "ZMax"}
"""What is wrong with these is written in an answer or passed over, not raised."""

LEARNT = (
    *("ONNX", "EDF", "XDF", "scored file"),
    *("LSL metadata", "MQTT command", "messages to viewers"),
)
"""Of these a corpus is kept."""


@pytest.fixture(scope="module")
def all_targets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FuzzTarget]:
    folder: Path = tmp_path_factory.mktemp("fuzz")
    return {target.name: target for target in targets(folder)}


@pytest.mark.parametrize(
    "name",
    [
        *("LSL metadata", "MQTT command", "messages to viewers", "configuration", "pack.toml"),
        *("ONNX", "EDF", "XDF", "tape", "scored file", "BrainVision RDA", "ZMax"),
    ],
)
def test_a_bad_input_is_refused_in_words(all_targets: dict[str, FuzzTarget], name: str) -> None:
    fed = feed(all_targets[name], INPUTS)
    assert not fed.failures, fed.failures[0]
    assert fed.refused + fed.read == INPUTS
    assert fed.refused > 0 or name in SPOKEN


@pytest.mark.parametrize("name", LEARNT)
def test_what_fuzzing_learnt_is_read_or_refused(
    all_targets: dict[str, FuzzTarget], name: str
) -> None:
    kept, fed = corpus(name), Fed(name)
    assert kept
    with limited():
        for data in kept:
            one(all_targets[name], data, fed)
    assert not fed.failures, fed.failures[0]


@pytest.mark.long
@pytest.mark.parametrize("name", LEARNT)
def test_ten_minutes_of_learning_find_no_fault(
    all_targets: dict[str, FuzzTarget], name: str
) -> None:
    learnt = learn(all_targets[name], 600.0)
    assert not learnt.fed.failures, learnt.fed.failures[0]
