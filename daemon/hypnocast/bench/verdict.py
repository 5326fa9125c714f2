"""Group *verdict*: what the stager costs, beside the bare ``session.run`` calls within it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from hypnocast.bench.figures import Figure
from hypnocast.bench.pages import looks_of_a_night, simulated_pictures
from hypnocast.stagers.onnx.engine import Engine, Graph, Provider
from hypnocast.stagers.onnx.local import LocalStager
from hypnocast.stagers.packs.pack import Pack

BATCHES = (1, 4, 16)
_WARM = 2


class _Floor:
    """Adds up the time spent within ONNX Runtime, and counts calls."""

    def __init__(self) -> None:
        self.spent = 0.0
        self.runs: dict[str, int] = {}


class _TimedSession:
    def __init__(self, session: Any, name: str, floor: _Floor) -> None:
        self._session = session
        self._name = name
        self._floor = floor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, names: Collection[str] | None, feeds: Mapping[str, Any]) -> Any:
        began = time.perf_counter()
        try:
            return self._session.run(names, feeds)
        finally:
            self._note(began)

    def run_with_iobinding(self, binding: Any) -> None:
        began = time.perf_counter()
        try:
            self._session.run_with_iobinding(binding)
        finally:
            self._note(began)

    def _note(self, began: float) -> None:
        self._floor.spent += time.perf_counter() - began
        self._floor.runs[self._name] = self._floor.runs.get(self._name, 0) + 1


def _timed_engine(floor: _Floor) -> Callable[[Provider, int | None], Engine]:
    class TimedEngine(Engine):
        def open(self, pack: Pack, name: str) -> Graph:
            plain = self.session(pack.path(name), pack.read(name))
            device = None if self.provider == "cpu" else "cuda"
            return Graph(_TimedSession(plain, name, floor), name, device=device)

    return TimedEngine


def measure(pack: Pack, *, rounds: int = 24) -> Iterator[Figure]:
    """Judge pages one by one and in batches, every picture new to the model but its context."""
    floor = _Floor()
    stager = LocalStager(pack, make_engine=_timed_engine(floor))
    pictures = simulated_pictures(pack.recipe, 48)
    group = f"on {stager.provider}"
    for batch in BATCHES:
        whole, bare = [], []
        for turn, looks in enumerate(looks_of_a_night(pack, pictures, batch, rounds + _WARM)):
            floor.spent = 0.0
            began = time.perf_counter()
            stager.judge(looks)
            took = time.perf_counter() - began
            if turn >= _WARM:
                whole.append(1e3 * took / batch)
                bare.append(1e3 * floor.spent / batch)
        own = [all_of - run for all_of, run in zip(whole, bare, strict=True)]
        yield Figure("verdict", f"{group}, batch {batch}", "ms/page", whole)
        yield Figure("verdict", f"{group}, batch {batch}: session.run alone", "ms/page", bare)
        yield Figure("verdict", f"{group}, batch {batch}: the stager's own", "ms/page", own)
    stager.close()
