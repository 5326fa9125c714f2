"""What all recordings have in common: headers, a beginning, annotations, arrivals."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from hypnocast.core.types import Arrival, StreamHeader
from hypnocast.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Annotation:
    """A text at a time of the recording."""

    onset: float
    """On the recording's local clock, like the stamps of its samples."""
    duration: float | None
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """A night in a file, ready to be fed through the same door as a live one."""

    path: Path
    format: str
    """``EDF``, ``EDF+C``, ``EDF+D``, ``BDF``, ``BDF+C`` …, ``XDF`` or ``tape``."""
    subject: str
    """A pseudonym; no part of it is made of a name or a date of birth in clear."""
    start: datetime | None
    """UTC of ``t0``; None where the file gives none."""
    t0: float
    """The local clock at the beginning."""
    duration_s: float
    headers: tuple[StreamHeader, ...]
    annotations: tuple[Annotation, ...]
    problems: tuple[str, ...]
    """What is wrong with the file though it can be read."""
    decisions: tuple[str, ...]
    """What the daemon decided when it made this tape; empty for any other recording."""
    play: Callable[[float], Iterator[Arrival]]

    def arrivals(self, chunk_s: float = 1.0) -> Iterator[Arrival]:
        """Give everything from the beginning, in pieces of about ``chunk_s``.

        A tape gives the pieces in which the samples came, whatever ``chunk_s``.
        """
        return self.play(chunk_s)


def file_start(local: datetime, timezone: str) -> datetime:
    """Give a file's local, zoneless time a zone. An hour that occurs twice is the first one."""
    try:
        zone = ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigError(
            f"{timezone!r} is no time zone",
            where="timezone",
            remedy="Use a name like Europe/Berlin",
        ) from error
    return local.replace(tzinfo=zone).astimezone(UTC)


def pseudonym(identity: str, key: bytes, otherwise: bytes) -> str:
    """Return a subject code.

    With a lab's secret ``key`` the same person gets the same code in every file. Without one
    the code is made of ``otherwise``, which holds nothing personal: a plain hash of a name and
    a birthday is no pseudonym, for both can be guessed.
    """
    if key and identity.strip():
        return "s-" + hmac.new(key, identity.strip().encode(), hashlib.sha256).hexdigest()[:10]
    return "r-" + hashlib.sha256(otherwise).hexdigest()[:10]
