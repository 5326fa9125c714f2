"""A stream's description, asked of its sender directly, with a limit on what comes.

liblsl reads a description to its end, whatever its length. The question is one line over TCP
(``LSL:fullinfo``, liblsl's own protocol since 1.0), the answer is XML until the sender closes.
liblsl does not give a sender's address; so the address is read from this process's own
connections for its samples.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hypnocast.errors import StreamError
from hypnocast.ports.lsl.beds import AnnouncedStream
from hypnocast.ports.stream_xml import MAX_HEADER_CHARS, ParsedHeader, data_ports_of, parse_header

_QUESTION: Final = b"LSL:fullinfo\r\n"
_AT_ONCE: Final = 65_536
_DESCRIPTORS: Final = Path("/proc/self/fd")


class RefusedStreamError(StreamError):
    """A stream that is never to be opened: it costs too much, or contradicts itself."""


@dataclass(frozen=True, slots=True)
class StreamAnswer:
    """What a stream says of itself, and where it is."""

    described: ParsedHeader
    address: str
    """Where its samples come from."""


def fetch_header(info: Any, seen: AnnouncedStream, *, timeout_s: float) -> StreamAnswer:
    """Ask a stream whose inlet is open for its description; believe what was announced alike."""
    ports = data_ports_of(info.as_xml())
    deadline = time.monotonic() + timeout_s
    failure = StreamError("broke off while it was opened")
    for place in _connected_to(ports):
        try:
            answer = _ask(place, deadline)
        except RefusedStreamError:
            raise
        except StreamError as error:
            failure = error
            continue
        try:
            described = parse_header(answer)
        except StreamError as error:
            failure = RefusedStreamError(error.what, where=error.where, remedy=error.remedy)
            continue
        if described.header.uid == seen.uid:
            _compare(seen, described)
            return StreamAnswer(described, place[0])
    raise failure


def _compare(seen: AnnouncedStream, described: ParsedHeader) -> None:
    """Refuse a stream whose description contradicts its announcement."""
    header = described.header
    for what, announced, declared in (
        ("channel_count", seen.channel_count, len(header.channels)),
        ("channel_format", seen.format, header.format),
        ("nominal_srate", seen.rate, header.rate),
    ):
        if announced != declared:
            raise RefusedStreamError(
                f"announced {what} {announced!r}, its description says {declared!r}",
                remedy="Is somebody else announcing it?",
            )


def _connected_to(ports: frozenset[int]) -> list[tuple[str, int]]:
    """Return the peers of this process's own connections that serve at one of these ports."""
    peers: dict[tuple[str, int], None] = {}
    for peer in _peers():
        if peer[1] in ports:
            peers[peer] = None
    return list(peers)


def _peers() -> Iterator[tuple[str, int]]:
    for descriptor in _DESCRIPTORS.iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile, or no connection
            if not str(descriptor.readlink()).startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(descriptor.name))) as copy:
                if copy.family in (socket.AF_INET, socket.AF_INET6):
                    peer = copy.getpeername()
                    yield str(peer[0]), int(peer[1])


def _ask(place: tuple[str, int], deadline: float) -> str:
    parts: list[bytes] = []
    length = 0
    try:
        with socket.create_connection(place, max(0.001, deadline - time.monotonic())) as sender:
            sender.sendall(_QUESTION)
            while True:
                sender.settimeout(max(0.001, deadline - time.monotonic()))
                part = sender.recv(_AT_ONCE)
                if not part:
                    break
                length += len(part)
                if length > MAX_HEADER_CHARS:
                    raise RefusedStreamError(
                        f"its description is longer than {MAX_HEADER_CHARS} bytes; "
                        "it is not asked for again"
                    )
                parts.append(part)
    except TimeoutError as error:
        raise StreamError(
            "announced, but gave no description in time",
            remedy="Is its program stopped, or its TCP port closed by a firewall?",
        ) from error
    except OSError as error:
        raise StreamError(f"broke off while it was asked for its description ({error})") from error
    return b"".join(parts).decode("utf-8", "replace")
