"""The daemon that is attacked, a bed of it that nobody attacks, and what befell that bed.

Everything is real: mosquitto, the amplifiers, the daemon as it is started, in 2 GB, with its ward
page and its metrics. The calm bed has lost nothing, is never late and is unchanged if every whole
page of it is final, came in time, and says what an undisturbed replay of its tape says.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from attacks.limits import TWO_GB, peak_bytes, threads
from faults.stream_lab import BED, CONFIG, Amplifiers
from faults.witness import Witness, witness
from hypnocast.config.tables import Config, PackTable
from hypnocast.nights.replay import Replayed, ReplaySettings, replay
from hypnocast.ports.kept_word import WARD_TOKEN
from support.brokers import Mosquitto, free_port, running_mosquitto
from support.daemons import Daemon, daemon

CALM = "calm-bed"
"""The bed that nobody attacks, and its amplifier's source id."""
EXCHANGED = "exchanged-bed"
"""The bed whose amplifier is exchanged in mid-night."""
ATTACKED = ("bed", "marks", EXCHANGED)
"""Beds that the daemon serves beside it, without amplifiers of their own, by their source ids."""
NODE = "attacked"
LATE_S = 10.0
"""A page's event is with a subscriber so soon after the page's end; at 25 s it is withheld."""
MEMORY = 600 << 20
THREADS = 120
OTHER_BED = pytest.StashKey[str]()
"""What became of the calm bed beside a file of tests."""

_TABLES = """
[lsl]
pin = true
[metrics]
port = {metrics}
[dashboard]
enabled = true
port = {page}
"""


@dataclass(frozen=True, slots=True)
class OtherBed:
    """What the attacks did to the calm bed, and what they cost the daemon."""

    pages: int
    """Whole pages, decided while the attacks went on."""
    lost: tuple[str, ...]
    late: tuple[str, ...]
    changed: tuple[str, ...]
    slowest_s: float
    """From a page's end to its event at a subscriber."""
    memory: int
    threads: int
    unsupervised: tuple[str, ...]

    @property
    def harm(self) -> tuple[str, ...]:
        """All that should not be, in words."""
        costs = [
            f"{self.memory >> 20} MB" if self.memory > MEMORY else "",
            f"{self.threads} threads" if self.threads > THREADS else "",
            "" if self.pages else "no page was decided",
        ]
        return (*self.lost, *self.late, *self.changed, *self.unsupervised, *filter(None, costs))

    def __str__(self) -> str:
        return (
            f"{self.pages} pages of the other bed: {len(self.lost)} lost, {len(self.late)} late, "
            f"{len(self.changed)} changed; {self.slowest_s:.1f} s at most to the event, "
            f"{self.memory >> 20} MB, {self.threads} threads"
        )


