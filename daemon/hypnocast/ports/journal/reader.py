"""Reading the journal: by the daemon that writes it, and by reports in other processes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np

from hypnocast.core.types import FloatArray, PageSpectrum
from hypnocast.core.wire.payloads import NightMark, StageEvent
from hypnocast.errors import JournalError
from hypnocast.ports.journal.records import (
    BesideRecord,
    CarriedRecord,
    ClockAnchor,
    Correction,
    PageDetail,
    PageRecord,
    SessionRecord,
    StoredEvent,
    StoredReply,
)
from hypnocast.ports.journal.store import APPLICATION_ID, SCHEMA_VERSION, decode_event

_detail = msgspec.json.Decoder(PageDetail)


@dataclass(frozen=True, slots=True)
class NightRecord:
    """All the journal knows of one night."""

    session: SessionRecord
    events: tuple[StageEvent, ...]
    """By epoch; of a page with two events both, the terminal one last."""
    marks: tuple[NightMark, ...]
    anchors: tuple[ClockAnchor, ...]
    corrections: tuple[Correction, ...]
    beside: tuple[BesideRecord, ...] = ()
    """The opinions of packs beside, pack by pack, by epoch."""
    spectra: tuple[tuple[int, PageSpectrum], ...] = ()
    """Epoch → its page's spectrum, for the pages that have one."""


