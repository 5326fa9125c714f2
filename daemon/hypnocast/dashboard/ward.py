"""The ward as the public topics show it, folded message by message; pure.

A :class:`WardView` is never changed: :func:`absorb` gives the next one. The browser's page and the
terminal's table are both drawn from it, so they cannot disagree.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeVar

import msgspec

from hypnocast.core.plain_text import plain
from hypnocast.core.timing.utc import seconds_of
from hypnocast.core.wire.commands import Reply
from hypnocast.core.wire.payloads import (
    BedStatus,
    Beside,
    DaemonState,
    Explained,
    Night,
    StageEvent,
    encode,
)
from hypnocast.core.wire.spectra import NightSpectrum
from hypnocast.core.wire.traces import Traces

MAX_STATE_BYTES = 2 << 20
"""Of what is no picture: a night of a week with its notes has half of it."""

MAX_TRACES_BYTES = 32 << 10
"""Of a second of all channels; ours has 2 kB."""

MAX_BEDS = 256
MAX_NODES = 64
"""What one page can show; whoever may write to the broker could invent any number."""

_EARLIEST, _LATEST = 0.0, 7_258_118_400.0
"""Instants between 1970 and 2200 are believed."""

MAX_PICTURE_BYTES = 4 << 20
"""A page is some 100 kB; a megabyte-long one is not a page."""

TOPICS = (
    "bed/+/status",
    "bed/+/stage",
    "bed/+/night",
    "bed/+/page",
    "bed/+/explanation",
    "bed/+/beside",
    "bed/+/reply",
    "daemon/+/available",
    "daemon/+/state",
)
"""What a viewer subscribes to, below the site's prefix."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_WORD = re.compile(r"(\d+)")
_PNG = b"\x89PNG\r\n\x1a\n"
_M = TypeVar("_M")


@dataclass(frozen=True, slots=True)
class Incoming:
    """One message as the broker handed it over."""

    topic: str
    """Below the site's prefix: ``bed/12/status``."""
    payload: bytes
    retained: bool
    """Whether the broker had kept it: then it may be old."""
    at: float
    """When it came, in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class BedView:
    """The newest word on everything about one bed."""

    name: str
    status: BedStatus | None = None
    stage: StageEvent | None = None
    night: Night | None = None
    spectrum: NightSpectrum | None = None
    page: bytes | None = None
    explanation: Explained | None = None
    beside: Beside | None = None
    seen: float = 0.0
    """When the bed's last message was made, in seconds since 1970; of retained ones too."""


