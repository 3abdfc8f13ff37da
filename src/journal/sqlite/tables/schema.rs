//! The tables and their schema version.

use rusqlite::Connection;

use crate::journal::sqlite::error::OpenFailure;

/// The schema version. Nothing has been released, so other versions are rejected, not migrated.
const VERSION: i64 = 3;

const TABLES: &str = "
-- Values of the journal itself (see meta.rs), and key-value pairs.
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;

-- The log: one entry per change, state transition and result. Only a result has more than a time: its
-- JSON, its body, its request and, once that is linked to a change, its device.
CREATE TABLE log_entry (
    position     INTEGER PRIMARY KEY AUTOINCREMENT,
    time         INTEGER NOT NULL,
    result_json  TEXT,
    raw_json     TEXT,
    request      INTEGER,
    device       INTEGER,
    match_kind   INTEGER
);
CREATE INDEX log_entry_by_request ON log_entry (request) WHERE request IS NOT NULL;

-- The current state of a change. The id is the position of its first entry. A trimmed change is hidden
-- until all its rows are deleted.
CREATE TABLE change (
    id             INTEGER PRIMARY KEY,
    change_id      BLOB NOT NULL UNIQUE,
    account        TEXT NOT NULL,
    key            TEXT,
    fingerprint    BLOB NOT NULL,
    state          INTEGER NOT NULL,
    create_time    INTEGER NOT NULL,
    accept_time    INTEGER,
    update_time    INTEGER NOT NULL,
    snapshot       TEXT NOT NULL,
    device_states  TEXT NOT NULL,
    trimmed        INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX change_by_key ON change (account, key) WHERE key IS NOT NULL;
CREATE INDEX change_by_account ON change (account, id);
CREATE INDEX change_by_state ON change (state, accept_time);
CREATE INDEX change_by_update_time ON change (update_time);

-- The events of a change, in the order of a watch. An event is a result (result_position) or a state
-- (snapshot).
CREATE TABLE timeline (
    change           INTEGER NOT NULL,
    position         INTEGER NOT NULL,
    event_index      INTEGER NOT NULL,
    result_position  INTEGER,
    snapshot         TEXT,
    PRIMARY KEY (change, position, event_index)
) WITHOUT ROWID;
CREATE INDEX timeline_states ON timeline (change, position, event_index)
    WHERE result_position IS NULL;

-- ThingSpace's requests, of this gateway and of others. For a request of this gateway: its change, the
-- position at which it was linked, and the evidence. Account and service come from the callbacks' path.
CREATE TABLE request (
    id                INTEGER PRIMARY KEY,
    request_id        TEXT NOT NULL UNIQUE,
    change            INTEGER,
    link_position     INTEGER,
    evidence          TEXT,
    account           TEXT,
    service           TEXT,
    last_result_time  INTEGER NOT NULL
);
CREATE INDEX request_by_change ON request (change) WHERE change IS NOT NULL;
CREATE INDEX request_by_last_result ON request (last_result_time) WHERE change IS NULL;

-- Digests of the stored results, for de-duplication. Kept as long as the request.
CREATE TABLE result_digest (
    request  INTEGER NOT NULL,
    digest   BLOB NOT NULL,
    PRIMARY KEY (request, digest)
) WITHOUT ROWID;

-- The devices of a change, with the precedence and position of the deciding result. device_key finds a
-- device by an identifier.
CREATE TABLE device (
    change            INTEGER NOT NULL,
    device_index      INTEGER NOT NULL,
    sent_json         TEXT NOT NULL,
    identifier_kinds  INTEGER NOT NULL,
    precedence        INTEGER,
    decided_by        INTEGER,
    on_plan           INTEGER,
    PRIMARY KEY (change, device_index)
) WITHOUT ROWID;
CREATE INDEX device_pending ON device (change, device_index) WHERE precedence IS NULL;
CREATE TABLE device_key (
    match_key     TEXT NOT NULL,
    change        INTEGER NOT NULL,
    device_index  INTEGER NOT NULL,
    PRIMARY KEY (match_key, change, device_index)
) WITHOUT ROWID;

-- Results that match no device, and the owner of each identifier that results named: a device, or an
-- unmatched result as a negative number (see domain::device_states).
CREATE TABLE unmatched_result (
    change            INTEGER NOT NULL,
    first_result      INTEGER NOT NULL,
    identifier_kinds  INTEGER NOT NULL,
    precedence        INTEGER,
    decided_by        INTEGER,
    PRIMARY KEY (change, first_result)
) WITHOUT ROWID;
CREATE TABLE identifier_owner (
    change      INTEGER NOT NULL,
    identifier  TEXT NOT NULL,
    owner       INTEGER NOT NULL,
    PRIMARY KEY (change, identifier)
) WITHOUT ROWID;
CREATE INDEX identifier_owner_by_owner ON identifier_owner (change, owner);

-- Callbacks that cannot be used yet, without credentials; credential_mac is an HMAC of those.
CREATE TABLE quarantine (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    receive_time    INTEGER NOT NULL,
    service         TEXT,
    account         TEXT,
    reason          TEXT NOT NULL,
    body            BLOB NOT NULL,
    credential_mac  BLOB NOT NULL,
    reviewed        INTEGER NOT NULL DEFAULT 0
);

-- Results to forward, by the position of their log entry, which has the body.
CREATE TABLE forward_queue (
    position    INTEGER PRIMARY KEY,
    queue_time  INTEGER NOT NULL,
    due_time    INTEGER NOT NULL,
    attempts    INTEGER NOT NULL DEFAULT 0,
    service     TEXT
);
CREATE INDEX forward_queue_by_due ON forward_queue (attempts > 0, due_time, position);
";

/// Creates the tables of a new journal. Checks the schema version of an existing one.
pub(crate) fn initialize(db: &mut Connection) -> Result<(), OpenFailure> {
    let transaction = db.transaction()?;
    if !is_initialized(&transaction)? {
        transaction.execute_batch(TABLES)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    transaction.commit()?;
    Ok(())
}

/// True if the tables exist. Fails if their schema version is not supported.
pub(crate) fn is_initialized(db: &Connection) -> Result<bool, OpenFailure> {
    match db.query_row("PRAGMA user_version", [], |row| row.get(0))? {
        0 => Ok(false),
        VERSION => Ok(true),
        found => Err(OpenFailure::SchemaVersion { found, supported: VERSION }),
    }
}
