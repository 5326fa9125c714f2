"""Whatever the disk does, every page's event goes out; what is not durable is marked so."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from faults.checker import Truth, check_night
from faults.life import ORIGIN, UTC0, Orders, TimeFile, is_bad
from faults.nursery import Nursery
from faults.tapes import read_raw
from faults.witness import Witness, fault_proxy, until, witness
from support.brokers import running_mosquitto
from support.needs import need_program

DISK = "size=24m"


def a_small_disk(folder: Path) -> tuple[str, ...]:
    """Return a command that runs another with a small disk of its own under ``folder``."""
    mount = f'mount -t tmpfs -o {DISK} tmpfs "{folder}"'
    namespace = (need_program("unshare"), "--user", "--map-root-user", "--mount", "sh", "-c")
    trial = subprocess.run([*namespace, mount], capture_output=True, check=False)
    if trial.returncode:
        pytest.skip("this machine lets nobody mount a disk in a namespace of their own")
    return (*namespace, f'{mount} && exec "$@"', "sh")


def an_order(folder: Path, pack: Path, port: int, **more: object) -> Orders:
    fields: dict[str, object] = {
        "state": str(folder),
        "pack": str(pack),
        "port": port,
        "begins": ORIGIN,
        "clock": str(folder.parent / "clock"),
    }
    TimeFile(folder.parent / "clock")
    return Orders(**(fields | more))  # type: ignore[arg-type]


@contextmanager
def on_a_small_disk(
    folder: Path, pack: Path, **more: object
) -> Iterator[tuple[Path, int, Nursery, Witness]]:
    """Run a daemon whose state lies on a small disk: the disk, the process, and who watches."""
    disk = folder / "disk"
    disk.mkdir()
    with (
        running_mosquitto(folder) as broker,
        witness(broker.port) as listener,
        Nursery(folder / "log", a_small_disk(disk)) as nursery,
    ):
        orders = an_order(
            disk / "state", pack, broker.port, pace_s=0.005, state_every_s=0.3, **more
        )
        # Outside of its disk, where both can see it.
        process = nursery.begin(replace(orders, clock=str(folder / "clock")))
        until(lambda: len(listener.events()) > 5, "events")
        yield Path(f"/proc/{process}/root") / str(disk).lstrip("/"), process, nursery, listener


def more_events(listener: Witness, count: int, what: str) -> None:
    """Wait for so many more events."""
    before = len(listener.events())
    until(lambda: len(listener.events()) > before + count, what)


def ends_of(journal: Path) -> float:
    """Return when the last page that a journal has ends."""
    with contextlib.closing(sqlite3.connect(journal)) as db:
        (last,) = db.execute("SELECT max(epoch) FROM events").fetchone()
    return ORIGIN + 30.0 * (1 + int(last))


def truth_until(ends: float) -> Truth:
    return Truth((UTC0,), UTC0 + ends - ORIGIN, lambda at: not is_bad(ORIGIN + at - UTC0))


@pytest.mark.promise(1)
@pytest.mark.promise(2)
def test_a_disk_full_and_free_again_costs_no_event_and_is_reported(
    tmp_path: Path, pack: Path
) -> None:
    with on_a_small_disk(tmp_path, pack) as (inside, process, nursery, listener):
        ballast, more = inside / "ballast", inside / "more"
        fill(ballast)
        until(lambda: "reserve is in use" in state_of(listener), "the reserve is used")
        assert "journal_degraded" not in state_of(listener)
        fill_until(
            more, lambda: "journal_degraded" in state_of(listener), "durability is not promised"
        )
        more_events(listener, 20, "events go on meanwhile")
        ballast.unlink()
        more.unlink()
        until(lambda: state_of(listener) == "", "durable again")
        more_events(listener, 5, "events go on after")
        copy = a_copy_of(inside / "state", process, tmp_path / "copy")
        nursery.ended()
        journal = copy / "journal.sqlite"
        found = check_night([journal], None, "bed1", truth_until(ends_of(journal)))
        assert found.whole, found
        assert found.terminal == found.expected > 30
        document = {json.loads(one)["epoch"] for one in listener.events()}
        assert document >= set(range(max(document) + 1))


@pytest.mark.promise(2)
@pytest.mark.promise(7)
def test_a_disk_full_for_too_long_costs_the_oldest_events_and_they_are_named(
    tmp_path: Path, pack: Path
) -> None:
    """Memory is bounded: what no longer finds room is counted, reported and noted in the night."""
    with on_a_small_disk(tmp_path, pack, held_bytes=100_000) as life:
        inside, process, nursery, listener = life
        fill(inside / "ballast")
        until(lambda: "reserve is in use" in state_of(listener), "the reserve is used")
        fill_until(
            inside / "more",
            lambda: "are lost to the journal" in state_of(listener),
            "losses are reported",
        )
        more_events(listener, 20, "events go on meanwhile")
        (inside / "ballast").unlink()
        (inside / "more").unlink()
        until(lambda: "journal_degraded" not in state_of(listener), "durable again")
        assert "are lost to the journal" in state_of(listener), "said until the daemon ends"
        more_events(listener, 5, "events go on after")
        copy = a_copy_of(inside / "state", process, tmp_path / "copy")
        nursery.ended()
        journal = copy / "journal.sqlite"
        with contextlib.closing(sqlite3.connect(journal)) as db:
            (noted,) = db.execute("SELECT text FROM marks WHERE kind = 'note'").fetchone()
        result = re.match(r"(\d+) events of epochs (\d+) to (\d+) are lost", noted)
        assert result is not None, noted
        count, first, last = map(int, result.groups())
        found = check_night([journal], None, "bed1", truth_until(ends_of(journal)))
        assert found.lost == list(range(first, last + 1))
        assert len(found.lost) == count >= 20
        assert not [*found.doubled, *found.wrongly_staged, *found.wrong], found
        # The broker was there: whoever listened missed nothing, and no number was given twice.
        document = [json.loads(one) for one in listener.events()]
        assert {event["epoch"] for event in document} >= set(range(found.expected - 1))
        assert len({event["sequence"] for event in document}) == len(
            {event["id"] for event in document}
        )


def a_copy_of(state: Path, process: int, copy: Path) -> Path:
    """Kill a daemon and keep its files, which vanish with its disk."""
    os.kill(process, signal.SIGSTOP)
    shutil.copytree(state, copy)
    os.kill(process, signal.SIGKILL)
    return copy


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Let nobody write in a folder or its files, whatever is open and whoever it is.

    But for SQLite's shared memory: where a file system refuses a page of a mapped file, the
    kernel ends the process (SIGBUS) before anybody can cope; docs/faults.md describes what follows.
    """
    change = need_program("chattr")
    inside = [str(path) for path in folder.rglob("*") if not path.name.endswith("-shm")]
    made = subprocess.run([change, "+i", str(folder), *inside], capture_output=True, check=False)
    try:
        if made.returncode:
            pytest.skip("this file system or user can make no file unchangeable")
        yield
    finally:
        subprocess.run([change, "-R", "-i", str(folder)], capture_output=True, check=False)


