"""From truth to signals: sources over one page, mixed into leads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

import numpy as np

from hypnocast.core.types import PAGE_S, FloatArray
from hypnocast.simulate import waves
from hypnocast.simulate.events import Event, EventKind
from hypnocast.simulate.montages import SimulatedLead
from hypnocast.simulate.person import Person
from hypnocast.simulate.scalp import ELECTRODES, SOURCES, Levels, own_share, seen_by
from hypnocast.simulate.waves import BLOCK, RATE, Wave

_RAMP = 2 * RATE
"""A page replaces the one before within 2 s."""
_RISE = (np.arange(_RAMP, dtype=np.float32) + np.float32(0.5)) / np.float32(_RAMP)
_PINK = ("front", "centre", "back")


@dataclass(frozen=True, slots=True)
class Synthesis:
    """What stays the same all night: where each lead's weights and each noise's place are."""

    person: Person
    leads: tuple[SimulatedLead, ...]
    mix: FloatArray
    """(leads, sources): how much of each source a lead sees."""
    own: tuple[tuple[str, tuple[tuple[int, float], ...]], ...]
    """Each electrode in use, and the leads (with sign) that hang on it."""
    places: dict[str, int]
    """Where in its endless noise each source begins."""
    mains_hz: int

    @classmethod
    def of(
        cls, person: Person, leads: Sequence[SimulatedLead], seed: int, mains_hz: int
    ) -> Synthesis:
        """Prepare the leads of one person."""
        mix = np.zeros((len(leads), len(SOURCES)))
        hangs: dict[str, list[tuple[int, float]]] = {}
        for i, lead in enumerate(leads):
            for electrode, sign in ((lead.positive, 1.0), (lead.negative, -1.0)):
                if electrode is not None:
                    mix[i] += sign * seen_by(electrode, person)
                    hangs.setdefault(electrode, []).append((i, sign))
        own = tuple((electrode, tuple(at)) for electrode, at in sorted(hangs.items()))
        return cls(person, tuple(leads), mix, own, _places(seed), mains_hz)


def _places(seed: int) -> dict[str, int]:
    """Choose a place in its noise for every source and electrode, whatever leads are in use."""
    names = [*SOURCES, *(f"own {e}" for e in ELECTRODES), *(f"emg {e}" for e in ELECTRODES)]
    rng = np.random.default_rng([seed, 0x91ACE])
    return dict(zip(names, rng.integers(1 << 24, size=len(names)).tolist(), strict=True))


def synthesise(
    synthesis: Synthesis,
    page: int,
    *,
    before: Levels,
    now: Levels,
    warmth: tuple[float, float],
    events: Iterable[Event],
) -> Wave:
    """Return one page of all leads, (samples, leads) in µV.

    ``before`` and ``now`` are the levels of the page before and of this one; ``events`` are all
    that touch the page. The sums are made in a fixed order, lead by lead.
    """
    sources = _enduring(synthesis, page, before, now, warmth)
    for name, driven in _driven(synthesis, page * BLOCK, events).items():
        sources[name] = sources[name] + driven if name in sources else driven
    sources["heart"] = _heart(synthesis.person, page)
    sources["hum"] = _hum(synthesis.mains_hz)
    out = np.zeros((len(synthesis.leads), BLOCK), dtype=np.float32)
    scratch = np.empty(BLOCK, dtype=np.float32)
    for column, name in enumerate(SOURCES):
        if name in sources:
            for lead, weight in enumerate(synthesis.mix[:, column]):
                if weight:
                    np.multiply(sources[name], np.float32(weight), out=scratch)
                    out[lead] += scratch
    for row, hangs in _own(synthesis, page, before, now):
        for lead, sign in hangs:
            np.multiply(row, np.float32(sign), out=scratch)
            out[lead] += scratch
    return np.ascontiguousarray(out.T)


def _scaled(noise: Wave, at: int, before: float, now: float) -> Wave:
    """Return a page of an endless noise, its strength going over from one level to the other."""
    row = waves.slice_of(noise, at, BLOCK) * np.float32(now)
    if before != now:
        turn = np.float32(before / now if now else 0.0)
        row[:_RAMP] *= turn + (np.float32(1.0) - turn) * _RISE
    return row


def _enduring(
    synthesis: Synthesis, page: int, before: Levels, now: Levels, warmth: tuple[float, float]
) -> dict[str, Wave]:
    """Return the sources that never stop."""
    person, places, at = synthesis.person, synthesis.places, page * BLOCK
    rows = {
        name: _scaled(waves.loop("pink"), at + places[name], before.background, now.background)
        for name in _PINK
    }
    for name, shape in (("delta", "delta"), ("theta", "theta"), ("sigma", "sigma")):
        rows[name] = _scaled(
            waves.loop(shape), at + places[name], getattr(before, name), getattr(now, name)
        )
    alpha = waves.loop("alpha", round(4.0 * person.alpha_hz) / 4.0)
    rows["alpha"] = _scaled(alpha, at + places["alpha"], before.alpha, now.alpha)
    rows["beta"] = _scaled(waves.loop("beta"), at + places["beta"], before.beta, now.beta)
    rows["chin"] = _scaled(waves.loop("muscle"), at + places["chin"], before.chin, now.chin)
    sweat = (person.sweat_uv * warmth[0], person.sweat_uv * warmth[1])
    if any(sweat):
        rows["drift"] = _scaled(waves.loop("drift"), at + places["drift"], *sweat)
    return rows


def _own(
    synthesis: Synthesis, page: int, before: Levels, now: Levels
) -> Iterator[tuple[Wave, tuple[tuple[int, float], ...]]]:
    """Yield what each electrode has for itself, with the leads that hang on it."""
    pink, muscle, at = waves.loop("pink"), waves.loop("muscle"), page * BLOCK
    for electrode, hangs in synthesis.own:
        share, strain = own_share(electrode)
        here = at + synthesis.places[f"own {electrode}"]
        row = _scaled(pink, here, share * before.background, share * now.background)
        here = at + synthesis.places[f"emg {electrode}"]
        row += _scaled(muscle, here, strain * before.muscle, strain * now.muscle)
        yield row, hangs


@lru_cache(maxsize=4)
def _hum(mains_hz: int) -> Wave:
    """Return one page of mains hum; every page is alike, for 30 s hold whole turns of it."""
    t = np.arange(BLOCK) * (mains_hz / RATE)
    return np.asarray(np.sin(2.0 * np.pi * np.mod(t, 1.0)), dtype=np.float32)


def _heart(person: Person, page: int) -> Wave:
    """Return one page of ECG in µV: beats where the heart's phase passes whole numbers."""
    start = page * PAGE_S
    t = np.arange(-10, round(PAGE_S * 10) + 11) / 10.0 + start
    hz = person.heart_bpm / 60.0
    phase = (
        hz * t
        + 0.10 * np.sin(2.0 * np.pi * t / 4.1)
        + 0.25 * np.sin(2.0 * np.pi * t / 11.3)
        + 20.0 * np.sin(2.0 * np.pi * t / 5400.0 + person.age)
    )
    whole = np.arange(np.ceil(phase[0]), phase[-1])
    starts = np.rint((np.interp(whole, phase, t) - 0.2 - start) * RATE).astype(int)
    row = np.zeros(BLOCK, dtype=np.float32)
    for first in starts.tolist():
        _lay(row, waves.heart_beat(), first, 1100.0)
    return row


