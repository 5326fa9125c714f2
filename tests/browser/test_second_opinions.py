"""A bed's page shows both hypnograms, and where the two packs part."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from browser.conftest import Stand
from browser.test_ward_page import open_bed, serious
from browser.ward_topics import PREFIX
from hypnocast.core.wire.payloads import encode


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
