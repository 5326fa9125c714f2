"""Any history of the journal, its outbox and what it holds in memory, against a small model.

Batches, repeats, batches that are wrong, acknowledgements, a disk that refuses and comes back, the
log folded, restarts and kills come in any order; after each step the journal must agree with
the model. ``HYPNOCAST_HISTORIES=5000`` runs so many.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hypnocast.core.wire.payloads import StageEvent, event_id
from hypnocast.errors import JournalError
from hypnocast.ports.journal import storage
from hypnocast.ports.journal.journal import Journal
from hypnocast.ports.journal.store import Store
from support.nights import a_batch, a_session, an_event

T = TypeVar("T")
BEDS = ("bed1", "bed2")
HISTORIES = int(os.environ.get("HYPNOCAST_HISTORIES", "20"))
MEMORY = Path("/dev/shm")  # noqa: S108 - a disk that syncs at once, where there is one


@dataclass
class JournalModel:
    """A journal: per bed a list that only grows, what of it waits, what of it is not durable."""

    events: dict[str, list[StageEvent]] = field(default_factory=lambda: {bed: [] for bed in BEDS})
    known: dict[str, StageEvent] = field(default_factory=dict)
    waiting: set[tuple[str, int]] = field(default_factory=set)
    unsafe: list[tuple[str, tuple[str, int]]] = field(default_factory=list)
    """``event`` or ``acknowledged``, and where: what a kill costs while the disk refuses."""

    def commit(self, event: StageEvent, *, durable: bool) -> None:
        if event.id not in self.known:
            self.events[event.bed].append(event)
            self.known[event.id] = event
            place = (event.bed, len(self.events[event.bed]))
            self.waiting.add(place)
            self.unsafe += [] if durable else [("event", place)]

    def acknowledge(self, place: tuple[str, int], *, durable: bool) -> None:
        self.waiting.discard(place)
        self.unsafe += [] if durable else [("acknowledged", place)]

    def kill(self) -> None:
        for what, (bed, number) in reversed(self.unsafe):
            if what == "acknowledged":
                self.waiting.add((bed, number))
            else:
                del self.known[self.events[bed].pop().id]
                self.waiting.discard((bed, number))
        self.unsafe.clear()


class Histories(RuleBasedStateMachine):
    """Does to a real journal what is done to the model."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        self.lives = 0
        self.model = JournalModel()
        self.refuses = False
        self._before = {name: vars(storage)[name] for name in ("_RETRY_S", "write_anew")}
        vars(storage).update(_RETRY_S=0.0, write_anew=self._written_anew)
        self.journal = Journal.open(self.path)
        for bed in BEDS:
            self._run(self.journal.commit(a_batch(session=a_session(bed))))

    @property
    def path(self) -> Path:
        return self.folder / f"state{self.lives}" / "journal.sqlite"

    @property
    def degraded(self) -> bool:
        return self.journal.condition.health == "degraded"

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(asyncio.wait_for(work, 30.0))

    def _written_anew(self, *arguments: Any) -> None:
        if self.refuses:
            raise OSError(errno.EIO, "Input/output error")
        self._before["write_anew"](*arguments)

    def _turn(self, work: Any = lambda _: 0) -> None:
        """Have the writing thread turn once: what was asked before is done behind it."""

        async def turn() -> None:
            try:
                await asyncio.wrap_future(self.journal._writer.chore(work))
            except JournalError:
                assert self.degraded

        self._run(turn())

    # --- what may happen ------------------------------------------------------------------------

    @rule(
        bed=st.sampled_from(BEDS),
        pages=st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=3),
        stage=st.sampled_from(["W", "N2"]),
    )
    def commit(self, bed: str, pages: list[tuple[int, bool]], stage: Any) -> None:
        events = [an_event(n, bed=bed, stage=stage, provisional=doubt) for n, doubt in pages]
        ids, known = [], set(self.model.known)
        refused = False
        for event in events:
            terminal = event_id(event.session, event.epoch, 1)
            refused |= event.revision == 0 and event.id not in known and terminal in known
            known.add(event.id)
            ids.append(event.id)
        try:
            done = self._run(self.journal.commit(a_batch(*events)))
        except JournalError:
            assert refused, "only a provisional event after the terminal one is refused"
            return
        assert not refused
        for event in events:
            self.model.commit(event, durable=done.durable)
        assert [event.id for event in done.events] == ids
        assert [e.stage for e in done.events] == [self.model.known[name].stage for name in ids]

    @rule()
    def commit_what_is_wrong(self) -> None:
        """An event of no session: refused at once, or once the disk is back; nobody else pays."""
        try:
            done = self._run(self.journal.commit(a_batch(an_event(0, bed="bed9", session="none"))))
        except JournalError:
            return
        assert not done.durable

    @precondition(lambda self: self.model.waiting)
    @rule(chance=st.randoms(use_true_random=False))
    def acknowledge(self, chance: Any) -> None:
        place = chance.choice(sorted(self.model.waiting))
        durable = not self.degraded
        self.journal.acknowledge(*place)
        self._turn()
        self.model.acknowledge(place, durable=durable)

    @precondition(lambda self: not self.refuses)
    @rule()
    def disk_refuses(self) -> None:
        self.refuses = True

        def refuse(store: Store) -> int:
            store.connection.execute("PRAGMA query_only = 1")
            raise OSError(errno.EIO, "Input/output error")

        self._turn(refuse)
        assert self.degraded

    @precondition(lambda self: self.refuses)
    @rule()
    def disk_comes_back(self) -> None:
        self.refuses = False
        self._turn()
        self._turn()
        assert not self.degraded
        self.model.unsafe.clear()

    @rule()
    def fold(self) -> None:
        self.journal._writer.delivered("nobody", 1)
        self._turn()

    @precondition(lambda self: not self.refuses)
    @rule()
    def restart(self) -> None:
        self._run(self.journal.aclose())
        self.journal = Journal.open(self.path)

    @rule()
    def kill(self) -> None:
        """What the files hold at this moment is all that the next start finds."""
        before, self.lives = self.path.parent, self.lives + 1
        shutil.copytree(before, self.path.parent, ignore=shutil.ignore_patterns("*-shm", "*.lock"))
        self._run(self.journal.aclose())
        shutil.rmtree(before)
        self.refuses = False
        self.model.kill()
        self.journal = Journal.open(self.path)
        assert self.journal.condition.set_aside is None

    # --- what must hold -------------------------------------------------------------------------

    @invariant()
    def says_what_the_model_says(self) -> None:
        for bed in BEDS:
            rows = self._run(self.journal.events(bed, 0, 1000))
            kept = [msgspec.json.decode(row.payload, type=StageEvent) for row in rows]
            wanted = self.model.events[bed]
            assert [event.sequence for event in kept] == list(range(1, len(wanted) + 1))
            assert [(e.id, e.stage) for e in kept] == [(e.id, e.stage) for e in wanted]
            waiting = self._run(self.journal.outbox(bed, 0, 1000))
            assert {(bed, row.sequence) for row in waiting} == {
                place for place in self.model.waiting if place[0] == bed
            }

    def teardown(self) -> None:
        self._run(self.journal.aclose())
        vars(storage).update(self._before)
        self.loop.close()
        shutil.rmtree(self.folder)


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=HISTORIES,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
