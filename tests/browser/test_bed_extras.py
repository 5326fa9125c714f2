"""What a bed's page shows where the lab wants it: notices, signals, second opinions, site time."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from playwright.sync_api import Browser, Page, expect

from browser.conftest import Stand
from browser.serving import served, settings_for, until
from browser.test_ward_page import open_bed, open_ward, serious
from browser.ward_topics import PREFIX, ROLES, instant
from hypnocast.core.pages.moving_traces import COLUMNS
from hypnocast.core.wire.gear_values import GearValue
from hypnocast.core.wire.payloads import NightMark, encode
from hypnocast.core.wire.traces import TraceColumns, Traces

BED = "5"


def second(start: float) -> Traces:
    """Return a second of six channels with an offset each, as a recorder might have it."""
    channels = {}
    for place, role in enumerate(ROLES):
        wave = [
            10 * (5000 * place + 40 * math.sin(2 * math.pi * (place + 1) * (start + n / COLUMNS)))
            for n in range(COLUMNS)
        ]
        low, high = (tuple(round(value + by) for value in wave) for by in (-60, 60))
        channels[role.value] = TraceColumns(low=low, high=high)
    return Traces(
        source="live", site="lab", bed=BED, start=instant(start), seconds=1.0, channels=channels
    )


@pytest.fixture
def met(stand: Stand) -> Iterator[NightMark]:
    """A rule of the lab's own was met two minutes ago."""
    scene = stand.publisher.scenes[BED]
    mark = NightMark(at=instant(scene.now - 120), kind="notice", text="three pages of N2")
    night = scene.night()
    topic = f"{PREFIX}/bed/{BED}/night"
    with_notice = msgspec.structs.replace(night, marks=(*night.marks, mark))
    stand.publisher.publish(topic, encode(with_notice))
    yield mark
    stand.publisher.publish(topic, encode(night))


def test_a_notice_is_on_the_ward_and_at_the_bed_and_makes_no_sound(
    tab: Page, stand: Stand, met: NightMark
) -> None:
    open_ward(tab, stand)
    expect(tab.locator(f'[data-bed="{BED}"] .met')).to_contain_text(met.text)
    expect(tab.locator(".met:visible")).to_have_count(1)
    assert tab.locator("audio, video").count() == 0
    open_bed(tab, stand, BED)
    expect(tab.locator("#met")).to_contain_text(met.text)
    expect(tab.locator("#marks")).to_contain_text("⚑ Notice")
    assert serious(tab) == []


def test_a_stream_from_elsewhere_is_accepted_at_the_bed(tab: Page, stand: Stand) -> None:
    scene, topic = stand.publisher.scenes[BED], f"{PREFIX}/bed/{BED}/status"
    accept = tab.get_by_role("button", name="Accept stream")
    open_bed(tab, stand, BED)
    expect(accept).to_be_hidden()
    problem = "amp comes from evil at 10.0.0.9 now. Is it the lab's own? Accept it (accept_stream)"
    stand.publisher.publish(topic, encode(replace(scene, problems=(problem,)).status()))
    try:
        accept.click()
        expect(tab.locator("#dialog-words")).to_contain_text("come from another place")
        tab.locator("#dialog-do").click()
        expect(tab.locator("#reply")).to_contain_text("Accept stream: done")
    finally:
        stand.publisher.publish(topic, encode(scene.status()))
    command = msgspec.json.decode(stand.publisher.commands[-1])
    assert command["command"] == "accept_stream"
    assert command["session"] == scene.session
    expect(accept).to_be_hidden()


def test_position_and_impedance_are_said_at_the_bed_and_position_on_its_card(
    tab: Page, stand: Stand
) -> None:
    scene, topic = stand.publisher.scenes[BED], f"{PREFIX}/bed/{BED}/status"
    open_bed(tab, stand, BED)
    expect(tab.locator("#gear li")).to_have_count(0)
    at = instant(scene.now - 600)
    gear = (
        GearValue(kind="position", channel="Position", value=3.0, unit=None, since=at),
        GearValue(kind="impedance", channel="C4", value=4.2, unit="kOhm", since=at),
    )
    status = msgspec.structs.replace(scene.status(), gear=gear)
    stand.publisher.publish(topic, encode(status))
    try:
        expect(tab.locator("#gear li")).to_contain_text(
            [f"Position 3since {at[11:16]}", f"Impedance C4 4.2 kOhmsince {at[11:16]}"]
        )
        assert serious(tab) == []
        open_ward(tab, stand)
        expect(tab.locator(f'[data-bed="{BED}"] .tag')).to_contain_text(["Position 3"])
    finally:
        stand.publisher.publish(topic, encode(scene.status()))


