"""How a bed's signals do just now, for its status: channels, streams, what is wrong with them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from hypnocast.core.montage.choice import Montage
from hypnocast.core.quality import health
from hypnocast.core.types import Flag, Role, Signal, StreamHeader
from hypnocast.live.bed.bed_updates import ChannelSeen, Item, SignalsSeen
from hypnocast.live.bed.stream_intake import SETTLE_S, StreamIntake

Needed = Sequence[Sequence[Role]]
"""Groups of roles: one of each group must be filled."""


HEALTH_EVERY_S = 2.0


class HealthReports:
    """Reports now and then how the signals of one bed do."""

    def __init__(self, needed: Needed, mains_hz: int, send: Callable[[Item], None]) -> None:
        """Keep the roles that are needed, and where reports go."""
        self._needed = needed
        self._mains_hz = mains_hz
        self._send = send
        self._next = float("-inf")
        self._next_wall = float("-inf")
        self._first_stream: float | None = None

    def due(self, now: float) -> bool:
        """Return whether it is time; at most a few times a second however fast time passes."""
        wall = time.monotonic()
        if now < self._next or wall < self._next_wall:
            return False
        self._next = now + HEALTH_EVERY_S
        self._next_wall = wall + HEALTH_EVERY_S / 4
        return True

    def send(self, intake: StreamIntake, now: float, at_utc: float, also: tuple[str, ...]) -> None:
        """Report at a local time, which is ``at_utc``; ``also`` are further problems.

        A channel that no stream has yet is none of them while other streams may still show up.
        """
        builder, headers, needed = intake.builder, intake.headers, self._needed
        if self._first_stream is None and headers:
            self._first_stream = now
        settled = self._first_stream is not None and now - self._first_stream >= SETTLE_S
        channels = {
            role: _channel(role, signal, headers, self._mains_hz)
            for role, signal in builder.recent(now).items()
        }
        states = {state.stream: state for state in builder.states()}
        self._send(
            SignalsSeen(
                at_utc=at_utc,
                streams=tuple((header, states.get(key)) for key, header in headers.items()),
                channels=channels,
                ready=_ready(channels, needed),
                problems=(*_problems(intake.montage, needed, settled=settled), *also),
                late_samples=builder.late,
                local=now,
                gear=intake.gear.now(),
            )
        )


def _channel(
    role: Role, signal: Signal, headers: Mapping[str, StreamHeader], mains_hz: int
) -> ChannelSeen:
    derivation = signal.derivation
    header = headers.get(derivation.stream)
    unit = header.channels[derivation.positive].unit if header is not None else None
    return ChannelSeen(derivation, unit, health(signal.samples, signal.rate, mains_hz, role))


def _problems(montage: Montage | None, needed: Needed, *, settled: bool) -> tuple[str, ...]:
    """Return what is wrong with the montage, as far as it is used or, once settled, lacking."""
    if montage is None:
        return ()
    filled = montage.derivations
    lacking = {
        role for group in needed if not any(role in filled for role in group) for role in group
    }
    assumed = (
        f"{role.value}: reference assumed: {derivation.name} says not what it is measured "
        "against; stages from it were never judged. Give `reference` for this bed."
        for role, derivation in filled.items()
        if derivation.kind == "assumed_reference"
    )
    faults = montage.problem_lines(lambda what: what in filled or (settled and what in lacking))
    return (*faults, *assumed)


def _ready(channels: Mapping[Role, ChannelSeen], needed: Needed) -> bool:
    return all(
        any(role in channels and Flag.MISSING not in channels[role].flags for role in group)
        for group in needed
    )
