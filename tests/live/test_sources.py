"""What gives way when arrivals come faster than the signal thread can take them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from hypnocast.core.types import (
    Arrival,
    ChannelInfo,
    Chunk,
    ClockReading,
    StreamHeader,
    StreamLost,
    StreamOpened,
)
from hypnocast.live.bed import sources
from hypnocast.live.bed.sources import LiveSource
from hypnocast.ports.lsl.source import LslSource

HEADER = StreamHeader("amp", "amp", "EEG", "amp", "uid", "pc", 256.0, (ChannelInfo("C4-M1", "µV"),))


class Flood(LslSource):
    """Hands over whatever it is given, at once."""

    def __init__(self, arrivals: list[Arrival]) -> None:
        self._given = arrivals

    def start(self, sink: Callable[[str, Arrival], None]) -> None:
        for arrival in self._given:
            sink("bed1", arrival)

    def stop(self, timeout_s: float = 0.0) -> None:
        """Nothing runs."""


def chunk(second: int) -> Chunk:
    stamps = second + np.arange(10) / 10.0
    return Chunk("amp", np.zeros((10, 1)), stamps, arrived=second + 1.0)


def test_samples_give_way_to_a_thread_far_behind_and_what_opens_a_stream_never_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without it all later samples mean nothing. The tape has every one."""
    monkeypatch.setattr(sources, "MAX_WAITING", 20)
    opening: list[Arrival] = [StreamOpened(HEADER, 0.0), ClockReading("amp", 1.0, 0.5)]
    late: list[Arrival] = [StreamLost("amp", 99.0), StreamOpened(HEADER, 100.0)]
    given = [*opening, *map(chunk, range(50)), *late]
    taped: list[Arrival] = []
    live = LiveSource(Flood(given), lambda: 200.0, lambda _, arrival: taped.append(arrival))
    came: list[Arrival] = []
    for arrived in live.arrivals():
        if arrived is None:
            live.stop()
        else:
            came.append(arrived[1])
    assert [one for one in came if not isinstance(one, Chunk)] == [*opening, *late]
    assert came[-1] is late[-1]
    assert sum(isinstance(one, Chunk) for one in came) == 18
    assert live.dropped == 320
    assert taped == given
