"""The ward page in a real Chromium, fed by a real mosquitto, with no daemon anywhere."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from browser.conftest import Stand
from browser.serving import served, settings_for
from browser.ward_topics import PREFIX, Publisher, Scene, crowd
from hypnocast.core.wire.page_facts import Judged
from hypnocast.core.wire.payloads import encode
from support.brokers import running_mosquitto
from support.mqtt_lab import kept_by_broker

AXE = Path(__file__).parent / "vendor" / "axe-core" / "axe.min.js"
SOAK_BEDS = 40


def card(tab: Page, bed: str) -> str:
    return str(tab.locator(f'[data-bed="{bed}"] .card').inner_text())


def open_ward(tab: Page, stand: Stand) -> None:
    tab.goto(stand.page.at())
    expect(tab.locator(".card[data-mood]")).to_have_count(8)


def open_bed(tab: Page, stand: Stand, bed: str) -> None:
    tab.goto(stand.page.at(f"bed/{bed}"))
    expect(tab.locator("#room")).to_be_visible()


def serious(tab: Page) -> list[str]:
    """Return what axe-core finds that a person would stumble over."""
    tab.evaluate(AXE.read_text(encoding="utf-8"))
    found = tab.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{fault['id']}: {node['html']} {node['failureSummary']}"
        for fault in found["violations"]
        for node in fault["nodes"]
        if fault["impact"] in ("serious", "critical")
    ]


# --- what is seen ---------------------------------------------------------------------------


def test_stale_withheld_and_ended_cannot_be_overlooked(tab: Page, stand: Stand) -> None:
    open_ward(tab, stand)
    assert re.search(r"WITHHELD[\s\S]*electrode detached[\s\S]*F4, C4, O2 detached", card(tab, "4"))
    assert re.search(r"SILENT[\s\S]*no signal", card(tab, "6"))
    assert re.search(r"ENDED[\s\S]*night over", card(tab, "7"))
    expect(tab.locator("#tally")).to_contain_text(re.compile(r"1 withheld\s*1 silent\s*1 ended"))
    grounds = {
        bed: tab.locator(f'[data-bed="{bed}"] .banner').evaluate(
            "node => getComputedStyle(node).display + getComputedStyle(node).background"
        )
        for bed in ("1", "4", "6", "7")
    }
    assert grounds["1"].startswith("none")
    assert len(set(grounds.values())) == 4


def test_a_bed_says_stage_since_confidence_health_and_latency(tab: Page, stand: Stand) -> None:
    open_ward(tab, stand)
    text = card(tab, "3")
    for words in (r"\bR\b", r"since \d\d:\d\d", r"\d+ % sure", "Chin line noise", "s latency"):
        assert re.search(words, text), words
    found = tab.locator('[data-bed="3"] .recent').get_attribute("aria-label")
    assert found is not None
    assert re.match(r"Last 30 minutes: .*R \d+(\.5)? min", found)


def test_health_is_shown_by_shape_and_word_besides_colour(tab: Page, stand: Stand) -> None:
    open_ward(tab, stand)
    shapes = {
        level: tab.locator(f'.leads [data-level="{level}"] .shape').first.evaluate(
            "node => getComputedStyle(node).clipPath + getComputedStyle(node).borderRadius"
        )
        for level in ("good", "fair", "bad")
    }
    assert len(set(shapes.values())) == 3


def test_the_page_is_shown_as_judged_with_its_scale(tab: Page, stand: Stand) -> None:
    open_bed(tab, stand, "2")
    expect(tab.locator("#picture[data-epoch='497']")).to_be_visible()
    expect(tab.locator("#digest")).to_contain_text("the very pixels that were judged")
    size = tab.locator("#image").evaluate("image => [image.naturalWidth, image.naturalHeight]")
    assert size == [448, 448]
    expect(tab.locator("#band-scales")).to_contain_text("±50 µV")
    expect(tab.locator("#seconds")).to_have_text(re.compile("0.*30 s"))
    expect(tab.locator("#rationale")).to_contain_text("K complex")
    expect(tab.locator("#marks")).to_contain_text("Bathroom, 6 min")
    expect(tab.locator("#statistics")).to_contain_text("Sleep efficiency")


def test_undefined_statistics_are_shown_as_undefined(tab: Page, stand: Stand) -> None:
    awake = Scene("20", 11, 3, stand.now - 90)
    stand.publisher.show(awake, page=False)
    open_bed(tab, stand, "20")
    latency = tab.locator("#statistics dt", has_text="REM latency").locator("+ dd")
    expect(latency).to_have_text("undefined")
    for leaf in ("status", "stage", "night"):
        stand.publisher.publish(f"{PREFIX}/bed/20/{leaf}", b"")


def test_simulated_and_replayed_beds_say_so(tab: Page, stand: Stand) -> None:
    scene = stand.publisher.scenes["5"]
    stand.publisher.show(replace(scene, source="simulated"), page=False)
    open_ward(tab, stand)
    expect(tab.locator("#not-live")).to_have_text("Bed 5: simulated signals, not a person now.")
    expect(tab.locator('[data-bed="5"] .tag.unreal')).to_have_text("SIMULATED")
    stand.publisher.show(scene, page=False)
    expect(tab.locator("#not-live")).to_be_hidden()
    expect(tab.locator("footer")).to_contain_text("Research use only")


def test_a_daemon_that_died_is_shown_on_its_beds(tab: Page, stand: Stand) -> None:
    open_ward(tab, stand)
    stand.publisher.publish(f"{PREFIX}/daemon/bedside/available", b"offline")
    expect(tab.locator('[data-bed="1"]')).to_contain_text("its daemon (bedside) is offline")
    stand.publisher.publish(f"{PREFIX}/daemon/bedside/available", b"online")
    expect(tab.locator('[data-bed="1"]')).not_to_contain_text("offline")


def test_a_bed_without_news_is_retired_once_that_is_confirmed(tab: Page, stand: Stand) -> None:
    scene = stand.publisher.scenes["1"]
    orphan = msgspec.structs.replace(scene.status(), bed="21", node="sold")
    stand.publisher.publish(f"{PREFIX}/daemon/sold/available", b"offline")
    stand.publisher.publish(f"{PREFIX}/bed/21/status", encode(orphan))
    tab.goto(stand.page.at())
    expect(tab.locator('[data-bed="1"]').get_by_role("button")).to_have_count(0)
    button = tab.locator('[data-bed="21"]').get_by_role("button", name="Retire …")
    expect(tab.locator("#tally")).to_contain_text("1 without news")
    button.click()
    tab.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(tab.locator('[data-bed="21"]')).to_be_visible()

    stand.publisher.publish(f"{PREFIX}/daemon/sold/available", b"online")
    expect(button).to_be_hidden()
    stand.publisher.publish(f"{PREFIX}/daemon/sold/available", b"offline")
    button.focus()
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("dialog")).to_contain_text("Retire Bed 21?")
    stand.publisher.publish(f"{PREFIX}/daemon/sold/available", b"online")
    sure = tab.get_by_role("dialog").get_by_role("button", name="Retire")
    sure.click()
    expect(tab.get_by_role("dialog")).to_contain_text("is served by the daemon sold")
    stand.publisher.publish(f"{PREFIX}/daemon/sold/available", b"offline")
    sure.click()
    expect(tab.get_by_role("dialog")).to_be_hidden()
    expect(tab.locator('[data-bed="21"]')).to_have_count(0)
    assert f"{PREFIX}/bed/21/status" not in kept_by_broker(stand.broker.port)
    stand.publisher.publish(f"{PREFIX}/daemon/sold/available", b"")


def test_a_montage_that_the_pack_was_not_judged_on_says_so(tab: Page, stand: Stand) -> None:
    words = (
        f"The pack was not judged on this montage, but on Fpz-Cz ({'16 healthy adults, ' * 20})."
    )
    outside = Judged(montages=(("Fpz-Cz",),), inside=False, words=words)
    status = msgspec.structs.replace(stand.publisher.scenes["2"].status(), judged=outside)
    stand.publisher.publish(f"{PREFIX}/bed/2/status", encode(status))
    open_ward(tab, stand)
    line = tab.locator('[data-bed="2"] .judged')
    expect(line).to_have_text(words)
    expect(tab.locator('[data-bed="1"] .judged')).to_be_hidden()
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    open_bed(tab, stand, "2")
    expect(tab.locator("#judged")).to_have_text(words)
    stand.publisher.show(stand.publisher.scenes["2"])


# --- in time, and healing ------------------------------------------------------------------


def test_an_event_is_on_screen_within_a_second(tab: Page, stand: Stand) -> None:
    open_ward(tab, stand)
    taken = []
    for _ in range(5):
        scene = stand.publisher.scenes["1"].later()
        tab.evaluate(
            """() => new Promise(ready => {
              const node = document.querySelector('[data-bed="1"] .recent');
              window.seen = new Promise(seen => new MutationObserver(
                () => seen(Date.now())).observe(node, {childList: true}));
              ready();
            })"""
        )
        begun = time.time()
        stand.publisher.show(scene, page=False)
        taken.append(tab.evaluate("window.seen") / 1000 - begun)
    assert sorted(taken)[2] < 1.0, taken


def test_a_broker_restart_heals_without_reload(
    tab: Page, tmp_path_factory: pytest.TempPathFactory
) -> None:
    scene = Scene("1", 11, 60, time.time() // 30 * 30 - 1800)
    with (
        running_mosquitto(tmp_path_factory.mktemp("broker")) as broker,
        served(settings_for(broker)) as page,
    ):
        publisher = Publisher(broker.port)
        publisher.show_ward((scene,), page=False)
        tab.goto(page.at())
        expect(tab.locator(".card[data-mood]")).to_have_count(1)
        tab.evaluate("window.same = true")
        broker.kill()
        expect(tab.locator("#alerts")).to_contain_text("No contact with the broker since")
        expect(tab.locator("#link")).to_have_attribute("data-state", "bad")
        broker.start()
        publisher.close()
        publisher = Publisher(broker.port)
        ended = replace(scene, state="ended")
        publisher.show_ward((ended,), page=False)
        expect(tab.locator('[data-mood="ended"]')).to_have_count(1)
        expect(tab.locator("#alerts")).to_be_empty()
        assert tab.evaluate("window.same")
        publisher.close()


def test_a_server_restart_heals_without_reload(tab: Page, stand: Stand) -> None:
    page = stand.page
    open_ward(tab, stand)
    tab.evaluate("window.same = true")
    page.stop()
    alerts = tab.locator("#alerts")
    expect(alerts).to_contain_text("No contact with the server", timeout=20_000)
    page.start()
    expect(alerts).to_be_empty(timeout=20_000)
    scene = stand.publisher.scenes["8"].later()
    stand.publisher.show(scene, page=False)
    expect(tab.locator("#link")).to_have_attribute("data-state", "good")
    expect(tab.locator(".card[data-mood]")).to_have_count(8)
    assert tab.evaluate("window.same")


# --- what one can do -------------------------------------------------------------------------


def test_leafing_back_asks_the_daemon_by_the_page_command(tab: Page, stand: Stand) -> None:
    scene = stand.publisher.scenes["2"]
    open_bed(tab, stand, "2")
    expect(tab.locator("#picture[data-epoch='497']")).to_be_visible()
    tab.get_by_role("button", name="Page before").click()
    expect(tab.locator("#picture[data-epoch='496']")).to_be_visible()
    command = msgspec.json.decode(stand.publisher.commands[-1])
    assert (command["command"], command["epoch"], command["session"]) == (
        "page",
        496,
        scene.session,
    )
    assert command["request"]
    expect(tab.locator("#digest")).to_contain_text(scene.picture(496).digest[7:19])
    tab.keyboard.press("ArrowLeft")
    expect(tab.locator("#picture[data-epoch='495']")).to_be_visible()
    tab.locator("#epoch").fill("265")
    expect(tab.locator("#no-image")).to_have_text("No picture was judged: electrode detached.")
    tab.keyboard.press("End")
    expect(tab.locator("#page-name")).to_contain_text("(newest)")
    tab.get_by_role("button", name="First").click()
    expect(tab.locator("#picture[data-epoch='0']")).to_be_visible()
    tab.get_by_role("button", name="Newest").click()
    expect(tab.locator("#picture[data-epoch='497']")).to_be_visible()


def test_buttons_send_commands_with_ids_and_show_the_reply(tab: Page, stand: Stand) -> None:
    scene = stand.publisher.scenes["2"]
    open_bed(tab, stand, "2")
    tab.get_by_role("button", name="Note …").click()
    tab.get_by_role("textbox", name="Note").fill("Turned <b>left</b>")
    tab.keyboard.press("Enter")
    expect(tab.locator("#reply")).to_contain_text("Note: done")
    command = msgspec.json.decode(stand.publisher.commands[-1])
    assert command.pop("request")[:8] in tab.locator("#reply").inner_text()
    assert command == {
        "command": "note", "session": scene.session, "text": "Turned <b>left</b>", "at": None,
    }  # fmt: skip
    tab.get_by_role("button", name="Lights off").click()
    tab.get_by_role("button", name="Cancel").click()
    tab.get_by_role("button", name="End session …").click()
    expect(tab.get_by_role("dialog")).to_contain_text(scene.session)
    tab.get_by_role("dialog").get_by_role("button", name="End session").click()
    expect(tab.locator("#reply")).to_contain_text("End session: done")
    document = [msgspec.json.decode(one)["command"] for one in stand.publisher.commands[-2:]]
    assert document == ["note", "end_session"]


def test_the_newest_stage_is_explained_unasked_and_past_ones_when_asked(
    tab: Page, stand: Stand
) -> None:
    scene = stand.publisher.scenes["2"]
    open_bed(tab, stand, "2")
    box, ask, where = (tab.locator(f"#{name}") for name in ("explanation", "explain", "where"))
    expect(box).to_contain_text(scene.explanation(497).sentence)
    expect(box.locator("li")).to_have_count(6)
    expect(box).to_have_attribute("aria-live", "off")
    expect(ask).to_be_hidden()
    expect(tab.locator("#heat")).to_be_hidden()
    where.click()
    expect(where).to_have_attribute("aria-pressed", "true")
    expect(tab.locator("#heat")).to_be_visible()
    tab.get_by_role("button", name="Page before").click()
    expect(tab.locator("#heat")).to_be_hidden()
    expect(box).to_be_empty()
    expect(where).to_be_hidden()
    ask.click()
    expect(box).to_contain_text(scene.explanation(496).sentence)
    expect(box).to_have_attribute("aria-live", "polite")
    expect(tab.locator("#heat")).to_be_visible()
    asked = [msgspec.json.decode(one) for one in stand.publisher.commands]
    assert [one["epoch"] for one in asked if one["command"] == "explain"] == [496]
    tab.get_by_role("button", name="Newest").click()
    expect(box).to_contain_text(scene.explanation(497).sentence)


def test_the_keyboard_alone_reaches_every_bed(tab: Page, stand: Stand) -> None:
    open_ward(tab, stand)
    for _ in range(12):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.closest('[data-bed]')?.dataset.bed") == "2":
            break
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/bed/2")
    expect(tab.locator("#name")).to_have_text("Bed 2")


# --- for everybody, and for nobody else ----------------------------------------------------


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_axe_finds_nothing_serious(context: BrowserContext, stand: Stand, theme: str) -> None:
    context.add_init_script(f"localStorage.setItem('theme', '{theme}')")
    tab = context.new_page()
    open_ward(tab, stand)
    assert serious(tab) == []
    for bed in ("2", "4", "7"):
        open_bed(tab, stand, bed)
        assert serious(tab) == []
    tab.get_by_role("button", name="Start session …").click()
    assert serious(tab) == []


def test_axe_finds_what_is_planted(tab: Page, stand: Stand) -> None:
    open_bed(tab, stand, "2")
    tab.evaluate("""() => {
        document.getElementById("epoch").removeAttribute("aria-label");
        document.getElementById("first").style.color = "#2a333c";
    }""")
    found = serious(tab)
    assert any("label" in one for one in found)
    assert any("color-contrast" in one for one in found)


@pytest.mark.parametrize("path", ["", "bed/2"])
def test_a_phone_need_not_scroll_sideways(browser: Browser, stand: Stand, path: str) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True)
    tab = context.new_page()
    tab.goto(stand.page.at(path))
    expect(tab.locator(".card[data-mood], #room:not([hidden])").first).to_be_visible()
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    context.close()


def test_no_request_leaves_the_host(context: BrowserContext, stand: Stand) -> None:
    asked: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    tab = context.new_page()
    open_ward(tab, stand)
    open_bed(tab, stand, "2")
    expect(tab.locator("#picture[data-epoch]")).to_be_visible()
    hosts = {urlsplit(url).hostname for url in asked if not url.startswith("blob:")}
    assert hosts == {"127.0.0.1"}
    assert len(asked) > 15


@dataclass(frozen=True)
class Memory:
    """What a page holds, after its garbage was collected."""

    heap: float
    nodes: float


def soak(tab: Page, stand: Stand, publisher: Publisher, length_s: float) -> tuple[Memory, Memory]:
    """Feed 40 beds as fast as they are shown; return the page's memory early and late."""
    tab.goto(stand.page.at())
    scenes = crowd(stand.now, SOAK_BEDS)
    for scene in scenes:
        publisher.show(scene, page=False)
    expect(tab.locator(".card[data-mood]")).to_have_count(SOAK_BEDS)
    devtools = tab.context.new_cdp_session(tab)
    devtools.send("Performance.enable")

    def used() -> Memory:
        devtools.send("HeapProfiler.collectGarbage")
        fields = devtools.send("Performance.getMetrics")["metrics"]
        by_name = {one["name"]: float(one["value"]) for one in fields}
        return Memory(by_name["JSHeapUsedSize"], by_name["Nodes"])

    begun = time.monotonic()
    early: Memory | None = None
    while time.monotonic() < begun + length_s:
        scenes = tuple(scene.later() for scene in scenes)
        for scene in scenes:
            publisher.show(scene, page=False)
        if early is None and time.monotonic() > begun + length_s / 5:
            early = used()
    newest = re.compile(re.escape(hour_and_minute(scenes[-1].now)))
    expect(tab.locator(f'[data-bed="{SOAK_BEDS}"] .ends')).to_contain_text(newest)
    assert early is not None
    return early, used()


def hour_and_minute(at: float) -> str:
    return time.strftime("%H:%M", time.gmtime(at))


@pytest.fixture
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with (
        running_mosquitto(tmp_path_factory.mktemp("crowd")) as broker,
        served(settings_for(broker)) as page,
    ):
        publisher = Publisher(broker.port)
        yield Stand(broker, page, publisher, time.time() // 30 * 30)
        publisher.close()


def test_forty_beds_cost_the_page_no_memory(tab: Page, crowded: Stand) -> None:
    early, late = soak(tab, crowded, crowded.publisher, 15.0)
    assert late.heap < 1.2 * early.heap, (early, late)
    assert late.nodes < 1.2 * early.nodes, (early, late)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_forty_beds_for_ten_minutes_cost_the_page_no_memory(tab: Page, crowded: Stand) -> None:
    early, late = soak(tab, crowded, crowded.publisher, 600.0)
    assert late.heap < 1.2 * early.heap, (early, late)
    assert late.nodes < 1.2 * early.nodes, (early, late)
