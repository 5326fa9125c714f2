"""The judge of power cuts goes by the order of what was noted and sent, not by what came later."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from power.judge import Promises, violations
from power.recording import CallKind, Done

EVENT = json.dumps({"schema": "hypnocast.stage/1", "id": "night/0/1"}).encode()


def note(text: str) -> Done:
    return Done(CallKind.NOTE, failed=False, file=0, at=0, time=0.0, data=text.encode())


def sends(event: bytes) -> list[Done]:
    """Return the packet that publishes an event, sent in two pieces."""
    topic = b"hypnocast/lab/bed/bed1/events"
    body = len(topic).to_bytes(2, "big") + topic + b"\x00\x01" + event
    length = bytes([len(body) & 0x7F | 0x80, len(body) >> 7])
    packet = b"\x32" + length + body
    pieces = b"\xc0\x00" + packet[:1], packet[1:40], packet[40:]
    return [Done(CallKind.SEND, failed=False, file=7, at=0, time=0.0, data=one) for one in pieces]


def an_empty_journal(folder: Path) -> Path:
    path = folder / "journal.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE events (bed, sequence, id, payload)")
        db.execute("CREATE TABLE outbox (bed, sequence)")
    return path


@pytest.mark.parametrize(
    ("record", "guilty"),
    [
        ([*sends(EVENT)], True),
        ([*sends(EVENT), note("held bed1 1 night/0/1 x")], True),
        ([note("degraded"), *sends(EVENT)], False),
        ([note("degraded"), *sends(EVENT), note("durable again")], False),
        ([note("degraded"), note("durable again"), *sends(EVENT)], True),
        (sends(EVENT)[:-1], False),  # it never went out whole
    ],
)
def test_what_was_sent_and_is_gone_is_excused_only_where_degraded_was_said_before(
    tmp_path: Path, record: list[Done], *, guilty: bool
) -> None:
    found = violations(an_empty_journal(tmp_path), Promises.of(record))
    assert found == (["night/0/1 was sent before it was durable"] if guilty else [])