def _lay(row: Wave, wave: Wave, first: int, size: float) -> None:
    """Add a wave to a row of one page; what lies outside the page is another page's."""
    low, high = max(0, -first), min(wave.size, row.size - first)
    if low < high:
        row[first + low : first + high] += wave[low:high] * np.float32(size)


def _driven(synthesis: Synthesis, at: int, events: Iterable[Event]) -> dict[str, Wave]:
    """Return the sources that are silent but for the page's events."""
    rows: dict[str, Wave] = {}
    for event in events:
        if event.end * RATE <= at:
            continue
        for source, share, shape in _SHAPES[event.kind]:
            row = rows.setdefault(source, np.zeros(BLOCK, dtype=np.float32))
            wave = shape(event, synthesis.person)
            _lay(row, wave, round(event.start * RATE) - at, share * event.microvolts)
    return rows


def _burst(noise: str, event: Event, ramp: float) -> Wave:
    """Return a stretch of an endless noise that swells up and dies down."""
    envelope = waves.plateau(event.duration, ramp)
    return waves.slice_of(waves.loop(noise), event.place, envelope.size) * envelope


def _arousal(event: Event, person: Person) -> Wave:
    """Return the abrupt shift to faster waves: alpha and beta, with an RMS of about 1."""
    envelope = waves.plateau(event.duration, 0.4)
    alpha = waves.loop("alpha", round(4.0 * person.alpha_hz) / 4.0)
    wave = np.float32(0.55) * waves.slice_of(alpha, event.place, envelope.size)
    wave += np.float32(0.35) * waves.slice_of(waves.loop("beta"), event.place, envelope.size)
    return wave * envelope


def _noise(name: str, ramp: float) -> Callable[[Event, Person], Wave]:
    return lambda event, _: _burst(name, event, ramp)


_SHAPES: Mapping[EventKind, tuple[tuple[str, float, Callable[[Event, Person], Wave]], ...]] = (
    MappingProxyType(
        {
            EventKind.SPINDLE: (("spindle", 1.0, lambda e, _: waves.spindle(e.duration, e.hz)),),
            EventKind.K_COMPLEX: (("slow", 1.0, lambda e, _: waves.k_complex(e.duration)),),
            EventKind.SLOW_WAVES: (("slow", 1.0, _noise("slow", 0.8)),),
            EventKind.VERTEX_WAVE: (("vertex", 1.0, lambda e, _: waves.vertex_wave(e.duration)),),
            EventKind.SAWTOOTH: (("vertex", 1.0, lambda e, _: waves.sawtooth(e.duration, e.hz)),),
            EventKind.BLINK: (("lids", 1.0, lambda e, _: waves.blink(e.duration)),),
            EventKind.RAPID_EYE_MOVEMENT: (("gaze", 1.0, lambda e, _: waves.saccade(e.duration)),),
            EventKind.SLOW_EYE_MOVEMENT: (("gaze", 1.0, lambda e, _: waves.slow_roll(e.duration)),),
            EventKind.TWITCH: (("chin", 1.0, _noise("muscle", 0.05)),),
            EventKind.AROUSAL: (
                ("arousal", 1.0, _arousal),
                ("muscle", 0.35, _noise("muscle", 0.5)),
            ),
            EventKind.BODY_MOVEMENT: (
                ("sway", 1.0, _noise("sway", 0.7)),
                ("muscle", 0.2, _noise("muscle", 0.5)),
            ),
        }
    )
)
"""For each event the sources it drives, with which share of its size and in which shape."""
