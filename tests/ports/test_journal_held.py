"""Memory that is full, while the disk refuses: bounded, and what is given up is named."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypnocast.core.wire import payloads
from hypnocast.ports.journal.files import JournalFiles
from hypnocast.ports.journal.held import Held
from hypnocast.ports.journal.journal import Journal
from hypnocast.ports.journal.reader import JournalReader
from hypnocast.ports.journal.records import Batch, EventDraft, StoredEvent
from hypnocast.ports.journal.storage import JournalStorage
from hypnocast.ports.journal.store import Store
from support.lsl_lab import wait_until
from support.nights import a_batch, a_session, an_event

ROOM = 40_000
"""Bytes: about a dozen events."""


def a_full_memory(pages: int, delivered: frozenset[int] = frozenset()) -> Held:
    held = Held({}, limit=ROOM)
    held.hold(a_batch(session=a_session()), {})
    for epoch in range(pages):
        (event,) = held.hold(a_batch(an_event(epoch)), {}).events
        assert event.sequence == epoch + 1
        if epoch in delivered:
            held.delivered.add(("bed1", event.sequence))
    return held


def epochs(held: Held) -> list[int]:
    return [row.sequence - 1 for row in held.of_bed("bed1", 0)]


@pytest.mark.promise(7)
@given(pages=st.integers(1, 60), delivered=st.frozensets(st.integers(0, 59)))
@settings(max_examples=60)
def test_memory_is_bounded_and_every_event_is_either_held_or_named_as_lost(
    pages: int, delivered: frozenset[int]
) -> None:
    held = a_full_memory(pages, delivered)
    assert held.size <= ROOM
    assert pages - 1 in epochs(held), "the newest is always kept"
    found = held.given_up.get("bed1-night")
    assert len(epochs(held)) + (found.count if found else 0) == pages


def test_what_the_broker_has_goes_first_then_the_oldest() -> None:
    fits = len(epochs(a_full_memory(60)))
    held = a_full_memory(fits + 3, frozenset({4, 5}))
    assert epochs(held) == [1, 2, 3, *range(6, fits + 3)]
    values = held.given_up["bed1-night"]
    assert (values.first, values.last, values.count, values.unsent) == (0, 5, 3, 1)


@pytest.mark.promise(2)
async def test_what_is_left_comes_to_the_disk_under_its_numbers_and_with_a_note(
    tmp_path: Path,
) -> None:
    path = tmp_path / "journal.sqlite"
    held = a_full_memory(40)
    left = epochs(held)
    assert left[0] > 0
    store = Store(path)
    with store.transaction():
        held.write_to(store)
    store.close()
    path.chmod(0o600)
    async with Journal.open(path) as journal:
        kept = await journal.events("bed1", 0, 100)
        assert [row.sequence - 1 for row in kept] == left
        night = await journal.read(lambda reader: JournalReader.night(reader, "bed1-night"))
        (note,) = night.marks
        assert note.text.startswith(f"{left[0]} events of epochs 0 to {left[0] - 1} are lost")
        (next_one,) = (await journal.commit(a_batch(an_event(40)))).events
        assert next_one.sequence == 41


def degrade(journal: Journal) -> None:
    journal._writer.storage._degrade("a test says so")


async def back_on_disk(journal: Journal) -> None:
    journal._writer.delivered("nobody", 0)  # a turn of the thread
    await asyncio.to_thread(
        wait_until, lambda: journal.condition.health != "degraded", "durable again"
    )


@pytest.mark.promise(2)
@pytest.mark.parametrize("closed", [False, True], ids=["back", "closed"])
async def test_a_batch_that_the_database_refuses_costs_itself_only_and_is_named(
    tmp_path: Path, *, closed: bool
) -> None:
    """One such batch once kept every other in memory for ever, and a good close lost them all."""
    path = tmp_path / "journal.sqlite"
    async with Journal.open(path) as journal:
        await journal.commit(a_batch(an_event(0), session=a_session()))
        degrade(journal)
        await journal.commit(a_batch(an_event(1)))
        poison = a_batch(an_event(7, session="nobody", bed="bed2"))
        assert not (await journal.commit(poison)).durable
        await journal.commit(a_batch(an_event(2)))
        if not closed:
            await back_on_disk(journal)
            assert "nobody: 1 events of epochs 7 to 7 are lost" in journal.condition.lost
            assert "FOREIGN KEY" in journal.condition.lost
            assert journal.condition.refused == 1
            assert (await journal.commit(a_batch(an_event(3)))).durable
    with JournalReader(path) as reader:
        kept = [row.sequence for row in reader.events("bed1")]
        assert kept == list(range(1, len(kept) + 1))
        assert len(kept) == (3 if closed else 4)
        assert reader.events("bed2") == ()


async def test_another_try_writes_the_same_bytes(tmp_path: Path) -> None:
    """What a commit wrote before its sync failed may be found after a cut: it must not differ."""
    asked: list[float] = []

    def journaled() -> float:
        asked.append(1000.0 + len(asked))
        return asked[-1]

    async with Journal.open(tmp_path / "journal.sqlite") as journal:
        await journal.commit(a_batch(session=a_session()))
        storage = journal._writer.storage
        insert = storage.store._insert_event
        failed: list[bytes] = []

        def refused_once(event: payloads.StageEvent, row: StoredEvent) -> None:
            insert(event, row)
            if not failed:
                failed.append(row.payload)
                raise sqlite3.OperationalError("disk I/O error")

        storage.store._insert_event = refused_once  # type: ignore[method-assign]
        done = await journal.commit(Batch(events=(EventDraft(an_event(0), journaled),)))
        assert not done.durable
        assert [row.payload for row in done.stored] == failed
        assert asked == [1000.0]


def test_a_journal_that_is_back_on_a_disk_without_room_to_spare_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    files = JournalFiles(tmp_path / "state" / "journal.sqlite")
    storage = JournalStorage(files, on_anew=lambda: None)
    storage._degrade("the disk was read-only")
    storage.write([a_batch(an_event(0), session=a_session())], [])
    files.give_up_reserve()
    monkeypatch.setattr(os, "posix_fallocate", full)
    storage.return_to_disk(at_once=True)
    assert (storage.condition.health, storage.condition.why) == ("reserve", "the disk is full")
    storage.close()
    files.release()
