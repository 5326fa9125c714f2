"""The watchdog means progress: received by a stand-in for the service manager."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from faults.checker import Truth, check_night
from faults.life import ORIGIN, UTC0, Alive, Orders, TimeFile, a_ward, is_bad
from faults.nursery import Nursery
from faults.watched import health_report_of
from faults.witness import until
from hypnocast.live.service.watchdog import Pulse, StuckError, Watchdog
from hypnocast.ports.metrics import MetricsServer
from hypnocast.ports.supervision import Supervisor
from hypnocast.ports.system import Notifier
from hypnocast.stagers.base import Stager
from hypnocast.stagers.onnx.local import LocalStager
from hypnocast.stagers.packs.pack import load_pack
from support.mqtt_lab import until as until_async


class Manager:
    """Listens where systemd would."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.messages: list[tuple[float, str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while data := self._socket.recv(65536):
            self.messages.append((time.monotonic(), data.decode()))

    def times(self, word: str) -> list[float]:
        return [at for at, text in list(self.messages) if text.startswith(word)]

    def status(self) -> str:
        return next((t for _, t in reversed(list(self.messages)) if t.startswith("STATUS=")), "")

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"", str(self.path))
        self._thread.join()
        self._socket.close()


@contextmanager
def listening(folder: Path) -> Iterator[Manager]:
    manager = Manager(folder / "notify")
    try:
        yield manager
    finally:
        manager.close()


@asynccontextmanager
async def kept_watch(alive: Alive, orders: Orders, *, watchdog_s: float) -> AsyncIterator[None]:
    """Run a ward with a watchdog in this process, and end both."""
    environment = {"NOTIFY_SOCKET": orders.notify, "WATCHDOG_USEC": str(round(watchdog_s * 1e6))}
    with closing(Notifier(environment)) as notifier:
        watchdog = Watchdog(health_report_of(alive, orders), notifier, every_s=0.1)
        watch = asyncio.create_task(watchdog.run(alive.ward.ready))
        ward = asyncio.create_task(alive.ward.run())
        try:
            yield
        finally:
            alive.ward.stop()
            watch.cancel()
            await asyncio.gather(ward, watch, return_exceptions=True)


def orders_for(folder: Path, pack: Path, manager: Manager, **more: object) -> Orders:
    fields = {"state": str(folder / "state"), "pack": str(pack), "port": 1, "begins": ORIGIN}
    return Orders(**(fields | {"notify": str(manager.path), "pace_s": 0.01} | more))  # type: ignore[arg-type]


def test_a_status_that_was_lost_is_reported_again(tmp_path: Path) -> None:
    """A manager that is slow to read must not be left with what was true long ago."""
    folder = tmp_path / "notify"
    environment = {"NOTIFY_SOCKET": str(folder)}
    with closing(Notifier(environment)) as notifier:
        notifier.status("the disk is full")  # nobody is there yet
        with listening(tmp_path) as manager:
            for _ in range(2):
                notifier.status("the disk is full")
            until(lambda: bool(manager.status()), "the status")
            notifier.status("all is well")
            until(lambda: manager.status() == "STATUS=all is well", "the next status")
            assert len(manager.times("STATUS=")) == 2


async def test_ready_is_sent_only_once_the_model_is_warm(tmp_path: Path, pack: Path) -> None:
    go = threading.Event()

    def build() -> Stager:
        go.wait(20.0)
        return LocalStager(load_pack(pack), "cpu", 1)

    with listening(tmp_path) as manager:
        orders = orders_for(tmp_path, pack, manager)
        async with (
            a_ward(orders, build=build) as alive,
            kept_watch(alive, orders, watchdog_s=0.4),
        ):
            await until_async(lambda: manager.status() == "STATUS=warming up")
            await until_async(lambda: alive.ward.signal_thread.beats > 20, "samples are read")
            assert not manager.times("READY=1")
            assert not manager.times("WATCHDOG=1")
            go.set()
            await until_async(lambda: len(manager.times("WATCHDOG=1")) > 3)
            assert len(manager.times("READY=1")) == 1
            words = "1 of 1 beds in a session; model on cpu; broker"
            await until_async(lambda: words in manager.status(), words)


