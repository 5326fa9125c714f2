"""Draws the ward page's pictures for the documentation: ``python tests/browser/pictures.py``."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(_ROOT / "tests"), str(_ROOT / "daemon")]

from playwright.sync_api import Page  # noqa: E402

from brokers import running_mosquitto  # noqa: E402
from browser.report_picture import draw_reports  # noqa: E402
from browser.serving import chromium, served, settings_for  # noqa: E402
from browser.ward_topics import Publisher, ward  # noqa: E402

PICTURES = _ROOT / "docs" / "pictures"


def main(folder: Path) -> None:
    """Draw every picture into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as scratch,
        running_mosquitto(Path(scratch)) as broker,
        served(settings_for(broker)) as page,
        chromium() as browser,
    ):
        now = datetime.now(UTC).timestamp()
        publisher = Publisher(broker.port)
        scenes = ward(now // 30 * 30)
        publisher.show_ward(tuple(replace(scene, source="simulated") for scene in scenes))
        shots = (
            ("ward", "", 1920, 1080, "dark", False),
            ("ward-light", "", 1920, 1080, "light", False),
            ("bed", "bed/2", 1600, 1000, "dark", True),
            ("bed-light", "bed/2", 1600, 1000, "light", True),
            ("ward-390", "", 390, 844, "dark", False),
            ("bed-390", "bed/2", 390, 844, "dark", True),
        )
        for name, path, width, height, theme, whole in shots:
            context = browser.new_context(
                viewport={"width": width, "height": height},
                device_scale_factor=2 if width < 500 else 1,
                timezone_id="UTC",
            )
            context.add_init_script(f"localStorage.setItem('theme', '{theme}')")
            tab = context.new_page()
            tab.goto(page.address + path)
            _settle(tab, path)
            tab.screenshot(path=folder / f"{name}.png", full_page=whole)
            context.close()
        publisher.close()
    draw_reports(folder)


def _settle(tab: Page, path: str) -> None:
    if path:
        tab.locator("#picture[data-epoch]").wait_for()
    else:
        tab.locator(".card[data-mood]").nth(7).wait_for()
    tab.locator("#link[data-state=good]").wait_for()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURES)
