//! Whether a journal's directory has all that the gateway left in it.

use std::{
    fs,
    io::{self, ErrorKind},
    path::Path,
};

use rusqlite::{Connection, ErrorCode, config::DbConfig, params};

use super::{
    JournalOpenError, SqliteOptions, disk,
    files::{self, DATABASE, FileLocks, WAL},
    fsync,
    marker::{self, Marker, MarkerFile},
};
use crate::{
    invariants::Invariant,
    journal::{
        Epoch,
        sqlite::tables::{list, schema},
    },
};

/// The missing parts of a journal's directory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// No database, where there was one.
    #[error("journal.db is missing, and the journal was in use")]
    NoDatabase,
    /// An empty database, where there was one.
    #[error("journal.db is empty, and the journal was in use")]
    EmptyDatabase,
    /// The database cannot be read.
    #[error("journal.db cannot be read ({0})")]
    Unreadable(String),
    /// The database has no tables: they were in the log.
    #[error(
        "journal.db has no tables: they were in journal.db-wal, which is missing, damaged or of \
             another database"
    )]
    NoTables,
    /// The database is of another journal than the marker.
    #[error("journal.db is not the database that journal.marker belongs to")]
    OtherEpoch,
    /// The database has forgotten what it had.
    #[error(
        "journal.db ends at position {database}, and the journal had reached {marker}: it is an old \
             copy, or journal.db-wal is missing or damaged"
    )]
    Behind {
        /// The newest position of the database.
        database: u64,
        /// The position that it had reached.
        marker: u64,
    },
    /// There is no marker: a loss could not be noticed.
    #[error("journal.marker is missing, so that a loss in journal.db could not be noticed")]
    NoMarker,
    /// The marker cannot be read: a loss could not be noticed.
    #[error("journal.marker is damaged, so that a loss in journal.db could not be noticed")]
    UnreadableMarker,
}

/// A loss that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptedLoss {
    /// The newest position that is left.
    pub database_position: u64,
    /// The newest position that the journal is known to have had; `None` where no marker says so.
    pub marker_position: Option<u64>,
}

/// The state of a database.
struct Database {
    epoch: Option<Epoch>,
    position: u64,
}

/// Locks a directory and refuses one that has lost something. Changes nothing in it but rights, so that
/// what is left can still be restored.
pub(super) fn check(dir: &Path, is_network: bool) -> Result<FileLocks, JournalOpenError> {
    let failed = |source| JournalOpenError::directory(dir, source);
    let locks = FileLocks::lock_directory(dir)?;
    // Under the lock, and while SQLite has none: closing a file would take it away.
    fsync::sync_files(dir).map_err(failed)?;
    files::restrict_permissions(dir).map_err(failed)?;
    let reading = marker::load(dir).map_err(failed)?;
    let (has_database, damage) = check_file_sizes(dir, reading).map_err(failed)?;
    let is_checked = !Invariant::MarkerCheck.is_disabled();
    if let Some(damage) = damage.filter(|_| is_checked) {
        return Err(JournalOpenError::damaged(dir, damage));
    }
    let locks = locks.lock_database(dir, is_network)?;
    if !has_database || !is_checked {
        return Ok(locks);
    }
    let database = inspect(&dir.join(DATABASE)).map_err(|error| match error {
        schema::SchemaError::Sqlite(error) if is_unreadable(&error) => {
            JournalOpenError::damaged(dir, Damage::Unreadable(error.to_string()))
        }
        error => JournalOpenError::database(dir, &error),
    })?;
    match find_damage(reading, &database) {
        Some(damage) => Err(JournalOpenError::damaged(dir, damage)),
        None => Ok(locks),
    }
}

