"""Sessions: one person, one bed, one grid, through bathrooms, restarts and reboots."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypnocast.core.night.marks import MarkMeaning, meaning_of
from hypnocast.core.night.session import (
    Moment,
    Phase,
    Session,
    SessionChange,
    SessionKeeper,
    SessionPlan,
)
from hypnocast.errors import CommandError

UTC0 = 1_763_676_000.25
BOOT = "boot-1"


def at(seconds: float) -> Moment:
    return Moment(5000.0 + seconds, UTC0 + seconds)


def keeper(*, auto: bool = False, boot: str = BOOT) -> SessionKeeper:
    return SessionKeeper("lab", "bed-3", source="live", boot_id=boot, auto=auto)


def named(changes: tuple[SessionChange, ...]) -> list[tuple[str, str]]:
    return [(change.change, change.why) for change in changes]


def running(keep: SessionKeeper) -> Session:
    assert keep.session is not None
    return keep.session


def test_a_started_session_records_at_once_unless_another_phase_is_named() -> None:
    keep = keeper()
    (opened,) = keep.start(SessionPlan("P017"), at(0))
    session = opened.session
    assert (session.phase, session.anchor_lsl, session.anchor_utc) == (
        Phase.RECORDING,
        5000.0,
        UTC0,
    )
    assert session.id == "lab.bed-3.20251120T220000250Z"
    assert "P017" not in session.id
    keep.start(SessionPlan(phase=Phase.SETUP), at(10))
    assert running(keep).anchor_lsl is None


def test_epoch_0_begins_with_the_recording_not_with_the_session() -> None:
    keep = keeper()
    keep.start(SessionPlan(phase=Phase.SETUP), at(0))
    keep.enter(Phase.CALIBRATION, at(60))
    keep.enter(Phase.RECORDING, at(305))
    session = running(keep)
    assert session.start_of(0) == UTC0 + 305
    assert session.start_of(100) == UTC0 + 305 + 3000
    assert session.anchor_lsl == 5000 + 305
    assert keep.enter(Phase.RECORDING, at(400)) == ()
    with pytest.raises(CommandError, match="cannot go back"):
        keep.enter(Phase.CALIBRATION, at(500))
    assert running(keep).start_of(0) == UTC0 + 305


def test_the_next_start_ends_the_night_before() -> None:
    keep = keeper()
    keep.start(SessionPlan("A"), at(0))
    first = running(keep).id
    changes = keep.start(SessionPlan("B"), at(100))
    assert named(changes) == [("ended", "next start"), ("opened", "command")]
    assert changes[0].session.id == first
    assert changes[0].session.phase is Phase.ENDED
    assert running(keep).id != first


def test_a_repeated_end_does_not_end_the_next_persons_night() -> None:
    keep = keeper()
    keep.start(SessionPlan("A"), at(0))
    first = running(keep).id
    assert named(keep.end(first, at(10))) == [("ended", "command")]
    keep.start(SessionPlan("B"), at(20))
    assert keep.end(first, at(30)) == ()
    assert running(keep).subject == "B"


def test_lights_may_be_back_dated_and_move_no_page() -> None:
    keep = keeper()
    keep.start(SessionPlan(), at(0))
    before = running(keep)
    keep.lights("on", at(900))
    keep.lights("off", at(1000), at_utc=UTC0 + 300)
    session = running(keep)
    assert [session.lights_at(UTC0 + s) for s in (0, 299, 300, 899, 900)] == [
        "unknown",
        "unknown",
        "off",
        "off",
        "on",
    ]
    assert (session.anchor_lsl, session.anchor_utc) == (before.anchor_lsl, before.anchor_utc)
    with pytest.raises(CommandError, match="in the future"):
        keep.lights("off", at(1000), at_utc=UTC0 + 2000)


def test_a_slip_in_the_date_is_refused_for_it_could_not_be_taken_back() -> None:
    keep = keeper()
    keep.start(SessionPlan(), at(0))
    keep.lights("off", at(60), at_utc=at(-3600).utc)
    for slip in (-90_000.0, -1e9):
        with pytest.raises(CommandError, match="more than a day before"):
            keep.lights("off", at(60), at_utc=at(slip).utc)
    assert len(running(keep).lights) == 1


def test_commands_without_a_session_say_what_to_do() -> None:
    with pytest.raises(CommandError, match="start_session"):
        keeper().lights("off", at(0))
    with pytest.raises(CommandError, match="start_session"):
        keeper().enter(Phase.RECORDING, at(0))
    assert keeper().end("lab.bed-3.x", at(0)) == ()


@pytest.mark.parametrize(("minutes", "ends"), [(70, False), (89.9, False), (100, True)])
def test_a_disconnection_ends_the_session_only_after_the_time_out(
    minutes: float, ends: bool
) -> None:
    keep = keeper(auto=True)
    assert named(keep.data_came(at(0))) == [("opened", "auto")]
    first = running(keep)
    keep.data_came(at(3600))
    changes = keep.data_came(at(3600 + minutes * 60))
    if not ends:
        assert changes == ()
        assert running(keep) == first
        return
    assert named(changes) == [("ended", "no streams"), ("opened", "auto")]
    assert changes[0].at == at(3600 + 5400)
    assert changes[0].session.ended_utc == pytest.approx(UTC0 + 9000)
    assert running(keep).start_of(0) == UTC0 + 9600


def test_time_out_comes_by_itself_while_nothing_comes() -> None:
    keep = keeper()
    keep.start(SessionPlan(), at(0))
    keep.data_came(at(10))
    assert keep.tick(at(5409.9)) == ()
    (ended,) = keep.tick(at(5432.0))
    assert ended.at == at(5410.0)
    assert keep.tick(at(6000.0)) == ()


def test_a_night_ended_by_hand_does_not_begin_again_by_itself() -> None:
    keep = keeper(auto=True)
    keep.data_came(at(0))
    keep.end(running(keep).id, at(100))
    for second in range(100, 4000, 30):
        assert keep.data_came(at(second)) == ()
    assert named(keep.data_came(at(4100))) == [("opened", "auto")]


# --- restart and reboot ---------------------------------------------------------------------------


def test_after_a_daemon_restart_the_grid_is_where_it_was() -> None:
    keep = keeper()
    keep.start(SessionPlan("A"), at(0))
    stored = running(keep)
    # The wall clock was set meanwhile: on the same boot that means nothing.
    now = Moment(at(1000).lsl, at(1000).utc + 7200)
    found = keeper().resume(stored, now, next_epoch=20, last_seen_utc=UTC0 + 601)
    assert found.session == stored
    assert found.missed == range(20, 33)
    assert found.first_epoch == 33


@given(up=st.floats(0.0, 1e5), down=st.floats(0.0, 5300.0))
def test_after_a_reboot_the_grid_is_found_again_by_utc(up: float, down: float) -> None:
    keep = keeper()
    keep.start(SessionPlan("A"), at(0))
    stored = running(keep)
    now = Moment(up, UTC0 + 900 + down)
    again = keeper(boot="boot-2")
    found = again.resume(stored, now, next_epoch=30, last_seen_utc=UTC0 + 900)
    assert found.session.reanchored
    assert found.session.boot_id == "boot-2"
    assert found.session.id == stored.id
    assert found.session.start_of(7) == stored.start_of(7)
    assert found.session.anchor_lsl == pytest.approx(up - 900 - down, abs=1e-3)
    assert found.first_epoch == int((900 + down) // 30)
    assert found.missed == range(30, found.first_epoch)
    assert again.session == found.session


def test_a_session_left_for_longer_than_the_time_out_is_over_when_found() -> None:
    keep = keeper()
    keep.start(SessionPlan("A"), at(0))
    stored = running(keep)
    again = keeper()
    found = again.resume(stored, at(610 + 5400), next_epoch=20, last_seen_utc=UTC0 + 610)
    assert found.session.phase is Phase.ENDED
    assert found.session.ended_utc == UTC0 + 610
    assert found.missed == range(20, 21)
    assert again.session is None


def test_a_session_that_had_not_begun_to_record_is_resumed_without_pages() -> None:
    keep = keeper()
    keep.start(SessionPlan(phase=Phase.SETUP), at(0))
    again = keeper(boot="boot-2")
    found = again.resume(running(keep), Moment(3.0, UTC0 + 60), next_epoch=0, last_seen_utc=UTC0)
    assert list(found.missed) == []
    again.enter(Phase.RECORDING, Moment(9.0, UTC0 + 66))
    assert running(again).start_of(0) == UTC0 + 66


def test_a_clock_that_lost_time_in_the_reboot_does_not_hold_the_night_up() -> None:
    keep = keeper()
    keep.start(SessionPlan("A"), at(0))
    # A host without a battery for its clock: it comes back an hour before the power cut.
    now = Moment(12.0, UTC0 + 900 - 3600)
    again = keeper(boot="boot-2")
    found = again.resume(running(keep), now, next_epoch=30, last_seen_utc=UTC0 + 900)
    assert found.first_epoch == 30
    assert found.session.anchor_lsl == now.lsl - 30 * 30
    assert again.tick(Moment(13.0, now.utc + 1)) == ()


def test_a_session_without_a_grid_has_none_to_be_found_again() -> None:
    keep = keeper()
    keep.start(SessionPlan(phase=Phase.SETUP), at(0))
    stored = replace(running(keep), boot_id="")  # the journal knows the boot of a grid only
    found = keeper().resume(stored, at(60), next_epoch=0, last_seen_utc=UTC0)
    assert not found.session.reanchored
    assert found.session.boot_id == BOOT


def test_the_next_night_counts_from_the_clock_as_it_is_then() -> None:
    keep = keeper()
    keep.start(SessionPlan("A"), at(0))
    # The host's clock was an hour slow when the first night began, and was set right since.
    ended, opened = keep.start(SessionPlan("B"), Moment(at(100).lsl, at(100).utc + 3600))
    assert ended.session.ended_utc == UTC0 + 100
    assert opened.session.opened_utc == UTC0 + 3700
    assert opened.session.start_of(0) == UTC0 + 3700


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("Lights Off", MarkMeaning.LIGHTS_OFF),
        ("lights_out", MarkMeaning.LIGHTS_OFF),
        ("LIGHTS-ON!", MarkMeaning.LIGHTS_ON),
        ("Licht aus", MarkMeaning.LIGHTS_OFF),
        ("LUMIE\u0300RE E\u0301TEINTE", MarkMeaning.LIGHTS_OFF),
        ("Lumières allumées", MarkMeaning.LIGHTS_ON),
        ("session start", MarkMeaning.START_SESSION),
        ("Biocals", MarkMeaning.CALIBRATION),
        ("end of lights off discussion", None),
        ("", None),
    ],
)
def test_marker_texts_mean_what_a_lab_means_by_them(text: str, meaning: MarkMeaning | None) -> None:
    assert meaning_of(text) is meaning
