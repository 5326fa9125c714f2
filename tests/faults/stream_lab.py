"""One live night of many beds between real amplifiers and ``hypnocast run``, a fault at each."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import pylsl

from faults.checker import NightCheck, Truth, check_night
from faults.witness import Witness, witness
from support.brokers import running_mosquitto
from support.daemons import Daemon, daemon
from support.other_host import run_module

TESTS = Path(__file__).resolve().parents[1]
LABELS = ("F4-M1", "C4-M1", "O2-M1", "E1-M2", "E2-M2", "Chin")
STEADY = ("clean", "nan", "inf", "hole", "step")
"""Beds of one process that lasts; their faults are in the samples."""
APART = ("flood", "stopped", "restarted", "renamed", "reordered", "fewer", "more", "twice")
BEDS = (*STEADY, *APART, "twins")
CHANGED = {
    "restarted": LABELS,
    "renamed": tuple(f"X{number}" for number in range(len(LABELS))),
    "reordered": LABELS[::-1],
    "fewer": ("F4-M1", "E2-M2", "Chin"),
    "more": ("X1", "X2", *LABELS),
    "twice": tuple(f"X{label}" for label in LABELS),
}
"""Bed → the channels of the process that replaces its amplifier, or comes beside it."""
NEEDED = 0.75
"""Less of a page than this is bad; the pack asks for a little more."""
BEGINS, ENDS, STOPPED_S = 33.0, 56.0, 40.0
CHUNK_S = 0.5
"""A fault may hit samples that were due so long before it."""
OVER = 125.0
"""Seconds of the night at which things happen; pages begin at 0, 30, 60, 90 and 120."""

CONFIG = """
[site]
id = "lab"
[daemon]
node = "node1"
state_dir = "{state}"
[broker]
port = {port}
[pack]
name = "{pack}"
[session]
auto = true
"""
BED = '[[bed]]\nid = "{bed}"\nstreams = [{{ source_id = "{bed}" }}]\n'


class Amplifiers:
    """A process with outlets, ready to send on order."""

    def __init__(
        self, *beds: str, labels: tuple[str, ...] = LABELS, host: str | None = None
    ) -> None:
        """Start it, here or on a host of another name; a bed may be named more than once."""
        specs = [{"name": bed, "source_id": bed, "labels": labels} for bed in beds]
        self.process = subprocess.Popen(
            run_module(host, "faults.amplifier", json.dumps(specs)),
            cwd=TESTS,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.labels = labels
        self.up = float("inf")
        """The LSL clock at its first sample."""

    def begin(self) -> Self:
        """Let it send from now on."""
        self._send("go")
        assert self.process.stdout is not None
        self.up = float(self.process.stdout.readline())
        return self

    def _send(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def order(self, bed: str, fault: str, begins: float, ends: float) -> None:
        """Let an outlet do something to its samples."""
        self._send(json.dumps({"name": bed, "fault": fault, "begins": begins, "ends": ends}))

    def kill(self) -> float:
        """Kill it; return the LSL clock after its last sample."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        return float(pylsl.local_clock())


@dataclass
class LiveNight:
    """What was done, and what came of it."""

    listener: Witness
    state: Path
    began: float = 0.0
    """The LSL clock when the last bed's epoch 0 began."""
    ended: dict[str, float] = field(default_factory=dict)
    """Bed → the LSL clock when its session was ended by command."""
    utc_at_0: float = 0.0
    bad: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """Bed → from when to when, by the LSL clock, there were no good samples."""
    sent: dict[str, list[tuple[float, float, tuple[str, ...]]]] = field(default_factory=dict)
    """Bed → from when to when a process sent, and which channels."""
    killed_at: float = 0.0
    complaints: str = ""

    def status(self, bed: str) -> Any:
        """Return how a bed does, by its newest status."""
        document = self.listener.of(f"/bed/{bed}/status")
        return json.loads(document[-1]) if document else {}

    def events(self, bed: str) -> list[Any]:
        """Return a bed's terminal events, each once."""
        document = [json.loads(one) for one in self.listener.events(bed)]
        return list(
            {one["epoch"]: one for one in document if one["status"] != "provisional"}.values()
        )

    def is_good(self, bed: str, lsl: float) -> bool:
        """Whether good samples of a bed were to be had at that time."""
        return not any(begin <= lsl < end for begin, end in self.bad.get(bed, []))

    def share_of_good(self, bed: str, event: Any) -> float:
        """Return how much of an event's page was good."""
        start = datetime.fromisoformat(event["start"]).timestamp() - self.utc_at_0
        return sum(self.is_good(bed, start + (n + 0.5) / 10.0) for n in range(300)) / 300.0

    def finding(self, bed: str) -> NightCheck:
        """Let the checker decide about a bed."""
        began = datetime.fromisoformat(self.events(bed)[0]["start"]).timestamp()
        truth = Truth(
            begins=(began,),
            ends=self.ended[bed] + self.utc_at_0,
            good=lambda utc: self.is_good(bed, utc - self.utc_at_0),
            needed=NEEDED,
        )
        journal = self.state / "journal.sqlite"
        return check_night([journal], self.listener.events(bed), bed, truth)


