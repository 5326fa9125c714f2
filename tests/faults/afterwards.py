"""After a night: what the last connection lost is sent when the daemon is back."""

from __future__ import annotations

import os
import signal
import sqlite3
from dataclasses import replace

from faults.life import Orders
from faults.nursery import DEADLINE_S, Nursery
from faults.witness import FaultProxy, until


def left(orders: Orders) -> int:
    """Count what waits for the broker."""
    with sqlite3.connect(f"file:{orders.state}/journal.sqlite?mode=ro", uri=True) as db:
        count = int(db.execute("SELECT count(*) FROM outbox").fetchone()[0])
    db.close()
    return count


def send_the_rest(orders: Orders, nursery: Nursery, proxy: FaultProxy) -> None:
    """Start once more without streams, where anything is left, with a connection that holds."""
    proxy.cut_before_publish = proxy.cut_before_puback = proxy.cut_after_puback = None
    if left(orders) == 0:
        return
    process = nursery.begin(
        replace(orders, begins=orders.until, until=float("inf"), beds=(), flaky=0.0, kill_at="")
    )
    until(lambda: left(orders) == 0, "the outbox is empty", DEADLINE_S)
    os.kill(process, signal.SIGTERM)
    assert nursery.ended() == 0
