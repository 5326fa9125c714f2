"""Channels that carry no signal of a montage, but body position or an electrode's impedance."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hypnocast.core.types import ChannelInfo, Chunk, StreamHeader
from hypnocast.core.wire.gear_values import GearKind

MOST = 64
"""Channels of one bed that are shown; a sleep recording has fewer electrodes."""

_KINDS: dict[str, GearKind] = {
    "position": "position",
    "bodyposition": "position",
    "impedance": "impedance",
    "impedances": "impedance",
}
_POSITION = re.compile(
    r"(?:body[ _.-]?)?pos(?:ition)?[ _.-]*(?:sensor|sen|angle)?\.?", re.IGNORECASE
)
_IMPEDANCE = re.compile(r"imp(?:edance)?[ _.:-]+\S.*|\S.*[ _.:-]imp(?:edance)?", re.IGNORECASE)


def gear_type(word: str | None) -> GearKind | None:
    """Return what a type of a channel or stream stands for; None for signals and the rest."""
    return _KINDS.get(re.sub(r"[ _-]", "", word or "").lower())


def gear_kind(stream: StreamHeader, channel: ChannelInfo) -> GearKind | None:
    """Return what a channel carries beside signals, by its type, its label, its stream's type."""
    found = gear_type(channel.kind)
    label = channel.label.strip()
    if found is not None:
        return found
    if _POSITION.fullmatch(label):
        return "position"
    return "impedance" if _IMPEDANCE.fullmatch(label) else gear_type(stream.type)


def signal_labels(stream: StreamHeader) -> list[str]:
    """Return the labels of the channels that may carry signals."""
    return [one.label for one in stream.channels if gear_kind(stream, one) is None]


@dataclass(frozen=True, slots=True)
class GearSeen:
    """The newest value of such a channel."""

    kind: GearKind
    channel: str
    value: float
    unit: str | None
    since: float
    """Local time since when it has been this."""


class GearValues:
    """Keeps the newest value of each such channel of one bed."""

    def __init__(self) -> None:
        """Begin without streams."""
        self._headers: dict[str, StreamHeader] = {}
        self._kinds: dict[str, Mapping[int, GearKind]] = {}
        self._seen: dict[tuple[str, int], GearSeen] = {}

    def open(self, header: StreamHeader) -> None:
        """Look which of a stream's channels are of this kind."""
        self.lose(header.key)
        found = ((at, gear_kind(header, channel)) for at, channel in enumerate(header.channels))
        kinds = {at: kind for at, kind in found if kind is not None}
        if kinds:
            self._headers[header.key] = header
            self._kinds[header.key] = kinds

    def lose(self, stream: str) -> None:
        """Forget a stream that is gone: what it said holds no longer."""
        self._kinds.pop(stream, None)
        for key in [key for key in self._seen if key[0] == stream]:
            del self._seen[key]

    def add(self, chunk: Chunk) -> None:
        """Note the newest values of a chunk."""
        kinds = self._kinds.get(chunk.stream)
        if not kinds or not len(chunk.stamps):
            return
        at = chunk.arrived or float(chunk.stamps[-1])
        for index, kind in kinds.items():
            column = np.asarray(chunk.samples[:, index], dtype=np.float64)
            known = column[np.isfinite(column)]
            channel = self._headers[chunk.stream].channels[index]
            key = (chunk.stream, index)
            if not known.size or (key not in self._seen and len(self._seen) >= MOST):
                continue
            value = _rounded(float(known[-1]) * (channel.scale or 1.0), kind)
            before = self._seen.get(key)
            if before is None or before.value != value:
                self._seen[key] = GearSeen(kind, channel.label, value, channel.unit, at)

    def now(self) -> tuple[GearSeen, ...]:
        """Return the newest values, stream by stream, in the order of their channels."""
        return tuple(self._seen[key] for key in sorted(self._seen))


def _rounded(value: float, kind: GearKind) -> float:
    """Round as finely as it means anything, so that noise is no news."""
    return round(value, 1) if kind == "position" else float(f"{value:.2g}")