@pytest.mark.promise(7)
@pytest.mark.parametrize("part", ["judge", "journal", "drawing"])
def test_a_part_that_stays_stuck_ends_the_process_for_a_new_start(
    tmp_path: Path, pack: Path, part: str
) -> None:
    with listening(tmp_path) as manager, Nursery(tmp_path / "log") as nursery:
        orders = orders_for(
            tmp_path, pack, manager, hang=part, patience_s=1.0, stuck_after_s=3600.0
        )
        nursery.begin(orders)
        assert nursery.ended() == 1, (tmp_path / "log").read_text()[-3000:]
        last_beat = manager.times("WATCHDOG=1")[-1]
        name = {"judge": "judging"}.get(part, part)
        stuck = [
            at for at, text in manager.messages if text.startswith("STATUS=STUCK") and name in text
        ]
        assert stuck, manager.messages[-5:]
        assert last_beat <= stuck[-1]  # on a busy machine others may hang for a moment


@pytest.mark.promise(1)
@pytest.mark.promise(7)
def test_with_the_judges_own_deadline_off_the_watchdog_ends_it_and_the_night_goes_on(
    tmp_path: Path, pack: Path
) -> None:
    """The inference thread waits for ever; nobody but the stand-in for the manager acts."""
    clock = TimeFile(tmp_path / "clock")
    with listening(tmp_path) as manager, Nursery(tmp_path / "log") as nursery:
        orders = orders_for(
            *(tmp_path, pack, manager),
            hang="judge",
            stuck_after_s=3600.0,
            patience_s=3600.0,
            clock=str(tmp_path / "clock"),
        )
        process = nursery.begin(orders)
        until(
            lambda: "STUCK: " in manager.status() and "judging" in manager.status(),
            "the daemon says who is stuck",
        )
        beats = len(manager.times("WATCHDOG=1"))
        time.sleep(orders.watchdog_s)  # the manager's whole period, without one beat in it
        assert len(manager.times("WATCHDOG=1")) == beats
        os.kill(process, signal.SIGABRT)  # what systemd does then
        assert nursery.ended() == -signal.SIGABRT
        died = clock.now
        ends = died + 300.0
        nursery.begin(replace(orders, hang="", begins=died, until=ends))
        assert nursery.ended() == 0, (tmp_path / "log").read_text()[-3000:]
        assert len(manager.times("READY=1")) == 2
    truth = Truth((UTC0,), UTC0 + ends - ORIGIN, lambda at: not is_bad(ORIGIN + at - UTC0))
    found = check_night([tmp_path / "state" / "journal.sqlite"], None, "bed1", truth)
    assert found.whole, found
    assert found.final >= 7


def test_a_blocked_event_loop_beats_no_more(tmp_path: Path, pack: Path) -> None:
    with listening(tmp_path) as manager, Nursery(tmp_path / "log") as nursery:
        process = nursery.begin(orders_for(tmp_path, pack, manager, hang="loop"))
        until(lambda: manager.times("WATCHDOG=1"), "a first beat")
        until(
            lambda: time.monotonic() - manager.times("WATCHDOG=1")[-1] > 2.0,
            "a whole period without a beat",
        )
        os.kill(process, signal.SIGKILL)
        nursery.ended()


@pytest.mark.promise(7)
async def test_a_model_that_hangs_is_rebuilt_by_its_own_deadline_while_the_heart_beats(
    tmp_path: Path, pack: Path
) -> None:
    built = 0

    def build() -> Stager:
        nonlocal built
        built += 1
        stager = LocalStager(load_pack(pack), "cpu", 1)
        if built == 1:
            stager.judge = lambda _: threading.Event().wait()  # type: ignore[method-assign,assignment,return-value]
        return stager

    with listening(tmp_path) as manager:
        orders = orders_for(tmp_path, pack, manager, stuck_after_s=0.5, deadline_s=20.0)
        async with a_ward(orders, build=build) as alive:
            async with kept_watch(alive, orders, watchdog_s=2.0):
                await until_async(lambda: built == 2, "the model is built anew")
                counts = alive.ward.publishers["bed1"].counts
                await until_async(lambda: counts["final"] > 3, "stages come again")
                assert counts["withheld_no_model"] > 0
            # The judge, who hangs, is within its deadline: no look found anybody stuck.
            assert not [text for _, text in manager.messages if "STUCK" in text]
            assert len(manager.times("WATCHDOG=1")) > 5


async def test_pages_are_withheld_while_a_model_cannot_be_rebuilt_and_the_night_goes_on(
    tmp_path: Path, pack: Path
) -> None:
    built = 0

    def build() -> Stager:
        nonlocal built
        built += 1
        if built > 1:
            load_pack(tmp_path / "removed")  # the pack was removed under way
        stager = LocalStager(load_pack(pack), "cpu", 1)
        stager.judge = lambda _: threading.Event().wait()  # type: ignore[method-assign,assignment,return-value]
        return stager

    with listening(tmp_path) as manager:
        orders = orders_for(tmp_path, pack, manager, stuck_after_s=0.3)
        async with a_ward(orders, build=build) as alive:
            ward = asyncio.create_task(alive.ward.run())
            await until_async(
                lambda: (
                    "bed1" in alive.ward.publishers
                    and alive.ward.publishers["bed1"].counts["withheld_no_model"] > 20
                ),
                "pages go on being withheld",
            )
            state = alive.ward.state()
            assert any("removed" in line for line in state.degraded), state.degraded
            assert not ward.done()
            alive.ward.stop()
            await ward


