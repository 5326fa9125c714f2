CREATE INDEX corrections_by_page ON corrections (session, epoch);
CREATE INDEX marks_by_session ON marks (session, at);
CREATE INDEX sessions_by_opening ON sessions (opened);
CREATE TABLE anchors (
    session TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE, boot_id TEXT NOT NULL,
    lsl_t0 REAL NOT NULL, utc_t0 REAL NOT NULL, recorded TEXT NOT NULL,
    PRIMARY KEY (session, boot_id)
) WITHOUT ROWID;
CREATE TABLE beds (bed TEXT PRIMARY KEY, last_sequence INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE corrections (
    n INTEGER PRIMARY KEY, session TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE,
    epoch INTEGER NOT NULL, stage TEXT NOT NULL, scorer TEXT NOT NULL, at TEXT NOT NULL,
    comment TEXT NOT NULL
);
CREATE TABLE events (
    bed TEXT NOT NULL, sequence INTEGER NOT NULL, id TEXT NOT NULL UNIQUE,
    session TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE, epoch INTEGER NOT NULL,
    revision INTEGER NOT NULL, status TEXT NOT NULL, created TEXT NOT NULL,
    payload BLOB NOT NULL,
    PRIMARY KEY (bed, sequence), UNIQUE (session, epoch, revision),
    CHECK ((revision = 0 AND status = 'provisional')
        OR (revision = 1 AND status IN ('final', 'withheld')))
);
CREATE TABLE marks (
    n INTEGER PRIMARY KEY, session TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE,
    at TEXT NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL
);
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE opinions (
    session TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE, epoch INTEGER NOT NULL,
    revision INTEGER NOT NULL CHECK (revision IN (0, 1)), pack TEXT NOT NULL,
    provider TEXT NOT NULL, log_probabilities BLOB NOT NULL,
    PRIMARY KEY (session, epoch, revision)
) WITHOUT ROWID;
CREATE TABLE outbox (
    bed TEXT NOT NULL, sequence INTEGER NOT NULL, PRIMARY KEY (bed, sequence),
    FOREIGN KEY (bed, sequence) REFERENCES events ON DELETE CASCADE
) WITHOUT ROWID;
CREATE TABLE pages (
    session TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE, epoch INTEGER NOT NULL,
    closed TEXT NOT NULL, picture TEXT, detail BLOB NOT NULL,
    PRIMARY KEY (session, epoch)
) WITHOUT ROWID;
CREATE TABLE replies (
    bed TEXT NOT NULL, request TEXT NOT NULL, command_digest TEXT NOT NULL,
    payload BLOB NOT NULL, created TEXT NOT NULL, PRIMARY KEY (bed, request)
) WITHOUT ROWID;
CREATE TABLE sessions (
    id TEXT PRIMARY KEY, bed TEXT NOT NULL, site TEXT NOT NULL, subject TEXT,
    source TEXT NOT NULL, opened TEXT NOT NULL, phase TEXT NOT NULL, start TEXT, ended TEXT
) WITHOUT ROWID;
CREATE TRIGGER events_stay_as_they_are BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'an event is never changed'); END;
CREATE TRIGGER nothing_after_terminal BEFORE INSERT ON events
WHEN NEW.revision = 0 AND EXISTS (
    SELECT 1 FROM events WHERE session = NEW.session AND epoch = NEW.epoch AND revision = 1)
BEGIN SELECT RAISE(ABORT, 'a terminal event is there already'); END;
-- application_id = 1213812814
-- user_version = 1
