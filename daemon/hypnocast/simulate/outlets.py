"""Simulated beds as real LSL outlets, in real time: what ``hypnocast simulate`` runs.

The beds are those of a :class:`~.source.SimulatedSource`; this only opens outlets for its
headers and pushes its chunks and marks when they are due. Faults of a sender's clock cannot be
shown this way, for one host has one clock; a new outlet always gets a new uid from liblsl.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from hypnocast.core.types import (
    Arrival,
    Chunk,
    ClockReading,
    Mark,
    StreamHeader,
    StreamLost,
    StreamOpened,
)
from hypnocast.errors import ConfigError
from hypnocast.ports.lsl.library import LslNetwork, configure_lsl, load_pylsl
from hypnocast.simulate.faults import CLOCK_FAULTS
from hypnocast.simulate.source import SimulatedSource

_DEFAULT_STREAMS = 14
"""What liblsl's default range of 32 ports holds, with a little room for others."""
_PORTS_PER_STREAM = 2
_SPARE_PORTS = 64
_BUFFER_S = 60
_CLOSERS = 16


def run_outlets(
    source: SimulatedSource,
    *,
    stop: threading.Event,
    network: LslNetwork | None = None,
    opened: Callable[[StreamHeader], None] | None = None,
) -> None:
    """Send what a source sends, in real time, until its night is over or ``stop`` is set.

    Blocks. ``opened`` is told of each outlet once it is there. Many beds need more ports than
    liblsl takes by itself: the range is widened where ``network`` does not say how wide it is.
    """
    for each in source.faults:
        if each.kind in CLOCK_FAULTS:
            raise ConfigError(
                "real outlets stamp with this host's clock, which is the receiver's too",
                where=f"fault {each}",
                remedy="Leave it out, or simulate at another speed than 1.",
            )
    configure_lsl(_wide_enough(network or LslNetwork(), len(source.senders())))
    outlets = _Outlets(load_pylsl(), source.clock_start, opened)
    try:
        for _bed, arrival in source:
            if stop.wait(outlets.until(arrival)):
                break
            outlets.send(arrival)
    finally:
        outlets.close()


class _Outlets:
    """The outlets that are open, and what the LSL clock is ahead of the source's."""

    def __init__(
        self, pylsl: Any, clock_start: float, opened: Callable[[StreamHeader], None] | None
    ) -> None:
        self._pylsl = pylsl
        self._opened = opened
        self._open: dict[str, Any] = {}
        self._shift: float = pylsl.local_clock() - clock_start

    def until(self, arrival: Arrival) -> float:
        """Return how many seconds it is until something is due."""
        due = arrival.arrived if isinstance(arrival, Chunk | Mark) else arrival.at
        now: float = self._pylsl.local_clock()
        return max(0.0, due + self._shift - now)

    def send(self, arrival: Arrival) -> None:
        """Do over LSL what an arrival says. Receivers read this host's clock themselves."""
        match arrival:
            case Chunk():
                stamps = arrival.stamps + self._shift
                self._open[arrival.stream].push_chunk(arrival.samples, stamps.tolist())
            case Mark():
                self._open[arrival.stream].push_sample([arrival.text], arrival.stamp + self._shift)
            case StreamOpened():
                self._open[arrival.header.key] = _outlet(self._pylsl, arrival.header)
                if self._opened is not None:
                    self._opened(arrival.header)
            case StreamLost():
                del self._open[arrival.stream]
            case ClockReading():
                pass

    def close(self) -> None:
        """Close every outlet; liblsl takes its time for each, so several at once."""
        with ThreadPoolExecutor(_CLOSERS) as pool:
            for key in list(self._open):
                pool.submit(self._open.__delitem__, key)


def _wide_enough(network: LslNetwork, streams: int) -> LslNetwork:
    if network.port_range is not None or streams <= _DEFAULT_STREAMS:
        return network
    return replace(network, port_range=_PORTS_PER_STREAM * streams + _SPARE_PORTS)


def _outlet(pylsl: Any, header: StreamHeader) -> Any:
    """Open an outlet that describes itself as amplifiers should."""
    text = header.format == "string"
    info = pylsl.StreamInfo(
        header.name,
        header.type,
        len(header.channels),
        header.rate or pylsl.IRREGULAR_RATE,
        pylsl.cf_string if text else pylsl.cf_float32,
        header.source_id,
    )
    described = info.desc()
    described.append_child_value("manufacturer", "Hypnocast")
    acquisition = described.append_child("acquisition")
    acquisition.append_child_value("model", "Hypnocast simulator")
    channels = described.append_child("channels")
    for channel in header.channels:
        node = channels.append_child("channel")
        node.append_child_value("label", channel.label)
        if channel.unit is not None:
            node.append_child_value("unit", channel.unit)
        if channel.kind is not None:
            node.append_child_value("type", channel.kind)
    return pylsl.StreamOutlet(info, max_buffered=_BUFFER_S)
