"""Signals and texts as LSL outlets: what the simulator and the bridge to other gear send."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
from hypnocast.ports.lsl.library import load_pylsl

_BUFFER_S = 60
_CLOSERS = 16


class SignalOutlets:
    """Outlets that are opened, fed and closed by arrivals. One thread may use it."""

    def __init__(
        self,
        model: str,
        *,
        shift: float = 0.0,
        opened: Callable[[StreamHeader], None] | None = None,
    ) -> None:
        """Keep what the streams name as their maker.

        ``shift`` is added to every stamp, to come to the local LSL clock; ``opened`` is called
        with each outlet once it is there.
        """
        self._pylsl = load_pylsl()
        self._model = model
        self._shift = shift
        self._opened = opened
        self._open: dict[str, tuple[StreamHeader, Any]] = {}

    def send(self, arrival: Arrival) -> None:
        """Do over LSL what an arrival means. Receivers read this host's clock themselves.

        A stream that opens again and describes itself as before keeps its outlet, so that those
        who receive it need not search for it again.
        """
        match arrival:
            case Chunk():
                stamps = (arrival.stamps + self._shift).tolist()
                self._open[arrival.stream][1].push_chunk(arrival.samples, stamps)
            case Mark():
                self._open[arrival.stream][1].push_sample(
                    [arrival.text], arrival.stamp + self._shift
                )
            case StreamOpened(header):
                known = self._open.get(header.key)
                if known is not None and known[0] == header:
                    return
                self._open.pop(header.key, None)
                self._open[header.key] = (header, self._outlet(header))
                if self._opened is not None:
                    self._opened(header)
            case StreamLost():
                self._open.pop(arrival.stream, None)
            case ClockReading():
                pass

    def listened_to(self) -> bool:
        """Whether anybody reads any of the streams."""
        return any(outlet.have_consumers() for _, outlet in self._open.values())

    def close(self) -> None:
        """Close every outlet, several at once: liblsl is slow to close each."""
        with ThreadPoolExecutor(_CLOSERS) as pool:
            for key in list(self._open):
                pool.submit(self._open.__delitem__, key)

    def _outlet(self, header: StreamHeader) -> Any:
        """Open an outlet that describes itself as amplifiers should."""
        pylsl = self._pylsl
        info = pylsl.StreamInfo(
            header.name,
            header.type,
            len(header.channels),
            header.rate or pylsl.IRREGULAR_RATE,
            header.format,
            header.source_id,
        )
        described = info.desc()
        described.append_child_value("manufacturer", "Hypnocast")
        acquisition = described.append_child("acquisition")
        acquisition.append_child_value("model", self._model)
        channels = described.append_child("channels")
        for channel in header.channels:
            node = channels.append_child("channel")
            node.append_child_value("label", channel.label)
            if channel.unit is not None:
                node.append_child_value("unit", channel.unit)
            if channel.kind is not None:
                node.append_child_value("type", channel.kind)
        return pylsl.StreamOutlet(info, max_buffered=_BUFFER_S)
