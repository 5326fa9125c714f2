"""Pages to measure with: what a simulated sleeper's pages hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from hypnocast.core.pictures.recipe import Recipe
from hypnocast.core.pictures.render import draw_page
from hypnocast.core.types import Look, Page, Picture
from hypnocast.nights.one_page import pages_from
from hypnocast.simulate import SimulatedSource
from hypnocast.stagers.packs.pack import Pack

MAINS_HZ = 50


def simulated_pages(recipe: Recipe, count: int, seed: int = 1) -> list[Page]:
    """Return whole pages of 6 channels at 256 Hz."""
    source = SimulatedSource(1, seed=seed, pages=count + 4, truth=False, chunk_s=5.0)
    pages = pages_from((arrival for _, arrival in source), recipe)
    return list(islice(pages, 2, 2 + count))


def simulated_pictures(recipe: Recipe, count: int, seed: int = 1) -> list[Picture]:
    """Return pages, drawn."""
    return [draw_page(page, recipe, MAINS_HZ) for page in simulated_pages(recipe, count, seed)]


def looks_of_a_night(
    pack: Pack, pictures: Sequence[Picture], batch: int, rounds: int
) -> Iterator[list[Look]]:
    """Give looks as a night has them: each at a new page, with those before it as context."""
    context = pack.manifest.context
    for turn in range(rounds):
        looks = []
        for bed in range(batch):
            # Named by bed and page: no two are the same picture to a model that remembers.
            places: list[Picture | None] = [
                replace(pictures[(place + bed) % len(pictures)], digest=f"{bed} {place}")
                if place >= 0
                else None
                for place in range(turn - context.before, turn + context.after + 1)
            ]
            looks.append(Look(tuple(places), context.before))
        yield looks
