"""The night's spectrum on a bed's page: where it is drawn, in which colours, and its values."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
from playwright.sync_api import Page, expect

from browser.conftest import Stand
from browser.serving import until
from browser.test_ward_page import open_bed, serious
from browser.ward_topics import PREFIX, instant
from hypnocast.core.night.ledger import NightTitle
from hypnocast.core.night.spectra import NightSpectra
from hypnocast.core.pictures.page_spectrum import BINS, levels_of
from hypnocast.core.types import PageSpectrum
from hypnocast.core.wire.payloads import encode
from hypnocast.core.wire.spectra import NightSpectrum

BED = "2"
TOPIC = f"{PREFIX}/bed/{BED}/spectrum"
SPINDLES = 23
"""The bin around 12 Hz, the brightest; all others are dark."""


def made_up(stand: Stand) -> NightSpectrum:
    """Each page has 12 Hz at 20 dB and all else at −10; delta 1000 µV², from page 100 on 100."""
    scene = stand.publisher.scenes[BED]
    night = NightSpectra(NightTitle("lab", BED, scene.session, None, "live", instant(scene.start)))
    levels = np.full(BINS, 0.1)
    levels[SPINDLES] = 100.0
    for epoch in range(scene.pages):
        bands = np.array([1000.0 if epoch < 100 else 100.0, 40.0, 16.0, 10.0, 6.3])
        one = PageSpectrum("F4-M1", levels_of(levels), levels_of(bands))
        night.add(epoch, one if scene.reason(epoch) is None else None)
    return night.message(at=instant(scene.now))


@pytest.fixture
def shown(tab: Page, stand: Stand) -> Iterator[NightSpectrum]:
    """A bed's page that was opened after the spectrum was published."""
    message = made_up(stand)
    stand.publisher.publish(TOPIC, encode(message))
    open_bed(tab, stand, BED)
    expect(tab.locator("#spectra")).to_be_visible()
    yield message
    stand.publisher.publish(TOPIC, b"")


def colour(tab: Page, epoch: float, hertz: float) -> tuple[int, int, int]:
    """The colour at a page and a frequency, by the axes that a reader sees."""
    pages = made_pages(tab)
    found: list[int] = tab.evaluate(
        """([across, up]) => {
          const canvas = document.querySelector("#spectrogram canvas");
          const box = document.querySelector("#spectrogram .u-over").getBoundingClientRect();
          const own = canvas.getBoundingClientRect();
          const by = canvas.width / own.width;
          const x = (box.left - own.left + across * box.width) * by;
          const y = (box.top - own.top + (1 - up) * box.height) * by;
          return [...canvas.getContext("2d").getImageData(Math.round(x), Math.round(y), 1, 1).data];
        }""",
        [(epoch + 0.5) / pages, hertz / 30.25],
    )
    return found[0], found[1], found[2]


def made_pages(tab: Page) -> int:
    return int(tab.locator("#epoch").get_attribute("max") or 0) + 1


def is_yellow(rgb: tuple[int, int, int]) -> bool:
    return rgb[0] > 230 and rgb[1] > 210 and rgb[2] < 80


def is_violet(rgb: tuple[int, int, int]) -> bool:
    return rgb[0] < 90 and rgb[1] < 40 and 60 < rgb[2] < 130


@pytest.mark.usefixtures("shown")
def test_power_is_drawn_where_its_page_and_frequency_are_and_gaps_stay_gaps(tab: Page) -> None:
    until(lambda: is_yellow(colour(tab, 100, 12.0)), "12 Hz is bright")
    for epoch in (3, 200, 400):
        assert is_yellow(colour(tab, epoch, 12.0))
        for hertz in (2.0, 11.4, 12.6, 28.0):
            assert is_violet(colour(tab, epoch, hertz))
    gap = [colour(tab, 267, 0.5 * step) for step in range(1, 59)]
    assert not any(is_violet(rgb) or is_yellow(rgb) for rgb in gap)
    expect(tab.locator("#spectra-title")).to_have_text("Spectrum of F4-M1")
    expect(tab.locator("#scale-low")).to_have_text("−10 dB")
    expect(tab.locator("#band-legend")).to_contain_text("σ 12–16 Hz")
    expect(tab.locator("#spectrogram")).to_have_attribute(
        "aria-label", re.compile("Spectrogram of F4-M1, 0.5 to 30 Hz")
    )
    assert serious(tab) == []
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.usefixtures("shown")
def test_one_cursor_goes_through_all_charts_and_its_page_is_said(tab: Page) -> None:
    words = tab.locator("#spectrum-words")
    expect(words).to_contain_text("δ 100 · θ 40 · α 16 · σ 10 · β 6.3 µV²")  # the newest page
    over = tab.locator("#hypnogram .u-over")
    box = over.bounding_box()
    assert box is not None
    at = (50 + 0.5) / made_pages(tab) * box["width"]
    over.hover(position={"x": at, "y": 20})
    expect(words).to_contain_text("δ 1000 · θ 40")
    moved: list[Any] = tab.evaluate(
        """() => ["hypnogram", "density", "spectrogram", "bands"].map((id) =>
          document.querySelector(`#${id} .u-cursor-x`).getBoundingClientRect().left)"""
    )
    assert max(moved) - min(moved) < 1.5
    tab.locator("#spectrogram .u-over").click(position={"x": at, "y": 20})
    expect(tab.locator("#page-name")).to_contain_text("page 50")
    tab.locator("h1").hover()
    expect(words).to_contain_text("δ 1000 · θ 40")  # the chosen page's


@pytest.mark.usefixtures("shown")
def test_a_page_without_a_spectrum_says_so(tab: Page) -> None:
    over = tab.locator("#bands .u-over")
    box = over.bounding_box()
    assert box is not None
    over.hover(position={"x": 267.5 / made_pages(tab) * box["width"], "y": 20})
    expect(tab.locator("#spectrum-words")).to_contain_text("no spectrum of this page")


def test_another_nights_spectrum_is_not_shown_and_one_that_breaks_the_contract_is_named(
    tab: Page, stand: Stand, shown: NightSpectrum
) -> None:
    other = msgspec.structs.replace(shown, session="another-night")
    stand.publisher.publish(TOPIC, encode(other))
    expect(tab.locator("#spectra")).to_be_hidden()
    stand.publisher.publish(TOPIC, encode(shown))
    expect(tab.locator("#spectra")).to_be_visible()
    short = msgspec.structs.replace(shown, levels=shown.levels[1:])
    stand.publisher.publish(TOPIC, encode(short))
    expect(tab.locator("#alerts")).to_contain_text("the spectrum has another length than it says")
    expect(tab.locator("#spectra")).to_be_visible()
    stand.publisher.publish(TOPIC, b"")
    expect(tab.locator("#spectra")).to_be_hidden()
