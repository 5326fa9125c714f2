"""Simulated beds as a source of arrivals, at any speed, in the order of time.

Nothing here waits and nothing looks at a clock: the data carry the time. The local LSL clock
reads ``clock_start`` when the source begins.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

from hypnocast.core.types import PAGE_S, Arrival, Chunk, Mark, Stage
from hypnocast.errors import ConfigError
from hypnocast.simulate.amplifier import Amplifier
from hypnocast.simulate.faults import ON_LEADS, Fault, FaultKind, read_faults
from hypnocast.simulate.montages import montage as montage_called
from hypnocast.simulate.night import SimulatedNight
from hypnocast.simulate.senders import (
    Marks,
    Sender,
    SignalSender,
    light_marks,
    marker_header,
    truth_marks,
)


class SimulatedSource:
    """Some beds, each with a night of its own; iterating gives ``(bed, arrival)``.

    Each iteration begins anew and gives the same again.
    """

    def __init__(
        self,
        beds: int | Sequence[str] = 1,
        *,
        seed: int = 0,
        hours: float | None = None,
        pages: int | None = None,
        stages: Sequence[Stage] | None = None,
        skip_pages: int = 0,
        montage: str | Mapping[str, str] = "bipolar",
        faults: Iterable[Fault | str] = (),
        chunk_s: float = 0.25,
        clock_start: float = 1000.0,
        start: datetime = datetime(2025, 11, 21, 21, 30, tzinfo=UTC),
        mains_hz: int = 50,
        truth: bool = True,
    ) -> None:
        """Prepare the beds (a number of them or their names) and what they shall send.

        ``pages`` or ``hours`` (8 where neither is given) is how long the source sends;
        ``skip_pages`` begins so much later in the night, which is then as much longer;
        ``stages`` gives the stage of every page instead. ``montage`` is one for all beds or one
        for each. ``start`` is UTC when the source begins, ``clock_start`` the local LSL clock
        then. ``truth`` adds a stream of true stages and events to every bed.
        """
        if chunk_s <= 0.0:
            raise ConfigError("chunks need a length above 0 s", where="chunk_s")
        self.beds: tuple[str, ...] = (
            tuple(f"bed-{i + 1:02d}" for i in range(beds)) if isinstance(beds, int) else tuple(beds)
        )
        self.faults = read_faults(faults)
        self.clock_start = clock_start
        self.start = start
        self.chunk_s = chunk_s
        self._truth = truth
        self._skip = skip_pages
        self._check_beds()
        if stages is None:
            length = round((8.0 if hours is None else hours) * 120) if pages is None else pages
            pages = length + skip_pages
        elif pages is not None or hours is not None:
            raise ConfigError("a night has one length", remedy="Give hours, pages or stages.")
        self.nights: dict[str, SimulatedNight] = {
            bed: SimulatedNight(seed * 1009 + number, pages=pages, stages=stages, mains_hz=mains_hz)
            for number, bed in enumerate(self.beds)
        }
        self._montages = {bed: montage_called(self._montage_of(bed, montage)) for bed in self.beds}
        for each in self.faults:
            self._check_place(each)

    @property
    def duration_s(self) -> float:
        """How long the beds send."""
        return next(iter(self.nights.values())).duration_s - self._skip * PAGE_S

    def stage(self, bed: str, epoch: int) -> Stage:
        """Return the true stage of a page, counted from the source's beginning."""
        return self.nights[bed].stage(epoch + self._skip)

    def senders(self) -> list[tuple[str, Sender]]:
        """Make every stream of every bed, about to begin."""
        return [(bed, sender) for bed in self.beds for sender in self._senders_of(bed)]

    def __iter__(self) -> Iterator[tuple[str, Arrival]]:
        senders = self.senders()
        for bed, sender in senders:
            for arrival in sender.begin():
                yield bed, arrival
        for tick in range(math.ceil(self.duration_s / self.chunk_s - 1e-9)):
            since = tick * self.chunk_s
            until = min((tick + 1) * self.chunk_s, self.duration_s)
            coming = [(bed, a) for bed, sender in senders for a in sender.advance(since, until)]
            yield from sorted(coming, key=_came)
        for bed, sender in senders:
            for arrival in sender.end(self.duration_s):
                yield bed, arrival

    def _check_beds(self) -> None:
        if not self.beds or len(set(self.beds)) < len(self.beds):
            raise ConfigError("beds need names, each its own", where="beds")

    def _check_place(self, each: Fault) -> None:
        """Refuse a fault that would happen nowhere."""
        if each.bed is not None and each.bed not in self.beds:
            raise ConfigError(
                f"there is no bed {each.bed!r}",
                where=f"fault {each}",
                remedy=f"Beds are {', '.join(self.beds)}.",
            )
        outlets = {
            (bed, outlet.suffix): outlet
            for bed in self.beds
            for outlet in self._montages[bed].outlets
        }
        places = [outlet for place, outlet in outlets.items() if each.concerns(*place)]
        if not places:
            raise ConfigError(
                f"no stream is called {each.stream!r}",
                where=f"fault {each}",
                remedy=f"Streams are {', '.join(sorted({suffix for _, suffix in outlets}))}.",
            )
        leads = [lead for outlet in places for lead in outlet.leads]
        if each.kind in ON_LEADS and not any(lead.uses(each.argument) for lead in leads):
            raise ConfigError(
                f"there is no lead or electrode {each.argument!r}",
                where=f"fault {each}",
                remedy=f"Leads are {', '.join(sorted({lead.label for lead in leads}))}.",
            )

    def _montage_of(self, bed: str, montage: str | Mapping[str, str]) -> str:
        name = montage if isinstance(montage, str) else montage.get(bed, "bipolar")
        for each in self.faults:
            if each.kind is FaultKind.MONTAGE and each.bed in (None, bed):
                name = each.argument
        return name

    def _senders_of(self, bed: str) -> Iterator[Sender]:
        night, clock = self.nights[bed], self.clock_start
        for outlet in self._montages[bed].outlets:
            amplifier = Amplifier(
                night,
                bed,
                outlet,
                self.faults,
                clock_start=clock,
                skip_s=self._skip * PAGE_S,
            )
            yield SignalSender(amplifier, clock)
        header = marker_header(night, bed, "markers", "Markers", clock)
        yield Marks(header, clock, light_marks(night, self._skip))
        if self._truth:
            header = marker_header(night, bed, "truth", "Truth", clock)
            yield Marks(header, clock, truth_marks(night, self._skip))


def _came(coming: tuple[str, Arrival]) -> float:
    """Return when something comes, by the local clock."""
    _, arrival = coming
    return arrival.arrived if isinstance(arrival, Chunk | Mark) else arrival.at