@dataclass(frozen=True, slots=True)
class Node:
    """A daemon that serves beds."""

    name: str
    available: bool | None = None
    state: DaemonState | None = None
    seen: float = 0.0
    """When it last sent its state, which it does every 30 s; in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class WardView:
    """All beds and daemons of a site, as far as the broker has messages of them."""

    beds: Mapping[str, BedView] = field(default_factory=lambda: MappingProxyType({}))
    nodes: Mapping[str, Node] = field(default_factory=lambda: MappingProxyType({}))
    refused: int = 0
    """Messages that do not keep the contract; they change nothing else."""
    refusal: str = ""
    """What was wrong with the last of them."""

    def node_of(self, bed: BedView) -> Node | None:
        """Return the daemon that serves a bed, where it is known."""
        return self.nodes.get(bed.status.node) if bed.status is not None else None


def seconds(instant: str) -> float:
    """Return an instant of the contract as seconds since 1970; ``ValueError`` if it cannot be."""
    at = seconds_of(instant)
    if not _EARLIEST <= at <= _LATEST:
        msg = f"{instant} is not of this century or the next"
        raise ValueError(msg)
    return at


def bed_of(topic: str) -> str | None:
    """Return the bed that a topic is about, or None."""
    words = topic.split("/")
    return words[1] if len(words) == 3 and words[0] == "bed" else None


def absorb(ward: WardView, message: Incoming) -> WardView:
    """Return the ward after a message; one that breaks the contract is counted and named."""
    kind, _, rest = message.topic.partition("/")
    name, _, leaf = rest.partition("/")
    try:
        _check_size(ward, kind, name, leaf, message)
        if kind == "bed" and leaf in _BED_LEAVES and (message.payload or name in ward.beds):
            bed = _BED_LEAVES[leaf](ward.beds.get(name, BedView(name)), message)
            return replace(ward, beds=_with(ward.beds, name, bed))
        if kind == "daemon" and leaf in _NODE_LEAVES:
            node = _NODE_LEAVES[leaf](ward.nodes.get(name, Node(name)), message)
            return replace(ward, nodes=_with(ward.nodes, name, node))
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        return refuse(ward, message, error)
    return ward


def refuse(ward: WardView, message: Incoming, error: Exception) -> WardView:
    """Return the ward after a message that is not believed: it is counted and named."""
    what = plain(f"{message.topic}: {error}")
    return replace(ward, refused=ward.refused + 1, refusal=what)


def _check_size(ward: WardView, kind: str, name: str, leaf: str, message: Incoming) -> None:
    """Raise ``ValueError`` for what is longer, or of more beds, than can be shown."""
    if not _NAME.fullmatch(name):
        msg = "no name of a bed or daemon"
        raise ValueError(msg)
    if leaf != "page" and len(message.payload) > MAX_STATE_BYTES:
        msg = f"a message of {len(message.payload)} bytes"
        raise ValueError(msg)
    known, most = (ward.beds.keys(), MAX_BEDS) if kind == "bed" else (ward.nodes.keys(), MAX_NODES)
    if message.payload and name not in known and len(known) >= most:
        msg = f"more than {most} are not shown"
        raise ValueError(msg)


def read_traces(payload: bytes) -> bytes:
    """Return a second of signals as JSON that keeps the contract; anybody may have sent it."""
    if len(payload) > MAX_TRACES_BYTES:
        msg = f"a second of {len(payload)} bytes"
        raise ValueError(msg)
    second = msgspec.json.decode(payload, type=Traces)
    _check_instants(second.start)
    return encode(second)


def read_reply(payload: bytes) -> Reply:
    """Read the answer to a command."""
    return msgspec.json.decode(payload, type=Reply)


def _check_instants(*instants: str | None) -> None:
    """Raise ``ValueError`` for a moment that no calendar has."""
    for instant in instants:
        if instant is not None:
            seconds(instant)


def _with(old: Mapping[str, _M], name: str, new: _M | None) -> Mapping[str, _M]:
    changed = dict(old)
    if new is None:
        changed.pop(name, None)
    else:
        changed[name] = new
    return MappingProxyType(dict(sorted(changed.items(), key=_by_number)))


def _by_number(entry: tuple[str, object]) -> list[tuple[int, str]]:
    """Sort bed 2 before bed 10."""
    return [(int(word), "") if word.isdecimal() else (-1, word) for word in _WORD.split(entry[0])]


def _seen(bed: BedView, message: Incoming, at_source: str, source: str) -> float:
    """Return when the bed spoke: live retained words carry their age, data time does not."""
    at = (
        min(seconds(at_source), message.at) if message.retained and source == "live" else message.at
    )
    return max(bed.seen, at)


def _status(bed: BedView, message: Incoming) -> BedView | None:
    if not message.payload:
        return None
    status = msgspec.json.decode(message.payload, type=BedStatus)
    _check_instants(status.at, status.since, *(one.since for one in status.gear))
    return replace(bed, status=status, seen=_seen(bed, message, status.at, status.source))


def _stage(bed: BedView, message: Incoming) -> BedView:
    if not message.payload:
        return replace(bed, stage=None)
    event = msgspec.json.decode(message.payload, type=StageEvent)
    _check_instants(event.start, event.end)
    return replace(bed, stage=event, seen=_seen(bed, message, event.end, event.source))


def _night(bed: BedView, message: Incoming) -> BedView:
    if not message.payload:
        return replace(bed, night=None)
    night = msgspec.json.decode(message.payload, type=Night)
    _check_instants(night.at, night.start, night.ended, *(mark.at for mark in night.marks))
    lengths = {len(night.status), len(night.stages), len(night.reasons), len(night.probabilities)}
    if lengths != {night.epochs}:
        msg = "the lists of the night differ in length"
        raise ValueError(msg)
    return replace(bed, night=night, seen=_seen(bed, message, night.at, night.source))


def _spectrum(bed: BedView, message: Incoming) -> BedView:
    if not message.payload:
        return replace(bed, spectrum=None)
    found = msgspec.json.decode(message.payload, type=NightSpectrum)
    _check_instants(found.at, found.start)
    wanted = (found.pages * found.bins, found.pages * len(found.bands_hz))
    if (len(found.levels), len(found.bands)) != wanted:
        msg = "the spectrum has another length than it says"
        raise ValueError(msg)
    return replace(bed, spectrum=found)


def _page(bed: BedView, message: Incoming) -> BedView:
    if not message.payload:
        return replace(bed, page=None)
    if not message.payload.startswith(_PNG):
        msg = "the page is not a PNG"
        raise ValueError(msg)
    if len(message.payload) > MAX_PICTURE_BYTES:
        msg = f"the page has {len(message.payload)} bytes"
        raise ValueError(msg)
    return replace(bed, page=message.payload)


def _explanation(bed: BedView, message: Incoming) -> BedView:
    if not message.payload:
        return replace(bed, explanation=None)
    return replace(bed, explanation=msgspec.json.decode(message.payload, type=Explained))


def _beside(bed: BedView, message: Incoming) -> BedView:
    if not message.payload:
        return replace(bed, beside=None)
    return replace(bed, beside=msgspec.json.decode(message.payload, type=Beside))


def _available(node: Node, message: Incoming) -> Node | None:
    if not message.payload:
        return None
    if message.payload not in (b"online", b"offline"):
        msg = "neither online nor offline"
        raise ValueError(msg)
    return replace(node, available=message.payload == b"online")


def _state(node: Node, message: Incoming) -> Node | None:
    if not message.payload:
        return None
    state = msgspec.json.decode(message.payload, type=DaemonState)
    at = min(seconds(state.at), message.at) if message.retained else message.at
    return replace(node, state=state, seen=max(node.seen, at))


_BED_LEAVES = {
    "status": _status,
    "stage": _stage,
    "night": _night,
    "spectrum": _spectrum,
    "page": _page,
    "explanation": _explanation,
    "beside": _beside,
}
_NODE_LEAVES = {"available": _available, "state": _state}
