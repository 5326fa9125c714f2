"""Which stream goes to which bed: decisions, without a network."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypnocast.ports.lsl.beds import (
    AnnouncedStream,
    Selector,
    auto_bed,
    auto_selector,
    choose,
    claimed_twice,
    eeg_like,
    matches,
    name_prefix,
)

UIDS = st.sampled_from("abcde")


def seen(uid: str, name: str = "PSG", host: str = "pc1", **facts: str) -> AnnouncedStream:
    source_id = facts.get("source_id", uid)
    return AnnouncedStream(
        uid, name, facts.get("type", "EEG"), source_id, host, 256.0, 8, "float32"
    )


@given(st.sets(UIDS), st.one_of(st.none(), UIDS), st.frozensets(UIDS))
def test_only_the_one_that_fits_is_ever_chosen(
    fitting: set[str], current: str | None, suspects: frozenset[str]
) -> None:
    choice = choose([seen(uid) for uid in sorted(fitting)], current=current, suspects=suspects)
    fresh = fitting - suspects - {current}
    if choice.uid is not None:
        assert choice.uid in fitting - {current}
        assert len(fresh) == 1 or (not fresh and choice.uid in suspects)
        assert current is None or current in suspects, "what is being read is kept"
    if len(fresh) > 1:
        assert choice.uid is None
        assert {rival.uid for rival in choice.rivals} >= fresh


@given(st.sets(UIDS, min_size=1))
def test_one_fresh_candidate_is_opened_and_a_lost_one_is_tried_again(fitting: set[str]) -> None:
    one = min(fitting)
    others = frozenset(fitting - {one})
    assert choose([seen(uid) for uid in fitting], current=None, suspects=others).uid == one
    assert choose([seen(one)], current=None, suspects=frozenset({one})).uid == one


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("Bed1-EEG", "Bed1"),
        ("Bed1 EEG Markers", "Bed1"),
        ("bed02_EOG", "bed02"),
        ("PSG", ""),
        ("Amplifier", "Amplifier"),
        ("HypnoSleep", "HypnoSleep"),
    ],
)
def test_streams_of_one_bed_share_a_prefix(name: str, prefix: str) -> None:
    assert name_prefix(name) == prefix


def test_beds_are_named_by_host_and_prefix_alone() -> None:
    assert auto_bed(seen("a", "Bed1-EEG", "PC-3.lab.example")) == "pc-3-bed1"
    assert auto_bed(seen("a", "Bed1-EMG", "PC-3.lab.example")) == "pc-3-bed1"
    assert auto_bed(seen("a", "PSG", "pc1")) != auto_bed(seen("b", "PSG", "pc2"))
    assert auto_bed(seen("a", "EEG", "")) == "bed"


def test_a_restart_under_another_source_id_still_fits_the_automatic_selector() -> None:
    selector = auto_selector(seen("a", source_id="one"))
    assert matches(selector, seen("b", source_id="two"), {})
    assert not matches(selector, seen("c", host="pc2"), {})


def test_a_predicate_fits_what_the_network_says_it_fits() -> None:
    selector = Selector(predicate="count(//channel)=2", type="eeg")
    assert matches(selector, seen("a"), {"count(//channel)=2": frozenset("a")})
    assert not matches(selector, seen("b"), {"count(//channel)=2": frozenset("a")})
    assert not matches(selector, seen("a", type="ECG"), {"count(//channel)=2": frozenset("a")})


def test_a_stream_wanted_by_two_beds_is_named_with_both() -> None:
    wanted = {"b": ["1", "2"], "a": ["2"], "c": ["3"]}
    assert claimed_twice(wanted) == {"2": ("a", "b")}


@pytest.mark.parametrize(
    ("labels", "like"),
    [
        (("F4-M1", "C4-M1"), True),
        (("EEG Fpz-Cz", "EEG Pz-Oz"), True),
        (("E1", "Chin"), True),
        (("LOC", "ROC"), True),
        (("F4", "Temperature"), False),
        (("Accel X", "Accel Y", "Position"), False),
        ((), False),
    ],
)
def test_labels_identify_a_polysomnogram(labels: tuple[str, ...], *, like: bool) -> None:
    assert eeg_like(labels) is like
