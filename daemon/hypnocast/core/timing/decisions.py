"""What the daemon decided about time, as records for the tape.

The raw streams alone do not fix a night's pages: which clock reading had come when a sample was
placed, and which samples had come when a page closed, were accidents of that night. They are
written down as they are decided; a replay that obeys them draws the same pages, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from hypnocast.core.timing.clock import ClockSegment
from hypnocast.core.types import PAGE_S

WHOLE_PAGE_S = 0.25
"""A session that ends this short of a page's end has that page whole."""


class EarlierPage(msgspec.Struct, frozen=True, array_like=True):
    """What the model said of a page before a tape began: the verdicts on it rest on that too."""

    epoch: int
    log_probabilities: tuple[float, ...] | None
    """None where the page was withheld."""
    coverage: float = 1.0


class Anchored(msgspec.Struct, frozen=True, tag="anchor", omit_defaults=True):
    """A grid began: epoch 0 starts at this time on the local LSL clock."""

    anchor: float
    first_epoch: int = 0
    before: tuple[EarlierPage, ...] = ()
    """The newest pages of the same night, where the daemon was restarted in it."""


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


def cut_short(decisions: Iterable[Decision]) -> frozenset[tuple[float, int]]:
    """Return the pages in whose middle a session ended, each as its grid's anchor and its epoch."""
    cut: set[tuple[float, int]] = set()
    anchor = 0.0
    for decision in decisions:
        if isinstance(decision, Anchored):
            anchor = decision.anchor
        elif isinstance(decision, Ended) and (
            anchor + decision.epochs * PAGE_S > decision.at + WHOLE_PAGE_S
        ):
            cut.add((anchor, decision.epochs - 1))
    return frozenset(cut)


_encoder = msgspec.json.Encoder(order="deterministic")
_decoder: msgspec.json.Decoder[Decision] = msgspec.json.Decoder(Decision)


def decision_to_json(decision: Decision) -> str:
    """Write a decision as one line of JSON."""
    return _encoder.encode(decision).decode()


def decision_from_json(line: str | bytes) -> Decision:
    """Read a decision back; :class:`msgspec.DecodeError` where it is none."""
    return _decoder.decode(line)
