"""What streams may cost, looked at in the announcement, before anything is allocated for them.

liblsl makes room for a minute of samples as soon as a stream is opened, whatever its announcement
is, and reads whatever description it is sent. So both are bounded here. The numbers are in
``docs/security.md#limits``.
"""

from __future__ import annotations

from typing import Final

from hypnocast.ports.lsl.beds import AnnouncedStream
from hypnocast.ports.stream_xml import FORMATS, MAX_CHANNELS, MAX_RATE

MAX_BYTES_PER_S: Final = 4 * 1024 * 1024
"""What one stream may bring: 256 channels at 2048 Hz are half of it."""

BUFFER_BYTES: Final = 32 * 1024 * 1024
"""What liblsl may keep of one stream while its reader is stuck."""

MAX_MARK_CHANNELS: Final = 16
"""Channels of a stream of texts."""

MAX_ANNOUNCED: Final = 16_384
"""Streams that are looked at, at once; pylsl would stop at 1024."""

MAX_OPENERS: Final = 12
"""Streams that are opened at once."""

MAX_PROBES: Final = 8
"""Streams that are asked only who they are, at once."""

MAX_AUTO_SLOTS: Final = 64
"""Streams that are read where beds are found by themselves."""

MAX_LOGGED_UNLISTED: Final = 64
"""Polysomnograms that no bed takes, as the log names them: whoever invents names fills no disk."""

MAX_MARK_CHARS: Final = 4096
"""Of a marker's text; more is cut off. What a night shows of it is shorter."""

MARK_BURST: Final = 200.0
MARKS_PER_S: Final = 20.0
"""How many markers of one stream are read; what is beyond is counted and reported."""

MARK_BUFFER_S: Final = 1
"""For markers liblsl counts hundreds of texts, not seconds, and has no limit on a text."""

_SAMPLE_OVERHEAD: Final = 64
"""What liblsl spends on each sample beside its values, in bytes."""

_SIZES: Final = {
    "float32": 4,
    "double64": 8,
    "string": 32,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "int64": 8,
}


def too_costly(seen: AnnouncedStream) -> str:
    """Return why a stream is not to be opened, by its announcement; empty where it may be."""
    if seen.format not in FORMATS:
        return f"announces the channel format {seen.format!r}, which is none of LSL's"
    if not 1 <= seen.channel_count <= MAX_CHANNELS:
        return f"announces {seen.channel_count} channels; 1 to {MAX_CHANNELS} are read"
    if seen.format == "string" and seen.channel_count > MAX_MARK_CHANNELS:
        return f"announces {seen.channel_count} channels of text; {MAX_MARK_CHANNELS} are read"
    if not 0.0 <= seen.rate <= MAX_RATE:
        return f"announces {seen.rate:g} samples a second; up to {MAX_RATE:g} are read"
    if _bytes_per_s(seen) > MAX_BYTES_PER_S:
        return (
            f"announces {seen.channel_count} channels at {seen.rate:g} Hz, "
            f"{_bytes_per_s(seen) / 1e6:.1f} MB a second; {MAX_BYTES_PER_S / 1e6:.1f} are read"
        )
    return ""


def buffer_s(seen: AnnouncedStream, wanted: int) -> int:
    """Return for how many seconds liblsl may keep samples: ``wanted`` where that is cheap."""
    if seen.format == "string":
        return MARK_BUFFER_S
    cost = _bytes_per_s(seen)
    return wanted if cost == 0 else max(1, min(wanted, int(BUFFER_BYTES / cost)))


def _bytes_per_s(seen: AnnouncedStream) -> float:
    return seen.rate * (seen.channel_count * _SIZES[seen.format] + _SAMPLE_OVERHEAD)
