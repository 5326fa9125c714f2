"""A place of a bed knows from whom it was read since its session began."""

from __future__ import annotations

import pytest

from hypnocast.ports.lsl.outlet_pin import OutletPin, SeenOutlet

HOME = SeenOutlet("1", "bedside-1", "10.0.0.7")
AGAIN = SeenOutlet("2", "bedside-1", "10.0.0.7")
ELSEWHERE = {
    "another name": SeenOutlet("3", "evil", "10.0.0.7"),
    "another address": SeenOutlet("3", "bedside-1", "10.0.0.9"),
    "both": SeenOutlet("3", "evil", "10.0.0.9"),
    "its own uid": SeenOutlet("1", "bedside-1", "10.0.0.9"),
}


def read_at_home(*, binding: bool) -> OutletPin:
    """Return the pin of a place that was read when a session began."""
    pin = OutletPin(binding=binding)
    pin.read(HOME)
    pin.live_in("night", reading=True)
    return pin


@pytest.mark.parametrize("binding", [False, True])
def test_an_amplifier_that_is_begun_anew_is_read_and_noted(binding: bool) -> None:
    pin = read_at_home(binding=binding)
    assert pin.may_read(AGAIN)
    change = pin.read(AGAIN)
    assert change is not None
    assert not change.moved
    assert "begun anew by bedside-1 at 10.0.0.7" in change.text
    assert not pin.problem
    assert pin.read(AGAIN) is None, "a connection that was only renewed"


def test_a_second_address_of_a_host_is_accepted_once() -> None:
    pin, other = read_at_home(binding=True), SeenOutlet("2", "bedside-1", "fe80::7")
    assert not pin.may_read(other)
    assert pin.accept()
    for outlet in (other, HOME, other):
        assert pin.may_read(outlet)
        pin.read(outlet)
        assert not pin.problem


@pytest.mark.parametrize("who", ELSEWHERE)
def test_an_outlet_from_elsewhere_is_reported_until_the_session_is_over(who: str) -> None:
    pin = read_at_home(binding=False)
    assert pin.may_read(ELSEWHERE[who])
    change = pin.read(ELSEWHERE[who])
    assert change is not None
    assert change.moved
    assert "bedside-1 at 10.0.0.7" in change.text
    assert "in this session it came from bedside-1 at 10.0.0.7" in pin.problem
    pin.live_in("night", reading=True)
    assert pin.problem
    pin.live_in("next night", reading=True)
    assert not pin.problem


@pytest.mark.parametrize("who", ELSEWHERE)
def test_an_outlet_from_elsewhere_waits_for_the_labs_word_where_places_are_pinned(who: str) -> None:
    pin, stranger = read_at_home(binding=True), ELSEWHERE[who]
    assert not pin.may_read(stranger)
    assert pin.holds(stranger.uid)
    assert "it is not read" in pin.problem
    assert pin.may_read(AGAIN), "the true one is read whenever it is there"
    assert pin.accept()
    assert pin.may_read(stranger)
    change = pin.read(stranger)
    assert change is not None
    assert change.moved, "what was accepted is noted all the same"
    assert not pin.problem
    assert not pin.accept(), "there is nothing more to say"


def test_what_was_accepted_is_reported_no_more() -> None:
    pin = read_at_home(binding=False)
    pin.read(ELSEWHERE["both"])
    assert pin.accept()
    assert not pin.problem
    assert pin.read(HOME) is not None
    assert not pin.problem, "the true one is still known"
    pin.read(ELSEWHERE["another address"])
    assert pin.problem


def test_between_sessions_amplifiers_may_be_exchanged() -> None:
    pin = read_at_home(binding=True)
    pin.live_in(None, reading=False)
    assert pin.may_read(ELSEWHERE["both"])
    assert pin.read(ELSEWHERE["both"]) is None
    pin.live_in("next night", reading=True)
    assert not pin.problem
    assert not pin.may_read(HOME)


def test_a_session_that_begins_without_a_stream_takes_the_first() -> None:
    pin = OutletPin(binding=True)
    pin.live_in("night", reading=False)
    assert pin.may_read(HOME)
    assert pin.read(HOME) is None
    pin.live_in("night", reading=True)
    assert not pin.may_read(ELSEWHERE["both"])