/// Whether there is a database that can be opened; and what is missing, by the sizes of the files alone.
/// SQLite must not open an empty database: it deletes the log beside it.
fn check_file_sizes(dir: &Path, reading: MarkerFile) -> io::Result<(bool, Option<Damage>)> {
    let size = |name: &str| match fs::metadata(dir.join(name)) {
        Ok(found) => Ok(Some(found.len())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    let database = size(DATABASE)?;
    let was_used = reading != MarkerFile::Missing || size(WAL)?.unwrap_or_default() > 0;
    let damage = match database {
        None if was_used => Some(Damage::NoDatabase),
        Some(0) if was_used => Some(Damage::EmptyDatabase),
        _ => None,
    };
    Ok((database.unwrap_or_default() > 0, damage))
}

/// Reads what a database says of itself, and leaves its log as it is.
fn inspect(path: &Path) -> Result<Database, schema::SchemaError> {
    let connection = Connection::open(path)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    if !schema::is_initialized(&connection)? {
        return Ok(Database {
            epoch: None,
            position: 0,
        });
    }
    let epoch = schema::get_meta(&connection, "epoch")?;
    Ok(Database {
        epoch: epoch.map(|bytes| Epoch::from_record(&bytes)),
        position: list::coverage(&connection)?.last,
    })
}

/// Whether it is the file that is at fault.
fn is_unreadable(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)
    )
}

fn find_damage(reading: MarkerFile, database: &Database) -> Option<Damage> {
    match reading {
        MarkerFile::Damaged => Some(Damage::UnreadableMarker),
        // Not even a first start came to its end.
        MarkerFile::Missing if database.position == 0 => None,
        MarkerFile::Missing => Some(Damage::NoMarker),
        MarkerFile::Valid(marker) => match database.epoch {
            None => Some(Damage::NoTables),
            Some(epoch) if epoch != marker.epoch => Some(Damage::OtherEpoch),
            Some(_) if database.position < marker.position => Some(Damage::Behind {
                database: database.position,
                marker: marker.position,
            }),
            Some(_) => None,
        },
    }
}

/// Makes a journal of what is left in a directory, under a new epoch, so that resume tokens of what is
/// lost end. `None` where nothing is missing.
pub(super) fn accept_loss(
    options: &SqliteOptions,
) -> Result<Option<AcceptedLoss>, JournalOpenError> {
    let dir = options.dir.as_path();
    let failed = |source| JournalOpenError::directory(dir, source);
    let is_network = disk::check_network_filesystem(options)?;
    let damage = match check(dir, is_network) {
        Ok(_whole) => return Ok(None),
        Err(JournalOpenError::Damaged { damage, .. }) => damage,
        Err(error) => return Err(error),
    };
    let mut locks = FileLocks::lock_directory(dir)?;
    if matches!(
        damage,
        Damage::NoDatabase | Damage::EmptyDatabase | Damage::Unreadable(_) | Damage::NoTables
    ) {
        // No other process may use what is put aside.
        drop(locks.lock_database(dir, is_network)?);
        locks = FileLocks::lock_directory(dir)?;
        files::rename_damaged_files(dir).map_err(failed)?;
    }
    let _locks = locks.lock_database(dir, is_network)?;
    let marker_position = match marker::load(dir).map_err(failed)? {
        MarkerFile::Valid(marker) => Some(marker.position),
        MarkerFile::Missing | MarkerFile::Damaged => None,
    };
    let (epoch, kept) = assign_new_epoch(&dir.join(DATABASE), marker_position.unwrap_or_default())
        .map_err(|error| JournalOpenError::database(dir, &error))?;
    fsync::sync_directory(dir).map_err(failed)?;
    let position = kept.max(marker_position.unwrap_or_default());
    marker::create(dir, Marker { epoch, position }).map_err(failed)?;
    Ok(Some(AcceptedLoss {
        database_position: kept,
        marker_position,
    }))
}

/// Gives a database a new epoch, and no position again that the journal has had.
fn assign_new_epoch(
    path: &Path,
    marker_position: u64,
) -> Result<(Epoch, u64), schema::SchemaError> {
    let mut connection = disk::connect(path, 500)?;
    schema::initialize(&mut connection)?;
    let kept = list::coverage(&connection)?.last;
    let transaction = connection.transaction()?;
    schema::delete_meta(&transaction, "epoch")?;
    let epoch = Epoch::from_record(&disk::load_or_create_secret(&transaction, "epoch", 8)?);
    transaction.execute("DELETE FROM sqlite_sequence WHERE name = 'entry'", [])?;
    transaction.execute(
        "INSERT INTO sqlite_sequence (name, seq) VALUES ('entry', ?)",
        params![i64::try_from(kept.max(marker_position)).unwrap_or(i64::MAX)],
    )?;
    transaction.commit()?;
    Ok((epoch, kept))
}
