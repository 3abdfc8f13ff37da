//! Detects a loss of data in a journal's directory.

use std::{
    fs,
    io::{self, ErrorKind},
    path::Path,
};

use rusqlite::{Connection, ErrorCode, config::DbConfig};

use crate::{
    failpoints,
    journal::{
        Epoch,
        sqlite::{
            directory::{self, DATABASE, WAL},
            error::{Damage, OpenFailure},
            lock::FileLocks,
            marker::{self, MarkerFile},
            tables::{meta, schema},
        },
    },
};

struct Database {
    /// `None` if it has no tables.
    epoch: Option<Epoch>,
    position: u64,
}

/// Locks a directory and rejects one that has lost data. Changes only file modes, so that the data
/// that is left can still be restored.
pub(super) fn check(dir: &Path, is_network: bool) -> Result<FileLocks, OpenFailure> {
    let locks = FileLocks::lock_directory(dir)?;
    // SQLite must not have the files open: closing them would drop its locks.
    directory::sync_and_restrict_files(dir)?;
    let marker = marker::load(dir)?;
    let (has_database, damage) = check_file_sizes(dir, marker)?;
    let is_checked = !failpoints::is_active("no-marker-check");
    if let Some(damage) = damage.filter(|_| is_checked) {
        return Err(damage.into());
    }
    let locks = locks.lock_database(dir, is_network)?;
    if !has_database || !is_checked {
        return Ok(locks);
    }
    let database = inspect(&dir.join(DATABASE)).map_err(|error| match error {
        OpenFailure::Database(error) if is_unreadable(&error) => {
            Damage::Unreadable(error.to_string()).into()
        }
        error => error,
    })?;
    match find_damage(marker, &database) {
        Some(damage) => Err(damage.into()),
        None => Ok(locks),
    }
}

/// Returns true if there is a database that SQLite may open, and the damage that file sizes show.
/// SQLite must not open an empty database: it would delete the write-ahead log.
fn check_file_sizes(dir: &Path, marker: MarkerFile) -> io::Result<(bool, Option<Damage>)> {
    let size = |name: &str| match fs::metadata(dir.join(name)) {
        Ok(found) => Ok(Some(found.len())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    let database = size(DATABASE)?;
    let was_used = marker != MarkerFile::Missing || size(WAL)?.unwrap_or_default() > 0;
    let damage = match database {
        None if was_used => Some(Damage::NoDatabase),
        Some(0) if was_used => Some(Damage::EmptyDatabase),
        _ => None,
    };
    Ok((database.unwrap_or_default() > 0, damage))
}

/// Reads the epoch and the position of a database. Leaves the write-ahead log as it is.
fn inspect(path: &Path) -> Result<Database, OpenFailure> {
    let connection = Connection::open(path)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    if !schema::is_initialized(&connection)? {
        return Ok(Database { epoch: None, position: 0 });
    }
    Ok(Database {
        epoch: meta::load(&connection, meta::EPOCH)?.map(Epoch::from_record),
        position: meta::kept_range(&connection)?.last,
    })
}

/// True if the file itself is damaged.
fn is_unreadable(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
}

fn find_damage(marker: MarkerFile, database: &Database) -> Option<Damage> {
    match marker {
        MarkerFile::Damaged => Some(Damage::UnreadableMarker),
        // The first start did not finish.
        MarkerFile::Missing if database.position == 0 => None,
        MarkerFile::Missing => Some(Damage::NoMarker),
        MarkerFile::Valid(marker) => match database.epoch {
            None => Some(Damage::NoTables),
            Some(epoch) if epoch != marker.epoch => Some(Damage::OtherEpoch),
            Some(_) if database.position < marker.position => {
                Some(Damage::Behind { database: database.position, marker: marker.position })
            }
            Some(_) => None,
        },
    }
}
