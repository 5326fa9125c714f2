"""Streams of recordings under names of the bridge, and their samples in pieces to be sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from hypnocast.bridge.gear import renamed
from hypnocast.core.types import Chunk, StreamHeader
from hypnocast.ports.lsl.beds import OWN_SOURCE

PIECE_S: Final = 0.125
"""How much is sent at once, so that samples come as evenly as from an amplifier."""

LISTENER_S: Final = 10.0
"""How long a recording waits for somebody to listen before it goes by."""

SUFFIXES: Final = ("psg", "exg", "aux", "eeg", "eog", "emg", "ecg")
"""How streams of one bed are distinguished: whoever groups streams by name knows these words."""


def published(
    headers: Sequence[StreamHeader], name: str, names: Mapping[str, str]
) -> dict[str, StreamHeader]:
    """Return what each stream of a recording is published as, by its key there.

    What Hypnocast itself once sent is left out. ``name`` stands for the name of the only stream,
    or begins those of several; without it streams keep their names.
    """
    kept = [each for each in headers if not each.source_id.startswith(OWN_SOURCE)]
    signals = [each for each in kept if each.rate > 0.0]
    labels = [channel.label for each in signals for channel in each.channels]
    new_labels = iter(renamed(labels, names))
    out: dict[str, StreamHeader] = {}
    for place, each in enumerate(signals[: len(SUFFIXES)]):
        channels = tuple(replace(channel, label=next(new_labels)) for channel in each.channels)
        new_name = each.name
        if name:
            new_name = name if len(signals) == 1 else f"{name}-{SUFFIXES[place]}"
        out[each.key] = _named(replace(each, channels=channels), new_name)
    for number, each in enumerate(each for each in kept if each.format == "string"):
        new_name = each.name
        if name:
            new_name = f"{name}{f'-{number + 1}' if number else ''}-markers"
        out[each.key] = _named(each, new_name)
    return out


def _named(header: StreamHeader, name: str) -> StreamHeader:
    source_id = f"bridge-file-{name}"
    return replace(
        header, key=source_id, name=name, source_id=source_id, uid=source_id, host="", xml=""
    )


def in_pieces(chunk: Chunk, rate: float) -> Iterator[Chunk]:
    """Cut a chunk; each piece is due when its last sample was taken."""
    step = max(1, round(rate * PIECE_S))
    for first in range(0, len(chunk.stamps), step):
        stamps = chunk.stamps[first : first + step]
        samples = chunk.samples[first : first + step]
        yield Chunk(chunk.stream, samples, stamps, float(stamps[-1]))
