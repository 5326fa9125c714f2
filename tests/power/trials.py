"""Lives recorded, power cut, what is left opened by the project's own code and judged."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from hypnocast.core.types import Chunk
from hypnocast.errors import JournalError
from hypnocast.ports.journal.files import JournalFiles
from hypnocast.ports.journal.storage import JournalStorage
from hypnocast.ports.recordings.tape_reader import read_tape
from power.crash_states import Disk, Way, cuts_of
from power.judge import Promises, violations
from power.life import Life, Lives, chunk_of
from power.recording import CallKind, Calls, Done, read_record

MEMORY = Path("/dev/shm")  # noqa: S108 - a disk that syncs at once, where there is one


@dataclass
class Tally:
    """What came out, by the kind of state."""

    states: Counter[str] = field(default_factory=Counter)
    guilty: Counter[str] = field(default_factory=Counter)
    """States that broke a promise."""
    events: int = 0
    """Promises looked at."""
    found: list[str] = field(default_factory=list)
    lives: int = 0
    degraded: int = 0
    """Events that were called not durable."""

    def add(self, other: Tally) -> None:
        """Count another's as well."""
        self.states += other.states
        self.guilty += other.guilty
        self.events += other.events
        self.found += other.found[:20]
        self.lives += other.lives
        self.degraded += other.degraded


@contextmanager
def a_workplace() -> Iterator[Path]:
    """Give a folder in memory, where there is one: the states are many."""
    where = MEMORY if MEMORY.is_dir() else None
    with TemporaryDirectory(prefix="hypnocast-power-", dir=where) as folder:
        yield Path(folder)


def trial(lives: Lives, folder: Path, life: Life, states: int, seed: int) -> Tally:
    """Have one life lived, cut its power so many times, and judge what is left."""
    tally = Tally(lives=1)
    root = folder / "life"
    life = replace(life, folder=str(root), record=str(folder / "record"))
    tally.degraded = lives.live(life)["degraded"]
    record = read_record(folder / "record")

    def look(cut: int, way: Way, disk: Disk, chance: random.Random) -> None:
        target = folder / "left"
        disk.lay_out(target, way, chance)
        promises = Promises.of(record[:cut])
        found = recovered(target / "state" / "journal.sqlite", promises)
        if life.tapes:
            found += tapes_amiss(target / "tapes", record[:cut])
        shutil.rmtree(target, ignore_errors=True)
        tally.states[way] += 1
        tally.events += len(promises.durable)
        if found:
            tally.guilty[way] += 1
            tally.found.append(f"{life} cut at {cut} of {len(record)}, {way}: {found[:3]}")

    cuts_of(record, root, states, seed, look)
    shutil.rmtree(root)
    return tally


def recovered(path: Path, promises: Promises) -> list[str]:
    """Open what is left as the next start would; return which promises are broken."""
    try:
        files = JournalFiles(path)
    except JournalError as error:
        return [f"cannot be opened: {error}"] if promises.durable else []
    try:
        # What Journal.open does, without its two threads: the states are many.
        storage = JournalStorage(files, on_anew=lambda: None)
        storage.close()
    except JournalError as error:
        return [f"cannot be opened: {error}"] if promises.durable else []
    finally:
        files.release()
    if storage.condition.set_aside is not None and promises.durable:
        return [f"set aside as damaged: {storage.condition.why}"]
    return violations(path, promises)


def tapes_amiss(folder: Path, record: Sequence[Done]) -> list[str]:
    """Return which samples are gone that were called safe, or are not as they came."""
    found: list[str] = []
    safe: dict[str, int] = {}
    for done in record:
        if done.kind is CallKind.NOTE and done.text.startswith("safe "):
            _, bed, newest = done.text.split()
            safe[bed] = int(newest)
    for bed, last in safe.items():
        read: set[int] = set()
        for chunk in chunks_of(folder, bed):
            epoch = round(chunk.arrived) - 1
            read.add(epoch)
            if not np.array_equal(chunk.samples, chunk_of(bed, epoch).samples):
                found.append(f"samples of {bed}, {epoch} are not as they came")
        found += [
            f"{bed}, {epoch} was safe and is gone" for epoch in range(last + 1) if epoch not in read
        ]
    return found


def chunks_of(folder: Path, bed: str) -> Iterator[Chunk]:
    """Read what all tapes of a bed hold."""
    for path in folder.glob(f"{bed}_*.xdf"):
        if path.read_bytes()[:4] == b"XDF:":
            yield from (one for one in read_tape(path) if isinstance(one, Chunk))


def syncs_of(lives: Lives, folder: Path, life: Life, only: str) -> int:
    """Count the syncs of a life, of files whose name ends so."""
    counted = replace(life, folder=str(folder / "counted"), calls=int(Calls.SYNC), only=only)
    seen = int(lives.live(replace(counted, first=1 << 40))["seen"])
    shutil.rmtree(folder / "counted")
    return seen
