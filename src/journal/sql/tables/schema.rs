//! The tables and their schema version.

/// The schema version. Nothing has been released, so other versions are rejected, not migrated.
pub(in crate::journal) const VERSION: i64 = 8;

/// Records and blocks are encoded in `journal::record`. A change with more than 16 devices has several blocks.
/// The numbers of states are in `columns`: 1 QUEUED, 2 DISPATCHED, 3 ACCEPTED, 4 FINISHED, 5 OVERDUE, 6 CLOSED,
/// 7 REJECTED, 8 NOT_SENT, 9 OUTCOME_UNKNOWN.
pub(in crate::journal) const TABLES: &str = "
-- Values of the journal itself (see meta.rs), and key-value pairs.
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;

-- Numbers of accounts.
CREATE TABLE account (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);

-- The changes and requests that were trimmed from an account's timeline, as far as they matter: number counts
-- all of them, newest is the position of the newest event. A row is deleted once a later one has a higher
-- position.
CREATE TABLE removal (
    account  INTEGER NOT NULL,
    number   INTEGER NOT NULL,
    newest   INTEGER NOT NULL,
    PRIMARY KEY (account, number)
) WITHOUT ROWID;

-- The events, in the order of all commits. The stream of a state is its change, that of a result is its
-- request. The body of a state is its status; the link of a result is NULL if it has none.
-- Each index is in the order of the events: those of SQLite end with the primary key. For other engines, a comment
-- names it.
CREATE TABLE event (
    position       INTEGER PRIMARY KEY,
    stream         INTEGER NOT NULL,
    account        INTEGER,
    kind           INTEGER NOT NULL,
    early_request  INTEGER,
    body           BLOB NOT NULL,
    link           BLOB
);
CREATE INDEX event_by_stream ON event (stream /*, position */);
CREATE INDEX event_by_account ON event (account /*, position */) WHERE account IS NOT NULL;

-- The JSON bodies of callbacks, by the position of the result. Most reads do not need them, and in a table of
-- its own a page of events has ten results instead of two.
CREATE TABLE callback_body (position INTEGER PRIMARY KEY, raw_json BLOB NOT NULL);

-- The current state of a change. The id is the position of its first event. A trimmed change is hidden
-- until all its rows are deleted. The request is the one that is linked to it. The devices of a
-- change with one block are here, so that a small change has fewer rows. The owner is the process that made the last
-- attempt to send the change, and the attempt is NULL for the first one. The final_time is the update_time of a change in
-- a final state: no index has a column that the results of an open change modify, so PostgreSQL stores its new counts
-- without new index entries (as a heap-only update).
CREATE TABLE change (
    id             INTEGER PRIMARY KEY,
    change_id      BLOB NOT NULL UNIQUE,
    account        INTEGER NOT NULL,
    key            TEXT,
    fingerprint    BLOB NOT NULL,
    state          INTEGER NOT NULL,
    accept_time    INTEGER,
    update_time    INTEGER NOT NULL,
    final_time     INTEGER,
    record         BLOB NOT NULL,
    status         BLOB NOT NULL,
    device_states  TEXT NOT NULL,
    device_count   INTEGER NOT NULL,
    key_count      INTEGER NOT NULL,
    request        INTEGER,
    on_plan        BLOB,
    trimmed        INTEGER NOT NULL DEFAULT 0,
    devices        BLOB,
    owner          INTEGER NOT NULL,
    attempt        BLOB
);
CREATE UNIQUE INDEX change_by_key ON change (account, key) WHERE key IS NOT NULL;
CREATE INDEX change_by_account ON change (account /*, id */);
CREATE INDEX change_open ON change (state, accept_time) WHERE state IN (1, 2, 3, 5, 9);
CREATE INDEX change_final ON change (state, final_time) WHERE state IN (4, 6, 7, 8) AND trimmed = 0;
CREATE INDEX change_trimmed ON change (id) WHERE trimmed = 1;
CREATE INDEX change_large ON change (id) WHERE device_count > 16;
CREATE INDEX change_closed_unanswered ON change (state) WHERE state = 6 AND accept_time IS NULL;

-- ThingSpace's requests, of this gateway and of others. The id is the position of the first event that
-- names it. For a request of this gateway: its change, the position at which it was linked, and the evidence.
-- A trimmed request has no request_id: a later result makes a new request.
CREATE TABLE request (
    id                INTEGER PRIMARY KEY,
    request_id        TEXT UNIQUE,
    change            INTEGER,
    link_position     INTEGER NOT NULL DEFAULT 0,
    evidence          TEXT NOT NULL DEFAULT '',
    account           INTEGER,
    service           TEXT,
    last_result       INTEGER NOT NULL,
    last_result_time  INTEGER NOT NULL,
    has_digests       INTEGER NOT NULL
);
CREATE INDEX request_unattributed ON request (id) WHERE change IS NULL AND request_id IS NOT NULL;
CREATE INDEX request_unattributed_by_time ON request (last_result_time)
    WHERE change IS NULL AND request_id IS NOT NULL;
CREATE INDEX request_trimmed ON request (id) WHERE request_id IS NULL;

-- Digests of results that belong to no device, for de-duplication. Kept as long as the request.
CREATE TABLE result_digest (
    request  INTEGER NOT NULL,
    digest   BLOB NOT NULL,
    PRIMARY KEY (request, digest)
) WITHOUT ROWID;

-- The devices of a change with several blocks, as they were sent, and their index, in parts. The id is the
-- change and the number of the block or part (see columns::part_id).
CREATE TABLE device_block (id INTEGER PRIMARY KEY, devices BLOB NOT NULL);
CREATE TABLE key_part (id INTEGER PRIMARY KEY, keys BLOB NOT NULL);

-- Finds the changes with one block that have an identifier.
CREATE TABLE device_key (
    key     BLOB NOT NULL,
    change  INTEGER NOT NULL,
    PRIMARY KEY (key, change)
) WITHOUT ROWID;

-- The devices that have results: precedence and position of the deciding one, and the digests of all. The
-- id is the change and the index of the device.
CREATE TABLE device_state (
    id                INTEGER PRIMARY KEY,
    identifier_kinds  INTEGER NOT NULL,
    precedence        INTEGER,
    decided_by        INTEGER,
    digests           BLOB NOT NULL
);

-- Results that match no device, and the owner of each identifier that was not sent and that results named: a
-- device, or an unmatched result as a negative number (see domain::device_states).
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
CREATE INDEX quarantine_reviewed ON quarantine (receive_time) WHERE reviewed = 1;
CREATE INDEX quarantine_unreviewed ON quarantine (id) WHERE reviewed = 0;

-- Results to forward, by the position of their event, which has the body.
CREATE TABLE forward_queue (
    position    INTEGER PRIMARY KEY,
    queue_time  INTEGER NOT NULL,
    due_time    INTEGER NOT NULL,
    attempts    INTEGER NOT NULL DEFAULT 0,
    service     TEXT
);
CREATE INDEX forward_queue_by_due ON forward_queue ((attempts > 0), due_time, position);
";
