"""``kill -9`` at every named point of the daemon's writing, with the broker cut as well."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults.kills import one_night, plan_of
from faults.points import POINTS
from support.brokers import running_mosquitto

SEED = 20260305


@pytest.mark.promise(1)
@pytest.mark.promise(2)
@pytest.mark.promise(3)
@pytest.mark.promise(5)
def test_killed_at_every_point_a_night_has_one_terminal_event_per_page(
    tmp_path: Path, pack: Path
) -> None:
    plan = plan_of(SEED, each=1)
    with running_mosquitto(tmp_path) as broker:
        night = one_night(tmp_path, broker.port, pack, plan, SEED, cuts=True)
    finding = night.finding
    assert finding.whole, finding
    assert finding.terminal == finding.expected > len(POINTS)
    assert finding.final > 0
    assert night.tapes > len(POINTS) // 2
    assert night.torn >= 1, "one is killed with half a chunk written"
    assert night.outside <= len(POINTS) // 4, night.kills
