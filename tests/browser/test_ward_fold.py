"""The fold of topics into a ward, and what is shown of it."""

from __future__ import annotations

import asyncio
import io
import time
from dataclasses import replace
from datetime import UTC, datetime
from functools import reduce
from importlib.resources import files
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from browser.ward_topics import PREFIX, Publisher, Scene, daemon_state, ward
from faults.witness import fault_proxy
from hypnocast.core.types import Reason
from hypnocast.core.wire.commands import PageCommand
from hypnocast.core.wire.payloads import PhaseName, encode
from hypnocast.dashboard.feed import Feed, ended
from hypnocast.dashboard.terminal import WatchSettings, ward_view, watch
from hypnocast.dashboard.view import REASON_WORDS, card, history
from hypnocast.dashboard.ward import TOPICS, Incoming, WardView, absorb, bed_of
from hypnocast.ports.mqtt.embedded_broker import embedded_broker
from hypnocast.ports.mqtt.settings import BrokerSettings
from support.brokers import running_mosquitto

NOW = datetime(2026, 3, 14, 3, 12, tzinfo=UTC).timestamp()
TOPIC = st.sampled_from([topic.replace("+", "1") for topic in TOPICS] + ["bed/1", "x/y/z", ""])


def messages_of(scene: Scene, *, at: float = NOW, retained: bool = False) -> list[Incoming]:
    return [
        Incoming(topic.removeprefix(f"{PREFIX}/"), payload, retained, at)
        for topic, payload, _ in scene.messages(page=False)
    ]


def of(*scenes: Scene, at: float = NOW, retained: bool = False) -> WardView:
    messages = [
        message for scene in scenes for message in messages_of(scene, at=at, retained=retained)
    ]
    return reduce(absorb, messages, WardView())


@pytest.fixture(scope="module")
def scenes() -> dict[str, Scene]:
    return {scene.bed: scene for scene in ward(NOW)}


@given(TOPIC, st.binary(max_size=200), st.booleans())
def test_no_payload_breaks_the_fold(topic: str, payload: bytes, retained: bool) -> None:
    after = absorb(WardView(), Incoming(topic, payload, retained, NOW))
    assert after.refused <= 1
    assert not any(bed.stage or bed.status or bed.night for bed in after.beds.values())


def test_a_message_that_breaks_the_contract_is_counted_named_and_changes_nothing(
    scenes: dict[str, Scene],
) -> None:
    before = of(scenes["1"])
    short = msgspec.json.decode(encode(scenes["1"].night()))
    short["stages"] = short["stages"][:-1]
    after = absorb(before, Incoming("bed/1/night", msgspec.json.encode(short), False, NOW))
    assert after.refused == 1
    assert "bed/1/night" in after.refusal
    assert after.beds == before.beds


def test_every_kind_of_bed_has_its_mood(scenes: dict[str, Scene]) -> None:
    full = of(*scenes.values())
    moods = {name: card(bed, full).mood for name, bed in full.beds.items()}
    assert moods == {
        "1": "staged", "2": "staged", "3": "staged", "4": "withheld",
        "5": "staged", "6": "stale", "7": "ended", "8": "staged",
    }  # fmt: skip
    shown = card(full.beds["4"], full)
    assert shown.reason_words == REASON_WORDS["detached"]
    assert (shown.health, shown.health_words) == ("bad", "F4, C4, O2 detached")


@given(st.integers(1, 40))
def test_since_is_where_the_run_of_the_stage_began(pages: int) -> None:
    scene = Scene("1", 11, 300 + pages, NOW)
    shown = card(of(scene).beds["1"], of(scene))
    run = 0
    while scene.truth(scene.pages - 1 - run) == shown.stage:
        run += 1
    assert shown.lasted_s == 30 * run
    assert shown.since is not None
    assert datetime.fromisoformat(shown.since).timestamp() == NOW + 30 * (scene.pages - run)


def test_a_newest_event_ahead_of_the_night_is_shown_with_the_hole_left_open() -> None:
    scene = Scene("1", 11, 100, NOW)
    points = history(scene.night(), scene.later(3).event(102))
    assert len(points) == 103
    assert [point.status for point in points[-3:]] == [" ", " ", "f"]


def test_what_is_retained_of_the_last_person_is_not_shown_for_the_next() -> None:
    old = Scene("1", 11, 500, NOW - 500 * 30)
    new = replace(old, start=NOW, pages=1, seed=12)
    before = of(old)
    status = Incoming("bed/1/status", encode(new.status()), False, NOW)
    shown = card(absorb(before, status).beds["1"], before)
    assert (shown.stage, shown.recent, shown.epoch) == (None, (), None)


def test_retained_words_of_a_live_bed_carry_their_age() -> None:
    scene = Scene("1", 11, 100, NOW - 100 * 30)
    later = NOW + 3600
    assert of(scene, at=later, retained=True).beds["1"].seen == NOW
    assert of(scene, at=later).beds["1"].seen == later
    simulated = replace(scene, source="simulated")
    assert of(simulated, at=later, retained=True).beds["1"].seen == later


def test_a_bed_with_nothing_to_say_is_as_fresh_as_its_daemon() -> None:
    later = NOW + 300
    beat = Incoming("daemon/bedside/state", encode(daemon_state(("1",), later)), False, later)
    cases: tuple[tuple[PhaseName, float], ...] = (("setup", later), ("recording", NOW))
    for phase, found in cases:
        scene = replace(Scene("1", 11, 100, NOW - 3000), phase=phase)
        full = absorb(of(scene), beat)
        assert card(full.beds["1"], full).seen == found, phase


