"""The signals themselves go out second by second, where that is wanted."""

from __future__ import annotations

import itertools
from pathlib import Path

import msgspec
import pytest

from hypnocast.core.pages.moving_traces import COLUMNS
from hypnocast.core.types import PAGE_S
from hypnocast.core.wire.traces import Traces
from hypnocast.dashboard.ward import seconds
from hypnocast.simulate import SimulatedSource
from support.brokers import Mosquitto
from support.mqtt_lab import Listener, listening, until
from support.ward_lab import HandDriven, night, running_ward

BED = "bed-01"
TOPIC = f"hypnocast/lab/bed/{BED}/traces"
CLOCK_0 = 1000.0


async def _until_sent(listener: Listener, count: int) -> None:
    await until(lambda: len(listener.of(TOPIC)) >= count, "a second")


async def test_every_second_of_every_channel_is_shown_once(
    tmp_path: Path, pack: Path, broker: Mosquitto
) -> None:
    coming = night(SimulatedSource([BED], seed=7, pages=3, skip_pages=60, truth=False))
    async with listening(broker.port) as listener:
        source = HandDriven(coming)
        async with running_ward(tmp_path, pack, source, broker.port, traces=True) as running:
            for second in range(12):
                source.go_to(CLOCK_0 + 2.5 + second)
                await _until_sent(listener, second + 1)
            await running.go_to(CLOCK_0 + PAGE_S + 5.0, BED, 1)
        said = [msgspec.json.decode(one, type=Traces) for one in listener.of(TOPIC)]
    begins = [seconds(one.start) for one in said]
    steps = [later - earlier for earlier, later in itertools.pairwise(begins)]
    assert all(step == pytest.approx(round(step), abs=2e-3) and step > 0.9 for step in steps)
    assert steps[:9] == pytest.approx([1.0] * 9, abs=2e-3)
    whole = said[5]
    assert len(whole.channels) >= 4
    for columns in whole.channels.values():
        low = [value for value in columns.low if value is not None]
        high = [value for value in columns.high if value is not None]
        assert len(low) == len(high) == COLUMNS
        assert all(lowest <= highest for lowest, highest in zip(low, high, strict=True))
        assert min(low) < max(high)


async def test_nothing_of_it_goes_out_unasked(
    tmp_path: Path, pack: Path, broker: Mosquitto
) -> None:
    coming = night(SimulatedSource([BED], seed=7, pages=2, skip_pages=60, truth=False))
    async with listening(broker.port) as listener:
        source = HandDriven(coming)
        async with running_ward(tmp_path, pack, source, broker.port) as running:
            await running.go_to(CLOCK_0 + PAGE_S + 5.0, BED, 1)
        assert listener.of(TOPIC) == []