@dataclass
class AttackedDaemon:
    """A daemon under attack while it serves the calm bed."""

    broker: Mosquitto
    listener: Witness
    amplifiers: Amplifiers
    daemon: Daemon
    state: Path
    pack: Path
    metrics: int
    """The port of the metrics."""
    page: int
    """The port of the ward page."""

    @property
    def page_token(self) -> str:
        """What opens the ward page."""
        return (self.state / WARD_TOKEN).read_text()

    def events(self, bed: str = CALM) -> list[dict[str, Any]]:
        """Return a bed's terminal events, each once."""
        document = [json.loads(one) for one in self.listener.events(bed)]
        return list(
            {one["epoch"]: one for one in document if one["status"] != "provisional"}.values()
        )

    def statuses(self, bed: str = CALM) -> list[dict[str, Any]]:
        """Return every status of a bed."""
        return [json.loads(one) for one in self.listener.of(f"/bed/{bed}/status") if one]

    def problem_of(self, bed: str) -> str:
        """Return all problems that were reported of a bed."""
        return " ".join(str(status["problems"]) for status in self.statuses(bed))

    def states(self) -> list[dict[str, Any]]:
        """Return every state of the daemon."""
        return [json.loads(one) for one in self.listener.of(f"/daemon/{NODE}/state") if one]

    @property
    def degraded(self) -> str:
        """All that the daemon reported of itself."""
        return " ".join(str(one["degraded"]) for one in self.states())

    def wait_for_pages(self, count: int) -> None:
        """Wait until so many pages of the calm bed are decided."""
        self.daemon.wait_for(
            lambda: len(self.events()) >= count, f"{count} pages of the calm bed", 60.0 * count + 60
        )

    def end(self) -> OtherBed:
        """End the night in good order, and return what the attacks did to the calm bed."""
        pages = len(self.events())
        memory, count = peak_bytes(self.daemon.process.pid), threads(self.daemon.process.pid)
        self._end_session()
        assert self.daemon.end() == 0, self.daemon.complained
        slowest, late = self._lateness()
        return OtherBed(
            pages=pages,
            lost=tuple(self._losses()),
            late=late,
            changed=tuple(self._changes()),
            slowest_s=slowest,
            memory=memory,
            threads=count,
            unsupervised=tuple(self._unsupervised()),
        )

    def _end_session(self) -> None:
        session = self.statuses()[-1]["session"]
        command = {"command": "end_session", "request": "the-end", "session": session}
        asked = float("-inf")

        def over() -> bool:
            """Repeat the command until it is obeyed, as who gets no answer does."""
            nonlocal asked
            if time.monotonic() - asked > 5.0:
                asked = time.monotonic()
                self.listener.publish(f"hypnocast/lab/bed/{CALM}/command", command)
            return bool(self.events()[-1]["reason"] == "session_end")

        self.daemon.wait_for(over, "the end", 60.0)

    def _losses(self) -> Iterator[str]:
        events = self.events()
        if [event["epoch"] for event in events] != list(range(len(events))):
            yield f"pages {[event['epoch'] for event in events]}"
        if len({event["session"] for event in events}) != 1:
            yield "another session began"
        for event in events[:-1]:
            if event["status"] != "final":
                yield f"page {event['epoch']} withheld: {event['reason']}"
            poorest = min(one["coverage"] for one in event["quality"].values())
            if poorest <= 0.999:
                yield f"page {event['epoch']} lacks samples: {poorest}"
        if problems := self.problem_of(CALM).replace("[]", "").strip():
            yield f"problems: {problems}"

    def _lateness(self) -> tuple[float, tuple[str, ...]]:
        """Return the longest wait for an event after its page's end, and all too long ones."""
        to_utc = time.time() - time.monotonic()
        waits: dict[int, float] = {}
        for topic, payload, at in list(self.listener.messages):
            if topic.endswith(f"/bed/{CALM}/events"):
                event = json.loads(payload)
                if event["status"] == "final":
                    ended = datetime.fromisoformat(event["end"]).timestamp()
                    waits.setdefault(event["epoch"], at + to_utc - ended)
        late = tuple(f"page {n} after {s:.1f} s" for n, s in waits.items() if s > LATE_S)
        return max(waits.values(), default=0.0), late

    def _changes(self) -> Iterator[str]:
        """Return in which pages the replay of the tape sees or says something else."""
        (tape,) = sorted((self.state / "tapes").glob(f"{CALM}_*.xdf"))
        replayed = Replayed()
        config = Config(pack=PackTable(name=str(self.pack)))
        asyncio.run(
            asyncio.wait_for(replay(config, ReplaySettings(tape), watchers=(replayed,)), 120)
        )
        undisturbed = {
            event.epoch: (event.digests.picture, event.stage, event.probabilities)
            for event in replayed.events
        }
        for event in self.events():
            if event["epoch"] not in undisturbed:
                yield f"page {event['epoch']} is not on the tape"
                continue
            picture, stage, probabilities = undisturbed.pop(event["epoch"])
            if event["digests"]["picture"] != picture:
                yield f"page {event['epoch']}: another picture"
            if (event["stage"], event["probabilities"]) != (
                stage,
                msgspec.to_builtins(probabilities),
            ):
                yield f"page {event['epoch']}: {event['stage']}, on the tape {stage}"
        yield from (f"page {epoch} is on the tape alone" for epoch in undisturbed)

    def _unsupervised(self) -> Iterator[str]:
        """Return which workers failed or were started anew, and what failed where nobody looked."""
        counters = self.states()[-1]["counters"]
        for what in ("worker_failures", "worker_restarts"):
            if counters[what]:
                yield f"{what}: {counters[what]}; {self.degraded}"
        if "Traceback" in self.daemon.complained:
            yield self.daemon.complained


@contextmanager
def attacked_daemon(
    folder: Path, pack: Path, *, beds: Sequence[str] = ATTACKED, amplifiers: Sequence[str] = ()
) -> Iterator[AttackedDaemon]:
    """Run the daemon until it records the calm bed, and those of the others with amplifiers."""
    with ExitStack() as stack:
        broker = stack.enter_context(running_mosquitto(folder))
        listener = stack.enter_context(witness(broker.port))
        true = Amplifiers(CALM, *amplifiers).begin()
        stack.callback(true.kill)
        metrics, page = free_port(), free_port()
        config = folder / "run.toml"
        config.write_text(
            CONFIG.replace("node1", NODE).format(
                state=folder / "state", port=broker.port, pack=pack
            )
            + _TABLES.format(metrics=metrics, page=page)
            + "".join(BED.format(bed=bed) for bed in (CALM, *amplifiers, *beds))
        )
        running = stack.enter_context(
            daemon(folder / "daemon", "run", "-c", str(config), memory_bytes=TWO_GB)
        )
        attacked = AttackedDaemon(
            broker, listener, true, running, folder / "state", pack, metrics, page
        )
        running.wait_for(
            lambda: all(
                (attacked.statuses(bed) or [{}])[-1].get("since") for bed in (CALM, *amplifiers)
            ),
            "the true beds record",
            150.0,
        )
        yield attacked
