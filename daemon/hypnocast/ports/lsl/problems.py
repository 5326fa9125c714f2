"""What can be wrong with a stream, each with a name a lab can look up."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class ProblemKind(StrEnum):
    """A closed list; the comment after each is what Hypnocast does about it."""

    NOT_FOUND = "not_found"
    """Nothing on the network matches; the search goes on."""
    AMBIGUOUS = "ambiguous"
    """Several streams match one selector; none is opened, an open one is kept."""
    CLAIMED_TWICE = "claimed_twice"
    """Two beds select the same stream; it is read for neither."""
    NO_ANSWER = "no_answer"
    """The stream is announced but does not answer; tried again with growing pauses."""
    SILENT = "silent"
    """No samples although the stream is open; it stays open."""
    BAD_METADATA = "bad_metadata"
    """The header cannot be read; the stream is not opened."""
    ANOTHER_OUTLET = "another_outlet"
    """In mid-session the stream comes from another place; read unless the config says otherwise."""
    TOO_COSTLY = "too_costly"
    """The announcement asks for more memory than a stream may cost; it is not opened."""
    CROWDED = "crowded"
    """More streams are announced than are looked at, or may be read; some are not seen."""
    NO_LABELS = "no_labels"
    """The channels have no names; the montage cannot use them unless the config names them."""
    LABELS_DISAGREE = "labels_disagree"
    """The header names more or fewer channels than there are; no label is believed."""
    NO_UNIT = "no_unit"
    """Some channels give no unit; their bed is withheld unless the configuration gives it."""
    NO_RATE = "no_rate"
    """Signals without a nominal rate; not read unless the config gives the rate."""
    FOREIGN_CLOCK = "foreign_clock"
    """Stamps are not on an LSL clock; they are mapped by the time at which samples arrive."""
    STAMPS_AHEAD = "stamps_ahead"
    """Some samples claim to be later than this host's clock; they are not used."""
    MARKS_TOO_MANY = "marks_too_many"
    """Markers come faster than they are read; what is beyond the limit is left out."""
    CLOCK_UNMEASURED = "clock_unmeasured"
    """The sender's clock cannot be asked; its stamps are mapped by arrival."""
    STAMPS_STUCK = "stamps_stuck"
    """Stamps do not advance with the samples; the stream is refused."""


REFUSED: Final = (
    ProblemKind.AMBIGUOUS,
    ProblemKind.CLAIMED_TWICE,
    ProblemKind.BAD_METADATA,
    ProblemKind.TOO_COSTLY,
    ProblemKind.NO_RATE,
    ProblemKind.STAMPS_STUCK,
)
"""With one of these a stream that is there is not read."""


LIMITS = frozenset(
    {
        ProblemKind.TOO_COSTLY,
        ProblemKind.CROWDED,
        ProblemKind.BAD_METADATA,
        ProblemKind.STAMPS_AHEAD,
        ProblemKind.MARKS_TOO_MANY,
    }
)
"""What met a limit of ``docs/security.md``, or contradicts itself."""


@dataclass(frozen=True, slots=True)
class StreamProblem:
    """One thing that is wrong with one stream of one bed, for people to read."""

    kind: ProblemKind
    bed: str
    stream: str
    """The stream's key, or the selector that should have found it."""
    text: str
    remedy: str = ""

    @property
    def words(self) -> str:
        """What is wrong and what to do, for who knows which stream it is."""
        return f"{self.text}. {self.remedy}" if self.remedy else self.text

    def __str__(self) -> str:
        bed = f"bed {self.bed}, " if self.bed else ""
        return f"{bed}stream {self.stream}: {self.words}"
