"""How a bed's streams and channels do, as its status shows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hypnocast.core.pages.aligned_stream import AlignedStreamState
from hypnocast.core.timing.utc import instant
from hypnocast.core.types import Flag, StreamHeader
from hypnocast.core.wire import payloads
from hypnocast.core.wire.gear_values import GearValue
from hypnocast.live.bed.bed_updates import ChannelSeen, SignalsSeen
from hypnocast.ports.lsl.problems import REFUSED, StreamProblem

STALE_S: Final = 10.0
"""Without a sample for so long a stream is silent; a bed whose needed channels are so is stale."""

_WORDS = {
    Flag.MISSING: "no signal",
    Flag.DETACHED: "detached",
    Flag.FLAT: "flat",
    Flag.CLIPPED: "clipped",
    Flag.OUT_OF_SCALE: "out of scale",
    Flag.LINE_NOISE: "mains hum",
    Flag.UNKNOWN_UNIT: "unit unknown",
}


def silence_of(seen: SignalsSeen) -> float:
    """Seconds since the newest sample of any stream that fills a role."""
    latest = [state.latest for _, state in seen.streams if state and state.latest is not None]
    return seen.local - max(latest) if latest else float("inf")


def stream_health(
    seen: SignalsSeen, problems: Sequence[StreamProblem]
) -> tuple[payloads.StreamHealth, ...]:
    """Return how each stream does, with what is known to be wrong with it."""
    return tuple(_stream(seen, header, state, problems) for header, state in seen.streams)


def channel_health(seen: SignalsSeen) -> dict[str, payloads.ChannelHealth]:
    """Return how the channel of each role does."""
    return {role.value: _channel(channel) for role, channel in seen.channels.items()}


def gear_values(seen: SignalsSeen) -> tuple[GearValue, ...]:
    """Return what the bed's recorder says beside its signals."""
    return tuple(
        GearValue(
            kind=one.kind,
            channel=one.channel,
            value=one.value,
            unit=one.unit,
            since=instant(seen.at_utc - max(0.0, seen.local - one.since)),
        )
        for one in seen.gear
    )


def _stream(
    seen: SignalsSeen,
    header: StreamHeader,
    state: AlignedStreamState | None,
    problems: Sequence[StreamProblem],
) -> payloads.StreamHealth:
    age = None
    if state is not None and state.latest is not None:
        age = max(0.0, round(seen.local - state.latest, 1))
    mine = [problem for problem in problems if problem.stream == header.key]
    return payloads.StreamHealth(
        name=header.name,
        source_id=header.source_id,
        host=header.host,
        rate=header.rate,
        state=_stream_state(state, age, mine),
        age_s=age,
        problem="; ".join(problem.words for problem in mine) or None,
    )


def _stream_state(
    state: AlignedStreamState | None, age: float | None, problems: Sequence[StreamProblem]
) -> payloads.StreamState:
    if state is not None and not state.open:
        refused = any(problem.kind in REFUSED for problem in problems)
        return "refused" if refused else "lost"
    if state is None:
        return "live"
    return "silent" if age is None or age >= STALE_S else "live"


def _channel(seen: ChannelSeen) -> payloads.ChannelHealth:
    words = ", ".join(_WORDS[flag] for flag in sorted(seen.flags)) or "good"
    return payloads.ChannelHealth(
        derivation=seen.derivation.name,
        unit=seen.unit,
        flags=tuple(sorted(flag.value for flag in seen.flags)),
        words=words,
    )
