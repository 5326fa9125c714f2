"""The journal's tables, and what is done to them within one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from hypnocast.core.types import FloatArray
from hypnocast.core.wire import payloads
from hypnocast.errors import JournalError
from hypnocast.ports.journal.records import Batch, Committed, EventDraft, SessionRecord, StoredEvent

APPLICATION_ID = 0x48_59_50_4E
"""``HYPN``: marks the file as a journal of Hypnocast."""

SCHEMA_VERSION = 1

REFUSALS: Final = (
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    sqlite3.DataError,
    OverflowError,
    TypeError,
    ValueError,
)
"""The batch is wrong, not the disk."""

_SCHEMA = f"""
BEGIN IMMEDIATE;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('generation', lower(hex(randomblob(4))));
CREATE TABLE beds (bed TEXT PRIMARY KEY, last_sequence INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE sessions (
    id TEXT PRIMARY KEY, bed TEXT NOT NULL, site TEXT NOT NULL, subject TEXT,
    source TEXT NOT NULL, opened TEXT NOT NULL, phase TEXT NOT NULL, start TEXT, ended TEXT
) WITHOUT ROWID;
CREATE INDEX sessions_by_opening ON sessions (opened);
CREATE TABLE anchors (
    session TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE, boot_id TEXT NOT NULL,
    lsl_t0 REAL NOT NULL, utc_t0 REAL NOT NULL, recorded TEXT NOT NULL,
    PRIMARY KEY (session, boot_id)
) WITHOUT ROWID;
CREATE TABLE pages (
    session TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE, epoch INTEGER NOT NULL,
    closed TEXT NOT NULL, picture TEXT, detail BLOB NOT NULL,
    PRIMARY KEY (session, epoch)
) WITHOUT ROWID;
CREATE TABLE opinions (
    session TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE, epoch INTEGER NOT NULL,
    revision INTEGER NOT NULL CHECK (revision IN (0, 1)), pack TEXT NOT NULL,
    provider TEXT NOT NULL, log_probabilities BLOB NOT NULL,
    PRIMARY KEY (session, epoch, revision)
) WITHOUT ROWID;
CREATE TABLE events (
    bed TEXT NOT NULL, sequence INTEGER NOT NULL, id TEXT NOT NULL UNIQUE,
    session TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE, epoch INTEGER NOT NULL,
    revision INTEGER NOT NULL, status TEXT NOT NULL, created TEXT NOT NULL,
    payload BLOB NOT NULL,
    PRIMARY KEY (bed, sequence), UNIQUE (session, epoch, revision),
    CHECK ((revision = 0 AND status = 'provisional')
        OR (revision = 1 AND status IN ('final', 'withheld')))
);
CREATE TRIGGER nothing_after_terminal BEFORE INSERT ON events
WHEN NEW.revision = 0 AND EXISTS (
    SELECT 1 FROM events WHERE session = NEW.session AND epoch = NEW.epoch AND revision = 1)
BEGIN SELECT RAISE(ABORT, 'a terminal event is there already'); END;
CREATE TRIGGER events_stay_as_they_are BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'an event is never changed'); END;
CREATE TABLE outbox (
    bed TEXT NOT NULL, sequence INTEGER NOT NULL, PRIMARY KEY (bed, sequence),
    FOREIGN KEY (bed, sequence) REFERENCES events ON DELETE CASCADE
) WITHOUT ROWID;
CREATE TABLE marks (
    n INTEGER PRIMARY KEY, session TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE,
    at TEXT NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL
);
CREATE INDEX marks_by_session ON marks (session, at);
CREATE TABLE replies (
    bed TEXT NOT NULL, request TEXT NOT NULL, command_digest TEXT NOT NULL,
    payload BLOB NOT NULL, created TEXT NOT NULL, PRIMARY KEY (bed, request)
) WITHOUT ROWID;
CREATE TABLE corrections (
    n INTEGER PRIMARY KEY, session TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE,
    epoch INTEGER NOT NULL, stage TEXT NOT NULL, scorer TEXT NOT NULL, at TEXT NOT NULL,
    comment TEXT NOT NULL
);
CREATE INDEX corrections_by_page ON corrections (session, epoch);
COMMIT;
"""  # noqa: S608 - two numbers of ours

_LATER_TABLES = """
CREATE TABLE IF NOT EXISTS carried (
    session TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE, pack TEXT NOT NULL,
    epoch INTEGER NOT NULL, state BLOB NOT NULL, PRIMARY KEY (session, pack)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS beside (
    session TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE, epoch INTEGER NOT NULL,
    pack TEXT NOT NULL, name TEXT NOT NULL, stage TEXT, reason TEXT, probabilities BLOB,
    log_probabilities BLOB, coverage REAL NOT NULL, PRIMARY KEY (session, pack, epoch)
) WITHOUT ROWID;
"""
"""Tables that came later. Older versions pass them by, so the schema's number stays."""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(payloads.StageEvent)


def decode_event(payload: bytes) -> payloads.StageEvent:
    """Read an event as the journal keeps it."""
    return _decoder.decode(payload)


class Store:
    """One connection that writes. Used from one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Open the file, and lay out its tables if it is new."""
        self.connection = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, timeout=2.0
        )
        try:
            self._prepare(path)
        except BaseException:
            self.connection.close()
            raise

    def _prepare(self, path: Path) -> None:
        db = self.connection
        application = int(db.execute("PRAGMA application_id").fetchone()[0])
        version = int(db.execute("PRAGMA user_version").fetchone()[0])
        empty = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
        if not empty and application != APPLICATION_ID:
            raise JournalError(
                "is an SQLite file of another program",
                where=str(path),
                remedy="Name another path for the journal.",
            )
        if version > SCHEMA_VERSION:
            raise JournalError(
                f"was written by a newer Hypnocast (schema {version}, this one knows "
                f"{SCHEMA_VERSION})",
                where=str(path),
                remedy="Upgrade Hypnocast, or name another path for the journal.",
            )
        if empty:
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            # SQLite would go on without a log, and a power cut may then undo what was committed.
            raise sqlite3.OperationalError(f"no write-ahead log can be begun (mode {mode})")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA wal_autocheckpoint = 0")
        if empty:
            # One transaction: a journal is there with all its tables, or not at all.
            db.executescript(_SCHEMA)
        db.executescript(_LATER_TABLES)

    def check(self) -> None:
        """Look through the whole file for damage: ``sqlite3.DatabaseError`` if there is any."""
        verdict = self.connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)

    @property
    def generation(self) -> str:
        """Return an id that distinguishes this file from any that was there before."""
        row = self.connection.execute("SELECT value FROM meta WHERE key = 'generation'").fetchone()
        return str(row[0])

    def close(self) -> None:
        """Fold the write-ahead log into the file and let go of it."""
        self.connection.close()

    @contextmanager
    def transaction(self, *, synced: bool = True) -> Iterator[None]:
        """Everything within becomes durable together; unless ``synced``, with the next that is."""
        self.connection.execute(f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}")
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.connection.execute("COMMIT")
        except BaseException:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo what is within, and no more, if it fails."""
        self.connection.execute("SAVEPOINT batch")
        try:
            yield
        except BaseException:
            # A full disk rolls everything back by itself; then there is no savepoint left.
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK TO batch")
                self.connection.execute("RELEASE batch")
            raise
        self.connection.execute("RELEASE batch")

    def apply(self, batch: Batch) -> Committed:
        """Write a batch within the transaction that is open."""
        many = self.connection.executemany
        many(
            "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
            " subject = excluded.subject, phase = excluded.phase, start = excluded.start,"
            " ended = excluded.ended",
            [_row(session) for session in batch.sessions],
        )
        many(
            "INSERT OR REPLACE INTO anchors VALUES (?, ?, ?, ?, ?)",
            [(a.session, a.boot_id, a.lsl_t0, a.utc_t0, a.recorded) for a in batch.anchors],
        )
        many(
            "INSERT OR IGNORE INTO pages VALUES (?, ?, ?, ?, ?)",
            [(p.session, p.epoch, p.closed, p.picture, p.detail) for p in batch.pages],
        )
        many(
            "INSERT OR IGNORE INTO opinions VALUES (?, ?, ?, ?, ?, ?)",
            [
                (
                    o.session,
                    o.epoch,
                    o.revision,
                    o.pack,
                    o.provider,
                    np.asarray(o.log_probabilities, dtype="<f8").tobytes(),
                )
                for o in batch.opinions
            ],
        )
        many(
            "INSERT OR REPLACE INTO carried VALUES (?, ?, ?, ?)",
            [(c.session, c.pack, c.epoch, c.state) for c in batch.carried],
        )
        many(
            "INSERT OR IGNORE INTO beside VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    b.session,
                    b.epoch,
                    b.pack,
                    b.name,
                    b.stage,
                    b.reason,
                    _numbers(b.probabilities),
                    _numbers(b.log_probabilities),
                    b.coverage,
                )
                for b in batch.beside
            ],
        )
        events, stored = self._write_events(batch.events)
        many(
            "INSERT INTO marks (session, at, kind, text) VALUES (?, ?, ?, ?)",
            [(m.session, m.mark.at, m.mark.kind, m.mark.text) for m in batch.marks],
        )
        many(
            "INSERT OR IGNORE INTO replies VALUES (?, ?, ?, ?, ?)",
            [(r.bed, r.request, r.command_digest, r.payload, r.created) for r in batch.replies],
        )
        many(
            "INSERT INTO corrections (session, epoch, stage, scorer, at, comment)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            [(c.session, c.epoch, c.stage, c.scorer, c.at, c.comment) for c in batch.corrections],
        )
        return Committed(events=events, stored=stored, durable=True)

    def _write_events(
        self, drafts: Iterable[EventDraft]
    ) -> tuple[tuple[payloads.StageEvent, ...], tuple[StoredEvent, ...]]:
        events: list[payloads.StageEvent] = []
        stored: list[StoredEvent] = []
        for draft in drafts:
            known = self.event_by_id(draft.event.id)
            if known is not None:
                events.append(known)
                continue
            number = draft.sequence or self.last_sequence(draft.event.bed) + 1
            event = msgspec.structs.replace(draft.event, sequence=number)
            row = StoredEvent(event.bed, event.sequence, event.id, _encoder.encode(event))
            self._insert_event(event, row)
            events.append(event)
            stored.append(row)
        return tuple(events), tuple(stored)

    def _insert_event(self, event: payloads.StageEvent, row: StoredEvent) -> None:
        execute = self.connection.execute
        execute(
            "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, strftime('%Y-%m-%dT%H:%M:%fZ'), ?)",
            (
                event.bed,
                event.sequence,
                event.id,
                event.session,
                event.epoch,
                event.revision,
                event.status,
                row.payload,
            ),
        )
        execute("INSERT OR REPLACE INTO beds VALUES (?, ?)", (event.bed, event.sequence))
        execute("INSERT INTO outbox VALUES (?, ?)", (event.bed, event.sequence))

    def last_sequence(self, bed: str) -> int:
        """Return the number of the bed's newest event, 0 before its first."""
        row = self.connection.execute(
            "SELECT last_sequence FROM beds WHERE bed = ?", (bed,)
        ).fetchone()
        return int(row[0]) if row else 0

    def start_sequences(self, heads: Iterable[tuple[str, int]]) -> None:
        """Let the beds count on from these numbers: a journal begun anew must not count again."""
        self.connection.executemany("INSERT OR REPLACE INTO beds VALUES (?, ?)", list(heads))

    def event_by_id(self, event_id: str) -> payloads.StageEvent | None:
        """Return the event with that id, if there is one."""
        row = self.connection.execute(
            "SELECT payload FROM events WHERE id = ?", (event_id,)
        ).fetchone()
        return decode_event(row[0]) if row else None

    def delivered(self, places: Iterable[tuple[str, int]]) -> None:
        """Remove events from the outbox: the broker has acknowledged them."""
        self.connection.executemany("DELETE FROM outbox WHERE bed = ? AND sequence = ?", places)

    def fold(self) -> tuple[int, int, int]:
        """Fold what can be folded of the write-ahead log into the file, and sync both.

        Returns whether a reader held it up, the pages in the log, and how many of them are folded.
        """
        row = self.connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return int(row[0]), int(row[1]), int(row[2])

    def forget_one_before(self, instant: str) -> int:
        """Delete one ended night opened before ``instant`` that owes the broker nothing.

        One at a time, so that no page waits long for its turn. Returns how many were deleted.
        """
        cursor = self.connection.execute(
            "DELETE FROM sessions WHERE id = (SELECT id FROM sessions AS s"
            " WHERE ended IS NOT NULL AND opened < ? AND NOT EXISTS ("
            "  SELECT 1 FROM outbox JOIN events USING (bed, sequence) WHERE events.session = s.id)"
            " ORDER BY opened LIMIT 1)",
            (instant,),
        )
        self.connection.execute("DELETE FROM replies WHERE created < ?", (instant,))
        self.connection.execute("PRAGMA incremental_vacuum").fetchall()
        return cursor.rowcount


def _numbers(values: FloatArray | None) -> bytes | None:
    return None if values is None else np.asarray(values, dtype="<f8").tobytes()


def _row(session: SessionRecord) -> tuple[str | None, ...]:
    return (
        session.id,
        session.bed,
        session.site,
        session.subject,
        session.source,
        session.opened,
        session.phase,
        session.start,
        session.ended,
    )
