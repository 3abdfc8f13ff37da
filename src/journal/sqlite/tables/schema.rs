//! The tables and their schema version.

use rusqlite::{Connection, OptionalExtension, params};

/// The schema that this version reads and writes. Nothing has been released yet:
/// a journal with another schema is refused, not migrated.
const VERSION: i64 = 2;

/// All tables. Payloads are kept by global position; what finds them is small.
const TABLES: &str = "
-- What the journal is: epoch, content_key, origin, trimmed.
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;

-- The log. For a result: its request, and the device it was found to be of.
CREATE TABLE entry (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    at       INTEGER NOT NULL,
    body     TEXT NOT NULL,
    raw      TEXT,
    request  INTEGER,
    device   INTEGER,
    match    INTEGER
);
CREATE INDEX entry_by_request ON entry (request) WHERE request IS NOT NULL;

-- A change as it is now. Its id is the position of its first entry.
CREATE TABLE change (
    id           INTEGER PRIMARY KEY,
    change_id    BLOB NOT NULL UNIQUE,
    account      TEXT NOT NULL,
    key          TEXT,
    content      BLOB NOT NULL,
    state        INTEGER NOT NULL,
    create_time  INTEGER NOT NULL,
    accept_time  INTEGER,
    last_time    INTEGER NOT NULL,
    snapshot     TEXT NOT NULL,
    tally        TEXT NOT NULL,
    trimmed      INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX claim ON change (account, key) WHERE key IS NOT NULL;
CREATE INDEX change_by_account ON change (account, id);
CREATE INDEX change_by_state ON change (state, accept_time);
CREATE INDEX change_by_age ON change (last_time);

-- A change's events, in the order in which a watch delivers them: a result
-- (entry) or a state (snapshot).
CREATE TABLE timeline (
    change    INTEGER NOT NULL,
    position  INTEGER NOT NULL,
    idx       INTEGER NOT NULL,
    entry     INTEGER,
    snapshot  TEXT,
    PRIMARY KEY (change, position, idx)
) WITHOUT ROWID;
CREATE INDEX timeline_states ON timeline (change, position, idx) WHERE entry IS NULL;

-- A request of ThingSpace, ours or somebody else's; what binds it to a change:
-- where, and by what evidence; and the account and the service that its
-- callbacks' path named.
CREATE TABLE request (
    id          INTEGER PRIMARY KEY,
    request_id  TEXT NOT NULL UNIQUE,
    change      INTEGER,
    bound_at    INTEGER,
    evidence    TEXT,
    account     TEXT,
    service     TEXT,
    last_time   INTEGER NOT NULL
);
CREATE INDEX request_by_change ON request (change) WHERE change IS NOT NULL;
CREATE INDEX request_by_age ON request (last_time) WHERE change IS NULL;

-- The results that were stored, by content: remembered as long as the request.
CREATE TABLE seen (
    request  INTEGER NOT NULL,
    digest   BLOB NOT NULL,
    PRIMARY KEY (request, digest)
) WITHOUT ROWID;

-- The devices of each change: what was sent, and the precedence and position
-- of the deciding result. device_key finds a device by an identifier.
CREATE TABLE device (
    change      INTEGER NOT NULL,
    idx         INTEGER NOT NULL,
    sent        TEXT NOT NULL,
    kinds       INTEGER NOT NULL,
    verdict     INTEGER,
    decided_by  INTEGER,
    on_plan     INTEGER,
    PRIMARY KEY (change, idx)
) WITHOUT ROWID;
CREATE INDEX device_pending ON device (change, idx) WHERE verdict IS NULL;
CREATE TABLE device_key (
    key     TEXT NOT NULL,
    change  INTEGER NOT NULL,
    idx     INTEGER NOT NULL,
    PRIMARY KEY (key, change, idx)
) WITHOUT ROWID;

-- Results that match no device, gathered (see domain::tally).
CREATE TABLE stray (
    change      INTEGER NOT NULL,
    number      INTEGER NOT NULL,
    kinds       INTEGER NOT NULL,
    verdict     INTEGER,
    decided_by  INTEGER,
    PRIMARY KEY (change, number)
) WITHOUT ROWID;
CREATE TABLE named (
    change  INTEGER NOT NULL,
    key     TEXT NOT NULL,
    grp     INTEGER NOT NULL,
    PRIMARY KEY (change, key)
) WITHOUT ROWID;
CREATE INDEX named_by_group ON named (change, grp);

-- Callbacks that cannot be used now, without credentials; print is an HMAC of those they had.
CREATE TABLE quarantine (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    at       INTEGER NOT NULL,
    service  TEXT,
    account  TEXT,
    reason   TEXT NOT NULL,
    body     BLOB NOT NULL,
    print    BLOB NOT NULL,
    seen     INTEGER NOT NULL DEFAULT 0
);

-- Results that are to be passed on: since when, when next, how often tried, and the service that
-- their path named. The bodies are the entries'.
CREATE TABLE forward (
    entry    INTEGER PRIMARY KEY,
    at       INTEGER NOT NULL,
    due      INTEGER NOT NULL,
    tries    INTEGER NOT NULL DEFAULT 0,
    service  TEXT
);
CREATE INDEX forward_by_turn ON forward (tries > 0, due, entry);
";

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub(in crate::journal) enum SchemaError {
    /// SQLite says so.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// Another version of the gateway wrote it.
    #[error(
        "it has schema {0}, which another version of the gateway wrote; this one reads schema {VERSION}"
    )]
    UnsupportedVersion(i64),
}

