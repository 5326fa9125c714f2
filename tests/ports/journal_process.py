"""Runs a journal in a process of its own, to be killed or to have its disk filled.

journal_process.py write PATH        commits until killed; prints what was acknowledged
journal_process.py fill FOLDER       fills the disk under a journal and frees it again
journal_process.py read-only FOLDER  expects the fault that nothing can be written
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS), str(TESTS.parent / "daemon")]

from hypnocast.errors import JournalError  # noqa: E402
from hypnocast.ports.durable_files import room_problem  # noqa: E402
from hypnocast.ports.journal.journal import Journal  # noqa: E402
from hypnocast.ports.journal.reader import JournalReader  # noqa: E402
from support.nights import a_batch, a_session, an_event  # noqa: E402
from support.orphans import die_with_parent  # noqa: E402

BEDS = ("bed1", "bed2")


async def write(path: Path) -> None:
    """Commit one page after the other at two beds, sometimes both with one fsync."""
    async with Journal.open(path) as journal:
        await journal.commit(a_batch(session=a_session("bed1")))
        await journal.commit(a_batch(session=a_session("bed2")))
        first = await journal.read(_first)
        step = 0
        while True:
            async with asyncio.TaskGroup() as group:
                for bed in BEDS:
                    group.create_task(_page(journal, bed, first[bed] + step))
            step += 1


def _first(reader: JournalReader) -> dict[str, int]:
    """Return where each bed goes on."""
    return {bed: len(reader.evidence(f"{bed}-night")) for bed in BEDS}


async def _page(journal: Journal, bed: str, epoch: int) -> None:
    doubted = await journal.commit(a_batch(an_event(epoch, bed=bed, provisional=True)))
    settled = await journal.commit(a_batch(an_event(epoch, bed=bed)))
    for event in (*doubted.events, *settled.events):
        sys.stdout.write(f"{event.id} {event.sequence}\n")
    sys.stdout.flush()
    journal.acknowledge(bed, doubted.events[0].sequence)


async def fill(folder: Path) -> None:
    """Fill the disk, go on, free it, go on; nothing may be missing in the end."""
    ballast = folder / "ballast"
    long = "x" * 50_000
    async with Journal.open(folder / "state" / "journal.sqlite") as journal:
        await journal.commit(a_batch(session=a_session()))
        with ballast.open("wb") as file:
            try:
                while True:
                    os.write(file.fileno(), bytes(65536))
            except OSError:
                pass
        assert "the disk is full" in room_problem(folder), "named before anything is refused"
        seen: list[str] = []
        epoch = 0
        while _health(journal) != "degraded":
            done = await journal.commit(a_batch(an_event(epoch, rationale=long)))
            seen.append(_health(journal))
            assert done.durable is (seen[-1] != "degraded")
            epoch += 1
        assert "reserve" in seen, seen
        for _ in range(5):
            done = await journal.commit(a_batch(an_event(epoch)))
            assert not done.durable
            assert done.events[0].sequence == epoch + 1
            epoch += 1
        assert len(await journal.events("bed1", epoch - 5)) == 5
        journal.acknowledge("bed1", epoch)
        ballast.unlink()
        assert not room_problem(folder)
        deadline = time.monotonic() + 20
        while _health(journal) != "durable":
            assert time.monotonic() < deadline, journal.condition
            await asyncio.sleep(0.05)
        done = await journal.commit(a_batch(an_event(epoch)))
        assert done.durable
        rows = await journal.events("bed1", 0, 10_000)
        assert [row.sequence for row in rows] == list(range(1, epoch + 2))
        waiting = await journal.outbox("bed1", 0, 10_000)
        assert [row.sequence for row in waiting] == [*range(1, epoch), epoch + 1]
    sys.stdout.write(f"{epoch + 1} events, {seen.count('reserve')} on the reserve\n")


def _health(journal: Journal) -> str:
    return journal.condition.health


def read_only(folder: Path) -> None:
    """Open a journal where nothing can be written."""
    try:
        Journal.open(folder / "state" / "journal.sqlite")
    except JournalError as error:
        sys.stdout.write(f"{error}\n")


if __name__ == "__main__":
    die_with_parent()
    what, where = sys.argv[1], Path(sys.argv[2])
    if what == "read-only":
        read_only(where)
    else:
        asyncio.run({"write": write, "fill": fill}[what](where))