def test_signals_move_and_say_when_nothing_comes(tab: Page, stand: Stand) -> None:
    topic = f"{PREFIX}/bed/{BED}/traces"
    open_bed(tab, stand, BED)
    expect(tab.locator("#traces-panel")).to_be_hidden()
    now = math.floor(time.time())
    for ago in range(40, 1, -1):
        stand.publisher.publish(topic, encode(second(now - ago)), retained=False)
    expect(tab.locator("#traces-panel")).to_be_visible()
    expect(tab.locator("#trace-names span")).to_have_text([role.value for role in ROLES])
    shown = "() => document.getElementById('traces').toDataURL()"
    first = tab.evaluate(shown)
    stand.publisher.publish(topic, encode(second(now - 1)), retained=False)
    until(lambda: tab.evaluate(shown) != first, "the traces move")
    assert serious(tab) == []
    # Whoever comes later sees the 30 s there are, and no more wait for anybody.
    tab.reload()
    expect(tab.locator("#traces-panel")).to_be_visible()
    columns = int(tab.locator("#traces").get_attribute("data-columns", timeout=15_000) or 0)
    assert 28 * COLUMNS <= columns <= 33 * COLUMNS
    expect(tab.locator("#traces-age")).to_contain_text("Nothing has come for")


def test_a_second_that_breaks_the_contract_is_named_and_not_drawn(tab: Page, stand: Stand) -> None:
    topic = f"{PREFIX}/bed/3/traces"
    open_bed(tab, stand, "3")
    wrong = encode(second(0.0)).replace(b'"low":[', b'"low":["x",', 1)
    for payload in (wrong, b"x" * 40_000, b"{}"):
        stand.publisher.publish(topic, payload, retained=False)
    expect(tab.locator("#alerts")).to_contain_text("messages broke the contract")
    expect(tab.locator("#traces-panel")).to_be_hidden()


def test_a_bed_shows_what_the_pack_beside_says_and_where_it_parts(tab: Page, stand: Stand) -> None:
    scene = stand.publisher.scenes["2"]
    found = scene.beside()
    (opinion,) = found.packs
    topic = f"{PREFIX}/bed/2/beside"
    try:
        open_bed(tab, stand, "2")
        expect(tab.locator("#beside figure")).to_have_count(0)
        stand.publisher.publish(topic, encode(found))
        figure = tab.locator("#beside figure")
        expect(figure).to_have_count(1)
        expect(figure).to_contain_text("Second opinion: other 1.0.0")
        expect(figure).to_contain_text(
            re.compile(f"{opinion.compared} pages compared, {len(opinion.parted)} part, κ 0.88")
        )
        expect(figure).to_contain_text("2 pages left out")
        staged = sum(stage is not None for stage in opinion.stages)
        expect(figure.locator("rect[class^='fill-']")).to_have_count(staged)
        expect(figure.locator("rect.parts")).to_have_count(len(opinion.parted))
        assert serious(tab) == []
        figure.locator("svg").click(position={"x": 5, "y": 10})
        expect(tab.locator("#page-name")).not_to_contain_text("newest")
    finally:
        stand.publisher.publish(topic, b"")


def test_times_are_those_of_the_site_wherever_the_browser_is(
    browser: Browser, stand: Stand
) -> None:
    settings = settings_for(stand.broker, timezone="Asia/Kolkata")
    tab = browser.new_page(timezone_id="America/Los_Angeles")
    try:
        with served(settings) as page:
            tab.goto(page.at("bed/2"))
            expect(tab.locator("#site")).to_contain_text("Asia/Kolkata")
            tab.get_by_role("button", name="Lights off").click()
            found = datetime.now(UTC) - timedelta(minutes=5)
            there = found + timedelta(hours=5, minutes=30)
            tab.locator("#dialog-at input").fill(f"{there:%H:%M:%S}")
            tab.locator("#dialog-do").click()
            expect(tab.locator("#reply")).to_contain_text("Lights off: done")
            command = msgspec.json.decode(stand.publisher.commands[-1])
            at = datetime.fromisoformat(command["at"])
            assert abs((at - found).total_seconds()) < 2.0
    finally:
        tab.close()


def test_one_click_writes_a_note_of_now_and_says_so(tab: Page, stand: Stand) -> None:
    open_bed(tab, stand, BED)
    before = len(stand.publisher.commands)
    tab.locator("#quick").get_by_role("button", name="Coughs").click()
    expect(tab.locator("#reply")).to_contain_text("Note “Coughs”: done")
    (sent,) = map(json.loads, stand.publisher.commands[before:])
    assert (sent["command"], sent["text"]) == ("note", "Coughs")
    assert sent["session"] == stand.publisher.scenes[BED].session
    assert sent.get("at") is None
    open_bed(tab, stand, "7")
    expect(tab.locator("#quick").get_by_role("button", name="Coughs")).to_be_disabled()
