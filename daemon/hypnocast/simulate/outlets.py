"""Simulated beds as real LSL outlets, in real time: what ``hypnocast simulate`` runs.

The beds are those of a :class:`~.source.SimulatedSource`; this only opens outlets for its
headers and pushes its chunks and marks when they are due. Faults of a sender's clock cannot be
shown this way, for one host has one clock; a new outlet always gets a new uid from liblsl.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from hypnocast.core.types import Chunk, Mark, StreamHeader
from hypnocast.errors import ConfigError
from hypnocast.ports.lsl.library import LslNetwork, configure_lsl, load_pylsl
from hypnocast.ports.lsl.outlets import SignalOutlets
from hypnocast.simulate.faults import CLOCK_FAULTS
from hypnocast.simulate.source import SimulatedSource

_DEFAULT_STREAMS = 14
"""What liblsl's default range of 32 ports holds, with a little room for others."""
_PORTS_PER_STREAM = 2
_SPARE_PORTS = 64


def run_outlets(
    source: SimulatedSource,
    *,
    stop: threading.Event,
    network: LslNetwork | None = None,
    opened: Callable[[StreamHeader], None] | None = None,
) -> None:
    """Send what a source sends, in real time, until its night is over or ``stop`` is set.

    Blocks. ``opened`` is called with each outlet once it is there. Many beds need more ports than
    liblsl uses by itself: the range is widened where ``network`` does not set it.
    """
    for each in source.faults:
        if each.kind in CLOCK_FAULTS:
            raise ConfigError(
                "real outlets stamp with this host's clock, which is the receiver's too",
                where=f"fault {each}",
                remedy="Leave it out, or simulate at another speed than 1.",
            )
    configure_lsl(_wide_enough(network or LslNetwork(), len(source.senders())))
    clock = load_pylsl().local_clock
    shift: float = clock() - source.clock_start
    outlets = SignalOutlets("Hypnocast simulator", shift=shift, opened=opened)
    try:
        for _bed, arrival in source:
            due = arrival.arrived if isinstance(arrival, Chunk | Mark) else arrival.at
            if stop.wait(max(0.0, due + shift - clock())):
                break
            outlets.send(arrival)
    finally:
        outlets.close()


def _wide_enough(network: LslNetwork, streams: int) -> LslNetwork:
    if network.port_range is not None or streams <= _DEFAULT_STREAMS:
        return network
    return replace(network, port_range=_PORTS_PER_STREAM * streams + _SPARE_PORTS)
