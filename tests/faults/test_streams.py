"""Real amplifiers that misbehave, before the installed ``hypnocast run``: one live night of all.

Each bed has its fault, ``clean`` has none; all share one run, for pages last real time. At the
end the daemon is killed, and the tapes are read as they are.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from faults.amplifier import RATE, STEP_S, STILL, carried
from faults.stream_lab import BEDS, NEEDED, LiveNight, live_night
from faults.tapes import OnTape, read_raw

pytestmark = pytest.mark.timeout(300)

SERVED = tuple(bed for bed in BEDS if bed != "twins")
SPOILT = ("nan", "inf", "hole", "flood", "stopped", "renamed")
"""Beds whose page 1 has no good samples for the most part; elsewhere it may be staged."""
FOUND_S = 20.0
"""Within which a stream is found and opened on a machine that has much else to do."""
UNSENT_S = 1.0
"""What a killed amplifier may not have sent yet."""
PAGES = 5
"""Four whole ones, and what was left when the session ended."""


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory, pack: Path) -> Iterator[LiveNight]:
    with live_night(tmp_path_factory.mktemp("streams"), pack) as lived:
        yield lived


@pytest.mark.promise(1)
@pytest.mark.promise(3)
@pytest.mark.parametrize("bed", SERVED)
def test_every_page_ends_once_on_an_unmoved_grid_and_none_is_staged_on_bad_data(
    night: LiveNight, bed: str
) -> None:
    found = night.finding(bed)
    assert found.whole, found
    assert found.expected == found.terminal == PAGES


@pytest.mark.parametrize("bed", SERVED)
def test_pages_that_nothing_happened_to_are_staged_before_and_after(
    night: LiveNight, bed: str
) -> None:
    fields = {event["epoch"]: event for event in night.events(bed)}
    assert fields.pop(PAGES - 1)["reason"] == "session_end"
    share = {epoch: night.share_of_good(bed, event) for epoch, event in fields.items()}
    untouched = [epoch for epoch in fields if share[epoch] == 1.0]
    assert untouched[0] == 0
    assert untouched[-1] == PAGES - 2
    assert {fields[epoch]["status"] for epoch in untouched} == {"final"}
    spoilt = [epoch for epoch in fields if share[epoch] < NEEDED]
    assert spoilt == ([1] if bed in SPOILT else [])


def test_a_channel_is_found_by_its_label_wherever_it_stands(night: LiveNight) -> None:
    """One channel is still at all beds: no other may look so, and it may look no other way."""
    for bed in ("clean", "restarted", "reordered", "more", "fewer", "renamed", "twice"):
        for event in night.events(bed):
            if event["status"] == "final":
                flagged = {
                    role for role, quality in event["quality"].items() if "flat" in quality["flags"]
                }
                assert flagged == {STILL}, (bed, event)
    last = night.events("fewer")[3]
    assert (last["status"], last["quality"]["C4-M1"]["coverage"]) == ("final", 0.0)
    assert last["quality"]["F4-M1"]["coverage"] == 1.0


def test_a_rival_with_the_same_source_id_is_named_and_never_read(night: LiveNight) -> None:
    found = " ".join(str(status) for status in statuses(night, "twice"))
    assert "2 streams fit" in found
    assert "the one being read is kept" in found
    for event in night.events("twice")[:-1]:
        assert event["quality"]["F4-M1"] == {"coverage": 1.0, "flags": []}


def test_two_streams_with_one_source_id_are_named_and_none_is_picked(night: LiveNight) -> None:
    assert not night.events("twins")
    status = night.status("twins")
    assert status["state"] == "waiting"
    assert any("2 streams fit source_id='twins'" in line for line in status["problems"])


def test_what_is_wrong_with_a_stream_is_shown_at_its_bed(night: LiveNight) -> None:
    problems = {
        bed: " ".join(str(status["problems"]) for status in statuses(night, bed)) for bed in BEDS
    }
    assert "no samples for" in problems["stopped"]
    assert "on no LSL clock" in problems["step"]
    assert not problems["clean"].strip("[]() ")


def statuses(night: LiveNight, bed: str) -> list[dict[str, object]]:
    return [json.loads(one) for one in night.listener.of(f"/bed/{bed}/status")]


# --- the tapes, as a kill left them -------------------------------------------------------------


def on_tape(night: LiveNight, bed: str) -> list[OnTape]:
    """Return the bed's stream, once for each time it was opened with other channels."""
    (path,) = (night.state / "tapes").glob(f"{bed}_*.xdf")
    tape = read_raw(path)
    assert tape.torn == 0, "every arrival is handed to the system as a whole"
    return tape.named(bed)


@pytest.mark.promise(5)
@pytest.mark.parametrize("bed", [bed for bed in SERVED if bed not in ("flood", "step")])
def test_after_kill_9_the_tape_has_every_sample_as_it_was_sent(night: LiveNight, bed: str) -> None:
    fields: dict[int, tuple[str, ...]] = {}
    for stream in on_tape(night, bed):
        numbers = np.rint(np.asarray(stream.stamps) * RATE).astype(int)
        rows = np.asarray(stream.rows, dtype=np.float32)
        assert stream.labels
        for first, last in stretches(numbers):
            part = rows[first : last + 1]
            sent = carried(stream.labels, int(numbers[first]), last + 1 - first)
            known = np.isfinite(part)
            np.testing.assert_array_equal(part[known], sent[known])
        assert not fields.keys() & set(numbers.tolist()), "a sample is there twice"
        fields |= dict.fromkeys(numbers.tolist(), stream.labels)
    ends = min(night.killed_at, night.ended[bed])
    for begin, end, labels in night.sent[bed]:
        due = range(math.ceil(begin * RATE), math.floor((min(end, ends) - UNSENT_S) * RATE))
        due_here = [n for n in due if bed != "hole" or night.is_good(bed, n / RATE)]
        came = [fields.get(number) == labels for number in due_here]
        # What a new outlet sends before it is found is lost; from then on all is there.
        found = came.index(True)
        # The night begins with the first sample that came.
        assert due_here[found] / RATE < max(night.began + 1.0 / RATE, begin + FOUND_S)
        missing = [n for n, there in zip(due_here[found:], came[found:], strict=True) if not there]
        assert not missing, (bed, len(missing), missing[0] / RATE - night.began)


def stretches(numbers: np.typing.NDArray[np.int_]) -> Iterator[tuple[int, int]]:
    """Give where runs of consecutive numbers begin and end."""
    edges = [-1, *np.flatnonzero(np.diff(numbers) != 1).tolist(), len(numbers) - 1]
    for before, last in itertools.pairwise(edges):
        yield before + 1, last


@pytest.mark.promise(5)
def test_stamps_of_a_clock_that_stepped_are_on_the_tape_as_they_came(night: LiveNight) -> None:
    (stream,) = on_tape(night, "step")
    steps = np.flatnonzero(np.abs(np.diff(stream.stamps)) > 100.0)
    assert len(steps) == 1
    assert abs(stream.stamps[steps[0] + 1] - stream.stamps[steps[0]] - STEP_S) < 1.0
