"""The night so far, and its statistics by the definitions of the AASM manual.

Lights off and on are moved to the nearest page boundary, so that time in bed is a number of
pages and no sum of stages can exceed it. The first lights off counts, and the last lights on
if no lights off follows: a visit to the bathroom with the lights on does not begin a new night.
Of the marks before the recording only the newest counts, and only a lights off: what was tried
out while the electrodes were put on is no time in bed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from hypnocast.core.timing.utc import seconds_of
from hypnocast.core.types import PAGE_S
from hypnocast.core.wire.payloads import (
    Instant,
    Night,
    NightMark,
    NightStatistics,
    ReasonName,
    SourceName,
    StageEvent,
    StageName,
    StageStatistics,
    StatisticName,
)

MAX_NOTES = 500
MAX_NOTE_CHARS = 65_536
"""What a night shows of its notes: the newest, as many and as long together. The journal and the
report have all."""
MAX_STREAMS = 100
"""How many changes of streams are shown apart from these."""

_PAGE_MIN = PAGE_S / 60.0
_NAMES: tuple[StageName, ...] = ("W", "N1", "N2", "N3", "R")
_LETTERS = {"final": "f", "provisional": "p", "withheld": "w"}
_UNKNOWN = "u"

Thousandths = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class NightTitle:
    """Whose night it is."""

    site: str
    bed: str
    session: str
    subject: str | None
    source: SourceName
    start: Instant
    """Start of epoch 0."""


class NightLedger:
    """Collects a night's events and marks, in any order, and returns the night so far.

    Every event costs constant time; building a night of 1000 pages takes a few milliseconds.
    """

    def __init__(self, title: NightTitle) -> None:
        """Begin an empty night."""
        self.title = title
        self._letters: list[str] = []
        self._stages: list[StageName | None] = []
        self._reasons: list[ReasonName | None] = []
        self._probabilities: list[Thousandths | None] = []
        self._review: set[int] = set()
        self._doubted: frozenset[int] = frozenset()
        self._marks: list[NightMark] = []
        self._notes: deque[NightMark] = deque()
        self._note_chars = 0
        self._streams = 0
        self._last_sequence = 0

    def add(self, event: StageEvent) -> None:
        """Enter an event. Nothing changes an epoch that has its terminal event."""
        epoch = event.epoch
        missing = epoch + 1 - len(self._letters)
        if missing > 0:
            self._letters.extend(_UNKNOWN * missing)
            self._stages.extend([None] * missing)
            self._reasons.extend([None] * missing)
            self._probabilities.extend([None] * missing)
        self._last_sequence = max(self._last_sequence, event.sequence)
        if self._letters[epoch] in "fw":
            return
        self._letters[epoch] = _LETTERS[event.status]
        self._stages[epoch] = event.stage
        self._reasons[epoch] = event.reason
        self._probabilities[epoch] = _thousandths(event)
        self._review.discard(epoch)
        if event.review:
            self._review.add(epoch)

    def doubt(self, epochs: Iterable[int]) -> bool:
        """Mark for review where a second opinion parts; return whether that is new."""
        before, self._doubted = self._doubted, frozenset(epochs)
        return before != self._doubted

    def mark(self, mark: NightMark) -> None:
        """Enter a marker or note; of those that change no figure the newest are kept.

        Of streams that came from elsewhere the first are kept, whatever is noted after them.
        """
        first = mark.kind == "stream" and self._streams < MAX_STREAMS
        if first or mark.kind.startswith("lights_"):
            self._streams += first
            self._marks.append(mark)
            return
        self._notes.append(mark)
        self._note_chars += len(mark.text)
        while len(self._notes) > MAX_NOTES or self._note_chars > MAX_NOTE_CHARS:
            self._note_chars -= len(self._notes.popleft().text)

    @property
    def stages(self) -> Sequence[StageName | None]:
        """The stage of each epoch, None where there is none."""
        return tuple(self._stages)

    def night(self, *, at: Instant, ended: Instant | None = None) -> Night:
        """Return the night so far."""
        title = self.title
        return Night(
            at=at,
            site=title.site,
            bed=title.bed,
            session=title.session,
            subject=title.subject,
            source=title.source,
            start=title.start,
            ended=ended,
            epochs=len(self._letters),
            status="".join(self._letters),
            stages=tuple(self._stages),
            reasons=tuple(self._reasons),
            probabilities=tuple(self._probabilities),
            review=tuple(sorted(self._review | self._doubted)),
            marks=tuple(sorted((*self._marks, *self._notes), key=lambda mark: mark.at)),
            statistics=statistics(self._stages, title.start, self._marks, ended=ended),
            last_sequence=self._last_sequence,
        )


def build_night(
    title: NightTitle,
    events: Iterable[StageEvent],
    marks: Iterable[NightMark] = (),
    *,
    at: Instant,
    ended: Instant | None = None,
    doubted: Iterable[int] = (),
) -> Night:
    """Build a night from all its events at once; ``doubted`` epochs are for review besides."""
    ledger = NightLedger(title)
    for event in events:
        ledger.add(event)
    for mark in marks:
        ledger.mark(mark)
    ledger.doubt(doubted)
    return ledger.night(at=at, ended=ended)


def statistics(
    stages: Sequence[StageName | None],
    start: Instant,
    marks: Iterable[NightMark] = (),
    *,
    ended: Instant | None = None,
) -> NightStatistics:
    """Return the statistics of pages that begin at ``start`` and have these stages."""
    bed = _time_in_bed(len(stages), start, marks, ended=ended)
    first, stop = max(bed.first, 0), max(min(bed.stop, len(stages)), 0)
    inside = stages[first:stop]
    pages = bed.stop - bed.first
    counts = {name: sum(stage == name for stage in inside) for name in _NAMES}
    withheld = sum(stage is None for stage in inside)
    asleep = sum(counts.values()) - counts["W"]
    onset = next((k for k, stage in enumerate(inside) if stage not in (None, "W")), None)
    rem = next((k for k, stage in enumerate(inside) if stage == "R"), None)
    after_onset = inside[onset:] if onset is not None else ()
    return NightStatistics(
        time_in_bed_from=bed.begins,
        time_in_bed_to=bed.ends,
        time_in_bed_min=pages * _PAGE_MIN if pages > 0 else None,
        total_sleep_min=asleep * _PAGE_MIN,
        sleep_efficiency_percent=100.0 * asleep / pages if pages > 0 else None,
        sleep_onset_latency_min=(
            None if onset is None else (first - bed.first + onset) * _PAGE_MIN
        ),
        wake_after_sleep_onset_min=(
            None if onset is None else sum(stage == "W" for stage in after_onset) * _PAGE_MIN
        ),
        rem_latency_min=None if onset is None or rem is None else (rem - onset) * _PAGE_MIN,
        stages={
            name: StageStatistics(
                minutes=counts[name] * _PAGE_MIN,
                percent=None if name == "W" or not asleep else 100.0 * counts[name] / asleep,
            )
            for name in _NAMES
        },
        withheld_min=withheld * _PAGE_MIN,
        affected_by_withheld=_affected(inside, onset, rem),
    )


@dataclass(frozen=True, slots=True)
class _TimeInBed:
    """From page ``first`` up to, not including, page ``stop``; either may lie outside the pages."""

    first: int
    stop: int
    begins: Literal["lights_off", "recording_start"]
    ends: Literal["lights_on", "session_end", "last_page"]


def _time_in_bed(
    pages: int, start: Instant, marks: Iterable[NightMark], *, ended: Instant | None
) -> _TimeInBed:
    lights = sorted((mark for mark in marks if mark.kind.startswith("lights_")), key=_at)
    before = sum(mark.at < start for mark in lights)
    lights = lights[max(0, before - 1) :]
    if before and lights[0].kind == "lights_on":
        del lights[0]
    off = next((mark for mark in lights if mark.kind == "lights_off"), None)
    last = lights[-1] if lights else None
    on = last if last is not None and last.kind == "lights_on" and last is not off else None
    if on is not None and off is not None and on.at <= off.at:
        on = None
    return _TimeInBed(
        first=0 if off is None else _boundary(off.at, start),
        stop=pages if on is None else _boundary(on.at, start),
        begins="recording_start" if off is None else "lights_off",
        ends="lights_on" if on is not None else "last_page" if ended is None else "session_end",
    )


def _at(mark: NightMark) -> str:
    return mark.at


def _boundary(at: Instant, start: Instant) -> int:
    seconds = seconds_of(at) - seconds_of(start)
    return round(seconds / PAGE_S)


def _affected(
    inside: Sequence[StageName | None], onset: int | None, rem: int | None
) -> tuple[StatisticName, ...]:
    """Name what the pages without a stage could have changed."""
    gaps = [k for k, stage in enumerate(inside) if stage is None]
    if not gaps:
        return ()
    affected: list[StatisticName] = ["total_sleep_min", "sleep_efficiency_percent"]
    if onset is None or gaps[0] < onset:
        affected.append("sleep_onset_latency_min")
    # A gap before the onset may hide an earlier one, with wake after it.
    affected.append("wake_after_sleep_onset_min")
    if rem is None or gaps[0] < rem:
        affected.append("rem_latency_min")
    return tuple(affected)


def _thousandths(event: StageEvent) -> Thousandths | None:
    p = event.probabilities
    if p is None:
        return None
    return (
        round(1000 * p.W),
        round(1000 * p.N1),
        round(1000 * p.N2),
        round(1000 * p.N3),
        round(1000 * p.R),
    )
