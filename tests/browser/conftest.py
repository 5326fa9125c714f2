"""One broker, one Chromium and one ward for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from browser.serving import Served, chromium, served, settings_for
from browser.ward_topics import Publisher, ward
from support.brokers import Mosquitto, running_mosquitto


@dataclass(frozen=True)
class Stand:
    """A ward as a visitor finds it."""

    broker: Mosquitto
    page: Served
    publisher: Publisher
    now: float


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    now = datetime.now(UTC).timestamp() // 30 * 30
    with (
        running_mosquitto(tmp_path_factory.mktemp("broker")) as broker,
        served(settings_for(broker)) as page,
    ):
        publisher = Publisher(broker.port)
        publisher.show_ward(ward(now))
        yield Stand(broker, page, publisher, now)
        publisher.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    made = browser.new_context(viewport={"width": 1600, "height": 1000}, timezone_id="UTC")
    made.set_default_timeout(15_000)
    yield made
    made.close()


@pytest.fixture
def tab(context: BrowserContext) -> Iterator[Page]:
    """A browser page; a fault of its scripts is a fault of the test."""
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    yield page
    assert faults == []
