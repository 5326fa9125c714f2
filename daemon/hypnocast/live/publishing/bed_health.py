"""How a bed's streams and channels do, as its status says it."""

from __future__ import annotations

from hypnocast.core.pages.aligned_stream import AlignedStreamState
from hypnocast.core.types import Flag, StreamHeader
from hypnocast.core.wire import payloads
from hypnocast.live.bed.bed_updates import ChannelSeen, SignalsSeen

STALE_S = 10.0
"""A session whose needed channels have been silent for so long is ``stale``."""

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
    seen: SignalsSeen, header: StreamHeader, state: AlignedStreamState | None
) -> payloads.StreamHealth:
    """Say how one stream of a bed does."""
    age = None
    if state is not None and state.latest is not None:
        age = max(0.0, round(seen.local - state.latest, 1))
    return payloads.StreamHealth(
        name=header.name,
        source_id=header.source_id,
        host=header.host,
        rate=header.rate,
        state=_stream_state(state, age),
        age_s=age,
        problem=None,
    )


def _stream_state(state: AlignedStreamState | None, age: float | None) -> payloads.StreamState:
    if state is None:
        return "live"
    if not state.open:
        return "lost"
    return "silent" if age is None or age >= STALE_S else "live"


def channel_health(seen: ChannelSeen) -> payloads.ChannelHealth:
    """Say how one channel of a bed does."""
    words = ", ".join(_WORDS[flag] for flag in sorted(seen.flags)) or "good"
    return payloads.ChannelHealth(
        derivation=seen.derivation.name,
        unit=seen.unit,
        flags=tuple(sorted(flag.value for flag in seen.flags)),
        words=words,
    )
