//! The database of a spool: one table of callbacks in the order of their arrival.

use std::fs::File;
#[cfg(test)]
use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

use crate::{
    domain::clock::Timestamp,
    journal::sqlite::{
        connection::{connect, lock},
        directory::{self, is_on_network_filesystem, open_private},
    },
    spool::{error::SpoolOpenFailure, spool::SpoolOptions},
};

const DATABASE: &str = "spool.db";
/// Locked by the process that uses the directory.
const LOCK: &str = "spool.lock";
/// Page cache, in KiB.
const CACHE_KIB: i64 = 2_000;
/// Size of the callbacks that are read at a time, in bytes. The last one may exceed it.
const MAX_READ_BYTES: usize = 8 << 20;
/// Length of the write-ahead log, in pages, from which a commit copies it to the database: 4 MiB.
const CHECKPOINT_PAGES: i64 = 1_024;
/// Size of an empty database, in pages, from which its space is returned to the file system: 4 MiB.
const MIN_COMPACTED_PAGES: u64 = 1_024;

const SCHEMA_VERSION: i64 = 1;
const SCHEMA: &str = "
    CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    -- The callbacks to move, in the order of their ids.
    CREATE TABLE callback (id INTEGER PRIMARY KEY, receive_time INTEGER NOT NULL, record BLOB NOT NULL);
    -- The callbacks that cannot be moved.
    CREATE TABLE unreadable (id INTEGER PRIMARY KEY, reason TEXT NOT NULL, record BLOB NOT NULL);
";

pub(super) struct Database {
    connection: Connection,
    callbacks: u64,
    unreadable: u64,
    page_size: u64,
    /// Dropped after the connection.
    _lock: File,
}

/// A callback to append.
#[derive(Debug)]
pub(super) struct NewRecord {
    pub(super) id: i64,
    pub(super) receive_time: Timestamp,
    pub(super) record: Vec<u8>,
}

/// Callbacks to remove.
#[derive(Debug, Default, Clone)]
pub(super) struct Removal {
    /// Callbacks that the journal has.
    pub(super) moved: Vec<i64>,
    /// Callbacks that cannot be moved, with the reasons. They are kept in another table.
    pub(super) unreadable: Vec<(i64, String)>,
}

/// A callback in the database: its id and its record.
pub(super) type StoredRecord = (i64, Vec<u8>);

/// The content of the database.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) callbacks: u64,
    pub(super) unreadable: u64,
    /// Bytes in use, without the write-ahead log.
    pub(super) bytes: u64,
    /// The time of arrival of the oldest callback.
    pub(super) oldest: Option<Timestamp>,
    pub(super) last_id: i64,
}

// === impl Removal ===

impl Removal {
    pub(super) fn is_empty(&self) -> bool {
        self.moved.is_empty() && self.unreadable.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.moved.len() + self.unreadable.len()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = i64> {
        self.moved.iter().copied().chain(self.unreadable.iter().map(|(id, _)| *id))
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.moved.extend(other.moved);
        self.unreadable.extend(other.unreadable);
    }
}

// === impl Database ===

impl Database {
    /// Opens the database of a directory, or creates it.
    pub(super) fn open(options: &SpoolOptions) -> Result<Self, SpoolOpenFailure> {
        let dir = options.dir.as_path();
        directory::create(dir, "journal.spool_dir")?;
        is_on_network_filesystem(dir, options.allow_network_filesystem)?;
        let lock_file = open_private(&dir.join(LOCK), false)?;
        lock(&lock_file, || Ok(()))?;
        let path = dir.join(DATABASE);
        // SQLite gives the mode of the database to its other files.
        drop(open_private(&path, false)?);
        let mut connection = connect(&path, CACHE_KIB)?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        initialize(&mut connection)?;
        let callbacks = count(&connection, "callback")?;
        check_origin(&connection, options.origin.as_str(), callbacks)?;
        directory::sync(dir)?;
        Ok(Self {
            unreadable: count(&connection, "unreadable")?,
            page_size: pragma(&connection, "page_size")?,
            callbacks,
            connection,
            _lock: lock_file,
        })
    }

