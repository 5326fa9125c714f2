"""Group *picture*: from a page's samples to its pixels, beside matplotlib drawing the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from importlib import util

import numpy as np

from hypnocast.bench.figures import Figure, Target
from hypnocast.bench.matplotlib_drawing import draw_with_matplotlib, save_with_matplotlib
from hypnocast.bench.pages import MAINS_HZ, simulated_pages
from hypnocast.core.pictures.conditioning import condition
from hypnocast.core.pictures.recipe import builtin, builtin_names
from hypnocast.core.pictures.render import picture_digest, render
from hypnocast.core.types import Pixels

PAGES = 12


def measure() -> Iterator[Figure]:
    """Measure every built-in recipe; ratios are of neighbours in time."""
    for name in builtin_names():
        yield from _measure(name)


def lacking() -> str | None:
    """Return what of this group cannot be measured here."""
    if util.find_spec("matplotlib") is None:
        return "picture: no ratio to matplotlib, which is not installed"
    return None


def _measure(name: str) -> Iterator[Figure]:
    recipe = builtin(name)
    pages = simulated_pages(recipe, PAGES)
    ready = [condition(page, recipe, MAINS_HZ) for page in pages]
    drawn = [render(page, recipe) for page in ready]
    conditioning = samples_ms(lambda n: condition(pages[n % PAGES], recipe, MAINS_HZ), 60)
    yield Figure("picture", f"{name} conditioning", "ms", conditioning)
    rendering = samples_ms(lambda n: render(ready[n % PAGES], recipe), 240)
    yield Figure("picture", f"{name} drawing", "ms", rendering, (Target("at most", 2.0),))
    digest = samples_ms(lambda n: picture_digest(drawn[n % PAGES]), 60)
    yield Figure("picture", f"{name} digest", "ms", digest)
    if lacking() is not None:
        return
    alike = _alike(drawn, [draw_with_matplotlib(page, recipe) for page in ready])
    whole = recipe.spectrogram is None
    for name_of_peer, peer, target in (
        ("matplotlib's canvas", draw_with_matplotlib, None),
        ("matplotlib's savefig", save_with_matplotlib, Target("at least", 25.0)),
    ):
        ratios, theirs = [], []
        for n in range(30):
            ours = samples_ms(lambda m: render(ready[m % PAGES], recipe), 6, n)
            took = samples_ms(lambda m, peer=peer: peer(ready[m % PAGES], recipe), 1, n)  # type: ignore[misc]  # a default binds it now
            theirs += took
            ratios.append(took[0] / float(np.median(ours)))
        yield Figure("picture", f"{name} by {name_of_peer}", "ms", theirs)
        if whole:
            targets = (target,) if target is not None else ()
            yield Figure("picture", f"{name_of_peer} / {name}", "times", ratios, targets, alike)


def samples_ms(work: Callable[[int], object], count: int, first: int = 0) -> list[float]:
    """Return how many milliseconds each turn of some work lasted."""
    took = []
    for turn in range(first, first + count):
        began = time.perf_counter()
        work(turn)
        took.append(1e3 * (time.perf_counter() - began))
    return took


def _alike(ours: list[Pixels], theirs: list[Pixels]) -> str:
    """Return how like the two drawings are, traces only."""
    if util.find_spec("skimage") is None:
        return "likeness not measured: scikit-image is not installed"
    from skimage.metrics import structural_similarity

    values = [
        structural_similarity(a[: b.shape[0]], b, channel_axis=2)  # type: ignore[no-untyped-call]  # skimage
        for a, b in zip(ours, theirs, strict=True)
    ]
    return f"SSIM of the two median {np.median(values):.3f}, lowest {min(values):.3f}"