async def test_metrics_are_served_on_loopback_as_prometheus_reads_them(
    tmp_path: Path, pack: Path
) -> None:
    from urllib.request import urlopen

    from prometheus_client.parser import text_string_to_metric_families

    with listening(tmp_path) as manager:
        orders = orders_for(tmp_path, pack, manager, until=ORIGIN + 300.0)
        async with a_ward(orders) as alive:
            rounds = health_report_of(alive, orders)
            await alive.ward.run()
            await alive.ward.count_outbox()
            rounds.refresh()
            with MetricsServer("127.0.0.1", 0, rounds.readings, Supervisor()) as server:
                page = await asyncio.to_thread(
                    lambda: urlopen(f"http://127.0.0.1:{server.port}/metrics").read().decode()
                )
    numbers = {
        (sample.name, sample.labels.get("status")): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    assert numbers["hypnocast_pages_total", "pages"] == 10
    assert numbers["hypnocast_outbox_waiting", None] == 10
    assert numbers["hypnocast_journal_durable", None] == 1


class Patient:
    """Shows what a test wants it to show."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pulse = Pulse("part", 0, busy=True, deadline_s=5.0)

    def refresh(self) -> None: ...

    def pulses(self) -> list[Pulse]:
        return [self.pulse]

    def words(self) -> str:
        return "in words"


def _nobody() -> Notifier:
    notifier = Notifier({})
    notifier.close()
    return notifier


def test_only_who_has_something_to_do_and_does_nothing_is_stuck() -> None:
    patient = Patient()
    watchdog = Watchdog(patient, _nobody(), clock=lambda: patient.now)
    assert not watchdog.look()
    patient.now = 5.0
    assert not watchdog.look()
    patient.now = 6.0
    assert [(one.part, one.for_s, one.over_s) for one in watchdog.look()] == [("part", 6.0, 1.0)]
    patient.pulse = Pulse("part", 1, busy=True, deadline_s=5.0)
    assert not watchdog.look()
    patient.now, patient.pulse = 60.0, Pulse("part", 1, busy=False, deadline_s=5.0)
    assert not watchdog.look()
    patient.now, patient.pulse = 64.0, Pulse("part", 1, busy=True, deadline_s=5.0)
    assert not watchdog.look()


async def test_beyond_patience_the_watchdog_names_who_stands_still() -> None:
    patient = Patient()
    ready = asyncio.Event()
    ready.set()
    watchdog = Watchdog(
        patient, _nobody(), every_s=0.001, patience_s=0.0, clock=lambda: patient.now
    )
    run = asyncio.create_task(watchdog.run(ready))
    await asyncio.sleep(0)
    patient.now = 4.0
    await until_async(lambda: watchdog._watched_s == 4.0, "a look")
    patient.now = 7.0
    with pytest.raises(StuckError, match="part for 7 s"):
        await run


def test_what_stood_still_with_the_whole_process_does_not_count_as_stuck() -> None:
    patient = Patient()
    watchdog = Watchdog(patient, _nobody(), clock=lambda: patient.now)
    assert not watchdog.look()
    patient.now = 100.0  # stopped, frozen, or without a processor: the watchdog was it as well
    assert not watchdog.look()
    patient.now = 101.0
    assert [(one.part, one.for_s) for one in watchdog.look()] == [("part", 6.0)]


def test_a_watchdog_meant_for_another_process_is_not_ours() -> None:
    def period(**environment: str) -> float | None:
        notifier = Notifier(environment)
        notifier.close()
        return notifier.watchdog_s

    assert period(NOTIFY_SOCKET="/x", WATCHDOG_USEC="5000000") == 5.0
    assert period(NOTIFY_SOCKET="/x", WATCHDOG_USEC="5000000", WATCHDOG_PID="1") is None
    assert period(WATCHDOG_USEC="5000000") is None


def test_without_a_file_descriptor_left_the_heart_still_beats(tmp_path: Path) -> None:
    with listening(tmp_path) as manager:
        notifier = Notifier({"NOTIFY_SOCKET": str(manager.path)})
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                socket.socket()
            notifier.alive()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        until(lambda: manager.times("WATCHDOG=1"), "a beat")
        notifier.close()
