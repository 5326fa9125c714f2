"""Files that earlier versions wrote: this version, and every later one, reads them.

Each folder beside this file is named after the version whose code wrote it: a journal that was
closed, the same journal as a killed daemon left it, a tape in three parts, a tape that a crash
cut off, and what they hold, as plain SQL, plain SHA-256 and the standard library saw it then.
The files are never written again. A version that changes a format adds a folder.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from hypnocast.core.types import StreamHeader
from hypnocast.ports.journal.journal import Journal
from hypnocast.ports.journal.reader import JournalReader
from hypnocast.ports.recordings.tape_reader import read_tape
from support.nights import a_batch, an_event

VERSIONS = sorted(path for path in Path(__file__).parent.iterdir() if (path / "rows.json").exists())
GROWS = {"meta"}
"""Tables in which a later version may have more rows than were written."""

_ALL_OF = "SELECT * FROM {}"

Rows = dict[str, list[list[object]]]

version = pytest.mark.parametrize("version", VERSIONS, ids=[path.name for path in VERSIONS])
state = pytest.mark.parametrize("state", ["closed", "killed"])


def unpacked(version: Path, state: str, folder: Path) -> Path:
    """Lay a journal out as that version left it."""
    folder.mkdir(mode=0o700)
    for packed in version.glob(f"{state}.sqlite*.gz"):
        suffix = packed.name.removeprefix(f"{state}.sqlite").removesuffix(".gz")
        file = folder / f"journal.sqlite{suffix}"
        file.write_bytes(gzip.decompress(packed.read_bytes()))
        file.chmod(0o600)
    return folder / "journal.sqlite"


def rows_of(journal: Path) -> Rows:
    """Read every table with plain SQL."""
    with closing(sqlite3.connect(journal)) as db:
        names = db.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
        )
        tables = [str(name) for (name,) in names.fetchall()]
        return {
            name: [[_plain(value) for value in row] for row in db.execute(_ALL_OF.format(name))]
            for name in tables
        }


def dump_of(journal: Path) -> list[str]:
    with closing(sqlite3.connect(journal)) as db:
        return [*db.iterdump(), *(str(row) for row in db.execute("PRAGMA user_version"))]


def _plain(value: object) -> object:
    return {"hex": value.hex()} if isinstance(value, bytes) else value


@version
@state
async def test_a_journal_of_an_earlier_version_holds_all_it_held(
    version: Path, state: str, tmp_path: Path
) -> None:
    journal = unpacked(version, state, tmp_path / "state")
    wrote: Rows = json.loads((version / "rows.json").read_text("utf-8"))
    async with Journal.open(journal) as opened:
        assert opened.condition.set_aside is None
        assert opened.condition.health == "durable"
        waiting = await opened.waiting()
        assert sum(waiting.values()) == len(wrote["outbox"])
        for bed, last in wrote["beds"]:
            assert isinstance(bed, str)
            events = await opened.events(bed, 0, 1000)
            kept = [row[8] for row in wrote["events"] if row[0] == bed]
            assert [{"hex": event.payload.hex()} for event in events] == kept
            assert events[-1].sequence == last
        nights = await opened.read(JournalReader.nights)
        assert {night.id for night in nights} == {row[0] for row in wrote["sessions"]}
        for night in nights:
            record = await opened.read(lambda reader, name=night.id: reader.night(name))  # type: ignore[misc]
            evidence = await opened.read(lambda reader, name=night.id: reader.evidence(name))  # type: ignore[misc]
            terminal = [row for row in wrote["events"] if row[3] == night.id and row[5] == 1]
            assert len(evidence) == len(terminal)
            assert len(record.events) == sum(row[3] == night.id for row in wrote["events"])
    now = rows_of(journal)
    for table, rows in wrote.items():
        if table in GROWS:
            assert all(row in now[table] for row in rows)
        else:
            assert now[table] == rows, table


@version
@state
async def test_opening_it_a_second_time_changes_nothing_more(
    version: Path, state: str, tmp_path: Path
) -> None:
    journal = unpacked(version, state, tmp_path / "state")
    await Journal.open(journal).aclose()
    once = dump_of(journal)
    await Journal.open(journal).aclose()
    assert dump_of(journal) == once


@version
async def test_a_night_begun_by_an_earlier_version_goes_on(version: Path, tmp_path: Path) -> None:
    journal = unpacked(version, "killed", tmp_path / "state")
    wrote: Rows = json.loads((version / "rows.json").read_text("utf-8"))
    heads = {str(bed): int(str(last)) for bed, last in wrote["beds"]}
    async with Journal.open(journal) as opened:
        done = await opened.commit(a_batch(an_event(5, bed="bed2", session="bed2-second")))
        assert done.durable
        assert done.events[0].sequence == heads["bed2"] + 1


@version
def test_the_schema_it_was_written_with_is_kept_beside_it(version: Path, tmp_path: Path) -> None:
    """Whoever mends a migration can see what that version's tables were."""
    journal = unpacked(version, "closed", tmp_path / "state")
    with closing(sqlite3.connect(journal)) as db:
        statements = db.execute(
            "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY type, name"
        )
        schema = "".join(f"{sql};\n" for (sql,) in statements)
        for pragma in ("application_id", "user_version"):
            schema += f"-- {pragma} = {db.execute(f'PRAGMA {pragma}').fetchone()[0]}\n"
    assert schema == (version / "schema.sql").read_text("utf-8")


def facts_of(arrivals: Iterable[object]) -> list[object]:
    """Write arrivals as JSON can hold them: arrays by their digest."""
    facts = [
        {"type": type(one).__name__}
        | {field.name: _fact(getattr(one, field.name)) for field in dataclasses.fields(one)}  # type: ignore[arg-type]
        for one in arrivals
    ]
    return list(json.loads(json.dumps(facts)))


def _fact(value: object) -> object:
    if isinstance(value, np.ndarray):
        digest = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return {"dtype": value.dtype.str, "shape": value.shape, "sha256": digest}
    if isinstance(value, StreamHeader):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return fields | {"channels": [dataclasses.astuple(one) for one in value.channels]}
    return value


@version
@pytest.mark.parametrize(
    ("first", "held"),
    [("tape_001.xdf", "arrivals.json"), ("tape_unfinished_001.xdf", "arrivals_unfinished.json")],
)
def test_a_tape_of_an_earlier_version_gives_back_what_it_gave(
    version: Path, first: str, held: str
) -> None:
    wrote: list[dict[str, object]] = json.loads((version / held).read_text("utf-8"))
    read = facts_of(read_tape(version / first))
    assert len(read) == len(wrote)
    for one, other in zip(read, wrote, strict=True):
        assert isinstance(one, dict)
        header = one.get("header")
        known = other.get("header")
        if isinstance(header, dict) and isinstance(known, dict):
            # A header may gain a field; what it had stays.
            one["header"] = {name: header[name] for name in known}
        # The name of a class may change; what it holds may not.
        assert {name: one[name] for name in other if name != "type"} == {
            name: value for name, value in other.items() if name != "type"
        }
