"""Decides whether a journal kept its promises over a power cut. Shares no code with the daemon.

It reads what the process noted and sent before the cut, and the journal as any SQLite tool would
after the project's own code has opened it.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from power.recording import CallKind, Done

Kept = dict[str, tuple[str, int, str]]
"""Id → bed, sequence, digest of the bytes."""


@dataclass(slots=True)
class Promises:
    """What had been promised when the power was cut."""

    durable: Kept = field(default_factory=dict)
    """Called durable."""
    held: Kept = field(default_factory=dict)
    """Called *not* durable: ``degraded`` said so."""
    acknowledged: set[tuple[str, int]] = field(default_factory=set)
    sent: dict[str, str] = field(default_factory=dict)
    """Id → digest of what went out to the broker."""
    sent_degraded: set[str] = field(default_factory=set)
    """Ids of what went out while ``degraded`` said that nothing is durable."""
    degraded: bool = False

    @classmethod
    def of(cls, record: Sequence[Done]) -> Promises:
        """Read them from what came before the cut."""
        promises = cls()
        streams: dict[int, bytes] = {}
        for done in record:
            if done.kind is CallKind.NOTE:
                promises._note(done.text.split())
            elif done.kind is CallKind.SEND:
                events, rest = _events(streams.get(done.file, b"") + done.data)
                streams[done.file] = rest
                for event in events:
                    promises._send(event)
        return promises

    def _send(self, event: bytes) -> None:
        name = json.loads(event)["id"]
        self.sent[name] = _digest(event)
        if self.degraded:
            self.sent_degraded.add(name)

    def _note(self, words: list[str]) -> None:
        match words:
            case ["degraded"]:
                self.degraded = True
            case ["durable", "again"]:
                self.degraded = False
            case ["back"]:  # what was held was written before the journal was durable again
                self.durable |= self.held
                self.held.clear()
            case ["durable", bed, sequence, name, digest]:
                self.durable[name] = (bed, int(sequence), digest)
            case ["held", bed, sequence, name, digest]:
                self.held[name] = (bed, int(sequence), digest)
            case ["acknowledged", bed, sequence]:
                self.acknowledged.add((bed, int(sequence)))
            case _:
                pass


def _digest(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()


def _events(stream: bytes) -> tuple[list[bytes], bytes]:
    """Cut a TCP stream into MQTT packets; return the events published whole, and what is left."""
    events: list[bytes] = []
    at = 0
    while at < len(stream):
        length, shift, body = 0, 0, at + 1
        while body < len(stream):
            byte = stream[body]
            length |= (byte & 0x7F) << shift
            shift, body = shift + 7, body + 1
            if not byte & 0x80:
                break
        packet = stream[body : body + length]
        if body == len(stream) or len(packet) < length:
            break
        if stream[at] >> 4 == 3 and b"/events" in packet[:100]:
            events.append(packet[packet.index(b'{"schema"') :])
        at = body + length
    return events, stream[at:]


def violations(journal: Path, promises: Promises) -> list[str]:
    """Return what is not as it was promised, one line each."""
    found: list[str] = []
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as db:
        try:
            rows = db.execute("SELECT bed, sequence, id, payload FROM events").fetchall()
            outbox = set(db.execute("SELECT bed, sequence FROM outbox").fetchall())
            verdict = db.execute("PRAGMA integrity_check").fetchone()[0]
        except sqlite3.Error as error:
            return [f"cannot be read: {error}"]
    if verdict != "ok":
        found.append(f"damaged: {verdict}")
    kept = {name: (bed, number, _digest(payload)) for bed, number, name, payload in rows}
    if len(kept) != len(rows):
        found.append("an id is there twice")
    found += _broken(kept, outbox, promises)
    found += _sent_otherwise(kept, promises)
    numbers: dict[str, list[int]] = {}
    for bed, number, _ in kept.values():
        numbers.setdefault(bed, []).append(number)
    for bed, given in numbers.items():
        if sorted(given) != list(range(1, len(given) + 1)):
            found.append(f"{bed} has gaps in its sequence: {sorted(given)}")
    return found


def _broken(kept: Kept, outbox: set[tuple[str, int]], promises: Promises) -> Iterator[str]:
    for name, promised in promises.durable.items():
        if name not in kept:
            yield f"{name} was called durable and is gone"
        elif kept[name] != promised:
            yield f"{name} was called durable and is another now"
        elif promised[:2] not in promises.acknowledged and promised[:2] not in outbox:
            yield f"{name} is not in the outbox, and the broker did not acknowledge it"


def _sent_otherwise(kept: Kept, promises: Promises) -> Iterator[str]:
    for name, digest in promises.sent.items():
        if name in kept and kept[name][2] != digest:
            yield f"{name} was sent with another content"
        elif not (name in kept or name in promises.durable or name in promises.sent_degraded):
            yield f"{name} was sent before it was durable"
