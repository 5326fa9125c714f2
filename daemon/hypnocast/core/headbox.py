"""Where one bed's streams meet, by time, and become pages.

A :class:`Headbox` takes a bed's arrivals in the order in which they come and gives back one page
for each 30 s of the session's grid: never none, never two, whatever the streams did. It does no
input or output and reads no clock. What it decides about time it tells in ``take_decisions``,
for the tape; given those decisions again (``obey``) it closes the same pages over the same
samples.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from hypnocast.core.clock import ClockSegment
from hypnocast.core.decisions import Anchored, Decision, Ended, PageClosed, StreamCut
from hypnocast.core.lane import Lane, LaneState
from hypnocast.core.types import (
    PAGE_S,
    Chunk,
    ClockReading,
    Derivation,
    FloatArray,
    Page,
    Role,
    Signal,
    StreamHeader,
    StreamLost,
    StreamOpened,
)

GRACE_S = 1.0
"""How long a page waits for channels that are behind, once its tail has passed."""

SKEW_S = 300.0
"""How far one stream may run ahead of the others before the watermark follows it (replay)."""

_HEALTH_S = 5.0
_HISTORY_S = 60.0


@dataclass(frozen=True, slots=True)
class PageNeeds:
    """What pages must carry: the roles, and how much before and after the 30 s."""

    roles: tuple[Role, ...]
    context_s: float = 30.0
    tail_s: float = 1.0


class ChosenMontage(Protocol):
    """What the headbox needs to know of a montage."""

    @property
    def derivations(self) -> Mapping[Role, Derivation]:
        """Role → how it is filled."""
        ...


Choose = Callable[[Sequence[StreamHeader]], ChosenMontage]


class Headbox:
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
        self._choose = choose
        self._grace_s = grace_s
        self._headers: dict[str, StreamHeader] = {}
        self._open: set[str] = set()
        self._opened = 0
        self._lanes: dict[str, Lane] = {}
        self._unheeded: dict[str, int] = {}
        """Samples of streams that fill no role, counted so that sample numbers hold."""
        self._anchor: float | None = None
        self._first_epoch = 0
        self._epoch = 0
        self._late = 0
        self._time: float | None = None
        self._decided: list[Decision] = []
        self._script: deque[Anchored | PageClosed | Ended] | None = None
        self._stream_scripts: dict[str, list[ClockSegment | StreamCut]] = {}
        self._obeyed: list[Page] = []
        if obey is not None:
            self._read_script(obey)

    # --- what arrives --------------------------------------------------------------------------

    def open(self, opened: StreamOpened) -> None:
        """Take in a stream found, or found again: perhaps with other channels."""
        header = opened.header
        lane = self._lanes.get(header.key)
        before = self._headers.get(header.key)
        if lane is not None and before is not None:
            self._stored(lane, lane.cut(new_clock=header.uid != before.uid))
            self._tell_cut(lane)
        self._obey()
        self._opened += 1
        self._headers[header.key] = header
        self._open.add(header.key)
        self._arrange()
        self._pass_time(opened.at)
        self._obey()

    def lose(self, lost: StreamLost) -> None:
        """Take note that a stream is gone; its derivations stay, without samples from now on."""
        self._open.discard(lost.stream)
        lane = self._lanes.get(lost.stream)
        if lane is not None:
            lane.open = False
            self._stored(lane, lane.cut())
            self._tell_cut(lane)
        self._pass_time(lost.at)

    def feed(self, chunk: Chunk) -> None:
        """Take in samples."""
        lane = self._lanes.get(chunk.stream)
        if lane is None:
            seen = self._unheeded.get(chunk.stream, 0)
            self._unheeded[chunk.stream] = seen + len(chunk.stamps)
            return
        self._stored(lane, lane.feed(chunk))

    def read_clock(self, reading: ClockReading) -> None:
        """Take in a clock reading.

        To be independent of how samples are chunked, feed it before any sample stamped more than
        :data:`.clock.LEAD_S` after it. Live that is so by itself; a port that reads a tape in
        long chunks sees to it.
        """
        lane = self._lanes.get(reading.stream)
        if lane is not None:
            self._stored(lane, lane.read(reading))

    # --- the grid ------------------------------------------------------------------------------

    @property
    def anchor(self) -> float | None:
        """Start of epoch 0 on the local LSL clock; None where no grid is."""
        return self._anchor

    @property
    def next_epoch(self) -> int:
        """The page that closes next."""
        return self._epoch

    def begin(self, anchor: float, *, first_epoch: int = 0) -> None:
        """Begin a grid: epoch 0 starts at ``anchor``, pages come from ``first_epoch`` on.

        What came shortly before serves as context. A replay takes the grids of its tape instead.
        """
        if self._script is None:
            self._anchor_at(anchor, first_epoch)

    def end(self, at: float) -> list[Page]:
        """End the grid: close every page that began before ``at``, the last one partial."""
        pages, self._obeyed = self._obeyed, []
        while self._script:
            if self._anchor is None and not isinstance(self._script[0], Anchored):
                break
            ended = isinstance(self._script[0], Ended)
            self._follow(self._script.popleft())
            pages += self._obeyed
            self._obeyed = []
            if ended:
                return pages
        if self._anchor is not None:
            while self._anchor + self._epoch * PAGE_S < at:
                pages.append(self._close())
            self._decided.append(Ended(at, self._epoch))
            self._anchor = None
        return pages

    def close_due(self, now: float) -> list[Page]:
        """Close the pages that are due; after an outage that may be several."""
        self._obey()
        pages, self._obeyed = self._obeyed, []
        if not self._script:
            while self._is_due(now):
                pages.append(self._close())
        return pages

    @property
    def watermark(self) -> float | None:
        """The data's own time: how far every open stream has come; None before any sample.

        A stream that lags more than :data:`SKEW_S` no longer holds it back.
        """
        latest = [lane.latest for lane in self._lanes.values() if lane.latest is not None]
        moving = [
            lane.latest if lane.latest is not None else -float("inf")
            for key, lane in self._lanes.items()
            if key in self._open
        ]
        if moving and latest:
            now = max(min(moving), max(latest) - SKEW_S)
        elif latest and self._time is not None:
            now = max(*latest, self._time)
        else:
            return self._time if not moving else None
        if self._time is None or now > self._time:
            self._time = now
        return self._time

    # --- what is to be seen --------------------------------------------------------------------

    @property
    def late(self) -> int:
        """Samples that came after their page had closed."""
        return self._late

    @property
    def derivations(self) -> Mapping[Role, Derivation]:
        """The montage in force."""
        return MappingProxyType(
            {d.role: d for lane in self._lanes.values() for d in lane.derivations}
        )

    @property
    def wants_reading(self) -> frozenset[str]:
        """Streams whose samples wait for a clock reading: measure them soon."""
        return frozenset(key for key, lane in self._lanes.items() if lane.wants_reading)

    def states(self) -> tuple[LaneState, ...]:
        """Return how each stream fares."""
        return tuple(lane.state() for lane in self._lanes.values())

    def recent(self, now: float, seconds: float = _HEALTH_S) -> dict[Role, Signal]:
        """Return the last seconds of each channel, NaN where nothing came: for its health."""
        recent: dict[Role, Signal] = {}
        for lane in self._lanes.values():
            recent |= lane.signals(anchor=now - seconds, start=0.0, seconds=seconds)
        return recent

    def take_decisions(self) -> list[Decision]:
        """Return what was decided about time since the last call, for the tape."""
        decided, self._decided = self._decided, []
        return decided

    # --- within --------------------------------------------------------------------------------

    def _arrange(self) -> None:
        """Choose the montage anew; lost streams keep the roles that no open one fills."""
        headers = [self._headers[key] for key in self._headers if key in self._open]
        chosen = {
            role: derivation
            for role, derivation in self._choose(headers).derivations.items()
            if role in self.needs.roles and self._headers[derivation.stream].rate > 0.0
        }
        for role, derivation in self.derivations.items():
            if derivation.stream not in self._open:
                chosen.setdefault(role, derivation)
        rows: dict[str, list[Derivation]] = {}
        for role in self.needs.roles:
            if role in chosen:
                rows.setdefault(chosen[role].stream, []).append(chosen[role])
        for key in [key for key in self._lanes if key not in rows]:
            self._unheeded[key] = self._lanes.pop(key).seen
        for key, derivations in rows.items():
            header, lane = self._headers[key], self._lanes.get(key)
            if lane is None or lane.header.rate != header.rate:
                seen = lane.seen if lane is not None else self._unheeded.get(key, 0)
                self._lanes[key] = Lane(
                    header, derivations, count=seen, obey=self._script_of(key, seen)
                )
                continue
            lane.header, lane.open = header, key in self._open
            if lane.derivations != tuple(derivations):
                lane.rearrange(derivations)

    def _stored(self, lane: Lane, times: FloatArray) -> None:
        """Note what a lane decided and stored; forget what no page will need."""
        self._decided += lane.take_decided()
        if not len(times):
            return
        if self._anchor is not None:
            closed = self._anchor + self._epoch * PAGE_S
            if times[0] < closed:
                begun = self._anchor + self._first_epoch * PAGE_S
                self._late += int(times.searchsorted(closed) - times.searchsorted(begun))
        elif lane.latest is not None:
            lane.store.drop_before(lane.latest - self.needs.context_s - _HISTORY_S)
        self._obey()

    def _tell_cut(self, lane: Lane) -> None:
        if self._script is None:
            self._decided.append(StreamCut(lane.header.key, lane.mapped))

    def _pass_time(self, at: float) -> None:
        if not self._open and (self._time is None or at > self._time):
            self._time = at

    def _anchor_at(self, anchor: float, first_epoch: int) -> None:
        self._anchor = anchor
        self._first_epoch = self._epoch = first_epoch
        self._decided.append(Anchored(anchor, first_epoch))

    def _is_due(self, now: float) -> bool:
        if self._anchor is None:
            return False
        end = self._anchor + (self._epoch + 1) * PAGE_S + self.needs.tail_s
        if now >= end + self._grace_s:
            return True
        return bool(self._lanes) and all(
            lane.latest is not None and lane.latest >= end - 1.0 / lane.header.rate
            for lane in self._lanes.values()
        )

    def _close(self, made_it: Mapping[str, int] | None = None) -> Page:
        """Cut the next page from the samples that came, or from those that came in time live."""
        assert self._anchor is not None  # noqa: S101 - callers have a grid
        needs, epoch, anchor = self.needs, self._epoch, self._anchor
        signals: dict[Role, Signal] = {}
        samples: dict[str, int] = {}
        end = anchor + (epoch + 1) * PAGE_S
        for key, lane in self._lanes.items():
            samples[key] = lane.store.stored if made_it is None else made_it.get(key, 0)
            signals |= lane.signals(
                anchor=anchor,
                start=epoch * PAGE_S - needs.context_s,
                seconds=needs.context_s + PAGE_S + needs.tail_s,
                stored=samples[key],
            )
            if made_it is not None:
                self._late += lane.store.count_after(samples[key], end - PAGE_S, end)
            lane.store.drop_before(end - needs.context_s - 2.0 / lane.header.rate)
        self._epoch = epoch + 1
        self._decided.append(PageClosed(epoch, self._opened, samples))
        ordered = {role: signals[role] for role in needs.roles if role in signals}
        return Page(epoch, MappingProxyType(ordered), needs.context_s, needs.tail_s)

    # --- obeying a tape ------------------------------------------------------------------------

    def _read_script(self, decisions: Iterable[Decision]) -> None:
        self._script = deque()
        for decision in decisions:
            if isinstance(decision, ClockSegment | StreamCut):
                self._stream_scripts.setdefault(decision.stream, []).append(decision)
            else:
                self._script.append(decision)

    def _script_of(self, key: str, seen: int) -> list[ClockSegment | StreamCut] | None:
        if self._script is None:
            return None
        return [
            d
            for d in self._stream_scripts.get(key, ())
            if (d.from_sample if isinstance(d, ClockSegment) else d.after_sample) >= seen
        ]

    def _obey(self) -> None:
        """Do what the tape says was done, as far as the samples for it have come."""
        while self._script:
            decision = self._script[0]
            if isinstance(decision, PageClosed) and not self._can_close(decision):
                return
            self._follow(self._script.popleft())

    def _can_close(self, decision: PageClosed) -> bool:
        if self._opened < decision.opened:
            return False
        return all(
            key in self._lanes and self._lanes[key].store.stored >= count
            for key, count in decision.samples.items()
        )

    def _follow(self, decision: Anchored | PageClosed | Ended) -> None:
        if isinstance(decision, Anchored):
            self._anchor_at(decision.anchor, decision.first_epoch)
        elif isinstance(decision, Ended):
            self._decided.append(decision)
            self._anchor = None
        else:
            self._epoch = decision.epoch
            self._obeyed.append(self._close(decision.samples))
