//! Detects a loss of data in a journal's directory, and accepts one.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use rusqlite::{Connection, config::DbConfig};

use crate::{
    failpoints,
    journal::{
        Epoch,
        sql::{error::is_damaged_file, tables::meta},
        sqlite::{
            connection::{FileLocks, connect},
            directory::{self, DATABASE, ROLLBACK, SHARED_MEMORY, WAL},
            error::{Damage, JournalOpenError, OpenFailure},
            marker::{self, Marker, MarkerFile},
            schema,
        },
        transfer::{ValueUpdate, mark_uncertain},
    },
};

/// A loss that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptedLoss {
    /// The newest position that is left.
    pub database_position: u64,
    /// The newest position that the marker contained; `None` if it cannot be read.
    pub marker_position: Option<u64>,
}

/// Locks a directory and rejects one that has lost data. Changes only file modes, so that the data
/// that is left can still be restored.
pub(super) fn check(dir: &Path, allow_network: bool) -> Result<FileLocks, OpenFailure> {
    let locks = FileLocks::lock_directory(dir, allow_network)?;
    // SQLite must not have the files open: closing them would drop its locks.
    directory::sync_and_restrict_files(dir)?;
    let marker = marker::load(dir)?;
    let (has_database, damage) = check_file_sizes(dir, marker)?;
    let is_checked = !failpoints::is_active("no-marker-check");
    if let Some(damage) = damage.filter(|_| is_checked) {
        return Err(damage.into());
    }
    let locks = locks.lock_database(dir)?;
    if !has_database || !is_checked {
        return Ok(locks);
    }
    let state = inspect(&dir.join(DATABASE)).map_err(|error| match error {
        OpenFailure::Database(error) if is_damaged_file(&error) => {
            Damage::Unreadable(error.to_string()).into()
        }
        error => error,
    })?;
    match find_damage(marker, state) {
        Some(damage) => Err(damage.into()),
        None => Ok(locks),
    }
}

/// Returns true if there is a database that SQLite may open, and the damage that file sizes show.
/// SQLite must not open an empty database: it would delete the write-ahead log.
pub(super) fn check_file_sizes(
    dir: &Path,
    marker: MarkerFile,
) -> io::Result<(bool, Option<Damage>)> {
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

/// The state of a database, to compare with the marker.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct DatabaseState {
    /// `None` if there are no tables.
    pub(super) epoch: Option<Epoch>,
    pub(super) position: u64,
    /// True before an import or a restore has ended. No gateway has used the database.
    pub(super) awaits_import: bool,
}

/// Reads the state of a database. Leaves the write-ahead log as it is.
fn inspect(path: &Path) -> Result<DatabaseState, OpenFailure> {
    let connection = Connection::open(path)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    read_state(&connection)
}

/// Reads the state on a connection.
pub(super) fn read_state(connection: &Connection) -> Result<DatabaseState, OpenFailure> {
    if !schema::is_initialized(connection)? {
        return Ok(DatabaseState::default());
    }
    Ok(DatabaseState {
        epoch: meta::load(connection, meta::EPOCH)?.map(u64::from_be_bytes).map(Epoch),
        position: meta::kept_range(connection)?.last,
        awaits_import: meta::load::<Vec<u8>>(connection, meta::AWAITS_IMPORT)?.is_some(),
    })
}

pub(super) fn find_damage(marker: MarkerFile, state: DatabaseState) -> Option<Damage> {
    let DatabaseState { epoch, position, awaits_import } = state;
    match marker {
        MarkerFile::Damaged => Some(Damage::UnreadableMarker),
        MarkerFile::Unfinished => Some(Damage::Unfinished),
        // An import did not finish. Its marker is missing, or is that of the empty journal before. No gateway starts.
        MarkerFile::Missing | MarkerFile::Valid(_) if awaits_import => None,
        // The first start did not finish.
        MarkerFile::Missing if position == 0 => None,
        MarkerFile::Missing => Some(Damage::NoMarker),
        MarkerFile::Valid(marker) => match epoch {
            None => Some(Damage::NoTables),
            Some(epoch) if epoch != marker.epoch => Some(Damage::OtherEpoch),
            Some(_) if position < marker.position => {
                Some(Damage::Behind { database: position, marker: marker.position })
            }
            Some(_) => None,
        },
    }
}

