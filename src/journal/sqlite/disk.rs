//! The file of the database, and where it must not be.

use std::{path::Path, time::Duration};

use aws_lc_rs::rand;
use rusqlite::Connection;

use super::{JournalOpenError, SqliteOptions};
use crate::journal::sqlite::tables::schema;

/// Magic numbers of statfs(2).
const NETWORK: [(i64, &str); 7] = [
    (0x6969, "NFS"),
    (0x517B, "SMB"),
    (0xFF53_4D42, "CIFS"),
    (0xFE53_4D42, "SMB2"),
    (0x00C3_6400, "Ceph"),
    (0x0102_1997, "9p"),
    (0x0BD0_0BD0, "Lustre"),
];

/// SQLite's locks and syncs are not to be trusted on a network file system.
/// Answers whether it is on one, where that is allowed.
pub(super) fn check_network_filesystem(options: &SqliteOptions) -> Result<bool, JournalOpenError> {
    let dir = &options.dir;
    let found = rustix::fs::statfs(dir.as_path()).map_err(|error| JournalOpenError::Directory {
        dir: dir.clone(),
        source: error.into(),
    })?;
    let network = NETWORK
        .iter()
        .find(|(magic, _)| i128::from(*magic) == i128::from(found.f_type));
    match network {
        Some((_, name)) if !options.allow_network_filesystem => {
            Err(JournalOpenError::NetworkFilesystem {
                dir: dir.clone(),
                name,
            })
        }
        _ => Ok(network.is_some()),
    }
}

/// A connection whose commits are synced before they are acknowledged.
pub(super) fn connect(path: &Path, cache_kib: i64) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "page_size", 8192)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    // A log that has grown under load is cut back when it starts over.
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    connection.pragma_update(None, "cache_size", -cache_kib)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// A random value that is made with the journal and kept in it.
pub(super) fn load_or_create_secret(
    connection: &Connection,
    name: &str,
    length: usize,
) -> rusqlite::Result<Vec<u8>> {
    if let Some(value) = schema::get_meta(connection, name)? {
        return Ok(value);
    }
    let mut value = vec![0; length];
    rand::fill(&mut value).map_err(|_| {
        rusqlite::Error::ToSqlConversionFailure("the system gives no random bytes".into())
    })?;
    schema::set_meta(connection, name, &value)?;
    Ok(value)
}
