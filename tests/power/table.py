"""The long form: ``python -m power.table`` (from ``tests/``, with ``PYTHONPATH=.:../daemon``).

Prints how many crash states of each kind were opened and judged, and how many broke a promise.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from power.life import Life, Lives, lives
from power.recording import Calls, compiled
from power.trials import Tally, a_workplace, syncs_of, trial
from support.brokers import running_mosquitto

FILES = {"-wal": "the log", ".sqlite": "the file", "state": "the folder", "": "any"}
"""End of a file's name → what it is."""

COUNTS = (1, 2, 3, 5, 10)
"""So many syncs in a row fail."""


@dataclass(frozen=True)
class PowerRow:
    """One kind of power cut: its words, and the lives to be lived and cut."""

    words: str
    lives: Sequence[Life]
    states: int
    """Per life."""


def rows(one: Lives, folder: Path, port: int, *, scale: int) -> Iterator[PowerRow]:
    """Give the rows of the table; ``scale`` 1 is the short form."""
    long = scale > 1
    life = Life("")
    alone = [
        replace(life, beds=1 + number % 4, pages=4 + number % 5, closes=number % 3 == 2)
        for number in range(4 * scale)
    ]
    yield PowerRow("every sync works", alone, 35)
    values = [replace(life, port=port, beds=1 + number % 2, pages=8) for number in range(2 * scale)]
    yield PowerRow("every sync works, a broker listens", values, 35)
    for only, words in FILES.items():
        places = syncs_of(one, folder, life, only)
        for count in COUNTS if long else COUNTS[::2]:
            some = range(1, places + 1, 1 if long or (only and count == 1) else 5)
            failing = replace(life, calls=int(Calls.SYNC), only=only, count=count)
            yield PowerRow(
                f"{count} syncs of {words} fail, at each of {places} places",
                [replace(failing, first=first) for first in some],
                28 if long else 3,
            )
    taped = replace(life, tapes=True, pages=8)
    yield PowerRow("tapes, every sync works", [taped] * (2 * scale), 35 if long else 14)
    for count in COUNTS if long else (1,):
        failing = replace(taped, calls=int(Calls.SYNC), only=".xdf", count=count)
        some = range(1, 25, 1 if long else 4)
        yield PowerRow(
            f"{count} syncs of tapes fail, at each of {len(some)} places",
            [replace(failing, first=first) for first in some],
            14 if long else 7,
        )
    failing = replace(life, port=port, pages=5, calls=int(Calls.SYNC), only="-wal", count=2)
    some = range(1, syncs_of(one, folder, failing, "-wal") + 1, 1 if long else 6)
    yield PowerRow(
        "2 syncs of the log fail, a broker listens",
        [replace(failing, first=first) for first in some],
        14 if long else 3,
    )


def judged(one: Lives, folder: Path, row: PowerRow) -> Tally:
    """Live, cut and judge all of a row."""
    tally = Tally()
    for number, life in enumerate(row.lives):
        tally.add(trial(one, folder, life, row.states, seed=number))
    return tally


def main(scale: int) -> int:
    """Print the table; return 1 where a promise was broken."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    whole, begun = Tally(), time.monotonic()
    with ExitStack() as stack:
        folder = stack.enter_context(a_workplace())
        broker = stack.enter_context(running_mosquitto(folder))
        one = stack.enter_context(lives(compiled(folder), folder / "log"))
        print("| power cut | lives | states | events promised | called not durable | broken |")
        print("|---|---|---|---|---|---|")
        for row in rows(one, folder, broker.port, scale=scale):
            tally = judged(one, folder, row)
            whole.add(tally)
            print(_line(row.words, tally), flush=True)
        print(_line("all", whole))
        control = trial(one, folder, Life("", lie=True), 35 * scale, seed=1)
        print(_line("control: no sync does anything", control))
        print("\n| what is left | states | broken | broken in the control |\n|---|---|---|---|")
        for way, count in whole.states.items():
            print(f"| {way} | {count} | {whole.guilty[way]} | {control.guilty[way]} |")
    print(f"\n{time.monotonic() - begun:.0f} s")
    print("\n".join(whole.found[:10]))
    return 1 if whole.found or not control.found else 0


def _line(words: str, tally: Tally) -> str:
    return (
        f"| {words} | {tally.lives} | {tally.states.total()} | {tally.events} | "
        f"{tally.degraded} | {tally.guilty.total()} |"
    )


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 12))
