"""Faults on demand: what goes wrong, where and when, as data.

A fault is written ``[BED/[STREAM/]]KIND[:ARGUMENT][@START[+DURATION]]``, times in seconds since
the source began: ``dropout@600+10``, ``detached:F4-M1@900+120``, ``bed-02/unit:absent``,
``bed-01/eeg/drift:200ppm``, ``step:+3600@1200``, ``restart:new@600+5``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from hypnocast.errors import ConfigError


class FaultKind(StrEnum):
    """Everything that can be made to go wrong."""

    DROPOUT = "dropout"
    """Samples are lost on the way; the clock still answers."""
    SILENT = "silent"
    """The sender is gone without a word: no samples, no clock."""
    LATE = "late"
    """Samples are held back and come all at once in the end."""
    FLOOD = "flood"
    """Twenty times as many samples as there should be."""
    RESTART = "restart"
    """The outlet closes and opens again, with the ``same`` or a ``new`` uid."""
    DETACHED = "detached"
    """An electrode or lead hangs in the air: hum, drift, hardly any EEG."""
    FLAT = "flat"
    """A lead or electrode gives nothing but its last value, zero."""
    HUM = "hum"
    """A lead or electrode picks up 60 µV of mains hum on top of its signal."""
    CLIPPED = "clipped"
    """A lead or electrode saturates at 25 µV."""
    MISSING = "missing"
    """A lead is not in the stream at all."""
    NAN = "nan"
    """Every value is not a number."""
    UNIT = "unit"
    """The metadata name this unit, or none (``absent``); the numbers stay as they are."""
    RATE = "rate"
    """The metadata claim this nominal rate; 0 is irregular."""
    MONTAGE = "montage"
    """The bed's amplifier sends another montage."""
    DRIFT = "drift"
    """The sender's clock runs fast (or, below 0, slow) by so many ppm."""
    STEP = "step"
    """The sender's clock jumps by so many seconds."""
    CLOCK = "clock"
    """The sender's clock reads so many seconds more than ours, or ``unix`` time."""
    JITTER = "jitter"
    """Every timestamp is off by a random time of this standard deviation."""


_TIME = re.compile(r"([+-]?\d+(?:\.\d+)?)(ms|s)?")
_PPM = re.compile(r"([+-]?\d+(?:\.\d+)?)(?:ppm)?")
_SPEC = re.compile(
    r"(?:(?P<bed>[^/@:]+)/)?(?:(?P<stream>[^/@:]+)/)?(?P<kind>[a-z]+)(?::(?P<argument>[^@]+))?"
    r"(?:@(?P<start>\d+(?:\.\d+)?)(?:\+(?P<duration>\d+(?:\.\d+)?))?)?"
)
UNIX_CLOCK = 1.7e9
"""About what a gateway that stamps Unix time is ahead of an LSL clock."""


def _seconds(text: str) -> float:
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError("is not a time such as 5ms or +3600")
    return float(match[1]) * (1e-3 if match[2] == "ms" else 1.0)


def _ppm(text: str) -> float:
    match = _PPM.fullmatch(text)
    if match is None:
        raise ValueError("is not a number of ppm such as 200ppm")
    return float(match[1]) * 1e-6


def _clock(text: str) -> float:
    return UNIX_CLOCK if text == "unix" else _seconds(text)


def _uid(text: str) -> float:
    if text not in ("same", "new"):
        raise ValueError("is neither same nor new")
    return 0.0


def _rate(text: str) -> float:
    rate = float(text)
    if not 0.0 <= rate < math.inf:
        raise ValueError("is not a rate")
    return rate


def _any(text: str) -> float:  # noqa: ARG001 - a reader that takes every text
    return 0.0


_READERS: dict[FaultKind, Callable[[str], float]] = {
    FaultKind.RESTART: _uid,
    FaultKind.DETACHED: _any,
    FaultKind.FLAT: _any,
    FaultKind.HUM: _any,
    FaultKind.CLIPPED: _any,
    FaultKind.MISSING: _any,
    FaultKind.UNIT: _any,
    FaultKind.MONTAGE: _any,
    FaultKind.RATE: _rate,
    FaultKind.DRIFT: _ppm,
    FaultKind.STEP: _seconds,
    FaultKind.CLOCK: _clock,
    FaultKind.JITTER: _seconds,
}
"""Kinds that need an argument, and how it is read."""

