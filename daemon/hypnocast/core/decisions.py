"""What the daemon decided about time, as records for the tape.

The raw streams alone do not fix a night's pages: which clock reading had come when a sample was
placed, and which samples had come when a page closed, were accidents of that night. They are
written down as they are decided; a replay that obeys them draws the same pages, byte for byte.
"""

from __future__ import annotations

import msgspec

from hypnocast.core.clock import ClockSegment


class Anchored(msgspec.Struct, frozen=True, tag="anchor"):
    """A grid began: epoch 0 starts at this time on the local LSL clock."""

    anchor: float
    first_epoch: int = 0


class StreamCut(msgspec.Struct, frozen=True, tag="cut"):
    """A stream was lost after so many of its samples; what comes next starts afresh."""

    stream: str
    after_sample: int


class PageClosed(msgspec.Struct, frozen=True, tag="page"):
    """A page closed: how many samples of each stream had made it."""

    epoch: int
    opened: int
    """How many stream openings had been seen."""
    samples: dict[str, int]


class Ended(msgspec.Struct, frozen=True, tag="end"):
    """A grid ended; pages after ``epochs`` do not exist."""

    at: float
    epochs: int


Decision = Anchored | ClockSegment | StreamCut | PageClosed | Ended

_encoder = msgspec.json.Encoder(order="deterministic")
_decoder: msgspec.json.Decoder[Decision] = msgspec.json.Decoder(Decision)


def decision_to_json(decision: Decision) -> str:
    """Write a decision as one line of JSON."""
    return _encoder.encode(decision).decode()


def decision_from_json(line: str | bytes) -> Decision:
    """Read a decision back; :class:`msgspec.DecodeError` where it is none."""
    return _decoder.decode(line)
