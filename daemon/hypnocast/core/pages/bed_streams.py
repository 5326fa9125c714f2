"""The streams of one bed and the roles they fill."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from hypnocast.core.pages.aligned_stream import AlignedStream
from hypnocast.core.timing.clock import OffsetTracker
from hypnocast.core.timing.stamp_mapper import FOREIGN_S
from hypnocast.core.timing.tape_decisions import TapeDecisions
from hypnocast.core.types import ClockReading, Derivation, Mark, Role, StreamHeader

SKEW_S = 300.0
"""How far one stream may run ahead of the others before the watermark follows it (replay)."""


class ChosenMontage(Protocol):
    """What is needed of a montage here."""

    @property
    def derivations(self) -> Mapping[Role, Derivation]:
        """Role → how it is filled."""
        ...


Choose = Callable[[Sequence[StreamHeader]], ChosenMontage]


class BedStreamSet:
    """One aligned stream for each stream that fills a role; each opening chooses a montage."""

    def __init__(self, roles: Sequence[Role], choose: Choose, script: TapeDecisions | None) -> None:
        """Begin without streams."""
        self._roles = tuple(roles)
        self._choose = choose
        self._script = script
        self._headers: dict[str, StreamHeader] = {}
        self._open: set[str] = set()
        self._aligned: dict[str, AlignedStream] = {}
        self._unheeded: dict[str, int] = {}
        """Samples of streams that fill no role, counted so that sample numbers hold."""
        self._side_clocks: dict[str, OffsetTracker] = {}
        """Clocks of streams that fill no role: markers have times too."""
        self._time: float | None = None

    def __iter__(self) -> Iterator[AlignedStream]:
        return iter(self._aligned.values())

    def get(self, stream: str) -> AlignedStream | None:
        """Return a stream's aligned stream, if it fills a role."""
        return self._aligned.get(stream)

    @property
    def derivations(self) -> Mapping[Role, Derivation]:
        """The montage in force."""
        return MappingProxyType({d.role: d for aligned in self for d in aligned.derivations})

    # --- streams come and go -------------------------------------------------------------------

    def is_new_outlet(self, header: StreamHeader) -> bool:
        """Return whether a stream comes from another outlet than before."""
        before = self._headers.get(header.key)
        return before is None or before.uid != header.uid

    def open(self, header: StreamHeader, at: float) -> None:
        """Add a stream and choose the montage anew."""
        if self.is_new_outlet(header):
            self._side_clocks.pop(header.key, None)
        self._headers[header.key] = header
        self._open.add(header.key)
        self._arrange()
        self._pass_time(at)

    def lose(self, stream: str, at: float) -> None:
        """Mark a stream as gone; what it filled stays its own until another fills it."""
        self._open.discard(stream)
        aligned = self._aligned.get(stream)
        if aligned is not None:
            aligned.open = False
        self._pass_time(at)

    def pass_by(self, stream: str, samples: int) -> None:
        """Count samples of a stream that fills no role."""
        self._unheeded[stream] = self._unheeded.get(stream, 0) + samples

    def _arrange(self) -> None:
        chosen = self._chosen()
        rows: dict[str, list[Derivation]] = {}
        for role in self._roles:
            if role in chosen:
                rows.setdefault(chosen[role].stream, []).append(chosen[role])
        for key in [key for key in self._aligned if key not in rows]:
            self._unheeded[key] = self._aligned.pop(key).seen
        for key, derivations in rows.items():
            header, aligned = self._headers[key], self._aligned.get(key)
            if aligned is None or aligned.header.rate != header.rate:
                seen = aligned.seen if aligned is not None else self._unheeded.get(key, 0)
                obey = self._script.of_stream(key, seen) if self._script is not None else None
                self._aligned[key] = AlignedStream(header, derivations, count=seen, obey=obey)
                continue
            aligned.header, aligned.open = header, key in self._open
            if aligned.derivations != tuple(derivations):
                aligned.rearrange(derivations)

    def _chosen(self) -> dict[Role, Derivation]:
        """Ask for a montage of the open streams; lost ones keep what no open one fills."""
        headers = [self._headers[key] for key in self._headers if key in self._open]
        chosen = {
            role: derivation
            for role, derivation in self._choose(headers).derivations.items()
            if role in self._roles and self._headers[derivation.stream].rate > 0.0
        }
        for role, derivation in self.derivations.items():
            if derivation.stream not in self._open:
                chosen.setdefault(role, derivation)
        return chosen

    # --- time ----------------------------------------------------------------------------------

    def all_passed(self, time: float) -> bool:
        """Return whether every channel has come to the last slot before a time."""
        return bool(self._aligned) and all(
            aligned.latest is not None and aligned.latest >= time - 1.0 / aligned.header.rate
            for aligned in self
        )

    def watermark(self) -> float | None:
        """Return how far every open stream has come; None before any sample."""
        latest = [aligned.latest for aligned in self if aligned.latest is not None]
        moving = [
            -float("inf") if aligned.latest is None else aligned.latest
            for key, aligned in self._aligned.items()
            if key in self._open
        ]
        if latest and moving:
            self._time = max(
                min(moving),
                max(latest) - SKEW_S,
                -float("inf") if self._time is None else self._time,
            )
        elif latest and self._time is not None:
            self._time = max(*latest, self._time)
        return self._time

    def _pass_time(self, at: float) -> None:
        if not self._open and (self._time is None or at > self._time):
            self._time = at

    def read_side_clock(self, reading: ClockReading) -> None:
        """Read the clock of a stream that fills no role."""
        self._side_clocks.setdefault(reading.stream, OffsetTracker(reading.stream)).read(reading)

    def time_of(self, mark: Mark) -> float:
        """Return a mark's time on the local clock; its arrival where its stamp makes no sense."""
        clock = self._side_clocks.get(mark.stream)
        at = clock.local(mark.stamp) if clock is not None else mark.stamp
        return mark.arrived if mark.arrived and abs(at - mark.arrived) > FOREIGN_S else at
