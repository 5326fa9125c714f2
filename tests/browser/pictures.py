"""Draws the documentation's pictures: ``python tests/browser/pictures.py [FOLDER]``.

The ward and its beds, a page by each recipe, a night's report and an answer to ``why``, all from
simulated nights, with mosquitto and Chromium.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(_ROOT / "tests"), str(_ROOT / "daemon")]

import structlog  # noqa: E402
from PIL import Image  # noqa: E402
from playwright.sync_api import Page  # noqa: E402

from browser.grafana_picture import draw_grafana  # noqa: E402
from browser.report_picture import draw_reports  # noqa: E402
from browser.serving import chromium, served, settings_for  # noqa: E402
from browser.ward_topics import PREFIX, Publisher, ward  # noqa: E402
from hypnocast.core.pictures.labels import annotate  # noqa: E402
from hypnocast.core.pictures.recipe import builtin  # noqa: E402
from hypnocast.core.wire.payloads import encode  # noqa: E402
from support.brokers import running_mosquitto  # noqa: E402

PICTURES = _ROOT / "docs" / "pictures"
SPINDLES = 381
"""A page of N2 in the first bed's night."""


def main(folder: Path) -> None:
    """Draw every picture into a folder."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    folder.mkdir(parents=True, exist_ok=True)
    for recipe in ("clinical-448x224", "spectral-448", "paper-336"):
        draw_page(recipe, folder / f"{recipe}.png")
    draw_ward(folder)
    draw_grafana(ward(1_772_402_400.0)[1], folder / "grafana-night.png")
    draw_reports(folder)


def draw_ward(folder: Path) -> None:
    """Draw the ward and a bed as a browser shows them."""
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
        shown = replace(scenes[1], source="simulated")
        publisher.publish(f"{PREFIX}/bed/{shown.bed}/spectrum", encode(shown.spectrum()))
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
            # However long the one before lasted, nothing shown is old.
            for scene in scenes:
                found = replace(scene, source="simulated").status()
                publisher.publish(f"{PREFIX}/bed/{scene.bed}/status", encode(found))
            for second in shown.traces(datetime.now(UTC).timestamp()):
                publisher.publish(
                    f"{PREFIX}/bed/{shown.bed}/traces", encode(second), retained=False
                )
            tab = context.new_page()
            tab.goto(page.at(path))
            _settle(tab, path)
            tab.screenshot(path=folder / f"{name}.png", full_page=whole)
            context.close()
        publisher.close()


def draw_page(recipe: str, path: Path) -> None:
    """Draw one page with spindles by a recipe, labels around it."""
    how, scene = builtin(recipe), ward(0.0)[0]
    picture = scene.picture(SPINDLES, how)
    title = f"{recipe}, simulated, stage {scene.truth(SPINDLES)}"
    Image.fromarray(annotate(picture.rgb, how, picture.channels, title)).save(path, optimize=True)


def _settle(tab: Page, path: str) -> None:
    if path:
        tab.locator("#picture[data-epoch]").wait_for()
        tab.locator("#spectra").wait_for()
        tab.locator("#traces[data-columns]").wait_for()
    else:
        tab.locator(".card[data-mood]").nth(7).wait_for()
    tab.locator("#link[data-state=good]").wait_for()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURES)