/// Makes a working journal from the data that a loss has left, and updates values. Its new epoch rejects resume tokens
/// of lost events. Returns `None` if nothing is missing.
///
/// No gateway starts with the directory before this has succeeded, also if it was interrupted. It can be repeated then.
///
/// # Errors
///
/// Fails if another process uses the directory, if a file cannot be opened or renamed, or if a value cannot be updated.
pub fn accept_loss(
    dir: &Path,
    allow_network: bool,
    updates: &[ValueUpdate<'_, u64>],
) -> Result<Option<AcceptedLoss>, JournalOpenError> {
    try_accept_loss(dir, allow_network, updates)
        .map_err(|failure| JournalOpenError { dir: dir.to_owned(), failure })
}

fn try_accept_loss(
    dir: &Path,
    allow_network: bool,
    updates: &[ValueUpdate<'_, u64>],
) -> Result<Option<AcceptedLoss>, OpenFailure> {
    let damage = match check(dir, allow_network) {
        Ok(_locks) => return Ok(None),
        Err(OpenFailure::Damaged(damage)) => damage,
        Err(error) => return Err(error),
    };
    let mut locks = FileLocks::lock_directory(dir, allow_network)?;
    if matches!(
        damage,
        Damage::NoDatabase | Damage::EmptyDatabase | Damage::Unreadable(_) | Damage::NoTables
    ) {
        // Fails if another process uses the database under another path.
        drop(locks.lock_database(dir)?);
        locks = FileLocks::lock_directory(dir, allow_network)?;
        // Without a marker and the damaged files, the directory would look like a new one.
        if marker::load(dir)? == MarkerFile::Missing {
            marker::create_unfinished(dir)?;
        }
        rename_damaged_files(dir)?;
        // The old write-ahead log must not become that of the new database.
        directory::sync(dir)?;
    }
    let _locks = locks.lock_database(dir)?;
    let marker_position = match marker::load(dir)? {
        MarkerFile::Valid(marker) => Some(marker.position),
        MarkerFile::Missing | MarkerFile::Damaged | MarkerFile::Unfinished => None,
    };
    let reached = marker_position.unwrap_or_default();
    let (marker, database_position) = assign_new_epoch(&dir.join(DATABASE), reached, updates)?;
    directory::sync(dir)?;
    marker::create(dir, marker)?;
    Ok(Some(AcceptedLoss { database_position, marker_position }))
}

/// Gives a database a new epoch, marks the changes whose requests are not known, and updates values. New events get
/// positions after `marker_position`, so that none is used twice. Creates the tables in the same transaction: they are
/// never without the updates. Returns the marker of the database, and the position of its newest event.
fn assign_new_epoch(
    path: &Path,
    marker_position: u64,
    updates: &[ValueUpdate<'_, u64>],
) -> Result<(Marker, u64), OpenFailure> {
    let mut connection = connect(path, 500)?;
    let transaction = connection.transaction()?;
    schema::initialize_in(&transaction)?;
    // Without the positions that an interrupted command has skipped.
    let kept = meta::last_event(&*transaction)?;
    let position = meta::kept_range(&*transaction)?.last.max(marker_position);
    meta::delete(&*transaction, meta::EPOCH)?;
    let epoch = meta::load_or_create_random(&*transaction, meta::EPOCH)?;
    meta::skip_to(&*transaction, position)?;
    mark_uncertain(&*transaction)?;
    for update in updates {
        update.apply(&*transaction, &kept)?.map_err(OpenFailure::Value)?;
    }
    transaction.commit()?;
    Ok((Marker { epoch: Epoch(u64::from_be_bytes(epoch)), position }, kept))
}

/// Renames the files of an unusable database, so that they can still be examined.
fn rename_damaged_files(dir: &Path) -> io::Result<()> {
    for name in [DATABASE, WAL, ROLLBACK, SHARED_MEMORY] {
        let path = dir.join(name);
        match path.metadata() {
            Ok(found) if found.len() == 0 || name == SHARED_MEMORY => fs::remove_file(&path)?,
            Ok(_) => fs::rename(&path, unused_name(&path))?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn unused_name(path: &Path) -> PathBuf {
    let name = path.display();
    (1_u32..)
        .map(|number| PathBuf::from(format!("{name}.damaged-{number}")))
        .find(|path| !path.exists())
        .unwrap_or_default()
}
