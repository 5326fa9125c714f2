"""How long a picture takes, and how often matplotlib's time that is.

Run as ``python tests/bench/bench_picture.py`` from the project's folder, on an idle machine.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hypnocast.core.condition import condition
from hypnocast.core.recipe import builtin, builtin_names
from hypnocast.core.render import picture_digest, render
from matplotlib_pages import draw_with_matplotlib, save_with_matplotlib
from synthetic_pages import synthetic_page


def median_ms(work: Callable[[int], object], count: int) -> float:
    """Median time of ``work(0)``, ``work(1)`` … in milliseconds."""
    times = []
    for turn in range(count):
        start = time.perf_counter()
        work(turn)
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times))


def measure(name: str) -> str:
    """Measure one recipe over a dozen pages, a table row."""
    recipe = builtin(name)
    pages = [synthetic_page(recipe, seed, rms=(10, 20, 40)[seed % 3]) for seed in range(12)]
    ready = [condition(page, recipe, 50) for page in pages]
    pixels = render(ready[0], recipe)
    count = len(pages)
    conditioning = median_ms(lambda n: condition(pages[n % count], recipe, 50), 36)
    drawing = median_ms(lambda n: render(ready[n % count], recipe), 240)
    digest = median_ms(lambda _: picture_digest(pixels), 60)
    other = median_ms(lambda n: draw_with_matplotlib(ready[n % count], recipe), 48)
    saving = median_ms(lambda n: save_with_matplotlib(ready[n % count], recipe), 36)
    return (
        f"{name:18} {conditioning:7.2f} ms {drawing:5.2f} ms {digest:5.2f} ms "
        f"{other:7.2f} ms {other / drawing:5.1f} {saving:8.2f} ms {saving / drawing:5.1f}"
    )


def main() -> None:
    """Print a table; matplotlib's two ways are the bare canvas, and savefig as scripts do it."""
    print(
        f"{'recipe':18} {'condition':>10} {'render':>8} {'digest':>8} "
        f"{'mpl canvas':>10} ratio {'mpl savefig':>11} ratio"
    )
    for name in builtin_names():
        print(measure(name))


if __name__ == "__main__":
    main()