/// Creates the tables of a new journal, and checks the schema of an existing one.
pub(in crate::journal) fn initialize(connection: &mut Connection) -> Result<(), SchemaError> {
    let transaction = connection.transaction()?;
    let version: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    match version {
        0 => {
            transaction.execute_batch(TABLES)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
        }
        VERSION => {}
        other => return Err(SchemaError::UnsupportedVersion(other)),
    }
    transaction.commit()?;
    Ok(())
}

/// Whether the tables are there, in a version that this one reads.
pub(in crate::journal) fn is_initialized(connection: &Connection) -> Result<bool, SchemaError> {
    match connection.query_row("PRAGMA user_version", [], |row| row.get(0))? {
        0 => Ok(false),
        VERSION => Ok(true),
        other => Err(SchemaError::UnsupportedVersion(other)),
    }
}

/// Forgets a value of `meta`.
pub(in crate::journal) fn delete_meta(connection: &Connection, name: &str) -> rusqlite::Result<()> {
    let mut forget = connection.prepare_cached("DELETE FROM meta WHERE name = ?")?;
    forget.execute([name]).map(drop)
}

/// A value of `meta`.
pub(in crate::journal) fn get_meta(
    connection: &Connection,
    name: &str,
) -> rusqlite::Result<Option<Vec<u8>>> {
    connection
        .prepare_cached("SELECT value FROM meta WHERE name = ?")?
        .query_row([name], |row| row.get(0))
        .optional()
}

/// A note that was kept by its name: a value of `meta` in names of their own.
pub(in crate::journal) fn get_kv(connection: &Connection, name: &str) -> rusqlite::Result<Vec<u8>> {
    Ok(get_meta(connection, &format!("note.{name}"))?.unwrap_or_default())
}

/// Keeps a note, or forgets an empty one.
pub(in crate::journal) fn put_kv(
    connection: &Connection,
    name: &str,
    value: &[u8],
) -> rusqlite::Result<()> {
    let name = format!("note.{name}");
    if value.is_empty() {
        delete_meta(connection, &name)
    } else {
        set_meta(connection, &name, value)
    }
}

/// Sets a value of `meta`.
pub(in crate::journal) fn set_meta(
    connection: &Connection,
    name: &str,
    value: &[u8],
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)")?
        .execute(params![name, value])?;
    Ok(())
}
