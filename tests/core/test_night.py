"""Night statistics: by the AASM definitions, for every night there can be."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hypnocast.core.night.ledger import NightLedger, NightTitle, build_night, statistics
from hypnocast.core.wire.payloads import NightMark, NightStatistics, StageName
from support.nights import an_event, instant

TITLE = NightTitle("lab", "bed1", "bed1-night", None, "simulated", instant())

stage = st.sampled_from(["W", "N1", "N2", "N3", "R", None])
stages = st.lists(stage, max_size=60)
mark = st.builds(
    lambda kind, seconds: NightMark(at=instant(seconds), kind=kind, text=""),
    st.sampled_from(["lights_off", "lights_on", "note"]),
    st.integers(-900, 1800),
)


def _stats(text: str, *marks: tuple[str, float], **more: Any) -> NightStatistics:
    """Read stages from a word: W 1 2 3 R, and - for a withheld page."""
    names: dict[str, StageName | None] = {
        "W": "W", "1": "N1", "2": "N2", "3": "N3", "R": "R", "-": None,
    }  # fmt: skip
    values = [
        NightMark(at=instant(seconds), kind="lights_off" if kind == "off" else "lights_on", text="")
        for kind, seconds in marks
    ]
    return statistics([names[letter] for letter in text], instant(), values, **more)


def test_a_night_counted_by_hand() -> None:
    # Lights off at page 2, on at page 14; onset at page 4, wake at 7 and 8, R from page 10.
    found = _stats("WWWW1221W2RR3WWW", ("off", 60), ("on", 420))
    assert (found.time_in_bed_from, found.time_in_bed_to) == ("lights_off", "lights_on")
    assert found.time_in_bed_min == 6.0
    assert found.total_sleep_min == 4.0
    assert found.sleep_efficiency_percent == 100 * 4.0 / 6.0
    assert found.sleep_onset_latency_min == 1.0
    assert found.wake_after_sleep_onset_min == 1.0
    assert found.rem_latency_min == 3.0
    assert {name: share.minutes for name, share in found.stages.items()} == {
        "W": 2.0, "N1": 1.0, "N2": 1.5, "N3": 0.5, "R": 1.0,
    }  # fmt: skip
    assert found.stages["N2"].percent == 37.5
    assert found.stages["W"].percent is None
    assert found.affected_by_withheld == ()


def test_what_is_undefined_is_none() -> None:
    nothing = _stats("")
    assert nothing.time_in_bed_min is None
    assert nothing.sleep_efficiency_percent is None
    awake = _stats("WWWW")
    assert awake.sleep_efficiency_percent == 0.0
    assert awake.sleep_onset_latency_min is None
    assert awake.wake_after_sleep_onset_min is None
    assert awake.rem_latency_min is None
    assert awake.stages["R"].percent is None
    assert _stats("W22").rem_latency_min is None


def test_missing_marks_fall_back_by_name() -> None:
    assert _stats("W2").time_in_bed_from == "recording_start"
    assert _stats("W2").time_in_bed_to == "last_page"
    assert _stats("W2", ended=instant(60)).time_in_bed_to == "session_end"


def test_a_visit_to_the_bathroom_does_not_begin_a_new_night() -> None:
    found = _stats("WW222W222WW", ("off", 60), ("on", 150), ("off", 180), ("on", 270))
    assert found.time_in_bed_min == 3.5
    assert found.total_sleep_min == 3.0
    still = _stats("WW222W22", ("off", 60), ("on", 150), ("off", 180))
    assert still.time_in_bed_to == "last_page"


def test_lights_off_before_the_recording_counts_towards_latency() -> None:
    assert _stats("W2", ("off", -60)).sleep_onset_latency_min == 1.5


def test_lights_tried_out_before_the_recording_are_no_time_in_bed() -> None:
    plain = _stats("W22RW")
    assert _stats("W22RW", ("on", -600)) == plain
    assert _stats("W22RW", ("off", -900), ("on", -600)) == plain
    tried = _stats("WW22RW", ("off", -900), ("on", -600), ("off", 30))
    assert (tried.time_in_bed_from, tried.time_in_bed_min) == ("lights_off", 2.5)
    assert tried.sleep_onset_latency_min == 0.5
    # Of what came before the recording the last word holds.
    assert _stats("W2", ("off", -900), ("on", -600), ("off", -60)).sleep_onset_latency_min == 1.5


def test_withheld_pages_are_neither_sleep_nor_wake_and_named() -> None:
    found = _stats("W-2-WR")
    assert found.withheld_min == 1.0
    assert found.total_sleep_min == 1.0
    assert found.wake_after_sleep_onset_min == 0.5
    assert "sleep_onset_latency_min" in found.affected_by_withheld
    late = _stats("W2R-W")
    assert "sleep_onset_latency_min" not in late.affected_by_withheld
    assert "rem_latency_min" not in late.affected_by_withheld
    assert "total_sleep_min" in late.affected_by_withheld


@given(stages, st.lists(mark, max_size=5))
def test_no_night_adds_up_to_more_than_itself(
    pages: list[StageName | None], marks: list[NightMark]
) -> None:
    found = statistics(pages, instant(), marks)
    asleep = sum(found.stages[name].minutes for name in ("N1", "N2", "N3", "R"))
    assert asleep == found.total_sleep_min
    if found.time_in_bed_min is None:
        assert asleep == 0.0
        return
    inside = asleep + found.stages["W"].minutes + found.withheld_min
    assert inside <= found.time_in_bed_min
    assert found.sleep_efficiency_percent is not None
    assert 0.0 <= found.sleep_efficiency_percent <= 100.0
    if asleep:
        shares = [found.stages[name].percent or 0.0 for name in ("N1", "N2", "N3", "R")]
        assert abs(sum(shares) - 100.0) < 1e-9
        assert found.sleep_onset_latency_min is not None
        assert found.wake_after_sleep_onset_min is not None
        assert found.wake_after_sleep_onset_min <= found.stages["W"].minutes
    if found.rem_latency_min is not None:
        assert found.rem_latency_min >= 0.0


@given(stages)
def test_naming_is_honest_staging_a_withheld_page_changes_only_what_was_named(
    pages: list[StageName | None],
) -> None:
    before = statistics(pages, instant())
    for name in ("W", "N2", "R"):
        filled: list[StageName | None] = [page or name for page in pages]
        after = statistics(filled, instant())
        for field in (
            "total_sleep_min",
            "sleep_efficiency_percent",
            "sleep_onset_latency_min",
            "wake_after_sleep_onset_min",
            "rem_latency_min",
        ):
            if getattr(before, field) != getattr(after, field):
                assert field in before.affected_by_withheld


@given(st.lists(st.tuples(st.booleans(), stage), max_size=40), st.randoms(use_true_random=False))
def test_the_ledger_gives_the_same_night_whatever_the_order(
    pages: list[tuple[bool, StageName | None]], chance: random.Random
) -> None:
    events = []
    for epoch, (doubted, name) in enumerate(pages):
        if doubted:
            events.append(an_event(epoch, stage="W", provisional=True))
        events.append(an_event(epoch, stage=name, reason=None if name else "detached"))
    in_order = build_night(TITLE, events, at=instant())
    shuffled = events.copy()
    chance.shuffle(shuffled)
    ledger = NightLedger(TITLE)
    for event in shuffled:
        ledger.add(event)
    assert ledger.night(at=instant()) == in_order
    assert in_order.status == "".join("f" if name else "w" for _, name in pages)
    assert in_order.stages == tuple(name for _, name in pages)


def test_an_epoch_lost_with_a_journal_is_unknown_not_invented() -> None:
    night = build_night(TITLE, [an_event(2)], at=instant())
    assert (night.status, night.stages) == ("uuf", (None, None, "N2"))
    assert night.statistics.withheld_min == 1.0
