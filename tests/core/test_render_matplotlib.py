"""Pictures look like those of matplotlib, which drew what public weights were trained on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from hypnocast.bench.matplotlib_drawing import draw_with_matplotlib
from hypnocast.core.pictures.conditioning import condition
from hypnocast.core.pictures.recipe import Recipe, builtin
from hypnocast.core.pictures.render import render
from hypnocast.core.types import Page
from support.needs import need_data
from support.synthetic_pages import real_pages, synthetic_page

PAGES = 50
LIKENESS = 0.96
RECIPES = ["clinical-448x224", "paper-336"]


def ssim(one: NDArray[Any], other: NDArray[Any], **how: int) -> float:
    return float(structural_similarity(one, other, **how))  # type: ignore[no-untyped-call]  # skimage


def likeness(pages: Iterator[Page], recipe: Recipe) -> list[float]:
    """SSIM of each page, the lower of that over the colours and that of the grey picture."""
    found = []
    for page in pages:
        ready = condition(page, recipe, 50)
        ours, theirs = render(ready, recipe), draw_with_matplotlib(ready, recipe)
        colours = ssim(ours, theirs, channel_axis=2)
        grey = ssim(ours.mean(axis=2), theirs.mean(axis=2), data_range=255)
        found.append(min(colours, grey))
    return found


@pytest.mark.parametrize("name", RECIPES)
def test_simulated_pages_look_like_matplotlib_s(name: str) -> None:
    recipe = builtin(name)
    pages = (synthetic_page(recipe, seed, rms=(8, 20, 45)[seed % 3]) for seed in range(PAGES))
    assert min(likeness(pages, recipe)) >= LIKENESS


@pytest.mark.parametrize("name", RECIPES)
def test_real_pages_look_like_matplotlib_s(name: str) -> None:
    recipe = builtin(name)
    pages = real_pages(need_data("ucddb"), recipe, PAGES)
    assert min(likeness(pages, recipe)) >= LIKENESS


def test_the_grid_is_matplotlib_s_to_the_level() -> None:
    recipe = builtin("clinical-448x224")
    empty = condition(Page(0, {}, recipe.context_s, recipe.tail_s), recipe, 50)
    ours, theirs = render(empty, recipe), draw_with_matplotlib(empty, recipe)
    difference = np.abs(ours.astype(int) - theirs.astype(int))
    assert difference[1:].max() <= 1  # in the first row its lines end a little early
