"""No thread and no long-lived task of a running daemon is without a worker of the supervisor."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any, Final

import pytest

from hypnocast.config.file import load_config
from hypnocast.live.service import serve as serve_module
from hypnocast.ports.kept_word import WARD_TOKEN
from hypnocast.ports.supervision import Supervisor
from support.brokers import free_port, running_mosquitto
from support.lsl_lab import sending, wait_until
from support.mqtt_lab import Listener, until
from support.packs import make_tiny_pack

CONFIG = """
[site]
id = "lab"
[daemon]
node = "pc1"
state_dir = "{state}"
[broker]
port = {port}
[pack]
name = "{pack}"
explain = "channels"
[session]
auto = true
[publish]
page = true
hop_s = 5
[metrics]
port = {metrics}
[dashboard]
enabled = true
port = {page}
[lsl]
publish = true
[[bed]]
id = "one-box"
streams = [{{ source_id = "solo-1" }}]
"""

LIBRARIES_OWN: Final = {
    # aiomqtt asks paho every second for what a timer has to do; our link watches for silence.
    "Client._misc_loop",
    # uvicorn begins and ends the application in it, and waits for both.
    "LifespanOn.main",
    # uvicorn answers one request in it: it ends with the request, and its errors are the answer.
    "RequestResponseCycle.run_asgi",
}
"""Tasks that are a library's business. liblsl's and ONNX Runtime's threads are not Python's."""

WAITERS: Final = {
    "TaskWakeupMethWrapper",  # ``await task``
    "_wait.<locals>._on_completion",
    "_release_waiter",
    "gather.<locals>._done_callback",
    "shield.<locals>._inner_done_callback",
    "TaskGroup._on_task_done",
    "TaskGroup._spawn.<locals>.task_done",
}
"""Who calls back at the end of a task that another task waits for: its failure comes out there."""


def awaited(task: asyncio.Task[Any]) -> bool:
    callbacks = [callback for callback, _ in getattr(task, "_callbacks", None) or ()]
    callbacks = [getattr(callback, "func", callback) for callback in callbacks]
    names = {getattr(each, "__qualname__", type(each).__name__) for each in callbacks}
    return bool(names & WAITERS)


def unsupervised(
    supervisor: Supervisor,
    but_threads: AbstractSet[threading.Thread],
    but_tasks: AbstractSet[asyncio.Task[Any]],
) -> set[str]:
    """Name every thread and task, but for those of the test itself, that nobody watches."""
    threads = {
        f"thread {thread.name}"
        for thread in threading.enumerate()
        if thread not in but_threads and not supervisor.knows(thread)
    }
    tasks = {
        f"task {task.get_name()}: {task.get_coro().__qualname__}"  # type: ignore[union-attr]
        for task in asyncio.all_tasks()
        if task not in but_tasks
        and not supervisor.knows(task)
        and not awaited(task)
        and task.get_coro().__qualname__ not in LIBRARIES_OWN  # type: ignore[union-attr]
    }
    return threads | tasks


@pytest.fixture
def outlets() -> Iterator[None]:
    with sending("support.psg_outlets"):
        yield


@asynccontextmanager
async def open_page(state: Path, port: int) -> AsyncIterator[None]:
    """Look at the ward page as a browser does: a stream of events stays open."""
    token = state / WARD_TOKEN

    def ask(path: str, cookie: str = "") -> HTTPResponse:
        line = HTTPConnection("127.0.0.1", port, timeout=60.0)
        line.request("GET", path, headers={"Cookie": cookie, "Connection": "close"})
        return line.getresponse()  # which closes the connection when it is closed

    def look() -> HTTPResponse:
        wait_until(lambda: token.exists() and _listens(port), "the page is served")
        with ask(f"/?token={token.read_text()}") as let_in:
            cookie = (let_in.getheader("set-cookie") or "").partition(";")[0]
        page = ask("/api/ward/live", cookie)
        while b"event: pulse" not in page.readline():
            assert page.status == 200
        return page

    page = await asyncio.to_thread(look)
    try:
        yield
    finally:
        page.close()


def _listens(port: int) -> bool:
    with socket.socket() as line:
        return line.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.timeout(400)
@pytest.mark.usefixtures("outlets")
async def test_every_thread_and_task_of_a_running_daemon_is_supervised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Supervisor] = []
    supervise = serve_module.supervise

    def made_here() -> Supervisor:
        made.append(supervise())
        return made[-1]

    monkeypatch.setattr(serve_module, "supervise", made_here)
    pack = make_tiny_pack(tmp_path / "tiny")
    with running_mosquitto(tmp_path) as broker:
        config, page = tmp_path / "run.toml", free_port()
        config.write_text(
            CONFIG.format(
                state=tmp_path / "state", port=broker.port, pack=pack, page=page,
                metrics=free_port(),
            )
        )  # fmt: skip
        listener = Listener(broker.port)
        threads, tasks = set(threading.enumerate()), asyncio.all_tasks()
        serving = asyncio.create_task(serve_module.serve(load_config(config)))
        tasks.add(serving)
        explained = "hypnocast/lab/bed/one-box/explanation"
        try:
            async with open_page(tmp_path / "state", page):
                await until(lambda: serving.done() or any(listener.of(explained)), "a page", 300.0)
                (supervisor,) = made
                assert unsupervised(supervisor, threads, tasks) == set()
                running = {health.name for health in supervisor.health()}
                assert running >= WORKERS, WORKERS - running
                await _one_that_nobody_watches_is_found(supervisor, threads, tasks)
        finally:
            if not serving.done():
                signal.raise_signal(signal.SIGTERM)  # as the service manager ends it
            await serving
            await asyncio.to_thread(listener.close)


WORKERS: Final = {
    *("lsl-reader", "lsl-watcher", "drawing", "tape-sync", "journal", "journal-reader"),
    *("pictures", "judge", "background", "metrics", "metrics-answers"),
    *("bed one-box", "mqtt", "commands", "status", "outbox count", "model care", "keeping"),
    *("explanations", "ward page", "page server", "page sweep", "page feed"),
}


async def _one_that_nobody_watches_is_found(
    supervisor: Supervisor,
    threads: AbstractSet[threading.Thread],
    tasks: AbstractSet[asyncio.Task[Any]],
) -> None:
    """Show that the look finds what it looks for."""
    end = threading.Event()
    stray = threading.Thread(target=end.wait, name="stray")
    stray.start()
    for_ever = asyncio.create_task(asyncio.Event().wait(), name="stray")
    for_ever.add_done_callback(lambda _: None)  # whoever gets its end is not waited for
    try:
        await asyncio.sleep(0)
        found = unsupervised(supervisor, threads, tasks)
        assert found == {"thread stray", "task stray: Event.wait"}
    finally:
        end.set()
        stray.join()
        for_ever.cancel()
