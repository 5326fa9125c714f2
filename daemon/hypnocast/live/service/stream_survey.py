"""``hypnocast streams``: what is on the network, and what each bed would make of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hypnocast.config.tables import Config
from hypnocast.core.montage.choice import Montage
from hypnocast.core.types import StreamHeader
from hypnocast.live.service.build import chooser
from hypnocast.live.service.lsl_settings import beds_of, network_of
from hypnocast.ports.lsl.discovery import FoundStream, discover
from hypnocast.ports.lsl.library import configure_lsl


@dataclass(frozen=True, slots=True)
class StreamSurvey:
    """Every stream found, and the montage of every bed."""

    found: tuple[FoundStream, ...]
    montages: dict[str, Montage]

    def to_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "streams": [_stream(found) for found in self.found],
            "beds": {bed: _montage(montage) for bed, montage in self.montages.items()},
        }

    def lines(self) -> Iterator[str]:
        """Return it for people."""
        if not self.found:
            yield "No stream on the network. Is the amplifier's LSL on, on the same subnet?"
            yield "Hosts beyond multicast are named as peers: [lsl] peers in the configuration."
        for found in self.found:
            yield _headline(found)
            if found.header is not None and found.header.rate > 0:
                yield "    " + ", ".join(map(_channel, found.header.channels))
            for problem in found.problems:
                yield f"    ! {problem}"
        for bed, montage in self.montages.items():
            yield ""
            yield f"bed {bed}"
            for role, derivation in montage.derivations.items():
                yield f"    {role:<6} {derivation.name:<22} {montage.why.get(role, '')}"
            yield from (f"    ! {line}" for line in montage.problem_lines())


def survey(config: Config, *, wait_s: float) -> StreamSurvey:
    """Listen for a while."""
    configure_lsl(network_of(config))
    found = tuple(discover(beds_of(config), wait_s=wait_s))
    headers: dict[str, list[StreamHeader]] = {}
    for each in found:
        if each.bed is not None and each.header is not None:
            headers.setdefault(each.bed, []).append(each.header)
    beds = {bed.id: bed for bed in config.bed}
    montages = {bed: chooser(beds.get(bed))(streams) for bed, streams in headers.items()}
    return StreamSurvey(found, montages)


def _headline(found: FoundStream) -> str:
    seen, rate = found.seen, f"{found.seen.rate:g} Hz" if found.seen.rate else "irregular"
    bed = f"bed {found.bed}" if found.bed is not None else "no bed"
    return f"{seen.name}  type={seen.type} source_id={seen.source_id} on {seen.host}, {rate}, {bed}"


def _channel(info: Any) -> str:
    return f"{info.label} [{info.unit or 'no unit'}]"


def _stream(found: FoundStream) -> dict[str, Any]:
    header = found.header
    return {
        "name": found.seen.name,
        "type": found.seen.type,
        "source_id": found.seen.source_id,
        "host": found.seen.host,
        "rate": found.seen.rate,
        "bed": found.bed,
        "channels": [
            {"label": info.label, "unit": info.unit, "type": info.kind}
            for info in (header.channels if header is not None else ())
        ],
        "problems": [str(problem) for problem in found.problems],
    }


def _montage(montage: Montage) -> dict[str, Any]:
    return {
        "montage": {role.value: d.name for role, d in montage.derivations.items()},
        "why": {role.value: why for role, why in montage.why.items()},
        "problems": dict(montage.problems),
    }
