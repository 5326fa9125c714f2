"""XDF, written: pure functions from values to the bytes of one chunk each.

The format is https://github.com/sccn/xdf/wiki/Specifications, version 1.0. Every sample keeps
the timestamp it came with to the last bit: a timestamp is left out only where adding the nominal
interval to the one before gives exactly the same number.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypnocast.core.types import FloatArray

MAGIC = b"XDF:"
FILE_HEADER, STREAM_HEADER, SAMPLES, CLOCK_OFFSET, BOUNDARY, STREAM_FOOTER = range(1, 7)
BOUNDARY_MARK = bytes.fromhex("43a546dccbf5410fb30ed5467383cbe4")

DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "double64": np.dtype("<f8"),
    "int64": np.dtype("<i8"),
    "int32": np.dtype("<i4"),
    "int16": np.dtype("<i2"),
    "int8": np.dtype("<i1"),
}
"""The numeric channel formats; the other one is ``string``."""


def chunk(tag: int, content: bytes, stream: int | None = None) -> bytes:
    """Frame one chunk: its length, its tag, the stream it belongs to."""
    head = struct.pack("<H", tag) if stream is None else struct.pack("<HI", tag, stream)
    return b"\x04" + struct.pack("<I", len(head) + len(content)) + head + content


def checksum(number: int, kind: int, at: float, content: bytes | memoryview) -> int:
    """Return the CRC-32 of a block of a tape: whose it is, when it came, and its bytes.

    ``content`` is the chunk behind its length and tag. The result is signed, for an int32 column.
    """
    crc = zlib.crc32(content, zlib.crc32(struct.pack("<iid", number, kind, at)))
    return crc - (1 << 32) if crc >> 31 else crc


def content_of(framed: bytes) -> memoryview:
    """Return what a chunk that :func:`chunk` has framed holds behind its length and tag."""
    return memoryview(framed)[7:]


def boundary() -> bytes:
    """Return the chunk from which a reader can go on after damage."""
    return chunk(BOUNDARY, BOUNDARY_MARK)


def clock_offset(stream: int, *, at: float, offset: float) -> bytes:
    """Write a reading; XDF keeps the time of it on the sender's clock."""
    return chunk(CLOCK_OFFSET, struct.pack("<dd", at - offset, offset), stream)


def samples(stream: int, values: NDArray[Any], stamps: FloatArray, *, interval: float) -> bytes:
    """Write numeric samples; ``interval`` is 1 / nominal rate, 0 where there is none."""
    little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    count = len(stamps)
    width = little.dtype.itemsize * little.shape[1]
    rows = little.view(np.uint8).reshape(count, width)
    regular = interval > 0 and bool(np.all(stamps[1:] == stamps[:-1] + interval))
    explicit = 1 if regular else count
    stamped = np.empty(explicit, dtype=[("flag", "u1"), ("stamp", "<f8"), ("row", "u1", (width,))])
    stamped["flag"] = 8
    stamped["stamp"] = stamps[:explicit]
    stamped["row"] = rows[:explicit]
    deduced = np.zeros(count - explicit, dtype=[("flag", "u1"), ("row", "u1", (width,))])
    deduced["row"] = rows[explicit:]
    head = b"\x04" + struct.pack("<I", count)
    return chunk(SAMPLES, head + stamped.tobytes() + deduced.tobytes(), stream)


def texts(stream: int, rows: Sequence[tuple[float, Sequence[str]]]) -> bytes:
    """Write samples of a text stream: a timestamp and one text per channel."""
    parts = [b"\x04" + struct.pack("<I", len(rows))]
    for stamp, values in rows:
        parts.append(b"\x08" + struct.pack("<d", stamp))
        for value in values:
            raw = value.encode("utf-8", "replace")
            parts.append(b"\x04" + struct.pack("<I", len(raw)) + raw)
    return chunk(SAMPLES, b"".join(parts), stream)
