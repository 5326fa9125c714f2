"""Feeds bad inputs to a parser and counts what becomes of them.

``python -m fuzz.run 20000`` (with ``tests`` and ``daemon`` on the path) prints the table.
"""

from __future__ import annotations

import logging
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import structlog

from fuzz.mutate import mutated
from fuzz.targets import FuzzTarget, targets
from hypnocast.errors import HypnocastError

HANGS_AFTER_S = 5.0
"""Of processor time."""
SEED = 20260308


@dataclass
class Fed:
    """What became of the inputs."""

    name: str
    inputs: int = 0
    read: int = 0
    refused: int = 0
    slowest_s: float = 0.0
    failures: list[tuple[bytes, str]] = field(default_factory=list)
    """Inputs that raised what no parser may raise, or did not end."""


class _Hangs(BaseException):
    """An input has not been read in time; no parser may catch this."""


def _alarm(number: int, frame: FrameType | None) -> None:
    raise _Hangs(f"not read after {HANGS_AFTER_S:g} s (signal {number}, {frame})")


def feed(target: FuzzTarget, inputs: int, seed: int = SEED) -> Fed:
    """Feed so many bad inputs to one parser."""
    chance = random.Random(f"{target.name} {seed}")
    fed = Fed(target.name)
    for seed_input in target.seeds:
        target.read(seed_input)  # a good input must be read, or the bad ones test nothing
    with limited():
        for _ in range(inputs):
            one(target, mutated((*target.seeds, *target.spoiled), chance), fed)
    return fed


@contextmanager
def limited() -> Iterator[None]:
    """Feed inputs that take no longer than they may, in silence.

    Counted is processor time: on a busy machine an input may wait long for its turn.
    """
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    before = signal.signal(signal.SIGPROF, _alarm)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, before)
        structlog.reset_defaults()


def one(target: FuzzTarget, data: bytes, fed: Fed) -> None:
    """Feed one input, and count what becomes of it."""
    begun = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, HANGS_AFTER_S)
    try:
        target.read(data)
        fed.read += 1
    except HypnocastError:
        fed.refused += 1
    except (Exception, _Hangs) as error:  # noqa: BLE001 - that is what is looked for
        fed.failures.append((data, "".join(traceback.format_exception(error)[-3:])))
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
    fed.inputs += 1
    fed.slowest_s = max(fed.slowest_s, time.process_time() - begun)


def main() -> int:
    """Print what became of so many inputs for each parser."""
    inputs = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    only = sys.argv[2] if len(sys.argv) > 2 else ""
    bad = 0
    sys.stdout.write(
        "| parser | inputs | read | refused | failed | slowest |\n|---|---|---|---|---|---|\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        for target in targets(Path(folder)):
            if only and only != target.name:
                continue
            fed = feed(target, inputs)
            bad += len(fed.failures)
            sys.stdout.write(
                f"| {fed.name} | {fed.inputs} | {fed.read} | {fed.refused} | {len(fed.failures)} "
                f"| {fed.slowest_s * 1000:.0f} ms |\n"
            )
            for data, fault in fed.failures[:3]:
                sys.stderr.write(f"{fed.name}: {data[:200]!r}\n{fault}\n")
            sys.stdout.flush()
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
