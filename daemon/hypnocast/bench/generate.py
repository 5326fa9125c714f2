"""Group *generate*: what a model of language costs: to open, to read a page, to write a token.

On a machine that does other things wall time means little. Threads of ONNX Runtime sleep while
they wait, so processor time divided by the threads is about what idle cores would need: it
is given beside every figure, and the load in the notes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import numpy as np

from hypnocast.bench.figures import Figure
from hypnocast.bench.machine import resident_mb
from hypnocast.bench.pages import looks_of_a_night, simulated_pictures
from hypnocast.core.types import Look
from hypnocast.errors import ConfigError
from hypnocast.stagers.generative.model import GenerativeModel
from hypnocast.stagers.onnx.engine import Engine, usable_cores
from hypnocast.stagers.packs.manifest import Generative
from hypnocast.stagers.packs.pack import Pack

BEDS = (1, 4)
STEPS = 16


def measure(pack: Pack, *, rounds: int = 3, steps: int = STEPS) -> Iterator[Figure]:
    """Open a pack's model; judge pages, alone and four at once; write tokens behind them."""
    table = pack.manifest.model
    if not isinstance(table, Generative):
        raise ConfigError(
            "this pack reads no prompt and writes no answers",
            where=f"pack {pack.manifest.name}",
            remedy="Name a generative one by --pack.",
        )
    before, began = resident_mb(), time.perf_counter()
    threads = min(4, usable_cores())
    model = GenerativeModel(pack, table, Engine("auto", threads))
    yield Figure("generate", "opened", "s", [time.perf_counter() - began])
    yield Figure("generate", "memory when open", "MB", [resident_mb() - before])
    pictures = simulated_pictures(pack.recipe, 8)
    for beds in BEDS:
        nights = looks_of_a_night(pack, pictures, beds, rounds + 1)
        pages, tokens = [], []
        for turn, looks in enumerate(nights):
            page = _timed(lambda looks=looks: model.read(looks), threads)  # type: ignore[misc]  # bound for this turn
            if turn:  # the first one allocates memory
                pages.append(page)
        tokens = _steps(model, looks, steps, threads)
        yield from _both(f"a page, {beds} at once", "s/page", pages, 1 / beds)
        yield from _both(f"a token, {beds} at once", "ms", tokens, 1e3)
        best = min(wall for wall, _ in tokens)
        yield Figure("generate", f"tokens, {beds} at once", "1/s", [beds / best])
    yield Figure("generate", "memory after all", "MB", [resident_mb() - before])


_Times = tuple[float, float]
"""Wall time, and processor time for each thread."""


def _timed(act: Callable[[], object], threads: int) -> _Times:
    wall, cpu = time.perf_counter(), time.process_time()
    act()
    return time.perf_counter() - wall, (time.process_time() - cpu) / threads


def _steps(model: GenerativeModel, looks: list[Look], steps: int, threads: int) -> list[_Times]:
    """Write tokens behind the prompts of some beds, the likeliest each time."""
    decoder = model.decoder
    opened = model.open_prompts(looks, ())
    logits, memory, place = opened.logits[:, -1], opened.memory, model.next_position

    def step() -> None:
        nonlocal logits, memory, place
        tokens = logits.argmax(-1).astype(np.int64)[:, None]
        places = decoder.positions_from(place, 1)
        behind, memory = decoder.read(decoder.embed(tokens), places, memory)
        logits, place = behind[:, -1], place + 1

    return [_timed(step, threads) for _ in range(steps)]


def _both(name: str, unit: str, times: list[_Times], factor: float) -> Iterator[Figure]:
    note = f"load {os.getloadavg()[0]:.1f} on {usable_cores()} cores"
    yield Figure("generate", name, unit, [wall * factor for wall, _ in times], note=note)
    cpu = [cpu * factor for _, cpu in times]
    yield Figure("generate", f"{name}: processor time a thread", unit, cpu)
