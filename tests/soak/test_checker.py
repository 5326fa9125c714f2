"""The soak's checker finds what it looks for, and leaves alone what was reported as not durable."""

from __future__ import annotations

import random
from typing import Any
from unittest.mock import MagicMock

import pytest

from soak.checker import (
    Verdict,
    check_events,
    check_naming,
    check_sizes,
    killed_while_degraded,
)
from soak.consumer import ReceivedMessages
from soak.faults import Injected, SoakScene
from soak.manager import ProcessSize


def event(number: int, stage: str = "N2") -> dict[str, Any]:
    return {"id": f"night/{number}/1", "sequence": number, "stage": stage}


def came(number: int, stage: str = "N2", at: float = 0.0) -> ReceivedMessages:
    return ReceivedMessages(at, "bed1", event(number, stage), caught_up=False)


def verdict(*received: ReceivedMessages, kept: int = 3, **more: Any) -> dict[str, list[str]]:
    verdict = Verdict()
    journal = {"bed1": {number: event(number) for number in range(1, kept + 1)}}
    check_events(verdict, received, journal, more.get("not_durable", ()))
    return {what: cases for what, cases in verdict.wrong.items() if cases}


ALL = (came(1), came(2), came(3))


def test_events_that_are_all_there_once_or_repeated_are_well() -> None:
    assert verdict(*ALL) == {}
    assert verdict(*ALL, came(2)) == {}


@pytest.mark.parametrize(
    ("received", "what"),
    [
        ((came(1), came(3)), "lost: never received"),
        ((came(1), came(3)), "gap in sequence"),
        ((*ALL, came(4)), "received, not in the journal"),
        ((came(1), came(2, "W"), came(3)), "journal says otherwise"),
        ((*ALL, came(2, "W")), "same id, other content"),
    ],
)
def test_what_is_lost_invented_or_changed_is_found(
    received: tuple[ReceivedMessages, ...], what: str
) -> None:
    assert what in verdict(*received)


def test_only_a_kill_while_degraded_was_said_excuses_another_content() -> None:
    statuses = [(1.0, "journal durable"), (10.0, "journal degraded (full)"), (40.0, "warming up")]
    excused = killed_while_degraded(statuses, ends=[30.0])
    assert excused == [(5.0, 30.0)]
    recovered = [*statuses[:2], (20.0, "journal durable"), *statuses[2:]]
    assert killed_while_degraded(recovered, ends=[30.0]) == []
    changed = (came(1), came(2, "W", at=12.0), came(2, at=50.0), came(3))
    assert verdict(*changed, not_durable=excused) == {}
    early = (came(1), came(2, "W", at=2.0), came(2, at=50.0), came(3))
    assert "same id, other content" in verdict(*early, not_durable=excused)


def test_a_fault_is_named_in_time_or_not_at_all() -> None:
    fault = Injected("disk full", began=100.0, ended=130.0, names="full")
    up = [(0.0, 200.0)]

    def named(*words: tuple[float, str]) -> int:
        (row,) = check_naming([fault], [], words, up)
        assert row.long == 1
        return row.named

    assert named((105.0, "the disk is full")) == 1
    assert named((125.0, "the disk is full")) == 0
    assert named((105.0, "all is well")) == 0
    (row,) = check_naming([fault], [], [], [(0.0, 105.0)])
    assert row.long == 0, "a daemon that is down names nothing"


def test_what_a_daemon_says_that_is_well_names_no_fault() -> None:
    well = (
        "3 of 3 beds in a session; model on CPUExecutionProvider; broker connected; "
        "0 events wait; journal durable"
    )
    part = MagicMock()
    scene = SoakScene(part, part, part, part, part, part, chance=random.Random(1))
    for kind in scene.kinds():
        fault = Injected(kind.name, 100.0, 140.0, kind.names)
        (row,) = check_naming([fault], [(105.0, {"degraded": []})], [(105.0, well)], [(0.0, 200.0)])
        assert row.named == 0, kind.name
        assert len(row.missed) == row.long


def test_a_daemon_that_comes_up_while_a_fault_lasts_has_to_name_it_too() -> None:
    fault = Injected("disk full", began=100.0, ended=130.0, names="full")
    up = [(0.0, 105.0), (110.0, 200.0)]

    def found(*words: tuple[float, str]) -> tuple[int, int]:
        (row,) = check_naming([fault], [], words, up)
        return row.long, row.named

    assert found((115.0, "the disk is full")) == (1, 1)
    assert found((90.0, "the disk is full"), (112.0, "all is well")) == (1, 0)
    (row,) = check_naming([fault], [], [], [(0.0, 105.0), (122.0, 200.0)])
    assert row.long == 0, "it had no ten seconds for it"


@pytest.mark.parametrize(("an_hour", "wrong"), [(2048.0, False), (102400.0, True)])
def test_what_grows_in_a_long_life_is_found(an_hour: float, *, wrong: bool) -> None:
    sizes = [
        ProcessSize(at, 0, round(200_000 + an_hour * at / 3600.0), 90, 30)
        for at in (2.0 * turn for turn in range(1800))
    ]
    verdict = Verdict()
    lasted_s, grown = check_sizes(verdict, sizes)
    assert lasted_s == 3598.0
    assert grown[0].an_hour == pytest.approx(an_hour / 1024.0, rel=0.01)
    assert bool(verdict.wrong["grown in a long life"]) is wrong
    assert [one.flat for one in grown] == [not wrong, True, True]


def test_the_end_of_one_fault_of_the_broker_does_not_end_another() -> None:
    part: Any = MagicMock()
    scene = SoakScene(part, part, part, part, part, part, chance=random.Random(1))
    kinds = {kind.name: kind for kind in scene.kinds()}
    kinds["broker gone"].begin()
    kinds["broker silent"].begin()
    kinds["broker gone"].end()
    assert part.refuses is False
    assert part.swallows is True
