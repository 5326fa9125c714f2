"""Hypnodyne's ZMax headband by its HDServer, as ``hypnocast bridge zmax`` publishes it.

HDServer sends lines of text over TCP once it was greeted with ``HELLO``; a packet of data is
``D.`` and 40 bytes in hexadecimal, ``-`` between them, one packet a sample at 256 Hz. Learnt from
the public clients Dreamento (``ZmaxHeadband.py``, ``ZmaxSocket.py``) and slumber, which agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hypnocast.bridge.gear import BridgeRun, renamed, signal_header
from hypnocast.bridge.sample_clock import SampleClock
from hypnocast.bridge.tcp import Silence, TcpAddress, received
from hypnocast.core.types import Arrival, Chunk, StreamOpened
from hypnocast.errors import StreamError
from hypnocast.ports.lsl.library import load_pylsl

PORT: Final = 8000
"""HDServer's, as the public clients have it."""

RATE: Final = 256.0
LABELS: Final = ("F7-Fpz", "F8-Fpz")
"""The left and the right EEG: both electrodes are measured against Fpz."""

MICROVOLTS_PER_COUNT: Final = 3952.0 / 65_536.0

GREETING: Final = b"HELLO\n"
_ZERO = 32_768
_PACKET_CHARS = 119
_KINDS = range(1, 12)
_RIGHT, _LEFT = 1, 3
_MAX_LINE = 4096
_SILENT_S = 10.0


class ZmaxDecoder:
    """Turns the text of one connection into samples, however it is cut."""

    def __init__(self) -> None:
        """Begin with a connection."""
        self._rest = b""

    def feed(self, piece: bytes) -> NDArray[np.float32]:
        """Take text; return (n, 2): left and right EEG in µV, of the packets that are whole now.

        Lines that are no packet of data (greetings, the server's own notes) are passed over.
        """
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > _MAX_LINE:
            raise StreamError("does not speak as Hypnodyne's HDServer")
        rows = [row for line in lines if (row := _sample(line)) is not None]
        return np.array(rows, dtype=np.float32).reshape(-1, 2)


def _sample(line: bytes) -> tuple[float, float] | None:
    head, _, packet = line.strip().partition(b".")
    if not head.startswith(b"D") or head.startswith(b"DEBUG") or len(packet) != _PACKET_CHARS:
        return None
    try:
        values = bytes.fromhex(packet.replace(b"-", b"").decode("ascii"))
    except ValueError:
        return None
    if len(values) != 40 or values[0] not in _KINDS:
        return None
    return _microvolts(values, _LEFT), _microvolts(values, _RIGHT)


def _microvolts(values: bytes, at: int) -> float:
    return (int.from_bytes(values[at : at + 2], "big") - _ZERO) * MICROVOLTS_PER_COUNT


class ZmaxHeadband:
    """A ZMax headband behind its HDServer."""

    def __init__(self, address: TcpAddress, name: str, names: Mapping[str, str]) -> None:
        """Take where the server is, the name of the stream and other names for channels."""
        self._address = address
        self._clock = load_pylsl().local_clock
        self._header = signal_header("zmax", name, RATE, renamed(LABELS, names))

    @property
    def name(self) -> str:
        """What people know it by."""
        return f"ZMax at {self._address}"

    def arrivals(self, run: BridgeRun) -> Iterator[Arrival]:
        """Connect, and give what comes; a headband that falls silent is connected to anew."""
        decoder = ZmaxDecoder()
        clock = SampleClock(RATE)
        silence = Silence(self._address, _SILENT_S)
        opened = False
        for piece in received(self._address, run.stop, greeting=GREETING):
            now: float = self._clock()
            try:
                samples = decoder.feed(piece)
            except StreamError as error:
                raise StreamError(error.what, where=str(self._address)) from error
            if not len(samples):
                silence.check()
                continue
            silence.broken()
            if not opened:
                yield StreamOpened(self._header, now)
                opened = True
            yield Chunk(self._header.key, samples, clock.stamps(len(samples), now), now)
