"""Markers: whoever sends them may not end a stranger's night, nor fill memory, disk or broker."""

from __future__ import annotations

import pytest

from attacks.calm_bed import AttackedDaemon
from hypnocast.core.budget import Budget
from hypnocast.core.night.ledger import MAX_NOTE_CHARS, MAX_NOTES, NightLedger, NightTitle
from hypnocast.core.night.marks import MarkMeaning
from hypnocast.core.night.session import MAX_LIGHTS, Moment, SessionKeeper, SessionPlan
from hypnocast.core.types import LONGEST_NIGHT_S, ChannelInfo, Mark, StreamHeader
from hypnocast.core.wire import payloads
from hypnocast.errors import CommandError
from hypnocast.live.bed.markers import BURST, NOTE_CHARS, Markers
from support.lsl_lab import Outlets, Stream
from support.nights import instant

pytestmark = pytest.mark.usefixtures("calm_bed")

STRANGER = StreamHeader("m", "bed-trigger", "Markers", "m", "u", "h", 0.0, (ChannelInfo("m"),))
ACTS = ("end_session", "start_session", "Lights Off", "lights on", "recording", "setup")


def mark(text: str, at: float = 1000.0) -> Mark:
    return Mark("m", at, text, arrived=at)


@pytest.mark.attack("markers")
@pytest.mark.parametrize("text", ACTS)
def test_a_stream_that_no_configuration_names_acts_on_no_night(text: str) -> None:
    stranger, named = Markers(lambda _: False), Markers(lambda _: True)
    assert stranger.meaning(mark(text), STRANGER) is None
    assert "notes only" in stranger.problems(1001.0)[0]
    assert isinstance(named.meaning(mark(text), STRANGER), MarkMeaning)


@pytest.mark.attack("markers")
def test_a_flood_of_markers_leaves_few_notes_and_is_reported() -> None:
    markers = Markers(lambda _: True)
    notes = [markers.note(mark("x" * 60_000, 1000.0 + n / 500.0), STRANGER) for n in range(11_640)]
    kept = [note for note in notes if note]
    assert BURST <= len(kept) <= BURST + 2 * 24
    assert {len(note) for note in kept} == {NOTE_CHARS}
    assert "came faster" in " ".join(markers.problems(1024.0))
    assert not markers.problems(2000.0)


@pytest.mark.attack("markers")
def test_a_flood_of_session_markers_begins_few_nights() -> None:
    markers = Markers(lambda _: True)
    acts = [
        markers.meaning(mark("start_session", 1000.0 + n / 500.0), STRANGER) for n in range(5000)
    ]
    assert len([act for act in acts if act]) <= BURST + 2 * 11


@pytest.mark.attack("markers")
@pytest.mark.parametrize("text", ["\x1b[2J", "a\x00b", "\u202eabc", "\r\n" * 100])
def test_a_note_steers_no_terminal(text: str) -> None:
    assert Markers(lambda _: True).note(mark(text), STRANGER).isprintable()


@pytest.mark.attack("markers")
@pytest.mark.parametrize("chars", [1, 500, 60_000])
def test_the_night_that_is_published_shows_the_newest_notes_within_a_limit(chars: int) -> None:
    ledger = NightLedger(NightTitle("lab", "bed", "s", None, "live", instant()))
    for number in range(5000):
        text = f"{number}".ljust(chars, "µ")
        ledger.mark(payloads.NightMark(at=instant(number), kind="note", text=text))
    ledger.mark(payloads.NightMark(at=instant(0), kind="lights_off", text="lights off"))
    night = ledger.night(at=instant(9000))
    notes = [one for one in night.marks if one.kind == "note"]
    assert len(notes) <= MAX_NOTES
    assert sum(len(one.text) for one in notes) <= MAX_NOTE_CHARS
    assert len(payloads.encode(night)) < 1_000_000
    assert not notes or notes[-1].text.startswith("4999")
    assert [one.kind for one in night.marks].count("lights_off") == 1


@pytest.mark.attack("markers")
def test_lights_are_marked_no_more_often_than_a_night_can_hold() -> None:
    keeper = SessionKeeper("lab", "bed", source="live", boot_id="b")
    keeper.start(SessionPlan(), Moment(0.0, 1e9))
    for number in range(MAX_LIGHTS):
        keeper.lights("off", Moment(number + 1.0, 1e9 + number + 1.0))
    with pytest.raises(CommandError, match="were marked"):
        keeper.lights("on", Moment(1000.0, 1e9 + 1000.0))


@pytest.mark.attack("sessions")
def test_a_session_ends_before_its_pages_pass_every_readers_limit() -> None:
    keeper = SessionKeeper("lab", "bed", source="live", boot_id="b", auto=True)
    keeper.start(SessionPlan(), Moment(0.0, 1e9))
    for hour in range(1, round(LONGEST_NIGHT_S / 3600.0)):
        assert not keeper.data_came(Moment(3600.0 * hour, 1e9 + 3600.0 * hour))
    (ended,) = keeper.tick(Moment(LONGEST_NIGHT_S, 1e9 + LONGEST_NIGHT_S))
    assert ended.change == "ended"
    at = Moment(LONGEST_NIGHT_S + 1.0, 1e9 + LONGEST_NIGHT_S + 1.0)
    assert [change.change for change in keeper.data_came(at)] == ["opened"]


@pytest.mark.attack("sessions")
@pytest.mark.parametrize("years", [1, 30])
def test_a_host_that_comes_back_in_another_decade_invents_no_pages(years: int) -> None:
    first = SessionKeeper("lab", "bed", source="live", boot_id="first")
    first.start(SessionPlan(), Moment(0.0, 1e9))
    stored = first.session
    assert stored is not None
    again = SessionKeeper("lab", "bed", source="live", boot_id="second")
    later = 1e9 + years * 3.15e7
    resumed = again.resume(stored, Moment(5.0, later), next_epoch=3, last_seen_utc=1e9 + 100.0)
    assert len(resumed.missed) <= 2


@pytest.mark.attack("markers")
def test_a_budget_comes_back_with_time_and_time_does_not_run_backwards() -> None:
    budget = Budget(2.0, 1.0)
    assert [budget.spend(10.0) for _ in range(3)] == [True, True, False]
    assert not budget.spend(5.0)
    assert not budget.spend(10.5)
    assert budget.spend(11.6)


@pytest.mark.long
@pytest.mark.attack("markers")
def test_a_daemon_leaves_out_a_flood_of_long_markers_and_says_so(attacked: AttackedDaemon) -> None:
    """Some 6000 of 60 kB each, as fast as they go."""
    with Outlets(Stream("marks", "Markers", "marks", marker=True)) as marks:

        def reported() -> bool:
            for number in range(100):
                marks.mark(f"{number} " + "x" * 60_000)
            return "faster than" in attacked.problem_of("marks")

        attacked.daemon.wait_for(reported, "it is reported")
        for number in range(6000):
            marks.mark(f"{number} " + "x" * 60_000)
