"""The life that is recorded: pages of some beds, from the journal to the broker, and on tape.

A process of its own, started under the shim. It reads orders as JSON lines on standard input, one
life each, and answers each with a JSON line when that life is over.
"""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS), str(TESTS.parent / "daemon")]

from hypnocast.core.types import ChannelInfo, Chunk, StreamHeader, StreamOpened  # noqa: E402
from hypnocast.errors import JournalError  # noqa: E402
from hypnocast.live.service.logs import set_up_logs  # noqa: E402
from hypnocast.ports.journal import storage  # noqa: E402
from hypnocast.ports.journal.journal import Journal  # noqa: E402
from hypnocast.ports.journal.records import (  # noqa: E402
    Batch,
    Committed,
    EventDraft,
    OpinionRecord,
    PageRecord,
    StoredEvent,
)
from hypnocast.ports.mqtt.settings import BrokerSettings  # noqa: E402
from hypnocast.ports.recordings import tape_recorder  # noqa: E402
from hypnocast.ports.recordings.tape_recorder import TapeLimits, TapeRecorder  # noqa: E402
from power.recording import Calls, Shim  # noqa: E402
from support.mqtt_lab import linked  # noqa: E402
from support.nights import a_session, an_event, instant  # noqa: E402
from support.orphans import die_with_parent  # noqa: E402

RETRY_S = 0.02
"""How often a disk that took nothing is tried again here; in earnest a second, a tape 30 s."""
SYNC_S = 0.01
"""How often tapes are synced here; in earnest every 2 s."""

PART_BYTES = 12_000
"""How long a part of a tape grows here: a few pages; in earnest two gigabytes."""

HEADER = StreamHeader(
    key="psg", name="psg", type="EEG", source_id="psg", uid="1", host="pc", rate=200.0,
    channels=(ChannelInfo("F4-M1", "µV"), ChannelInfo("C4-M1", "µV")),
)  # fmt: skip


@dataclass(frozen=True)
class Life:
    """What is to be lived."""

    folder: str
    record: str = ""
    """Where to write down what is done; empty: nowhere."""
    port: int = 0
    """Of the broker; 0: nothing is published."""
    beds: int = 2
    pages: int = 6
    calls: int = 0
    """Kinds of calls that fail (:class:`~power.recording.Calls`)."""
    only: str = ""
    first: int = 0
    count: int = 1
    error: int = errno.EIO
    lie: bool = False
    closes: bool = False
    """Whether the journal is closed in good order at the end."""
    tapes: bool = False
    """Whether what comes in is taped as well."""


async def live(life: Life, shim: Shim) -> dict[str, Any]:
    """Live it; say how many calls there were, how many failed, and what was called degraded."""
    folder = Path(life.folder)
    shim.begin(folder, Path(life.record) if life.record else None)
    if life.lie:
        shim.lie()
    elif life.calls:
        shim.fail(Calls(life.calls), life.first, error=life.error, count=life.count, only=life.only)
    async with AsyncExitStack() as stack:
        journal = await _opened(folder / "state" / "journal.sqlite")
        stack.push_async_callback(journal.aclose)
        recorder = None
        if life.tapes:
            limits = TapeLimits(sync_every_s=SYNC_S, part_bytes=PART_BYTES)
            recorder = TapeRecorder(folder / "tapes", limits=limits)
            stack.callback(recorder.close)
        night = _Night(journal, shim, recorder)
        if life.port:
            await stack.enter_async_context(linked(BrokerSettings(port=life.port), journal))
        await night.pages(life)
        if not life.closes:
            # The lights go out here; what the good close does is nobody's record.
            shim.end()
    if life.closes:
        shim.note("closed")
    answer = {
        "seen": shim.seen,
        "fired": shim.fired,
        "degraded": night.degraded,
        "digests": night.digests,
        "threads": night.threads,
    }
    shim.end()
    return answer


async def _opened(path: Path) -> Journal:
    """Open the journal; where the disk refuses, again, as a service manager would."""
    for _ in range(20):
        with suppress(JournalError):
            return Journal.open(path)
        await asyncio.sleep(RETRY_S)
    return Journal.open(path)


