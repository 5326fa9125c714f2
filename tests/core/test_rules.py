"""Rules of the lab's own: a notice for each run of pages, once."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from hypnocast.core.night.rules import StageRule, StageRuns, mark_of, pages_of
from hypnocast.core.wire.notices import Notice
from hypnocast.core.wire.payloads import StageEvent, StageName
from support.nights import an_event, instant

THREE = StageRule("three pages of N2", "N2", 3)


def _event(epoch: int, letter: str, *, sure: float = 0.8, session: str = "") -> StageEvent:
    names: dict[str, StageName] = {"W": "W", "1": "N1", "2": "N2", "3": "N3", "R": "R"}
    if letter == "-":
        return an_event(epoch, reason="detached", session=session)
    event = an_event(epoch, stage=names[letter], session=session)
    return msgspec.structs.replace(event, confidence=sure)


def _notices(rule: StageRule, night: str) -> list[Notice]:
    runs = StageRuns((rule,))
    return [one for epoch, letter in enumerate(night) for one in runs.add(_event(epoch, letter))]


def test_the_page_that_completes_a_run_makes_the_notice_and_no_other() -> None:
    (notice,) = _notices(THREE, "W12222222W")
    assert notice.epoch == 4
    assert (notice.start, notice.end) == (instant(60), instant(150))
    assert notice.id == "bed1-night/4/three pages of N2"
    assert (notice.rule, notice.stage, notice.pages) == ("three pages of N2", "N2", 3)
    assert mark_of(notice).kind == "notice"
    assert mark_of(notice).at == instant(150)


def test_every_run_makes_one() -> None:
    assert [n.epoch for n in _notices(THREE, "222122222-222")] == [2, 6, 12]


def test_a_page_less_sure_than_the_rule_asks_ends_the_run() -> None:
    runs = StageRuns((StageRule("sure", "N2", 2, 0.6),))
    sure = (0.9, 0.59, 0.6, 0.7)
    met = [runs.add(_event(n, "2", sure=s)) for n, s in enumerate(sure)]
    assert [len(one) for one in met] == [0, 0, 0, 1]
    assert met[-1][0].confidence == 0.6


def test_a_first_verdict_that_may_change_counts_for_nothing() -> None:
    runs = StageRuns((StageRule("one", "N2", 1),))
    assert runs.add(an_event(0, provisional=True)) == ()
    assert len(runs.add(an_event(0))) == 1
    assert runs.add(an_event(0)) == ()


def test_the_next_persons_night_begins_without_a_run() -> None:
    runs = StageRuns((THREE,))
    for epoch in range(2):
        runs.add(_event(epoch, "2"))
    assert runs.add(_event(2, "2", session="another")) == ()
    assert runs.add(_event(0, "2", session="a third")) == ()


def test_minutes_are_whole_pages() -> None:
    assert [pages_of(minutes) for minutes in (0.1, 0.5, 1.0, 1.1, 5.0)] == [1, 1, 2, 3, 10]


@given(
    night=st.text(alphabet="W123R-", max_size=40),
    pages=st.integers(1, 5),
    cut=st.integers(0, 40),
)
def test_a_daemon_that_comes_back_makes_the_notices_that_are_left_and_none_twice(
    night: str, pages: int, cut: int
) -> None:
    rule = StageRule("r", "N2", pages)
    events = [_event(epoch, letter) for epoch, letter in enumerate(night)]
    # The runs by another way: how long the run is that ends here.
    expected = [
        epoch
        for epoch in range(len(night))
        if len(night[: epoch + 1]) - len(night[: epoch + 1].rstrip("2")) == pages
    ]
    first, second = StageRuns((rule,)), StageRuns((rule,))
    before = [n.epoch for event in events[:cut] for n in first.add(event)]
    second.recall(events[:cut])
    after = [n.epoch for event in events[cut:] for n in second.add(event)]
    assert before + after == expected
