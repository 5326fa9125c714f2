"""What a BrainVision Recorder and a ZMax headband send, packed here independently of the bridge."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RDA_GUID = struct.pack("<IHH8B", 0x4358458E, 0xC996, 0x4C86, *bytes.fromhex("af4a98bbf6c91450"))


def rda(kind: int, body: bytes = b"") -> bytes:
    """Pack one RDA message."""
    return RDA_GUID + struct.pack("<II", 24 + len(body), kind) + body


def rda_start(labels: Sequence[str], interval_us: float, resolutions: Sequence[float]) -> bytes:
    """Pack the message that begins an acquisition."""
    names = b"".join(label.encode("latin-1") + b"\0" for label in labels)
    body = struct.pack("<Id", len(labels), interval_us)
    return rda(1, body + struct.pack(f"<{len(labels)}d", *resolutions) + names)


def rda_block(
    number: int,
    counts: NDArray[np.float32] | NDArray[np.int16],
    markers: Sequence[tuple[int, str, str]] = (),
) -> bytes:
    """Pack a block of (points, channels) counts with its markers: position, type, description."""
    body = struct.pack("<III", number, len(counts), len(markers)) + counts.tobytes()
    for position, kind, text in markers:
        words = kind.encode() + b"\0" + text.encode() + b"\0"
        body += struct.pack("<IIIi", 16 + len(words), position, 1, -1) + words
    return rda(2 if counts.dtype == np.int16 else 4, body)


def zmax_packet(left: int, right: int) -> bytes:
    """Write a packet of data with two counts of EEG as HDServer does."""
    values = bytearray(40)
    values[0] = 8
    values[1:3] = right.to_bytes(2, "big")
    values[3:5] = left.to_bytes(2, "big")
    return f"D.{values.hex('-').upper()}\r\n".encode()
