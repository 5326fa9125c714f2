"""What every thread and task of the daemon has in common: it cannot fail unseen."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest

from hypnocast.ports import worker as worker_module
from hypnocast.ports.supervision import Supervisor
from hypnocast.ports.worker import Worker


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "FIRST_PAUSE_S", 0.001)


def until(done: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 20.0
    while not done():
        assert time.monotonic() < deadline, what
        time.sleep(0.002)


def test_a_thread_that_fails_runs_again_and_its_failures_are_reported_and_counted() -> None:
    supervisor = Supervisor()
    runs = 0

    def run(worker: Worker) -> None:
        nonlocal runs
        runs += 1
        if runs < 4:
            raise OSError(5, "Input/output error")
        worker.beat()
        worker.wait()

    worker = supervisor.thread("reader", run, deadline_s=5.0, on_failure="restart")
    until(lambda: worker.health().beats == 1, "the fourth run beats")
    assert supervisor.counts() == {"reader": (3, 3)}
    assert supervisor.problems() == ("reader: OSError: [Errno 5] Input/output error",)
    assert worker.health().state == "running"
    assert worker.stop(5.0)
    assert supervisor.health() == ()
    assert supervisor.counts() == {"reader": (3, 3)}, "what is over is still counted"


def test_a_thread_that_may_not_run_again_stays_reported_and_counts_as_busy() -> None:
    supervisor = Supervisor()

    def run(_: Worker) -> None:
        raise ValueError

    worker = supervisor.thread("drawing", run, deadline_s=5.0)
    until(lambda: worker.state == "failed", "the thread has failed")
    (health,) = supervisor.health()
    assert health.busy, "the watchdog finds it standing still"
    assert health.problem == "drawing has ended: ValueError"


def test_short_work_that_failed_is_forgotten_and_its_count_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_module, "STEADY_S", 0.05)
    supervisor = Supervisor()

    def run(_: Worker) -> None:
        raise ValueError

    for _ in range(3):
        supervisor.thread("opener", run, on_failure="pass")
    until(lambda: supervisor.counts()["opener"][0] == 3, "all have failed")
    until(lambda: not supervisor.health(), "all are forgotten")
    assert supervisor.counts() == {"opener": (3, 0)}


def test_a_stop_ends_the_pause_before_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "FIRST_PAUSE_S", 600.0)
    monkeypatch.setattr(worker_module, "LONGEST_PAUSE_S", 600.0)
    supervisor = Supervisor()

    def run(_: Worker) -> None:
        raise ValueError

    worker = supervisor.thread("reader", run, on_failure="restart")
    until(lambda: worker.state == "pausing", "the thread pauses")
    assert "is started again" in supervisor.problems()[0]
    assert worker.stop(10.0)
    assert worker.state == "ended"


def test_a_failure_inside_a_loop_is_logged_once_and_reported_while_it_lasts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "STEADY_S", 0.2)
    supervisor = Supervisor()
    go = threading.Event()

    def run(worker: Worker) -> None:
        for _ in range(9):
            worker.failed(OSError("no such disk"), doing="sync")
        go.wait(20.0)

    worker = supervisor.thread("tape-sync", run)
    until(lambda: worker.failures == 9, "nine failures")
    assert supervisor.problems() == ("tape-sync: sync: OSError: no such disk",)
    until(lambda: not supervisor.problems(), "it is well again")
    go.set()
    worker.stop(5.0)
    printed = capsys.readouterr()
    assert (printed.out + printed.err).count("a worker failed") == 1


async def test_a_task_runs_again_after_a_failure_until_it_is_cancelled() -> None:
    supervisor = Supervisor()
    runs = 0
    again = asyncio.Event()

    async def run(worker: Worker) -> None:
        nonlocal runs
        runs += 1
        if runs < 3:
            raise RuntimeError
        worker.beat()
        again.set()
        await asyncio.Event().wait()

    task = supervisor.task("explanations", run, on_failure="restart")
    await asyncio.wait_for(again.wait(), 20.0)
    assert supervisor.counts() == {"explanations": (2, 2)}
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    assert supervisor.health() == ()


async def test_a_task_that_may_not_run_again_raises_to_who_awaits_it() -> None:
    supervisor = Supervisor()

    async def run(_: Worker) -> None:
        raise RuntimeError("no page")

    task = supervisor.task("dashboard", run)
    with pytest.raises(RuntimeError):
        await task
    assert supervisor.problems() == ("dashboard has ended: RuntimeError: no page",)


def test_a_pool_is_busy_while_work_waits_and_beats_for_each_that_is_done() -> None:
    supervisor = Supervisor()
    pool = supervisor.pool("journal-reader", 1, deadline_s=5.0)
    go = threading.Event()
    (health,) = supervisor.health()
    assert not health.busy
    first = pool.submit(go.wait, 20.0)
    second = pool.submit(lambda: 1 / 0)
    assert supervisor.health()[0].busy
    assert pool.waiting == 2
    before = supervisor.health()[0].beats
    go.set()
    first.result(20.0)
    with pytest.raises(ZeroDivisionError):
        second.result(20.0)
    until(lambda: not supervisor.health()[0].busy, "all work is done")
    assert supervisor.health()[0].beats > before
    pool.shutdown()
    assert supervisor.health() == ()


async def test_whoever_runs_is_known_and_nobody_else() -> None:
    supervisor = Supervisor()
    pool = supervisor.pool("pool", 1)
    inside = pool.submit(threading.current_thread).result(20.0)

    def run(worker: Worker) -> None:
        worker.wait()

    worker = supervisor.thread("thread", run)
    assert worker.thread is not None
    assert supervisor.knows(worker.thread)
    assert supervisor.knows(inside)
    assert not supervisor.knows(threading.current_thread())
    worker.stop(5.0)
    pool.shutdown()
    assert not supervisor.knows(worker.thread)
