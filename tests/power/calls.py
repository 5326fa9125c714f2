"""Every system call of a page's life fails once: nothing is lost, doubled or changed by it.

The long form: ``python -m power.calls`` (from ``tests/``, with ``PYTHONPATH=.:../daemon``): every
call with every error, some 2,500 lives. ``--once``: every call once, the errors in turn.
"""

from __future__ import annotations

import errno
import shutil
import sqlite3
import sys
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

import numpy as np

from power.life import Life, Lives, chunk_of, lives
from power.recording import Calls, compiled
from power.trials import a_workplace, chunks_of

ERRORS = (errno.EIO, errno.ENOSPC, errno.EROFS, errno.EINTR)
THREADS = {"journal", "tape-sync"}
LIFE = Life("", beds=2, pages=4, closes=True, tapes=True)


@dataclass
class Faults:
    """What came out of so many lives, in each of which one call failed."""

    lives: int = 0
    fired: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    """Events, or samples, that are not as they were."""
    dead: list[str] = field(default_factory=list)
    """Threads that were gone at the end."""

    @property
    def amiss(self) -> list[str]:
        return [*self.lost, *self.doubled, *self.changed, *self.dead]


def calls_of(one: Lives, folder: Path) -> int:
    """Count the calls of a life in which none fails."""
    faults = Faults()
    return _lived(one, folder, replace(LIFE, first=1 << 40), faults)


def one_by_one(one: Lives, folder: Path, tries: Iterable[tuple[int, int]]) -> Faults:
    """Let, in each of so many lives, the n-th call fail with an error."""
    faults = Faults()
    for number, error in tries:
        _lived(one, folder, replace(LIFE, first=number, error=error), faults)
    return faults


def _lived(one: Lives, folder: Path, life: Life, faults: Faults) -> int:
    root = folder / "life"
    answer = one.live(replace(life, folder=str(root), calls=int(Calls.ALL)))
    where = f"call {life.first} with {errno.errorcode[life.error]}"
    faults.lives += 1
    faults.fired += answer["fired"]
    faults.dead += [f"{where}: {name}" for name in THREADS - set(answer["threads"])]
    _look_at_journal(root / "state" / "journal.sqlite", answer["digests"], where, faults)
    for bed in range(1, life.beds + 1):
        _look_at_tapes(root / "tapes", f"bed{bed}", life.pages + 1, where, faults)
    shutil.rmtree(root)
    return int(answer["seen"])


def _look_at_journal(path: Path, digests: dict[str, str], where: str, faults: Faults) -> None:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        rows = db.execute("SELECT bed, sequence, id, payload FROM events").fetchall()
        waiting = db.execute("SELECT count(*) FROM outbox").fetchone()[0]
    kept = {name: sha256(payload).hexdigest() for _, _, name, payload in rows}
    expected = LIFE.beds * (LIFE.pages + 1) * 2
    acknowledged = LIFE.beds * (LIFE.pages // 3)
    faults.lost += [f"{where}: {name}" for name in digests.keys() - kept.keys()]
    if len(digests) != expected or waiting != expected - acknowledged:
        faults.lost.append(f"{where}: {len(digests)} committed, {waiting} wait for the broker")
    if len(rows) != len(kept):
        faults.doubled.append(where)
    faults.changed += [
        f"{where}: {name}" for name in kept.keys() & digests.keys() if kept[name] != digests[name]
    ]
    for bed in {row[0] for row in rows}:
        numbers = sorted(row[1] for row in rows if row[0] == bed)
        if numbers != list(range(1, len(numbers) + 1)):
            faults.lost.append(f"{where}: {bed} counts {numbers}")


def _look_at_tapes(folder: Path, bed: str, chunks: int, where: str, faults: Faults) -> None:
    read: set[int] = set()
    for chunk in chunks_of(folder, bed):
        epoch = round(chunk.arrived) - 1
        read.add(epoch)
        if not np.array_equal(chunk.samples, chunk_of(bed, epoch).samples):
            faults.changed.append(f"{where}: samples of {bed}, {epoch}")
    faults.lost += [f"{where}: tape of {bed}, {epoch}" for epoch in set(range(chunks)) - read]


def main(*, once: bool) -> int:
    """Try every call with every error, or every call once; print the table."""
    with a_workplace() as folder, lives(compiled(folder), folder / "log") as one:
        count = calls_of(one, folder)
        print("| error | calls tried | lost | doubled | changed | threads dead |")
        print("|---|---|---|---|---|---|")
        amiss = 0
        for place, error in enumerate(ERRORS):
            first, step = (1 + place, len(ERRORS)) if once else (1, 1)
            tries = ((number, error) for number in range(first, count + 20, step))
            found = one_by_one(one, folder, tries)
            amiss += len(found.amiss)
            cells = (found.fired, *map(len, (found.lost, found.doubled, found.changed, found.dead)))
            print(f"| {errno.errorcode[error]} | {' | '.join(map(str, cells))} |", flush=True)
            print("\n".join(found.amiss[:5]), file=sys.stderr)
    return 1 if amiss else 0


if __name__ == "__main__":
    sys.exit(main(once="--once" in sys.argv[1:]))
