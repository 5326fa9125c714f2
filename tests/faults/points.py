"""The named places at which a daemon may be killed: before, within and after every write.

A point is a call of the daemon's own code; arming one makes its n-th passing the last thing the
process does. Nothing else of the daemon is changed.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any, Final

from hypnocast.ports.journal.files import JournalFiles
from hypnocast.ports.journal.journal import Journal
from hypnocast.ports.journal.store import Store
from hypnocast.ports.mqtt import client, retained
from hypnocast.ports.recordings.tape import Tape

BEFORE_AND_AFTER: Final[dict[str, tuple[type, str]]] = {
    "batch": (Store, "apply"),
    "event": (Store, "_insert_event"),
    "delivered": (Store, "delivered"),
    "fold": (Store, "fold"),
    "reserve": (JournalFiles, "lay_by_reserve"),
    "reported": (Journal, "_report"),
    "acknowledged": (Journal, "acknowledge"),
    "sent": (client.Client, "send"),
    "puback": (client.Client, "_on_publish"),
    "login": (client.Client, "join"),
    "state": (retained.RetainedStates, "put"),
    "tape": (Tape, "write"),
}
"""Name → what is called there."""

POINTS: Final = (
    *(f"{name}:{side}" for name in BEFORE_AND_AFTER for side in ("before", "after")),
    "transaction:begin",
    "transaction:commit",
    "transaction:done",
    "tape:half",
)

MOST_HITS: Final[dict[str, int]] = {"reserve": 1, "login": 1, "checkpoint": 2}
"""How often a point is passed in a short life; 12 where nothing is set."""


def arm(point: str, hit: int) -> None:
    """Let the n-th passing of a point kill this process."""
    due = _counter(hit)
    name, _, side = point.partition(":")
    if name == "transaction":
        _arm_transaction(side, due)
    elif point == "tape:half":
        _arm_half(due)
    else:
        _arm_call(*BEFORE_AND_AFTER[name], side, due)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _counter(hit: int) -> Callable[[], bool]:
    """Return what counts passings and which is the last."""
    passed = 0

    def due() -> bool:
        nonlocal passed
        passed += 1
        return passed == hit

    return due


def _arm_call(owner: type, name: str, side: str, due: Callable[[], bool]) -> None:
    original = getattr(owner, name)

    def called(*args: Any, **kwargs: Any) -> Any:
        if side == "before" and due():
            _die()
        answer = original(*args, **kwargs)
        if side == "after" and due():
            _die()
        return answer

    async def awaited(*args: Any, **kwargs: Any) -> Any:
        if side == "before" and due():
            _die()
        answer = await original(*args, **kwargs)
        if side == "after" and due():
            _die()
        return answer

    setattr(owner, name, awaited if inspect.iscoroutinefunction(original) else called)


def _arm_transaction(side: str, due: Callable[[], bool]) -> None:
    original = Store.transaction

    @contextlib.contextmanager
    def transaction(self: Store, **kwargs: Any) -> Iterator[None]:
        if side == "begin" and due():
            _die()
        with original(self, **kwargs):
            yield
            if side == "commit" and due():
                _die()
        if side == "done" and due():
            _die()

    Store.transaction = transaction  # type: ignore[method-assign]


def _arm_half(due: Callable[[], bool]) -> None:
    """Half of a chunk is on the disk when the lights go out."""
    original = Tape._put

    def put(self: Tape, raw: bytes) -> None:
        if due() and self._file is not None:
            self._file.write(raw[: len(raw) // 2])
            self._file.flush()
            _die()
        original(self, raw)

    Tape._put = put  # type: ignore[method-assign]