class JournalReader:
    """A connection that only reads. Used from one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Open a journal that exists; a daemon may be writing it meanwhile."""
        self._where = str(path)
        if not path.is_file():
            raise JournalError(
                "there is no journal here",
                where=self._where,
                remedy="Name the state directory of the daemon.",
            )
        with self._explained():
            self._db = _connect(path)
        try:
            self._check()
        except BaseException:
            self._db.close()
            raise

    def _check(self) -> None:
        with self._explained():
            application = int(self._db.execute("PRAGMA application_id").fetchone()[0])
            version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if application != APPLICATION_ID or version > SCHEMA_VERSION:
            raise JournalError(
                "is no journal of this version of Hypnocast",
                where=self._where,
                remedy="Name another file, or upgrade Hypnocast.",
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise JournalError(
                f"cannot be read: {error}",
                where=self._where,
                remedy="Check the file's rights and the disk.",
            ) from error

    def _rows(self, sql: str, *values: object) -> list[Any]:
        with self._explained():
            return self._db.execute(sql, values).fetchall()

    # --- nights -------------------------------------------------------------------------------

    def nights(self, bed: str | None = None, limit: int = 1000) -> tuple[SessionRecord, ...]:
        """Return the newest nights first."""
        rows = self._rows(
            "SELECT * FROM sessions WHERE ?1 IS NULL OR bed = ?1 ORDER BY opened DESC, id LIMIT ?2",
            bed,
            limit,
        )
        return tuple(SessionRecord(*row) for row in rows)

    def open_sessions(self) -> tuple[SessionRecord, ...]:
        """Return the sessions that have not ended, the oldest first."""
        rows = self._rows("SELECT * FROM sessions WHERE ended IS NULL ORDER BY opened, id")
        return tuple(SessionRecord(*row) for row in rows)

    def session(self, session: str) -> SessionRecord | None:
        """Return one session, if it is known."""
        rows = self._rows("SELECT * FROM sessions WHERE id = ?", session)
        return SessionRecord(*rows[0]) if rows else None

    def night(self, session: str) -> NightRecord:
        """Return a whole night."""
        found = self.session(session)
        if found is None:
            raise JournalError(
                f"knows no session {session!r}",
                where=self._where,
                remedy="`hypnocast nights` lists those there are.",
            )
        rows = self._rows(
            "SELECT payload FROM events WHERE session = ? ORDER BY epoch, revision", session
        )
        return NightRecord(
            session=found,
            events=tuple(decode_event(row[0]) for row in rows),
            marks=self.marks(session),
            anchors=self.anchors(session),
            corrections=self.corrections(session),
            beside=self.beside(session),
            spectra=self.spectra(session),
        )

    def marks(self, session: str) -> tuple[NightMark, ...]:
        """Return the markers and notes of a session by their time."""
        rows = self._rows(
            "SELECT at, kind, text FROM marks WHERE session = ? ORDER BY at, n", session
        )
        return tuple(NightMark(at=at, kind=kind, text=text) for at, kind, text in rows)

    def anchors(self, session: str) -> tuple[ClockAnchor, ...]:
        """Return where epoch 0 lies on the LSL clock of each boot, the newest boot last."""
        rows = self._rows("SELECT * FROM anchors WHERE session = ? ORDER BY recorded", session)
        return tuple(ClockAnchor(*row) for row in rows)

    def corrections(self, session: str) -> tuple[Correction, ...]:
        """Return what scorers corrected, in the order in which they did."""
        rows = self._rows(
            "SELECT session, epoch, stage, scorer, at, comment FROM corrections"
            " WHERE session = ? ORDER BY n",
            session,
        )
        return tuple(Correction(*row) for row in rows)

    def pages(self, session: str) -> tuple[PageRecord, ...]:
        """Return what is remembered of each page of a session."""
        rows = self._rows("SELECT * FROM pages WHERE session = ? ORDER BY epoch", session)
        return tuple(PageRecord(*row) for row in rows)

    def spectra(self, session: str) -> tuple[tuple[int, PageSpectrum], ...]:
        """Return the spectra of the pages that have one; what cannot be read has none."""
        found = []
        for page in self.pages(session):
            try:
                spectrum = _detail.decode(page.detail).spectrum
            except msgspec.DecodeError:
                continue
            if spectrum is not None:
                found.append((page.epoch, spectrum))
        return tuple(found)

    def evidence(self, session: str) -> tuple[tuple[int, FloatArray | None], ...]:
        """Return each terminal page's raw log-probabilities, None where it was withheld.

        This is what the decider is rebuilt from after a restart.
        """
        rows = self._rows(
            "SELECT epoch, status, (SELECT log_probabilities FROM opinions"
            "   WHERE opinions.session = events.session AND opinions.epoch = events.epoch"
            "   ORDER BY opinions.revision DESC LIMIT 1)"
            " FROM events WHERE session = ? AND revision = 1 ORDER BY epoch",
            session,
        )
        return tuple(
            (
                int(epoch),
                None if status == "withheld" or blob is None else np.frombuffer(blob, dtype="<f8"),
            )
            for epoch, status, blob in rows
        )

    def provisional(self, session: str) -> tuple[tuple[StageEvent, FloatArray | None], ...]:
        """Return the provisional events that no terminal one has followed, with their opinions."""
        rows = self._rows(
            "SELECT payload, (SELECT log_probabilities FROM opinions"
            "   WHERE opinions.session = e.session AND opinions.epoch = e.epoch"
            "   ORDER BY opinions.revision DESC LIMIT 1)"
            " FROM events AS e WHERE session = ? AND revision = 0 AND NOT EXISTS ("
            "   SELECT 1 FROM events AS t"
            "   WHERE t.session = e.session AND t.epoch = e.epoch AND t.revision = 1)"
            " ORDER BY epoch",
            session,
        )
        return tuple(
            (decode_event(payload), None if blob is None else np.frombuffer(blob, dtype="<f8"))
            for payload, blob in rows
        )

    def carried(self, session: str) -> tuple[CarriedRecord, ...]:
        """Return what each recurrent model carried over from the newest page it judged."""
        if not self._has_table("carried"):
            return ()
        rows = self._rows("SELECT * FROM carried WHERE session = ?", session)
        return tuple(CarriedRecord(*row) for row in rows)

    def beside(self, session: str) -> tuple[BesideRecord, ...]:
        """Return the opinions of packs beside on a night, pack by pack, by epoch."""
        if not self._has_table("beside"):
            return ()
        rows = self._rows("SELECT * FROM beside WHERE session = ? ORDER BY pack, epoch", session)
        return tuple(
            BesideRecord(
                night, epoch, pack, name, stage, reason, _numbers(chances), _numbers(log), coverage
            )
            for night, epoch, pack, name, stage, reason, chances, log, coverage in rows
        )

    def _has_table(self, name: str) -> bool:
        """Return whether the journal's version had a table that came later."""
        return bool(self._rows("SELECT 1 FROM sqlite_schema WHERE name = ?", name))

    # --- events -------------------------------------------------------------------------------

    def events(self, bed: str, since: int = 0, limit: int = 200) -> tuple[StoredEvent, ...]:
        """Return a bed's events after a sequence number, in their order."""
        rows = self._rows(
            "SELECT bed, sequence, id, payload FROM events WHERE bed = ? AND sequence > ?"
            " ORDER BY sequence LIMIT ?",
            bed,
            since,
            limit,
        )
        return tuple(StoredEvent(*row) for row in rows)

    def outbox(self, bed: str, after: int = 0, limit: int = 200) -> tuple[StoredEvent, ...]:
        """Return a bed's events that the broker has not acknowledged yet, in their order."""
        rows = self._rows(
            "SELECT bed, sequence, id, payload FROM outbox JOIN events USING (bed, sequence)"
            " WHERE bed = ? AND sequence > ? ORDER BY sequence LIMIT ?",
            bed,
            after,
            limit,
        )
        return tuple(StoredEvent(*row) for row in rows)

    def waiting(self) -> dict[str, int]:
        """Count the events of each bed that wait for the broker."""
        return dict(self._rows("SELECT bed, count(*) FROM outbox GROUP BY bed"))

    def oldest_waiting(self) -> str | None:
        """Return when the oldest event in the outbox was written."""
        rows = self._rows("SELECT min(created) FROM outbox JOIN events USING (bed, sequence)")
        return None if rows[0][0] is None else str(rows[0][0])

    def reply(self, bed: str, request: str) -> StoredReply | None:
        """Return the answer a request got, if it got one."""
        rows = self._rows("SELECT * FROM replies WHERE bed = ? AND request = ?", bed, request)
        return StoredReply(*rows[0]) if rows else None


def _numbers(blob: bytes | None) -> FloatArray | None:
    return None if blob is None else np.frombuffer(blob, dtype="<f8")


def _connect(path: Path) -> sqlite3.Connection:
    """Open read-only; a journal nobody writes, on a disk we cannot write, is read as it lies."""
    uri = path.absolute().as_uri()
    connection = sqlite3.connect(
        f"{uri}?mode=ro", uri=True, isolation_level=None, check_same_thread=False, timeout=2.0
    )
    try:
        connection.execute("SELECT 1 FROM sqlite_schema").fetchone()
    except sqlite3.OperationalError:
        connection.close()
        if path.with_name(path.name + "-wal").exists():
            raise
        connection = sqlite3.connect(
            f"{uri}?immutable=1", uri=True, isolation_level=None, check_same_thread=False
        )
    return connection
