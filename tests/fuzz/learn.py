"""Fuzzing that learns: an input that takes the parser along a new way is kept and changed further.

``python -m fuzz.learn 600 EDF`` (with ``tests`` and ``daemon`` on the path) runs so many seconds;
``--keep`` writes what it learnt to ``tests/fuzz/corpus``, smallest inputs first. The ways are the
pairs of lines that follow one another in the daemon's own code.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import Any

from fuzz.mutate import mutated
from fuzz.run import Fed, limited, one
from fuzz.targets import FuzzTarget, targets

CORPUS = Path(__file__).parent / "corpus"
LARGEST = 16 * 1024
"""Larger inputs are not kept: the corpus lies in the repository."""
MOST_KEPT = 40

Way = tuple[str, int, int]


@dataclass
class Learnt:
    """What was learnt of one parser."""

    fed: Fed
    ways: set[Way] = field(default_factory=set)
    kept: list[bytes] = field(default_factory=list)
    worked_s: float = 0.0
    """Processor time."""


def corpus(name: str) -> list[bytes]:
    """Return the kept inputs of a parser."""
    return [path.read_bytes() for path in sorted((CORPUS / _folder(name)).glob("*.bin"))]


def learn(target: FuzzTarget, seconds: float, seed: int = 0) -> Learnt:
    """Feed changed inputs for so long; keep those that take a new way."""
    chance = random.Random(f"{target.name} {seed}")
    learnt = Learnt(Fed(target.name))
    pool = [*target.seeds, *corpus(target.name)]
    with limited():
        for data in pool:
            learnt.ways |= ways_of(target, data, learnt.fed)
        until, began = time.monotonic() + seconds, time.process_time()
        while time.monotonic() < until:
            data = mutated(tuple(pool), chance)
            new = ways_of(target, data, learnt.fed) - learnt.ways
            if new:
                learnt.ways |= new
                pool.append(data)
                if len(data) <= LARGEST:
                    learnt.kept.append(data)
    learnt.worked_s = time.process_time() - began
    return learnt


def ways_of(target: FuzzTarget, data: bytes, fed: Fed) -> set[Way]:
    """Feed one input and return which ways it took."""
    ways: set[Way] = set()

    def enter(frame: FrameType, _event: str, _argument: Any) -> Any:
        name = frame.f_code.co_filename
        if "/hypnocast/" not in name:
            return None
        before = frame.f_lineno

        def line(inner: FrameType, event: str, _: Any) -> Any:
            nonlocal before
            if event == "line":
                ways.add((name, before, inner.f_lineno))
                before = inner.f_lineno
            return line

        return line

    sys.settrace(enter)
    try:
        one(target, data, fed)
    finally:
        sys.settrace(None)
    return ways


def _folder(name: str) -> str:
    return name.replace(" ", "-").replace(".", "-").lower()


def keep(learnt: Learnt) -> None:
    """Write what was learnt, the smallest inputs first."""
    folder = CORPUS / _folder(learnt.fed.name)
    folder.mkdir(parents=True, exist_ok=True)
    for data in sorted(learnt.kept, key=len)[:MOST_KEPT]:
        (folder / f"{sha256(data).hexdigest()[:16]}.bin").write_bytes(data)


def _lines(seconds: float, only: str, *, keeping: bool) -> Iterator[tuple[str, int]]:
    with tempfile.TemporaryDirectory() as folder:
        for target in targets(Path(folder)):
            if only and only != target.name:
                continue
            learnt = learn(target, seconds)
            if keeping:
                keep(learnt)
            fed = learnt.fed
            shown = (fed.name, fed.inputs, fed.read, fed.refused, len(fed.failures))
            learned = (len(learnt.ways), len(learnt.kept), f"{learnt.worked_s:.0f} s")
            line = " | ".join(map(str, (*shown, *learned)))
            for data, fault in fed.failures[:3]:
                sys.stderr.write(f"{fed.name}: {data[:200]!r}\n{fault}\n")
            yield f"| {line} |\n", len(fed.failures)


def main() -> int:
    """Print what became of the inputs of each parser."""
    words = [word for word in sys.argv[1:] if word != "--keep"]
    seconds = float(words[0]) if words else 600.0
    sys.stdout.write(
        "| parser | inputs | read | refused | failed | ways | kept | processor time |\n"
    )
    sys.stdout.write("|---|---|---|---|---|---|---|---|\n")
    bad = 0
    for line, failures in _lines(seconds, " ".join(words[1:]), keeping="--keep" in sys.argv):
        sys.stdout.write(line)
        sys.stdout.flush()
        bad += failures
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