@pytest.mark.promise(1)
@pytest.mark.promise(2)
def test_a_state_folder_that_becomes_read_only_costs_no_event_and_is_reported(
    tmp_path: Path, pack: Path
) -> None:
    state = tmp_path / "state"
    with (
        running_mosquitto(tmp_path) as broker,
        witness(broker.port) as listener,
        Nursery(tmp_path / "log") as nursery,
    ):
        orders = an_order(state, pack, broker.port, pace_s=0.005, state_every_s=0.3, tape=True)
        process = nursery.begin(orders)
        until(lambda: len(listener.events()) > 5, "events")
        with read_only(state):
            until(lambda: "journal_degraded" in state_of(listener), "durability is not promised")
            more_events(listener, 20, "events go on meanwhile")
            assert "journal_degraded" in state_of(listener)
        until(lambda: state_of(listener) == "", "durable again")
        more_events(listener, 5, "events go on after")
        os.kill(process, signal.SIGTERM)
        assert nursery.ended() == 0, (tmp_path / "log").read_text()[-3000:]
        journal = state / "journal.sqlite"
        found = check_night([journal], listener.events(), "bed1", truth_until(ends_of(journal)))
        assert found.whole, found
        assert found.terminal == found.expected > 30
        assert all(read_raw(tape).chunks for tape in (state / "tapes").glob("*.xdf"))
        # Begun in such a folder, a daemon reports what is wrong and what to do.
        with read_only(state):
            nursery.begin(orders)
            assert nursery.ended() == 1
    assert "Name a directory on a disk that this user may write" in (tmp_path / "log").read_text()


