"""Verdicts between page closes: on time, on the right 30 s, and never in the way of a page."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypnocast.core.pages.rolling_windows import RollingWindows
from hypnocast.core.types import PAGE_S
from hypnocast.core.wire.topics import Topics
from hypnocast.live.staging.judging import Judge
from hypnocast.simulate import SimulatedSource
from hypnocast.stagers.onnx.local import LocalStager
from hypnocast.stagers.packs.pack import load_pack
from support.brokers import Mosquitto
from support.gated_stager import Gated, a_look
from support.mqtt_lab import listening
from support.ward_lab import HandDriven, night, running_ward

BED = "bed-01"
CLOCK_0 = 1000.0
PAGES = 5
HOP_S = 5.0


async def rolled(
    folder: Path, pack: Path, broker: Mosquitto, hop_s: float | None
) -> tuple[list[Any], list[Any], int]:
    """Return the rolling verdicts, the stage events and the rows of the journal of a night."""
    source = HandDriven(night(SimulatedSource([BED], seed=5, pages=PAGES, truth=False)))
    topic = Topics("lab").rolling(BED)
    async with (
        listening(broker.port) as listener,
        running_ward(folder, pack, source, broker.port, hop_s=hop_s) as running,
    ):
        end = CLOCK_0 + (PAGES - 1) * PAGE_S + 4.0
        at = CLOCK_0
        while at < end:
            at += 1.0
            source.go_to(at)
            expected = _ends_by(at) if hop_s else 0
            await running.until(
                lambda n=expected: len(listener.of(topic)) >= n,  # type: ignore[misc]  # a default binds it now
                f"{expected} verdicts",
            )
        events = await running.pages(BED, PAGES - 1)
        stored = await running.journal.events(BED)
        return listener.json_of(topic), events, len(stored)


def _ends_by(local: float) -> int:
    """Count the windows that are over, with the second after them and one in hand."""
    whole = int((local - 2.5 - CLOCK_0) // HOP_S)
    return max(0, whole - 6) - max(0, whole - 6) // 6 if whole > 6 else 0


async def test_verdicts_come_between_page_closes_and_change_no_event(
    tmp_path: Path, pack: Path, broker: Mosquitto
) -> None:
    with_them, events, stored = await rolled(tmp_path / "with", pack, broker, HOP_S)
    without, same, _ = await rolled(tmp_path / "without", pack, broker, None)
    assert not without
    ends = [_seconds(verdict["end"]) for verdict in with_them]
    start = _seconds(events[0].start)
    assert ends == sorted(set(ends))
    assert all((end - start) % HOP_S == pytest.approx(0.0, abs=2e-3) for end in ends)
    assert all((end - start) % PAGE_S > 1.0 for end in ends), "a page's own end was rolled"
    assert min(ends) - start == pytest.approx(PAGE_S + HOP_S, abs=2e-3)
    assert len(ends) >= (PAGES - 2) * 5
    assert {verdict["stage"] for verdict in with_them} <= {"W", "N1", "N2", "N3", "R"}
    assert all(verdict["reason"] is None for verdict in with_them)
    assert stored == len(events)
    pages = [(event.epoch, event.stage, event.digests.picture) for event in events]
    assert pages == [(event.epoch, event.stage, event.digests.picture) for event in same]


def _seconds(instant: str) -> float:
    return datetime.fromisoformat(instant).timestamp()


async def test_pages_are_judged_before_every_glance_and_glances_are_shed(pack: Path) -> None:
    stager = Gated(LocalStager(load_pack(pack), "cpu"))
    judge = Judge(lambda: stager)
    await judge.start()
    try:
        first = judge.glance(a_look(0))
        await asyncio.to_thread(stager.reached.wait, 10.0)
        glances = [judge.glance(a_look(100 + n)) for n in range(80)]
        pages = [judge.ask(a_look(1 + n), urgent=n % 2 == 0) for n in range(6)]
        shed = [glance for glance in glances if glance.cancelled()]
        assert len(shed) == 80 - 64
        began = time.monotonic()
        stager.gate.set()
        await asyncio.gather(first, *pages)
        assert time.monotonic() - began < 10.0
        await asyncio.gather(*(glance for glance in glances if not glance.cancelled()))
    finally:
        judge.stop()
    assert stager.batches[0] == [0]
    assert sorted(stager.batches[1]) == [1, 2, 3, 4, 5, 6]
    assert all(len(batch) <= 4 for batch in stager.batches[2:])


@given(
    hop_s=st.floats(1.0, 30.0),
    steps=st.lists(st.floats(0.05, 9.0), min_size=1, max_size=60),
    lag_s=st.floats(0.0, 3.0),
)
def test_a_window_is_given_once_in_order_and_never_before_it_is_over(
    hop_s: float, steps: list[float], lag_s: float
) -> None:
    windows, now, given = RollingWindows(hop_s), 500.0, []
    for step in steps:
        now += step
        came = now - lag_s
        end = windows.due(500.0, now, grace_s=1.0, whole=lambda end, came=came: came >= end)  # type: ignore[misc]  # a default binds it now
        if end is not None:
            assert came >= end or now >= end + 1.0 - 1e-3
            given.append(end)
    assert given == sorted(set(given))
    assert all(end >= 500.0 + PAGE_S - 1e-3 for end in given)
    into = np.mod(np.asarray(given) - 500.0, PAGE_S)
    assert np.all(np.minimum(into, PAGE_S - into) > 1e-7)