def now() -> float:
    """Return the LSL clock, which is the amplifiers' and the daemon's too."""
    return float(pylsl.local_clock())


@contextmanager
def live_night(folder: Path, pack: Path) -> Iterator[LiveNight]:
    """Run the night, do every fault in it, kill the daemon at its end, and give what is left."""
    with ExitStack() as stack:
        broker = stack.enter_context(running_mosquitto(folder))
        listener = stack.enter_context(witness(broker.port))
        night = LiveNight(listener, folder / "state")
        night.utc_at_0 = time.time() - now()
        steady = Amplifiers(*STEADY, "twins", "twins")
        running = {bed: Amplifiers(bed) for bed in APART} | dict.fromkeys(STEADY, steady)
        spare = {bed: Amplifiers(bed, labels=labels) for bed, labels in CHANGED.items()}
        spare["again"] = Amplifiers("renamed")
        stack.callback(lambda: [one.kill() for one in {*running.values(), *spare.values(), steady}])
        for process in set(running.values()):
            process.begin()
        config = folder / "run.toml"
        config.write_text(
            CONFIG.format(state=night.state, port=broker.port, pack=pack)
            + "".join(BED.format(bed=bed) for bed in BEDS)
        )
        hypnocast = stack.enter_context(daemon(folder / "daemon", "run", "-c", str(config)))
        _all_recording(night, hypnocast)
        for bed, process in running.items():
            night.sent[bed] = [(process.up, float("inf"), LABELS)]
        _do_faults(night, hypnocast, running, spare)
        _end_all(night, hypnocast)
        hypnocast.kill()
        night.killed_at = now()
        night.complaints = hypnocast.complained
        yield night


def _all_recording(night: LiveNight, hypnocast: Daemon) -> None:
    served = [bed for bed in BEDS if bed != "twins"]
    hypnocast.wait_for(
        lambda: all(night.status(bed).get("since") for bed in served), "all beds record", 60.0
    )
    since = [datetime.fromisoformat(night.status(bed)["since"]).timestamp() for bed in served]
    night.began = max(since) - night.utc_at_0
    assert max(since) - min(since) < 5.0, "the beds began too far apart for one timetable"


def _do_faults(
    night: LiveNight,
    hypnocast: Daemon,
    running: dict[str, Amplifiers],
    spare: dict[str, Amplifiers],
) -> None:
    """Do every fault at its time. What is bad, and from when to when, is noted as it is done."""
    begins, ends = night.began + BEGINS, night.began + ENDS

    def wait_until(lsl: float) -> None:
        hypnocast.wait_for(lambda: now() >= lsl, "its time", lsl - now() + 10.0)

    for bed in ("nan", "inf", "hole", "flood"):
        running[bed].order(bed, bed, begins, ends)
        night.bad[bed] = [(begins - CHUNK_S, ends)]
    running["step"].order("step", "step", night.began + 45.0, float("inf"))
    wait_until(begins)
    running["stopped"].process.send_signal(signal.SIGSTOP)
    stopped = now()
    for bed in ("restarted", "renamed", "reordered", "fewer", "more"):
        restart(night, running, bed, spare.pop(bed), good=bed != "renamed")
    rival = spare["twice"].begin()
    wait_until(ends)
    rival.kill()
    restart(night, running, "renamed", spare.pop("again"))
    wait_until(stopped + STOPPED_S)
    running["stopped"].process.send_signal(signal.SIGCONT)
    # Its samples of the page that is still open then come late, but in time.
    night.bad["stopped"] = [(stopped - CHUNK_S, ends)]
    wait_until(night.began + OVER)


def restart(
    night: LiveNight,
    running: dict[str, Amplifiers],
    bed: str,
    another: Amplifiers,
    *,
    good: bool = True,
) -> None:
    """Let a bed's amplifier be another process from now on."""
    died = running[bed].kill()
    running[bed] = another
    up = another.begin().up
    begin, _, before = night.sent[bed][-1]
    night.sent[bed][-1:] = [(begin, died, before), (up, float("inf"), another.labels)]
    bad = night.bad.setdefault(bed, [])
    if bad and bad[-1][1] == float("inf"):
        bad[-1] = (bad[-1][0], up)
    else:
        bad.append((died, up if good else float("inf")))


def _end_all(night: LiveNight, hypnocast: Daemon) -> None:
    served = [bed for bed in BEDS if bed != "twins"]
    for bed in served:
        session = night.status(bed)["session"]
        command = {"command": "end_session", "request": f"end-{bed}", "session": session}
        night.ended[bed] = now()
        night.listener.publish(f"hypnocast/lab/bed/{bed}/command", command)

    def over(bed: str) -> bool:
        events = night.events(bed)
        return bool(events) and events[-1]["reason"] == "session_end"

    for bed in served:
        hypnocast.wait_for(lambda bed=bed: over(bed), f"the end of {bed}", 40.0)  # type: ignore[misc]  # the default binds the loop's value