def fill(ballast: Path) -> None:
    """Fill every byte there is."""
    with ballast.open("ab", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def fill_until(ballast: Path, true: Callable[[], bool], what: str) -> None:
    """Keep a disk full: what somebody frees is filled too."""

    def filled() -> bool:
        fill(ballast)
        return true()

    until(filled, what)


def state_of(listener: Witness) -> str:
    """Return what the daemon reports as not as it should be."""
    states = listener.of("/daemon/node1/state")
    return " ".join(json.loads(states[-1])["degraded"]) if states else ""


@pytest.mark.promise(2)
def test_a_damaged_journal_is_set_aside_and_a_new_night_begins(tmp_path: Path, pack: Path) -> None:
    state = tmp_path / "state"
    with (
        running_mosquitto(tmp_path) as broker,
        witness(broker.port) as listener,
        Nursery(tmp_path / "log") as nursery,
    ):
        orders = an_order(state, pack, broker.port)
        process = nursery.begin(orders)
        until(lambda: len(listener.events()) > 30, "events")
        os.kill(process, signal.SIGKILL)
        nursery.ended()
        journal = state / "journal.sqlite"
        journal.with_name("journal.sqlite-wal").unlink()
        with journal.open("r+b") as file:
            file.write(os.urandom(64 * 1024))
        begins = TimeFile(Path(orders.clock)).now
        ends = begins + 300.0
        nursery.begin(replace(orders, begins=begins, until=ends))
        assert nursery.ended() == 0, (tmp_path / "log").read_text()[-3000:]
        aside = [path for path in state.iterdir() if ".damaged-" in path.name]
        assert aside
        truth = Truth(
            (UTC0 + begins - ORIGIN,),
            UTC0 + ends - ORIGIN,
            lambda at: not is_bad(ORIGIN + at - UTC0),
        )
        found = check_night([journal], None, "bed1", truth)
        assert found.whole, found
        ids = [json.loads(one)["id"] for one in listener.events()]
        assert len(set(ids)) == len(ids)


@pytest.mark.promise(2)
def test_without_file_descriptors_the_night_goes_on_and_the_broker_is_found_again(
    tmp_path: Path, pack: Path
) -> None:
    state = tmp_path / "state"
    with (
        running_mosquitto(tmp_path) as broker,
        witness(broker.port) as listener,
        fault_proxy(broker.port) as proxy,
        Nursery(tmp_path / "log") as nursery,
    ):
        orders = an_order(state, pack, proxy.port, pace_s=0.01, tape=True)
        process = nursery.begin(orders)
        until(lambda: len(listener.events()) > 5, "events")
        highest = max(int(entry.name) for entry in Path(f"/proc/{process}/fd").iterdir())
        was = resource.prlimit(process, resource.RLIMIT_NOFILE)
        resource.prlimit(process, resource.RLIMIT_NOFILE, (3, was[1]))
        assert highest > 3
        proxy.cut()
        clock = TimeFile(Path(orders.clock))
        then = clock.now
        until(lambda: clock.now > then + 30.0 * 40, "the night goes on")
        resource.prlimit(process, resource.RLIMIT_NOFILE, was)
        more_events(listener, 40, "the backlog comes")
        os.kill(process, signal.SIGTERM)
        assert nursery.ended() == 0, (tmp_path / "log").read_text()[-3000:]
        journal = state / "journal.sqlite"
        found = check_night([journal], None, "bed1", truth_until(ends_of(journal)))
        assert found.whole, found
