"""Whether a recording has channels that a page can be drawn from; if not, what to do."""

from __future__ import annotations

from collections.abc import Sequence

from hypnocast.config.tables import Config
from hypnocast.core.pages.bed_streams import Choose
from hypnocast.core.types import Role, StreamHeader
from hypnocast.errors import TapeError
from hypnocast.live.service.build import chooser
from hypnocast.ports.recordings.recording import Recording

_SHOWN = 24


def fitting_choice(config: Config, recording: Recording, roles: Sequence[Role], bed: str) -> Choose:
    """Return how a bed's montage is chosen; refuse a recording of which no channel fits.

    A tape is never refused: what its night withheld is withheld again.
    """
    choose = chooser({one.id: one for one in config.bed}.get(bed))
    if not recording.decisions and not set(roles) & set(choose(recording.headers).derivations):
        raise TapeError(
            f"has no channel that fits: it has {_channels(recording.headers)}; wanted are "
            + ", ".join(role.value for role in roles),
            where=str(recording.path),
            remedy=f"Name its channels under `roles` of a [[bed]] (id = {bed!r}) in the "
            "configuration, or their reference with `reference`.",
        )
    return choose


def _channels(headers: Sequence[StreamHeader]) -> str:
    found = [
        f"{info.label!r} ({info.unit or 'no unit'}, {header.rate:g} Hz)"
        for header in headers
        if header.rate > 0
        for info in header.channels
    ]
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return (", ".join(found[:_SHOWN]) or "no signal of a steady rate") + more
