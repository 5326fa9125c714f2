"""Where one bed's streams meet, by time, and become pages.

A :class:`PageBuilder` gets a bed's arrivals in the order in which they come. It gives back one
page for each 30 s of the session's grid: never none, never two, whatever the streams did. It does
no input or output and reads no clock. ``pop_decisions`` returns what it decided about time,
for the tape; given those decisions again (``obey``) it closes the same pages over the same
samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from hypnocast.core.pages.aligned_stream import AlignedStream, AlignedStreamState
from hypnocast.core.pages.bed_streams import BedStreamSet, Choose
from hypnocast.core.timing.decisions import (
    Anchored,
    Decision,
    EarlierPage,
    Ended,
    PageClosed,
    StreamCut,
)
from hypnocast.core.timing.tape_decisions import GridDecision, TapeDecisions
from hypnocast.core.types import (
    PAGE_S,
    Arrival,
    Chunk,
    ClockReading,
    Derivation,
    FloatArray,
    Mark,
    Page,
    Role,
    Signal,
    StreamLost,
    StreamOpened,
)

GRACE_S = 1.0
"""How long a page waits for channels that are behind, once its tail has passed."""

HEALTH_S = 5.0
"""Electrodes are judged over this long."""

_HISTORY_S = 60.0
"""Kept beside the context before a grid begins: it may be anchored so far back."""


@dataclass(frozen=True, slots=True)
class PageNeeds:
    """What pages must carry: the roles, and how much before and after the 30 s."""

    roles: tuple[Role, ...]
    context_s: float = 30.0
    tail_s: float = 1.0
    spare_s: float = 0.0
    """Kept beyond the context, for :meth:`PageBuilder.glance`."""


class PageBuilder:
    """Joins the streams of one bed into pages.

    Live, ``close_due`` is called with the local LSL clock after each read and a few times a
    second; in simulation and replay with ``watermark``, the data's own time.
    """

    def __init__(
        self,
        needs: PageNeeds,
        *,
        choose: Choose,
        grace_s: float = GRACE_S,
        obey: Iterable[Decision] | None = None,
    ) -> None:
        """Begin without streams and without a grid."""
        self.needs = needs
        self._grace_s = grace_s
        self._script = TapeDecisions(obey) if obey is not None else None
        self._streams = BedStreamSet(needs.roles, choose, self._script)
        self._opened = 0
        self._anchor: float | None = None
        self._first_epoch = 0
        self._epoch = 0
        self._late = 0
        self._decided: list[Decision] = []
        self._obeyed: list[Page] = []

    # --- what arrives --------------------------------------------------------------------------

    def add(self, arrival: Arrival) -> None:
        """Add whatever arrived. A mark changes no page.

        To be independent of how samples are chunked, a clock reading comes before any sample
        stamped more than :data:`.clock.LEAD_S` after it. Live that is so by itself; a port that
        reads a tape in long chunks sees to it.
        """
        match arrival:
            case Chunk():
                self._add_samples(arrival)
            case ClockReading():
                self._read_clock(arrival)
            case StreamOpened():
                self._open(arrival)
            case StreamLost():
                self._lose(arrival)

    def _open(self, opened: StreamOpened) -> None:
        """Add a stream that was found, or found again, perhaps with other channels."""
        header = opened.header
        aligned = self._streams.get(header.key)
        if aligned is not None:
            self._cut(aligned, new_clock=self._streams.is_new_outlet(header))
        self._opened += 1
        self._streams.open(header, opened.at)
        self._obey()

    def _lose(self, lost: StreamLost) -> None:
        """Close a stream that is gone; its derivations stay, without samples from now on."""
        aligned = self._streams.get(lost.stream)
        if aligned is not None:
            self._cut(aligned)
        self._streams.lose(lost.stream, lost.at)

    def _add_samples(self, chunk: Chunk) -> None:
        aligned = self._streams.get(chunk.stream)
        if aligned is None:
            self._streams.pass_by(chunk.stream, len(chunk.stamps))
        else:
            self._stored(aligned, aligned.feed(chunk))

    def _read_clock(self, reading: ClockReading) -> None:
        aligned = self._streams.get(reading.stream)
        if aligned is None:
            self._streams.read_side_clock(reading)
        else:
            self._stored(aligned, aligned.read(reading))

    def time_of(self, mark: Mark) -> float:
        """Return when a mark was set, on the local clock."""
        return self._streams.time_of(mark)

    # --- the grid ------------------------------------------------------------------------------

    @property
    def anchor(self) -> float | None:
        """Start of epoch 0 on the local LSL clock; None where no grid is."""
        return self._anchor

    @property
    def next_epoch(self) -> int:
        """The page that closes next."""
        return self._epoch

    def begin(
        self, anchor: float, *, first_epoch: int = 0, before: tuple[EarlierPage, ...] = ()
    ) -> None:
        """Begin a grid: epoch 0 starts at ``anchor``, pages come from ``first_epoch`` on.

        What came shortly before serves as context. A replay uses the grids of its tape instead.
        ``before`` are pages of the same night that the tape has no samples of.
        """
        if self._script is None:
            self._follow(Anchored(anchor, first_epoch, before))

    def close_due(self, now: float) -> list[Page]:
        """Close the pages that are due; after an outage that may be several."""
        self._obey()
        pages, self._obeyed = self._obeyed, []
        if not self._script:
            while self._is_due(now):
                pages.append(self._close())
        return pages

    def end(self, at: float) -> list[Page]:
        """End the grid: close every page that began before ``at``, the last one partial."""
        self._obey()
        if self._script is not None:
            for decision in self._script.until_end():
                self._follow(decision)
        pages, self._obeyed = self._obeyed, []
        if self._anchor is not None:
            while self._anchor + self._epoch * PAGE_S < at:
                pages.append(self._close())
            self._follow(Ended(at, self._epoch))
        return pages

    @property
    def watermark(self) -> float | None:
        """The data's own time: how far every open stream has come; None before any sample.

        A stream that lags more than :data:`.bed_streams.SKEW_S` no longer holds it back.
        """
        return self._streams.watermark()

    # --- what is to be seen --------------------------------------------------------------------

    @property
    def late(self) -> int:
        """Samples that came after their page had closed."""
        return self._late

    @property
    def derivations(self) -> Mapping[Role, Derivation]:
        """The montage in force."""
        return self._streams.derivations

    @property
    def wants_reading(self) -> frozenset[str]:
        """Streams whose samples wait for a clock reading: measure them soon."""
        return frozenset(aligned.header.key for aligned in self._streams if aligned.wants_reading)

    @property
    def all_since(self) -> float | None:
        """Since when every stream that fills a role has had samples; None before that."""
        firsts = [aligned.store.first for aligned in self._streams if aligned.open]
        begun = [first for first in firsts if first is not None]
        return max(begun) if begun and len(begun) == len(firsts) else None

    def passed(self, time: float) -> bool:
        """Return whether every channel has come so far."""
        return self._streams.all_passed(time)

    def glance(self, end: float) -> Page:
        """Cut the 30 s before ``end`` as a page is cut; the grid knows nothing of it."""
        needs = self.needs
        signals: dict[Role, Signal] = {}
        for aligned in self._streams:
            signals |= aligned.signals(
                anchor=end,
                start=-PAGE_S - needs.context_s,
                seconds=needs.context_s + PAGE_S + needs.tail_s,
            )
        ordered = {role: signals[role] for role in needs.roles if role in signals}
        return Page(self._epoch, MappingProxyType(ordered), needs.context_s, needs.tail_s)

    def states(self) -> tuple[AlignedStreamState, ...]:
        """Return how each stream fares."""
        return tuple(aligned.state() for aligned in self._streams)

    def recent(self, now: float, seconds: float = HEALTH_S) -> dict[Role, Signal]:
        """Return the last seconds of each channel, NaN where nothing came: for its health."""
        recent: dict[Role, Signal] = {}
        for aligned in self._streams:
            recent |= aligned.signals(anchor=now - seconds, start=0.0, seconds=seconds)
        return recent

    def pop_decisions(self) -> list[Decision]:
        """Return what was decided about time since the last call, for the tape."""
        decided, self._decided = self._decided, []
        return decided

    # --- within --------------------------------------------------------------------------------

    def _cut(self, aligned: AlignedStream, *, new_clock: bool = False) -> None:
        """End a stream's segment; a replay does so where the tape does."""
        if self._script is not None:
            return
        self._stored(aligned, aligned.cut(new_clock=new_clock))
        self._decided.append(StreamCut(aligned.header.key, aligned.mapped))

    def _stored(self, aligned: AlignedStream, times: FloatArray) -> None:
        """Note what a stream decided and stored; forget what no page will need."""
        self._decided += aligned.pop_decided()
        if not len(times):
            return
        if self._anchor is not None:
            closed = self._anchor + self._epoch * PAGE_S
            if times[0] < closed:
                begun = self._anchor + self._first_epoch * PAGE_S
                self._late += int(times.searchsorted(closed) - times.searchsorted(begun))
        elif aligned.latest is not None and not self._script:
            aligned.store.drop_before(aligned.latest - self.needs.context_s - _HISTORY_S)
        self._obey()

    def _is_due(self, now: float) -> bool:
        if self._anchor is None:
            return False
        end = self._anchor + (self._epoch + 1) * PAGE_S
        complete = end + self.needs.tail_s
        if now >= complete + self._grace_s:
            return True
        # Stamps alone close no page that has not passed: they may lie.
        return now >= end and self._streams.all_passed(complete)

    def _close(self, made_it: Mapping[str, int] | None = None) -> Page:
        """Cut the next page from the samples that came, or from those that came in time live."""
        assert self._anchor is not None  # noqa: S101 - callers have a grid
        needs, start = self.needs, self._epoch * PAGE_S
        signals: dict[Role, Signal] = {}
        samples: dict[str, int] = {}
        for aligned in self._streams:
            key = aligned.header.key
            samples[key] = aligned.store.stored if made_it is None else made_it.get(key, 0)
            signals |= aligned.signals(
                anchor=self._anchor,
                start=start - needs.context_s,
                seconds=needs.context_s + PAGE_S + needs.tail_s,
                stored=samples[key],
            )
            page = self._anchor + start
            self._late += aligned.store.count_after(samples[key], page, page + PAGE_S)
            kept_s = needs.context_s + needs.spare_s + 2.0 / aligned.header.rate
            aligned.store.drop_before(page + PAGE_S - kept_s)
        ordered = {role: signals[role] for role in needs.roles if role in signals}
        closed = Page(self._epoch, MappingProxyType(ordered), needs.context_s, needs.tail_s)
        self._decided.append(PageClosed(self._epoch, self._opened, samples))
        self._epoch += 1
        return closed

    def _obey(self) -> None:
        """Do what the tape recorded, as far as the samples for it have come."""
        while self._script:
            stored = {aligned.header.key: aligned.store.stored for aligned in self._streams}
            decision = self._script.next_due(self._opened, stored)
            if decision is None:
                return
            self._follow(decision)

    def _follow(self, decision: GridDecision) -> None:
        if isinstance(decision, PageClosed):
            self._epoch = decision.epoch
            self._obeyed.append(self._close(decision.samples))
            return
        self._decided.append(decision)
        if isinstance(decision, Anchored):
            self._anchor = decision.anchor
            self._first_epoch = self._epoch = decision.first_epoch
        else:
            self._anchor = None
