//! Names of the files in a journal's directory.

pub(super) const DATABASE: &str = "journal.db";
pub(super) const WAL: &str = "journal.db-wal";
/// Epoch and position that the database is compared with at startup.
pub(super) const MARKER: &str = "journal.marker";
/// Locked by the process that uses the directory.
pub(super) const LOCK: &str = "journal.lock";
/// Memory shared by SQLite's connections. Worthless once they are closed.
pub(super) const SHARED_MEMORY: &str = "journal.db-shm";
/// SQLite's rollback journal. Only the first transaction has one.
pub(super) const ROLLBACK: &str = "journal.db-journal";