STATIC = frozenset(
    {
        FaultKind.MISSING,
        FaultKind.UNIT,
        FaultKind.RATE,
        FaultKind.MONTAGE,
        FaultKind.DRIFT,
        FaultKind.CLOCK,
        FaultKind.JITTER,
    }
)
"""Kinds that hold from beginning to end and have no time."""
ON_LEADS = frozenset(
    {
        FaultKind.DETACHED,
        FaultKind.FLAT,
        FaultKind.HUM,
        FaultKind.CLIPPED,
        FaultKind.MISSING,
    }
)
"""Kinds whose argument is the label of a lead or the name of an electrode."""
CLOCK_FAULTS = frozenset({FaultKind.DRIFT, FaultKind.STEP, FaultKind.CLOCK})
"""Kinds that need a clock of the sender's own, so cannot be shown on one host."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong."""

    kind: FaultKind
    argument: str = ""
    start: float = 0.0
    end: float = math.inf
    bed: str | None = None
    """Only this bed; None is every bed."""
    stream: str | None = None
    """Only the stream with this suffix; None is every stream of signals."""

    def __post_init__(self) -> None:
        reader = _READERS.get(self.kind)
        problem = ""
        if reader is None and self.argument:
            problem = f"{self.kind} takes no argument"
        elif reader is not None and not self.argument:
            problem = f"{self.kind} needs an argument"
        elif self.kind in STATIC and (self.start or self.end < math.inf):
            problem = f"{self.kind} holds all the time and takes no @"
        elif self.kind is FaultKind.STEP and self.end < math.inf:
            problem = "a step lasts no time"
        elif self.kind in (FaultKind.RESTART, FaultKind.LATE) and self.end == math.inf:
            problem = f"{self.kind} needs a duration, as in {self.kind}…@600+5"
        elif reader is not None:
            try:
                reader(self.argument)
            except ValueError as error:
                problem = f"{self.argument!r} {error}"
        if problem:
            raise ConfigError(problem, where=f"fault {self}", remedy=_REMEDY)

    @property
    def value(self) -> float:
        """The argument as a number, in seconds, Hz or parts of 1."""
        reader = _READERS.get(self.kind, _any)
        return reader(self.argument)

    def __str__(self) -> str:
        where = "".join(f"{part}/" for part in (self.bed, self.stream) if part)
        what = f"{self.kind}:{self.argument}" if self.argument else str(self.kind)
        when = f"@{self.start:g}" if self.start or self.end < math.inf else ""
        length = f"+{self.end - self.start:g}" if self.end < math.inf else ""
        return f"{where}{what}{when}{length}"

    def concerns(self, bed: str, stream: str) -> bool:
        """Whether it is about this stream of this bed."""
        return self.bed in (None, bed) and self.stream in (None, stream)


_REMEDY = "Write [BED/[STREAM/]]KIND[:ARGUMENT][@START[+DURATION]], e.g. detached:F4-M1@900+120."


def fault(text: str) -> Fault:
    """Read a fault from its written form."""
    match = _SPEC.fullmatch(text.strip())
    if match is None:
        raise ConfigError(
            "this is not how a fault is written", where=f"fault {text}", remedy=_REMEDY
        )
    try:
        kind = FaultKind(match["kind"])
    except ValueError:
        raise ConfigError(
            f"there is no fault called {match['kind']!r}",
            where=f"fault {text}",
            remedy=f"Choose one of: {', '.join(FaultKind)}.",
        ) from None
    start = float(match["start"] or 0.0)
    end = start + float(match["duration"]) if match["duration"] else math.inf
    return Fault(kind, match["argument"] or "", start, end, match["bed"], match["stream"])


def read_faults(faults: Iterable[Fault | str]) -> tuple[Fault, ...]:
    """Read faults that may be written or ready."""
    return tuple(fault(each) if isinstance(each, str) else each for each in faults)
