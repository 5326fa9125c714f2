"""Pages to measure with: what a simulated sleeper's headbox gives."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from hypnocast.app.bedside import SETTLE_S
from hypnocast.app.simulate import SimulatedSource
from hypnocast.core.headbox import Headbox, PageNeeds
from hypnocast.core.montage import choose_montage
from hypnocast.core.quality import assess
from hypnocast.core.recipe import Recipe
from hypnocast.core.render import draw
from hypnocast.core.types import Chunk, ClockReading, Page, Picture, StreamLost, StreamOpened

MAINS_HZ = 50


def simulated_pages(recipe: Recipe, count: int, seed: int = 1) -> list[Page]:
    """Return whole pages of 6 channels at 256 Hz."""
    return list(islice(_pages(recipe, count + 3, seed), 2, 2 + count))


def simulated_pictures(recipe: Recipe, count: int, seed: int = 1) -> list[Picture]:
    """Return pages, drawn."""
    return [
        draw(
            page,
            recipe,
            MAINS_HZ,
            assess(page, recipe.roles, MAINS_HZ),
            {role: signal.derivation.name for role, signal in page.signals.items()},
        )
        for page in simulated_pages(recipe, count, seed)
    ]


def _pages(recipe: Recipe, count: int, seed: int) -> Iterator[Page]:
    source = SimulatedSource(1, seed=seed, pages=count + 1, truth=False, chunk_s=5.0)
    needs = PageNeeds(recipe.roles, recipe.context_s, recipe.tail_s)
    headbox = Headbox(needs, choose=choose_montage)
    for _, arrival in source:
        match arrival:
            case Chunk():
                headbox.feed(arrival)
            case ClockReading():
                headbox.read_clock(arrival)
            case StreamOpened():
                headbox.open(arrival)
            case StreamLost():
                headbox.lose(arrival)
        now, since = headbox.watermark, headbox.all_since
        if now is None:
            continue
        if headbox.anchor is None and since is not None and now >= since + SETTLE_S:
            headbox.begin(since)
        yield from headbox.close_due(now)
