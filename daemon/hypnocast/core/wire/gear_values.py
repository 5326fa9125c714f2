"""What a recorder says of a bed beside its signals, as a status carries it."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

GearKind = Literal["position", "impedance"]


class GearValue(Struct, frozen=True, kw_only=True):
    """The newest value of a channel of position or impedance, as the recorder says it."""

    kind: GearKind
    channel: str
    """The channel's label."""
    value: float
    """A position in the recorder's own code or in degrees; an impedance to two digits."""
    unit: str | None
    since: Annotated[
        str, Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$", title="UTC, milliseconds")
    ]
    """When it became this."""
