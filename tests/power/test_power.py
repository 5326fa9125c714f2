"""The power is cut, a thousand times and more: what was called durable is there, as it was said.

The short form; the long one is ``python -m power.table`` (docs/faults.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from power.calls import ERRORS, calls_of, one_by_one
from power.life import Life, Lives, lives
from power.recording import compiled
from power.table import judged, rows
from power.trials import Tally, a_workplace, trial
from support.brokers import running_mosquitto


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with a_workplace() as folder:
        yield folder


@pytest.fixture(scope="module")
def one(place: Path) -> Iterator[Lives]:
    with lives(compiled(place), place / "log") as process:
        yield process


@pytest.mark.promise(2)
def test_no_power_cut_costs_an_event_that_was_called_durable_even_where_syncs_fail(
    one: Lives, place: Path
) -> None:
    whole = Tally()
    with running_mosquitto(place) as broker:
        for row in rows(one, place, broker.port, scale=1):
            whole.add(judged(one, place, row))
    assert whole.found == []
    assert whole.states.total() > 400
    assert whole.events > 1000
    assert whole.degraded > 100, "where a sync fails, that is reported"


def test_the_judge_finds_a_disk_guilty_that_syncs_nothing(one: Lives, place: Path) -> None:
    tally = trial(one, place, Life("", lie=True), 35, seed=1)
    assert tally.guilty["nothing"] >= 3
    assert tally.guilty.total() >= 10
    assert tally.guilty["everything"] == 0, "a killed process loses nothing that the system has"


@pytest.mark.promise(1)
@pytest.mark.promise(2)
@pytest.mark.promise(5)
def test_no_system_call_that_fails_costs_an_event_a_sample_or_a_thread(
    one: Lives, place: Path
) -> None:
    """Every thirteenth call of a page's life here; every one with every error in the long form."""
    count = calls_of(one, place)
    tries = [
        (number, ERRORS[index % len(ERRORS)]) for index, number in enumerate(range(1, count, 13))
    ]
    found = one_by_one(one, place, tries)
    assert found.amiss == []
    assert found.fired > 35
