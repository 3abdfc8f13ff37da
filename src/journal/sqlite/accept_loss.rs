//! Makes a working journal from the data that a loss has left.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use crate::journal::engine::Epoch;
use crate::journal::sqlite::{
    connection::connect,
    error::{Damage, JournalOpenError},
    filesystem::check_network_filesystem,
    fsync, integrity,
    lock::FileLocks,
    marker::{self, Marker, MarkerFile},
    options::SqliteOptions,
    paths::{DATABASE, ROLLBACK, SHARED_MEMORY, WAL},
    tables::{meta, positions, schema},
};

/// A loss that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptedLoss {
    /// The newest position that is left.
    pub database_position: u64,
    /// The newest position that the marker contained; `None` if it cannot be read.
    pub marker_position: Option<u64>,
}

/// Makes a working journal from the data that is left, with a new epoch, so that resume tokens of lost
/// events are rejected. Returns `None` if nothing is missing.
pub(super) fn accept_loss(
    options: &SqliteOptions,
) -> Result<Option<AcceptedLoss>, JournalOpenError> {
    let dir = options.dir.as_path();
    let failed = |source| JournalOpenError::directory(dir, source);
    let is_network = check_network_filesystem(options)?;
    let damage = match integrity::check(dir, is_network) {
        Ok(_locks) => return Ok(None),
        Err(JournalOpenError::Damaged { damage, .. }) => damage,
        Err(error) => return Err(error),
    };
    let mut locks = FileLocks::lock_directory(dir)?;
    if matches!(
        damage,
        Damage::NoDatabase | Damage::EmptyDatabase | Damage::Unreadable(_) | Damage::NoTables
    ) {
        // Fails if another process uses the database under another path.
        drop(locks.lock_database(dir, is_network)?);
        locks = FileLocks::lock_directory(dir)?;
        rename_damaged_files(dir).map_err(failed)?;
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
    Ok(Some(AcceptedLoss { database_position: kept, marker_position }))
}

/// Gives a database a new epoch. New entries get positions after `marker_position`, so that none is
/// used twice.
fn assign_new_epoch(
    path: &Path,
    marker_position: u64,
) -> Result<(Epoch, u64), schema::SchemaError> {
    let mut connection = connect(path, 500)?;
    schema::initialize(&mut connection)?;
    let kept = positions::coverage(&connection)?.last;
    let transaction = connection.transaction()?;
    meta::delete(&transaction, meta::EPOCH)?;
    let epoch = meta::load_or_create_random(&transaction, meta::EPOCH)?;
    positions::skip_to(&transaction, kept.max(marker_position))?;
    transaction.commit()?;
    Ok((Epoch::from_record(epoch), kept))
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
