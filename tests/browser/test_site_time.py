"""The ward page shows time by the clocks of the site, and a bed without news is not counted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
from playwright.sync_api import Browser, expect

from browser.conftest import Stand
from browser.serving import served, settings_for


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
