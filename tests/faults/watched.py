"""A ward under its watchdog, with a part that can be made to hang."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from faults.life import Alive, Orders
from hypnocast.live.service.health_report import Deadlines, HealthReport
from hypnocast.live.service.watchdog import Watchdog, keep_watch
from hypnocast.ports.journal.store import Store
from hypnocast.ports.system import Notifier, leave_in

ORDERLY_S = 1.0


def health_report_of(alive: Alive, orders: Orders) -> HealthReport:
    """Go round a ward's parts with deadlines that a test can wait for."""
    s = orders.deadline_s
    # The pages of a night at speed come much more often than every 30 s.
    deadlines = Deadlines(s, s, s, s, close_slack=s - 31.0, worker=s)
    return HealthReport(
        alive.ward,
        reading=lambda: alive.ward.signal_thread.beats,
        closing_s=1.0,
        deadlines=deadlines,
    )


async def watched(alive: Alive, orders: Orders) -> None:
    """Run a ward, under a watchdog where the orders ask for it."""
    if not orders.notify:
        await alive.ward.run()
        return
    environment = {
        "NOTIFY_SOCKET": orders.notify,
        "WATCHDOG_USEC": str(round(orders.watchdog_s * 1e6)),
        "WATCHDOG_PID": str(os.getpid()),
    }
    watchdog = Watchdog(
        health_report_of(alive, orders),
        Notifier(environment),
        patience_s=orders.patience_s,
        every_s=0.05,
    )
    alive.source.after_first_page = lambda: stand_still(orders.hang, alive)
    await keep_watch(
        alive.ward.run(),
        watchdog,
        alive.ward.ready,
        stop=alive.ward.stop,
        leave=lambda _, code: leave_in(ORDERLY_S, code),
    )


def stand_still(part: str, alive: Alive) -> None:
    """Let a part wait for what never comes."""
    for_ever = threading.Event()

    def wait(*_: Any, **__: Any) -> Any:
        for_ever.wait()

    match part:
        case "judge":
            model = alive.parts.judge._stager
            assert model is not None
            model.judge = wait  # type: ignore[method-assign]
        case "journal":
            Store.transaction = wait  # type: ignore[method-assign]
        case "drawing":
            alive.source.hang = wait
        case "loop":
            time.sleep(3600)
        case _:
            assert not part
