"""One simulated outlet of one bed: header, samples and timestamps, with what is wrong with them.

Everything is asked for by sample number, so faults too are the same however time is cut.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hypnocast.core.types import ChannelInfo, FloatArray, StreamHeader
from hypnocast.simulate.faults import Fault, FaultKind
from hypnocast.simulate.montages import Outlet, SimulatedLead
from hypnocast.simulate.night import SimulatedNight
from hypnocast.simulate.waves import RATE, Wave, loop

_HUM_UV = 60.0
_RAIL_UV = 25.0
_TABLE = 1 << 16


@lru_cache(maxsize=1)
def _normal() -> FloatArray:
    table: FloatArray = np.random.default_rng(0x7177E4).standard_normal(_TABLE)
    return np.clip(table, -3.0, 3.0)


class Amplifier:
    """One outlet of a bed's amplifier."""

    def __init__(
        self,
        night: SimulatedNight,
        bed: str,
        outlet: Outlet,
        faults: Sequence[Fault],
        *,
        clock_start: float,
        skip_s: float,
    ) -> None:
        """Keep what it sends and what is wrong with it."""
        self._faults = [f for f in faults if f.concerns(bed, outlet.suffix)]
        gone = [f.argument for f in self._of(FaultKind.MISSING)]
        self._leads = tuple(
            lead for lead in outlet.leads if not any(lead.uses(name) for name in gone)
        )
        self._night = night
        self._skip = round(skip_s * outlet.rate)
        self._clock_start = clock_start
        self._rate = outlet.rate
        self._per_microvolt = np.float32(outlet.per_microvolt)
        self._signal_faults = self._of(
            FaultKind.DETACHED, FaultKind.FLAT, FaultKind.HUM, FaultKind.CLIPPED, FaultKind.NAN
        )
        self._drift = sum(f.value for f in self._of(FaultKind.DRIFT))
        self._ahead = sum(f.value for f in self._of(FaultKind.CLOCK))
        self._steps = self._of(FaultKind.STEP)
        self._jitter = sum(f.value for f in self._of(FaultKind.JITTER))
        self._place = night.seed * 7919 + sum(outlet.suffix.encode())
        self.header = self._describe(bed, outlet)

    @property
    def rate(self) -> int:
        """True rate in Hz, whatever the header has."""
        return self._rate

    def _of(self, *kinds: FaultKind) -> list[Fault]:
        return [f for f in self._faults if f.kind in kinds]

    def windows(self, *kinds: FaultKind) -> list[tuple[float, float]]:
        """Return when faults of some kinds hold, in order."""
        return sorted((f.start, f.end) for f in self._of(*kinds))

    def restarts(self) -> list[Fault]:
        """Return its restarts, in order."""
        return sorted(self._of(FaultKind.RESTART), key=lambda f: f.start)

    def _describe(self, bed: str, outlet: Outlet) -> StreamHeader:
        unit = outlet.unit
        for each in self._of(FaultKind.UNIT):
            unit = None if each.argument == "absent" else each.argument
        rate = float(outlet.rate)
        for each in self._of(FaultKind.RATE):
            rate = each.value
        source_id = f"simulated-{self._night.seed}-{bed}-{outlet.suffix}"
        return StreamHeader(
            key=source_id,
            name=f"{bed}-{outlet.suffix}",
            type=outlet.type,
            source_id=source_id,
            uid=uid(source_id, 0),
            host="simulator",
            rate=rate,
            channels=tuple(ChannelInfo(lead.label, unit, lead.kind) for lead in self._leads),
            created_at=self._clock_start,
        )

    def reopened(self, times: int, at: float) -> StreamHeader:
        """Return the header after so many restarts with a new uid."""
        return replace(self.header, uid=uid(self.header.source_id, times), created_at=at)

    # --- time

    def sender_clock(self, t: float) -> float:
        """Return the time on the sender's clock ``t`` seconds after the beginning."""
        return float(self._sender_clock(np.array([t]))[0])

    def _sender_clock(self, t: FloatArray) -> FloatArray:
        clock = self._clock_start + self._ahead + t * (1.0 + self._drift)
        for step in self._steps:
            clock += np.where(t >= step.start, step.value, 0.0)
        return clock

    def stamps(self, first: int, last: int) -> FloatArray:
        """Return the timestamps of samples ``first`` up to, not including, ``last``."""
        index = np.arange(first, last)
        stamps = self._sender_clock(index / self._rate)
        if self._jitter:
            stamps = stamps + self._jitter * _normal()[(index + self._place) % _TABLE]
        return stamps

    # --- values

    def samples(self, first: int, last: int) -> NDArray[np.float32]:
        """Return (n, channels) numbers as sent."""
        values = self._night.at(
            first + self._skip, last + self._skip, leads=self._leads, rate=self._rate
        )
        for each in self._signal_faults:
            low = max(first, int(np.ceil(each.start * self._rate)))
            high = int(min(last, np.ceil(min(each.end, last / self._rate) * self._rate)))
            if low < high:
                if not values.flags.writeable:
                    values = values.copy()
                self._spoil(values[low - first : high - first], each, low)
        return values * self._per_microvolt

    def _spoil(self, values: Wave, each: Fault, first: int) -> None:
        """Apply one fault to the samples it is about, in place."""
        if each.kind is FaultKind.NAN:
            values[:] = np.nan
            return
        for column, lead in enumerate(self._leads):
            if lead.uses(each.argument):
                values[:, column] = self._spoilt(values[:, column], each.kind, lead, first)

    def _spoilt(self, column: Wave, kind: FaultKind, lead: SimulatedLead, first: int) -> Wave:
        if kind is FaultKind.FLAT:
            return np.zeros_like(column)
        if kind is FaultKind.CLIPPED:
            return np.clip(column, -_RAIL_UV, _RAIL_UV)
        t = np.arange(first, first + column.size) / self._rate
        hum = np.sin(2.0 * np.pi * self._night.mains_hz * t)
        if kind is FaultKind.HUM:
            return np.asarray(column + _HUM_UV * hum, dtype=np.float32)
        drift = loop("drift")
        index = (t * RATE).astype(int) + 4099 * len(lead.label) + self._place
        wander = 220.0 * drift[index % drift.size]
        air = 40.0 * hum * (1.0 + 0.3 * np.sin(2.0 * np.pi * 0.31 * t))
        return np.asarray(0.03 * column + wander + 3.0 * air, dtype=np.float32)


def uid(source_id: str, life: int) -> str:
    """Return the uid of an outlet in one of its lives."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{source_id}#{life}"))
