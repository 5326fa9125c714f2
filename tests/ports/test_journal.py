"""The journal: durable before it is published, numbered without a hole, nothing twice."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import random
import signal
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hypnocast.core.wire.payloads import NightMark
from hypnocast.errors import JournalError
from hypnocast.ports.journal.journal import Journal
from hypnocast.ports.journal.reader import JournalReader
from hypnocast.ports.journal.records import (
    Batch,
    ClockAnchor,
    Correction,
    EventDraft,
    MarkRecord,
    OpinionRecord,
    PageRecord,
    StoredReply,
)
from support.nights import T0, a_batch, a_session, an_event, instant

PROCESS = Path(__file__).with_name("journal_process.py")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal.sqlite"


# --- what is kept -----------------------------------------------------------------------------


async def test_everything_of_a_night_comes_back_after_a_restart(path: Path) -> None:
    session = a_session()
    thinks = np.log(np.array([0.1, 0.2, 0.4, 0.2, 0.1]))
    async with Journal.open(path) as journal:
        generation = journal.generation
        await journal.commit(
            Batch(
                sessions=(session,),
                anchors=(ClockAnchor(session.id, "boot-1", 1234.5, T0.timestamp(), instant()),),
                pages=(PageRecord(session.id, 0, instant(31), None, b'{"late":3}'),),
                opinions=(OpinionRecord(session.id, 0, 0, "sha256:0", "cpu", thinks),),
                events=(EventDraft(an_event(0), journaled=lambda: 1234.0),),
                marks=(MarkRecord(session.id, NightMark(at=instant(5), kind="note", text="ü")),),
                corrections=(Correction(session.id, 0, "N3", "scorer-1", instant(99)),),
            )
        )
        await journal.commit(a_batch(an_event(1, reason="detached")))
        await journal.commit(
            Batch(
                opinions=(OpinionRecord(session.id, 2, 0, "sha256:0", "cpu", thinks),),
                events=(EventDraft(an_event(2, provisional=True)),),
            )
        )
    async with Journal.open(path) as journal:
        assert journal.generation == generation
        assert await journal.read(JournalReader.open_sessions) == (session,)
        night = await journal.read(lambda reader: reader.night(session.id))
        assert [event.sequence for event in night.events] == [1, 2, 3]
        assert night.events[0].timing.journaled == 1234.0
        assert night.marks[0].text == "ü"
        assert night.anchors[0].lsl_t0 == 1234.5
        assert night.corrections[0].stage == "N3"
        (first, second) = await journal.read(lambda reader: reader.evidence(session.id))
        assert first[1] is not None
        assert np.array_equal(first[1], thinks)
        assert second == (1, None)
        ((event, opinion),) = await journal.read(lambda reader: reader.provisional(session.id))
        assert event.epoch == 2
        assert opinion is not None
        (page,) = await journal.read(lambda reader: reader.pages(session.id))
        assert page.detail == b'{"late":3}'
        done = await journal.commit(a_batch(an_event(2)))
        assert done.events[0].sequence == 4


async def test_a_session_is_updated_not_doubled(path: Path) -> None:
    session = a_session()
    async with Journal.open(path) as journal:
        await journal.commit(a_batch(session=session))

        over = dataclasses.replace(session, phase="ended", ended=instant(60))
        await journal.commit(Batch(sessions=(over,)))
        assert await journal.read(JournalReader.open_sessions) == ()
        assert await journal.read(JournalReader.nights) == (over,)


async def test_an_event_once_published_never_changes(path: Path) -> None:
    async with Journal.open(path) as journal:
        first = await journal.commit(a_batch(an_event(0, stage="N2"), session=a_session()))
        again = await journal.commit(a_batch(an_event(0, stage="R")))
        assert again.events == first.events
        assert again.stored == ()
        assert await journal.waiting() == {"bed1": 1}


async def test_provisional_after_terminal_is_refused_with_its_whole_batch(path: Path) -> None:
    async with Journal.open(path) as journal:
        await journal.commit(a_batch(an_event(0), session=a_session()))
        late = a_batch(an_event(1), an_event(0, provisional=True))
        good = a_batch(an_event(2))
        outcomes = await asyncio.gather(
            journal.commit(late), journal.commit(good), return_exceptions=True
        )
        assert isinstance(outcomes[0], JournalError)
        rows = await journal.events("bed1")
        assert [(row.sequence, row.id) for row in rows] == [
            (1, "bed1-night/0/1"),
            (2, "bed1-night/2/1"),
        ]


async def test_an_event_without_its_session_is_refused(path: Path) -> None:
    async with Journal.open(path) as journal:
        with pytest.raises(JournalError, match="FOREIGN KEY"):
            await journal.commit(a_batch(an_event(0)))


async def test_batches_that_wait_together_share_a_transaction(path: Path) -> None:
    async with Journal.open(path) as journal:
        await journal.commit(a_batch(session=a_session()))
        commits: list[str] = []
        store = journal._writer.storage.store.connection
        store.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
        await asyncio.gather(*(journal.commit(a_batch(an_event(k))) for k in range(200)))
        store.set_trace_callback(None)
        assert 1 <= len(commits) < 50
        assert len(await journal.events("bed1", 0, 500)) == 200


async def test_cancelling_the_caller_does_not_withdraw_the_batch(path: Path) -> None:
    async with Journal.open(path) as journal:
        news: list[int] = []
        journal.subscribe(lambda rows: news.extend(row.sequence for row in rows))
        await journal.commit(a_batch(session=a_session()))
        task = asyncio.create_task(journal.commit(a_batch(an_event(0))))
        await asyncio.sleep(0)
        task.cancel()
        await journal.commit(a_batch(an_event(1)))
        assert news == [1, 2]
        assert len(await journal.events("bed1")) == 2


async def test_acknowledged_events_leave_the_outbox_and_stay_in_the_journal(path: Path) -> None:
    async with Journal.open(path) as journal:
        await journal.commit(a_batch(*(an_event(k) for k in range(5)), session=a_session()))
        for sequence in (1, 2, 4):
            journal.acknowledge("bed1", sequence)
    async with Journal.open(path) as journal:
        assert [row.sequence for row in await journal.outbox("bed1")] == [3, 5]
        assert len(await journal.events("bed1")) == 5
        counters = await journal.outbox_counters(T0 + timedelta(days=36500))
        assert counters.waiting == 2
        assert counters.oldest_s is not None
        assert counters.oldest_s > 0


async def test_a_reply_is_kept_as_it_was_first_given(path: Path) -> None:
    async with Journal.open(path) as journal:
        first = StoredReply("bed1", "r1", "d1", b"one", instant())
        await journal.commit(Batch(replies=(first,)))
        await journal.commit(Batch(replies=(StoredReply("bed1", "r1", "d2", b"two", instant()),)))
        assert await journal.reply("bed1", "r1") == first
        assert await journal.reply("bed2", "r1") is None


async def test_only_ended_nights_that_owe_nothing_are_forgotten(path: Path) -> None:

    async with Journal.open(path) as journal:
        old = a_session(name="old")
        owing = a_session("bed2", name="owing")
        running = a_session("bed3", name="running")
        for session in (old, owing, running):
            await journal.commit(
                a_batch(an_event(0, bed=session.bed, session=session.id), session=session)
            )
        ended = [dataclasses.replace(s, phase="ended", ended=instant(60)) for s in (old, owing)]
        await journal.commit(Batch(sessions=tuple(ended)))
        journal.acknowledge("bed1", 1)
        assert await journal.forget(keep_days=30, now=T0 + timedelta(days=29)) == 0
        assert await journal.forget(keep_days=30, now=T0 + timedelta(days=31)) == 1
        left = await journal.read(JournalReader.nights)
        assert {session.id for session in left} == {"owing", "running"}
        done = await journal.commit(
            a_batch(an_event(0, session="next"), session=a_session(name="next"))
        )
        assert done.events[0].sequence == 2


async def test_events_are_kept_byte_for_byte(path: Path) -> None:
    async with Journal.open(path) as journal:
        done = await journal.commit(
            a_batch(an_event(0, rationale="spindles ≥ 0.5 s"), session=a_session())
        )
        (row,) = await journal.events("bed1")
        assert row == done.stored[0]
        assert row.payload == msgspec.json.encode(done.events[0])


# --- any batches ------------------------------------------------------------------------------

steps = st.lists(
    st.lists(
        st.tuples(st.sampled_from(["bed1", "bed2"]), st.integers(0, 6), st.booleans()),
        min_size=1,
        max_size=4,
    ),
    max_size=12,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps, st.integers(0, 12))
def test_whatever_is_committed_is_numbered_without_a_hole_and_never_doubled(
    batches: list[list[tuple[str, int, bool]]], restart_at: int
) -> None:
    async def run(path: Path) -> None:
        values: dict[str, list[str]] = {"bed1": [], "bed2": []}
        journal = Journal.open(path)
        for bed in values:
            await journal.commit(a_batch(session=a_session(bed)))
        for n, batch in enumerate(batches):
            if n == restart_at:
                await journal.aclose()
                journal = Journal.open(path)
            events = [an_event(k, bed=bed, provisional=early) for bed, k, early in batch]
            expected = {bed: list(ids) for bed, ids in values.items()}
            refused = False
            for event in events:
                terminal = event.id.removesuffix("/0") + "/1"
                if event.id in expected[event.bed]:
                    continue
                refused = refused or (event.revision == 0 and terminal in expected[event.bed])
                expected[event.bed].append(event.id)
            try:
                await journal.commit(a_batch(*events))
            except JournalError:
                assert refused
            else:
                assert not refused
                values = expected
        await journal.aclose()
        with JournalReader(path) as reader:
            for bed, ids in values.items():
                rows = reader.events(bed, 0, 1000)
                assert [row.id for row in rows] == ids
                assert [row.sequence for row in rows] == list(range(1, len(ids) + 1))

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder) / "journal.sqlite"))


# --- kill -9 ----------------------------------------------------------------------------------


def test_what_was_acknowledged_survives_kill_9(path: Path) -> None:
    chance = random.Random(20260301)
    acknowledged: dict[str, int] = {}
    for _ in range(8):
        writer = subprocess.Popen(
            [sys.executable, str(PROCESS), "write", str(path)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        for _ in range(chance.randrange(1, 120)):
            words = writer.stdout.readline().split()
            acknowledged[words[0]] = int(words[1])
        os.kill(writer.pid, signal.SIGKILL)
        for line in writer.stdout.read().splitlines():
            if len(words := line.split()) == 2 and words[1].isdigit():
                acknowledged.setdefault(words[0], int(words[1]))
        writer.stdout.close()
        assert writer.wait() == -signal.SIGKILL
    with JournalReader(path) as reader:
        there: dict[str, int] = {}
        for bed in ("bed1", "bed2"):
            rows = reader.events(bed, 0, 1_000_000)
            assert [row.sequence for row in rows] == list(range(1, len(rows) + 1))
            there.update({row.id: row.sequence for row in rows})
            assert len({row.id for row in rows}) == len(rows)
    assert len(acknowledged) > 100
    assert acknowledged.items() <= there.items()