class _Night:
    def __init__(self, journal: Journal, shim: Shim, recorder: TapeRecorder | None) -> None:
        self._journal = journal
        self._shim = shim
        self._recorder = recorder
        self.digests: dict[str, str] = {}
        """Id → digest of every event that was committed."""
        self.threads: list[str] = []
        """Names of the threads that were alive at the end."""
        self.degraded = 0
        """Events that were called not durable."""
        self._note_condition()
        self._acknowledge = journal.acknowledge
        journal.acknowledge = self._acknowledged  # type: ignore[method-assign]

    def _note_condition(self) -> None:
        """Note when the journal degrades and returns, before and after anybody can see it.

        An event that is held can be read and sent before the one who committed it is answered.
        """
        storage = self._journal._writer.storage
        degrade, try_again = storage._degrade, storage.return_to_disk

        def degraded(why: str) -> None:
            self._shim.note("degraded")
            degrade(why)

        def tried_again(*, at_once: bool = False) -> None:
            before = storage.held
            try_again(at_once=at_once)
            if before is not None and storage.held is None:
                self._shim.note("durable again")

        storage._degrade = degraded  # type: ignore[method-assign]
        storage.return_to_disk = tried_again  # type: ignore[method-assign]

    def _acknowledged(self, bed: str, sequence: int) -> None:
        self._shim.note(f"acknowledged {bed} {sequence}")
        self._acknowledge(bed, sequence)

    async def pages(self, life: Life) -> None:
        """Commit page after page at every bed, and one more when all is well again."""
        beds = [f"bed{number + 1}" for number in range(life.beds)]
        for bed in beds:
            await self._journal.commit(Batch(sessions=(a_session(bed),)))
        if self._recorder is not None:
            for bed in beds:
                self._recorder.write(bed, StreamOpened(HEADER, 0.0))
        for epoch in range(life.pages):
            await asyncio.gather(*(self.page(bed, epoch) for bed in beds))
            if epoch % 3 == 2 and not life.port:
                # Somebody has it; with nothing else to do the log is folded into the file.
                for bed in beds:
                    self._journal.acknowledge(bed, epoch)
                await asyncio.sleep(0.01)
        await self.back()
        for bed in beds:
            await self.page(bed, life.pages)
        self.threads = [thread.name for thread in threading.enumerate()]

    async def page(self, bed: str, epoch: int) -> None:
        session = f"{bed}-night"
        if self._recorder is not None:
            self._recorder.write(bed, chunk_of(bed, epoch))
            if isinstance(safe := self._recorder.safe(bed), Chunk):
                self._shim.note(f"safe {bed} {round(safe.arrived) - 1}")
        page = PageRecord(session, epoch, instant(30 * epoch + 31), None, b'{"late":0}')
        opinion = OpinionRecord(session, epoch, 0, "sha256:0", "cpu", np.full(5, -1.6))
        doubted = EventDraft(an_event(epoch, bed=bed, provisional=True), lambda: 1500.0)
        batch = Batch(pages=(page,), opinions=(opinion,), events=(doubted,))
        self._note(await self._journal.commit(batch))
        settled = EventDraft(an_event(epoch, bed=bed))
        self._note(await self._journal.commit(Batch(events=(settled,))))

    def _note(self, done: Committed) -> None:
        word = "durable" if done.durable else "held"
        self.degraded += not done.durable
        for row in done.stored:
            self.digests[row.id] = _digest(row)
            self._shim.note(f"{word} {row.bed} {row.sequence} {row.id} {_digest(row)}")

    async def back(self) -> None:
        """Wait until all is durable again."""
        async with asyncio.timeout(30.0):
            while self._journal.condition.health == "degraded":
                self._journal._writer.delivered("nobody", 0)  # a turn of its thread
                await asyncio.sleep(RETRY_S)
        self._shim.note("back")


def chunk_of(bed: str, epoch: int) -> Chunk:
    """Return what a bed's stream carries in one page: the same for the same bed and page."""
    samples = np.random.default_rng([ord(bed[-1]), epoch]).normal(0.0, 50.0, (200, 2))
    stamps = epoch + np.arange(200) / 200.0
    return Chunk("psg", samples.astype(np.float32), stamps, epoch + 1.0)


def _digest(row: StoredEvent) -> str:
    return hashlib.sha256(row.payload).hexdigest()


class Lives:
    """The test's end: a process under the shim that lives one life after the other."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        """Use :func:`lives`."""
        self._process = process
        self._log = log

    def live(self, life: Life) -> dict[str, Any]:
        """Have a life lived; return what the process prints of it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(dataclasses.asdict(life)).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, self._log.read_text()[-4000:]
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def lives(shim: Path, log: Path) -> Iterator[Lives]:
    """Start the process under a compiled shim."""
    with (
        log.open("wb") as sink,
        subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=sink,
            env={**os.environ, "LD_PRELOAD": str(shim)},
        ) as process,
    ):
        try:
            yield Lives(process, log)
        finally:
            process.kill()


def main() -> None:
    """Live as ordered."""
    die_with_parent()
    set_up_logs()
    vars(storage)["_RETRY_S"] = RETRY_S
    vars(tape_recorder)["RETRY_AFTER_S"] = RETRY_S
    shim = Shim()
    for line in sys.stdin:
        answer = asyncio.run(live(Life(**json.loads(line)), shim))
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
