"""What the local stager costs beside the graphs it runs.

Run as ``python tests/bench/bench_stager.py PACK`` from the project's folder. Times
``LocalStager.judge`` on whole pages, and within it the time spent in ONNX Runtime; the rest is
the stager's own. Prints JSON with every raw sample.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hypnocast.core.types import Look
from hypnocast.stagers.engine import Engine, Graph
from hypnocast.stagers.local import LocalStager
from hypnocast.stagers.pack import load_pack
from packs import tiny_picture


class TimedSession:
    """A session that adds up the time spent in it."""

    spent = 0.0

    def __init__(self, session: Any) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, names: Collection[str] | None, feeds: Mapping[str, Any]) -> Any:
        begun = time.perf_counter()
        try:
            return self._session.run(names, feeds)
        finally:
            TimedSession.spent += time.perf_counter() - begun


class TimedEngine(Engine):
    """The engine, its sessions timed."""

    def open(self, path: Path) -> Graph:
        graph = super().open(path)
        return Graph(TimedSession(graph._session), path.name)


def measure(pack_folder: str, beds: int, rounds: int = 200) -> dict[str, Any]:
    """Judge ``rounds`` batches and split the time of each."""
    pack = load_pack(pack_folder)
    stager = LocalStager(pack, make_engine=lambda *_: TimedEngine("cpu", 1))
    recipe, context = pack.recipe.name, pack.manifest.context
    before, after = (None,) * context.before, (None,) * context.after
    own, whole = [], []
    for turn in range(rounds + 20):
        looks = [
            Look((*before, tiny_picture(turn, turn * 16 + bed, recipe), *after), context.before)
            for bed in range(beds)
        ]
        TimedSession.spent = 0.0
        begun = time.perf_counter()
        stager.judge(looks)
        took = time.perf_counter() - begun
        if turn >= 20:
            whole.append(1000 * took / beds)
            own.append(1000 * (took - TimedSession.spent) / beds)
    return {
        "pack": f"{pack.manifest.name} {pack.manifest.version}",
        "beds": beds,
        "own_ms_per_page": {"median": float(np.median(own)), "p99": float(np.quantile(own, 0.99))},
        "whole_ms_per_page": {"median": float(np.median(whole))},
        "raw_own_ms": own,
        "raw_whole_ms": whole,
    }


if __name__ == "__main__":
    print(json.dumps([measure(sys.argv[1], beds) for beds in (1, 8)]))