def test_cleared_topics_are_forgotten_and_beds_sort_by_number() -> None:
    full = of(*(Scene(bed, 11, 3, NOW) for bed in ("10", "2", "a", "1")))
    assert list(full.beds) == ["1", "2", "10", "a"]
    gone = absorb(full, Incoming("bed/2/status", b"", False, NOW))
    assert "2" not in gone.beds
    assert bed_of("bed/2/status") == "2"
    assert absorb(gone, Incoming("bed/1/stage", b"", False, NOW)).beds["1"].stage is None


def text_of(full: WardView, now: float = NOW, width: int = 160, zone: str = "UTC") -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(ward_view(full, now, zone=zone))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_terminal_says_what_the_page_says(scenes: dict[str, Scene]) -> None:
    text = text_of(of(*scenes.values()))
    for word in ("WITHHELD electrode detached", "SILENT", "ENDED", "Chin line noise", "review"):
        assert word in text
    assert "no news for 2 min" in text_of(of(scenes["1"]), NOW + 120)
    offline = absorb(of(scenes["1"]), Incoming("daemon/bedside/available", b"offline", True, NOW))
    assert "daemon bedside offline" in text_of(offline)
    one = replace(scenes["1"], source="simulated")
    assert text_of(of(one)).count("SIMULATED") == 1
    assert "1 SIMULATED" in text_of(of(one, scenes["2"]))
    assert "SIMULATED" not in text_of(of(scenes["2"]))


def test_a_narrow_terminal_cuts_no_word(scenes: dict[str, Scene]) -> None:
    for width in (80, 100, 124):
        text = text_of(of(*scenes.values()), width=width)
        assert "…" not in text
        for word in ("WITHHELD", "SILENT", "ENDED", "Chin line noise", "all 6 good"):
            assert word in text
    assert "Latency" in text


def test_the_terminal_shows_how_often_a_pack_beside_gives_the_same_stage(
    scenes: dict[str, Scene],
) -> None:
    scene = scenes["1"]
    with_beside = absorb(of(scene), Incoming("bed/1/beside", encode(scene.beside()), True, NOW))
    (opinion,) = scene.beside().packs
    alike = opinion.compared - len(opinion.parted)
    assert opinion.pack not in text_of(of(scene))
    assert f"{alike} of {opinion.compared} pages alike" in text_of(with_beside)


def test_eighty_columns_show_a_ward_with_long_names_as_on_the_golden_screen(
    scenes: dict[str, Scene],
) -> None:
    problem = "Chin: no channel fits; name one under `roles` for this bed if there is one"
    far = replace(scenes["2"], bed="sleeplab-pc3-headbox", problems=(problem,))
    full = of(*scenes.values(), far)
    console = Console(file=io.StringIO(), width=80)
    console.print(ward_view(full, NOW, zone="Europe/Berlin"))
    assert isinstance(console.file, io.StringIO)
    shown = "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"
    assert shown == (Path(__file__).parent / "watch-80.txt").read_text(encoding="utf-8")
    assert "04:0" in text_of(full, width=160, zone="Europe/Berlin")


@pytest.mark.parametrize("width", [60, 72, 80, 100, 132, 200])
def test_no_terminal_is_overrun(scenes: dict[str, Scene], width: int) -> None:
    far = replace(scenes["4"], bed="sleeplab-pc3-headbox")
    text = text_of(of(*scenes.values(), far), width=width)
    assert max(map(len, text.splitlines())) <= width
    for word in ("WITHHELD", "detached", "SILENT", "ENDED", "review", "sleeplab-pc3-headbox"):
        assert word in text


async def test_watch_needs_nothing_but_the_broker(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    scene = ward(time.time())[3]
    console = Console(file=io.StringIO(), width=160)
    with running_mosquitto(tmp_path_factory.mktemp("watch")) as broker:
        publisher = Publisher(broker.port)
        publisher.show_ward((scene,), page=False)
        publisher.close()
        await watch(WatchSettings(BrokerSettings(port=broker.port), once_after_s=1.0), console)
    assert isinstance(console.file, io.StringIO)
    assert "WITHHELD electrode detached" in console.file.getvalue()
    assert "Research use only" in console.file.getvalue()


async def test_watch_waits_for_a_broker_that_takes_long_to_answer(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=160)
    with running_mosquitto(tmp_path) as broker, fault_proxy(broker.port) as slow:
        slow.slow_s = 1.0
        await watch(WatchSettings(BrokerSettings(port=slow.port), once_after_s=0.1), console)
    assert isinstance(console.file, io.StringIO)
    assert "No contact" not in console.file.getvalue()


async def test_an_embedded_broker_that_speaks_3_1_1_only_is_watched_too() -> None:
    scene = ward(time.time())[3]
    values: list[Incoming] = []
    reached = asyncio.Event()
    async with embedded_broker() as broker:
        publisher = await asyncio.to_thread(Publisher, broker.port)
        feed = Feed(
            broker,
            PREFIX,
            on_message=values.append,
            on_link=lambda link: reached.set() if link.connected else None,
        )
        task = asyncio.create_task(feed.run())
        await asyncio.wait_for(reached.wait(), 10)
        await asyncio.to_thread(publisher.show, scene)
        reply = await feed.ask(
            scene.bed, PageCommand(request="r1", session=scene.session, epoch=3), patience_s=10
        )
        await ended(task)
        await asyncio.to_thread(publisher.close)
    assert reply.png is not None
    assert {message.topic.split("/")[-1] for message in values} >= {"status", "stage", "night"}


def test_the_browser_and_the_terminal_give_reasons_in_the_same_words() -> None:
    script = (files("hypnocast.dashboard") / "static" / "words.js").read_text(encoding="utf-8")
    for reason, words in REASON_WORDS.items():
        assert f'  {reason}: "{words}",\n' in script
    assert set(REASON_WORDS) == {reason.value for reason in Reason}
