"""A real mosquitto, a real server of the ward page and a real Chromium, for tests and pictures."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from playwright.sync_api import Browser, sync_playwright

from hypnocast.dashboard.server import serve
from hypnocast.dashboard.settings import DashboardSettings
from hypnocast.ports.mqtt.settings import BrokerSettings
from support.brokers import Mosquitto, free_port
from support.needs import need_program

CHROMIUM_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-domain-reliability",
    "--force-color-profile=srgb",
    "--hide-scrollbars",
)


def until(holds: Callable[[], bool], what: str, deadline_s: float = 15.0) -> None:
    """Wait until something holds; fail with what did not."""
    end = time.monotonic() + deadline_s
    while not holds():
        if time.monotonic() > end:
            msg = f"not within {deadline_s:g} s: {what}"
            raise AssertionError(msg)
        time.sleep(0.01)


class Served:
    """The ward page, served from an event loop of its own; can be stopped and started again."""

    def __init__(self, settings: DashboardSettings) -> None:
        self.settings = settings
        self.address = ""
        self._token = ""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._thread: threading.Thread | None = None
        self._fault: BaseException | None = None

    def start(self) -> None:
        listening = threading.Event()

        def run() -> None:
            try:
                asyncio.run(self._serve(listening))
            except Exception as error:  # noqa: BLE001 - handed to the test, which raises it
                self._fault = error
            finally:
                listening.set()

        self._thread = threading.Thread(target=run, name="ward page")
        self._thread.start()
        assert listening.wait(15)
        if self._fault is not None:
            raise self._fault

    def at(self, path: str = "") -> str:
        """Return the address of a page as it is printed at the start: with the token, if any."""
        return f"{self.address}{path}?{self._token}"

    def stop(self) -> None:
        if self._loop is not None and self._task is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._task.cancel)
            self._thread.join(15)
            assert not self._thread.is_alive()
            self._loop = None

    async def _serve(self, listening: threading.Event) -> None:
        def started(address: str) -> None:
            self.address, _, self._token = address.partition("?")
            listening.set()

        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(serve(self.settings, started=started))
        with suppress(asyncio.CancelledError):
            await self._task


@contextmanager
def served(settings: DashboardSettings) -> Iterator[Served]:
    """The ward page for a while."""
    page = Served(settings)
    page.start()
    try:
        yield page
    finally:
        page.stop()


def settings_for(broker: Mosquitto, **others: object) -> DashboardSettings:
    """Settings for a test's broker, on a free port."""
    given: dict[str, object] = {"port": free_port(), **others}
    return DashboardSettings(broker=BrokerSettings(port=broker.port), **given)  # type: ignore[arg-type] # checked by the tests' own use


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, headless, that asks nobody outside for anything."""
    program = need_program("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=[*CHROMIUM_FLAGS])
        try:
            yield browser
        finally:
            browser.close()
