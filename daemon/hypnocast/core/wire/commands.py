"""Commands to a bed over MQTT, and the replies; schemas are generated from here.

Commands are read strictly: a key that is not known is a fault, not something to be ignored.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from hypnocast.core.wire.payloads import Epoch, Explanation, Message, StageEvent

RequestId = Annotated[str, Meta(min_length=1, max_length=64)]
SessionId = Annotated[str, Meta(min_length=1, max_length=128)]
Moment = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=40,
        title="ISO 8601 with a zone",
        description="A time in any form of ISO 8601, with Z or an offset from UTC.",
    ),
]
SubjectCode = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")]


class Strict(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Anything Hypnocast receives."""


class StartSession(Strict, frozen=True, kw_only=True, tag_field="command", tag="start_session"):
    """Begin a night for the next person; ends the one that runs."""

    request: RequestId
    subject: SubjectCode | None = None
    phase: Literal["setup", "calibration", "recording"] = "recording"


class EndSession(Strict, frozen=True, kw_only=True, tag_field="command", tag="end_session"):
    """End the named session; nothing happens if it no longer runs."""

    request: RequestId
    session: SessionId


class LightsOff(Strict, frozen=True, kw_only=True, tag_field="command", tag="lights_off"):
    """Lights went off, now or (back-dated) at ``at``."""

    request: RequestId
    session: SessionId
    at: Moment | None = None


class LightsOn(Strict, frozen=True, kw_only=True, tag_field="command", tag="lights_on"):
    """Lights came on, now or (back-dated) at ``at``."""

    request: RequestId
    session: SessionId
    at: Moment | None = None


class Note(Strict, frozen=True, kw_only=True, tag_field="command", tag="note"):
    """A technologist's note, now or (back-dated) at ``at``."""

    request: RequestId
    session: SessionId
    text: Annotated[str, Meta(min_length=1, max_length=500)]
    at: Moment | None = None


class AcceptStream(Strict, frozen=True, kw_only=True, tag_field="command", tag="accept_stream"):
    """What took a stream's place in this session is the lab's own: it may be read."""

    request: RequestId
    session: SessionId


class Explain(Strict, frozen=True, kw_only=True, tag_field="command", tag="explain"):
    """Ask what a page's stage rests on."""

    request: RequestId
    session: SessionId
    epoch: Epoch


class PageCommand(Strict, frozen=True, kw_only=True, tag_field="command", tag="page"):
    """Ask for the picture of a page; the reply is the PNG."""

    request: RequestId
    session: SessionId
    epoch: Epoch


class CatchUp(Strict, frozen=True, kw_only=True, tag_field="command", tag="catch_up"):
    """Ask for the events after a sequence number again; they come on ``reply``."""

    request: RequestId
    since: Annotated[int, Meta(ge=0)]
    limit: Annotated[int, Meta(ge=1, le=500)] = 200


Command = (
    StartSession
    | EndSession
    | LightsOff
    | LightsOn
    | Note
    | AcceptStream
    | Explain
    | PageCommand
    | CatchUp
)


class Reply(Message, frozen=True, kw_only=True):
    """The answer to a command, on the bed's ``reply`` topic."""

    schema: Literal["hypnocast.reply/1"] = "hypnocast.reply/1"
    request: str
    command: str
    ok: bool
    error: str | None = None
    session: str | None = None
    events: tuple[StageEvent, ...] | None = None
    """``catch_up``: events after ``since``, in order."""
    more: bool | None = None
    """``catch_up``: whether there are still more."""
    png: str | None = None
    """``page``: the picture, base64."""
    explanation: Explanation | None = None


_decoder = msgspec.json.Decoder(Command)


def decode_command(payload: bytes) -> Command:
    """Read a command strictly; ``msgspec.ValidationError`` or ``DecodeError`` if it is none."""
    command: Command = _decoder.decode(payload)
    return command


def command_name(command: Command) -> str:
    """Return the name a command has on the wire."""
    return str(command.__struct_config__.tag)
