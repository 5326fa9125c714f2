"""The soak's checker finds what it looks for, and leaves alone what was reported as not durable."""

from __future__ import annotations

from typing import Any

import pytest

from soak.checker import Verdict, check_events, check_naming, killed_while_degraded
from soak.consumer import ReceivedMessages
from soak.faults import Injected


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