    /// Appends and removes callbacks in one synced commit.
    pub(super) fn write(
        &mut self,
        appends: &[NewRecord],
        removals: &[Removal],
    ) -> rusqlite::Result<()> {
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (mut callbacks, mut unreadable) = (self.callbacks, self.unreadable);
        {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO callback (id, receive_time, record) VALUES (?1, ?2, ?3)",
            )?;
            for NewRecord { id, receive_time, record } in appends {
                insert.execute(params![id, receive_time.as_micros(), record])?;
                callbacks += 1;
            }
            let mut keep = transaction.prepare_cached(
                "INSERT INTO unreadable (reason, record)
                   SELECT ?2, record FROM callback WHERE id = ?1",
            )?;
            let mut delete = transaction.prepare_cached("DELETE FROM callback WHERE id = ?1")?;
            for removal in removals {
                for (id, reason) in &removal.unreadable {
                    unreadable += u64::try_from(keep.execute(params![id, reason])?).unwrap_or(0);
                }
                for id in removal.ids() {
                    let deleted = u64::try_from(delete.execute([id])?).unwrap_or(0);
                    callbacks = callbacks.saturating_sub(deleted);
                }
            }
        }
        transaction.commit()?;
        (self.callbacks, self.unreadable) = (callbacks, unreadable);
        Ok(())
    }

    /// Finds out if the database can be written.
    pub(super) fn probe(&self) -> rusqlite::Result<()> {
        let sql = "INSERT OR REPLACE INTO meta (name, value) VALUES ('probe', x'')";
        self.connection.execute(sql, []).map(|_| ())
    }

    /// Returns the oldest callbacks, at most `limit` and about 8 MiB.
    pub(super) fn read(&self, limit: usize) -> rusqlite::Result<Vec<StoredRecord>> {
        let sql = "SELECT id, record FROM callback ORDER BY id LIMIT ?1";
        let mut select = self.connection.prepare_cached(sql)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut bytes = 0;
        let mut records = Vec::new();
        for record in select.query_map([limit], |row| Ok((row.get(0)?, row.get(1)?)))? {
            let (id, record): StoredRecord = record?;
            bytes += record.len();
            records.push((id, record));
            if bytes > MAX_READ_BYTES {
                break;
            }
        }
        Ok(records)
    }

    pub(super) fn content(&self) -> rusqlite::Result<Content> {
        let pages = pragma(&self.connection, "page_count")?;
        let free = pragma(&self.connection, "freelist_count")?;
        let sql = "SELECT receive_time FROM callback ORDER BY id LIMIT 1";
        let oldest: Option<i64> =
            self.connection.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()?;
        let sql = "SELECT max(id) FROM callback";
        let last_id: Option<i64> =
            self.connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
        Ok(Content {
            callbacks: self.callbacks,
            unreadable: self.unreadable,
            bytes: pages.saturating_sub(free).saturating_mul(self.page_size),
            oldest: oldest.map(Timestamp::from_micros),
            last_id: last_id.unwrap_or(0),
        })
    }

    /// Returns the space of a database that has become empty to the file system.
    pub(super) fn compact(&self) -> rusqlite::Result<()> {
        let pages = pragma(&self.connection, "page_count")?;
        if self.callbacks == 0 && pages >= MIN_COMPACTED_PAGES {
            self.connection.execute_batch("VACUUM")?;
            self.truncate_log()?;
        }
        Ok(())
    }

    /// Copies the write-ahead log to the database, and truncates it.
    pub(super) fn truncate_log(&self) -> rusqlite::Result<()> {
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
    }
}

fn initialize(connection: &mut Connection) -> Result<(), SpoolOpenFailure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    match transaction.pragma_query_value(None, "user_version", |row| row.get(0))? {
        0 => {
            transaction.execute_batch(SCHEMA)?;
            transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        }
        SCHEMA_VERSION => {}
        found => {
            return Err(SpoolOpenFailure::SchemaVersion { found, supported: SCHEMA_VERSION });
        }
    }
    Ok(transaction.commit()?)
}

/// Compares the origin of the stored callbacks with that of the settings. An empty spool takes the latter.
fn check_origin(
    connection: &Connection,
    configured: &str,
    callbacks: u64,
) -> Result<(), SpoolOpenFailure> {
    let sql = "SELECT CAST(value AS TEXT) FROM meta WHERE name = 'origin'";
    let recorded: Option<String> = connection.query_row(sql, [], |row| row.get(0)).optional()?;
    match recorded {
        Some(recorded) if recorded == configured => Ok(()),
        Some(recorded) if callbacks > 0 => {
            Err(SpoolOpenFailure::OtherOrigin { recorded, configured: configured.to_owned() })
        }
        _ => {
            let sql = "INSERT OR REPLACE INTO meta (name, value) VALUES ('origin', ?1)";
            connection.execute(sql, [configured.as_bytes()])?;
            Ok(())
        }
    }
}

fn count(connection: &Connection, table: &str) -> rusqlite::Result<u64> {
    let count: i64 =
        connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<u64> {
    let value: i64 = connection.pragma_query_value(None, name, |row| row.get(0))?;
    Ok(u64::try_from(value).unwrap_or(0))
}

/// Returns the path of the database in a directory.
#[cfg(test)]
pub(super) fn database_path(dir: &Path) -> std::path::PathBuf {
    dir.join(DATABASE)
}
