"""The configuration of Lab Streaming Layer."""

from __future__ import annotations

from hypnocast.config.tables import Config
from hypnocast.ports.lsl.beds import BedStreams
from hypnocast.ports.lsl.library import LslNetwork


def network_of(config: Config) -> LslNetwork:
    """Return how LSL is to search."""
    lsl = config.lsl
    return LslNetwork(
        peers=lsl.peers,
        scope=lsl.scope,
        base_port=lsl.base_port,
        port_range=lsl.port_range,
        session_id=lsl.session_id,
    )


def beds_of(config: Config) -> tuple[BedStreams, ...] | None:
    """Return the configured beds; None: find them."""
    if not config.bed:
        return None
    return tuple(BedStreams(bed.id, bed.streams, tuple(bed.units)) for bed in config.bed)
