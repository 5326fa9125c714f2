"""``hypnocast streams --toml``: what was found, as a configuration that ``run`` accepts.

What the streams give of themselves is left to them. What they leave out and is known of such gear
is filled in; what only the lab can know is left to be filled in, and marked so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from hypnocast.core.montage.choice import Montage
from hypnocast.core.types import Role
from hypnocast.live.service.stream_survey import StreamSurvey
from hypnocast.ports.lsl.beds import is_marker
from hypnocast.ports.lsl.discovery import FoundStream

_HEAD = (
    "# Written by `hypnocast streams --toml`. With any [[bed]] here, only these beds are served:",
    "# streams of other beds are no longer found by themselves. Sessions begin by command or",
    "# marker unless [session] auto = true.",
    "",
    "[session]",
    "auto = true",
)


@dataclass(frozen=True, slots=True)
class _Gear:
    """What is known of gear that describes itself too little."""

    name: str
    pattern: str
    unit: str
    labels: tuple[str, ...] = ()


_KNOWN = (
    _Gear("Muse", r"^muse", "µV", ("TP9", "AF7", "AF8", "TP10", "Right AUX")),
    _Gear("OpenBCI", r"^(obci|openbci)", "µV"),
)
"""Streams by the beginning of their names, as muselsl, BlueMuse and the OpenBCI GUI write them."""


_COUNTS = frozenset({"counts", "count", "raw", "adu", "lsb", "digits", "bits", "a.u.", "au"})
"""Units that say of a value only that it is a number."""


def as_toml(found: StreamSurvey) -> Iterator[str]:
    """Return the lines of a configuration for everything that was found."""
    yield from _HEAD
    beds: dict[str, list[FoundStream]] = {}
    for stream in found.found:
        if stream.bed is not None:
            beds.setdefault(stream.bed, []).append(stream)
    for bed, streams in beds.items():
        yield ""
        yield "[[bed]]"
        yield f"id = {_text(bed)}"
        yield from _bed_wide(streams)
        if bed in found.montages:
            yield from _chosen(found.montages[bed], streams)
        for stream in streams:
            yield from _stream(stream)
    if not beds:
        yield "# No stream of a bed was found."


def _chosen(montage: Montage, streams: list[FoundStream]) -> Iterator[str]:
    if any(each.kind == "assumed_reference" for each in montage.derivations.values()):
        yield '# reference = "M1"   # what the electrodes are measured against: fill in'
    yield "# roles, as they are chosen by themselves:"
    for role, derivation in montage.derivations.items():
        yield f"#   {role.value}: {derivation.name}"
    yield from (f"#   {line}" for line in montage.problem_lines())
    labels = [label for stream in streams for label in _labels(stream)]
    if labels and not montage.derivations:
        example = f"{{ {_text(Role.F4.value)} = {_text(labels[0])} }}"
        yield f"# roles = {example}   # no label names an electrode: fill in which is where"


def _labels(stream: FoundStream) -> list[str]:
    """Return the names of a stream's signals."""
    if stream.header is None or stream.header.rate <= 0:
        return []
    return [info.label for info in stream.header.channels if info.label]


def _bed_wide(streams: list[FoundStream]) -> Iterator[str]:
    """Return the units that the streams do not give."""
    units: dict[str, str] = {}
    unknown: list[str] = []
    for stream in streams:
        gear = _gear(stream)
        if stream.header is None or stream.header.rate == 0:
            continue
        for info in stream.header.channels:
            counts = (info.unit or "").strip().casefold() in _COUNTS and info.scale is None
            if info.unit and not counts:
                continue
            if gear is not None and not info.unit:
                units[info.label or "*"] = gear.unit
            else:
                unknown.append(info.label or "*")
    if units:
        inner = ", ".join(f"{_text(label)} = {_text(unit)}" for label, unit in units.items())
        yield f"units = {{ {inner} }}"
    if unknown:
        inner = ", ".join(f'{_text(label)} = "µV"' for label in dict.fromkeys(unknown))
        yield f"# units = {{ {inner} }}   # the streams do not say: fill in V, mV, µV or nV"


def _stream(stream: FoundStream) -> Iterator[str]:
    seen, header = stream.seen, stream.header
    yield "[[bed.streams]]"
    yield f"name = {_text(seen.name)}"
    if seen.type:
        yield f"type = {_text(seen.type)}"
    if seen.host:
        yield f"host = {_text(seen.host)}"
    if header is None or is_marker(seen):
        return
    if header.rate == 0:
        yield "# rate = 256   # the stream declares none: fill in how many samples come a second"
    if any(channel.label for channel in header.channels):
        return
    gear, count = _gear(stream), len(header.channels)
    if gear is not None and len(gear.labels) >= count:
        yield f"labels = [{', '.join(map(_text, gear.labels[:count]))}]   # {gear.name}"
    else:
        blanks = ", ".join(f'"channel {number}"' for number in range(1, count + 1))
        yield f"labels = [{blanks}]   # fill in what each electrode is, e.g. C4-M1"


def _gear(stream: FoundStream) -> _Gear | None:
    name = stream.seen.name.casefold()
    return next((gear for gear in _KNOWN if re.match(gear.pattern, name)), None)


def _text(words: str) -> str:
    """Write a TOML string; JSON's are of the same form."""
    return json.dumps(words, ensure_ascii=False).replace("\x7f", "\\u007f")
