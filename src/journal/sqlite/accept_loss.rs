//! Makes a working journal from the data that a loss has left.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use crate::journal::{
    Epoch,
    sqlite::{
        connection::connect,
        directory::{self, DATABASE, ROLLBACK, SHARED_MEMORY, WAL},
        error::{Damage, OpenFailure},
        integrity,
        lock::FileLocks,
        marker::{self, Marker, MarkerFile},
        tables::{meta, schema},
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

/// Makes a working journal from the data that is left, with a new epoch, so that resume tokens of lost
/// events are rejected. Returns `None` if nothing is missing.
pub(super) fn accept_loss(
    dir: &Path,
    is_network: bool,
) -> Result<Option<AcceptedLoss>, OpenFailure> {
    let damage = match integrity::check(dir, is_network) {
        Ok(_locks) => return Ok(None),
        Err(OpenFailure::Damaged(damage)) => damage,
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
        rename_damaged_files(dir)?;
    }
    let _locks = locks.lock_database(dir, is_network)?;
    let marker_position = match marker::load(dir)? {
        MarkerFile::Valid(marker) => Some(marker.position),
        MarkerFile::Missing | MarkerFile::Damaged => None,
    };
    let (epoch, kept) = assign_new_epoch(&dir.join(DATABASE), marker_position.unwrap_or_default())?;
    directory::sync(dir)?;
    let position = kept.max(marker_position.unwrap_or_default());
    marker::create(dir, Marker { epoch, position })?;
    Ok(Some(AcceptedLoss { database_position: kept, marker_position }))
}

/// Gives a database a new epoch. New entries get positions after `marker_position`, so that none is
/// used twice.
fn assign_new_epoch(path: &Path, marker_position: u64) -> Result<(Epoch, u64), OpenFailure> {
    let mut connection = connect(path, 500)?;
    schema::initialize(&mut connection)?;
    let kept = meta::kept_range(&connection)?.last;
    let transaction = connection.transaction()?;
    meta::delete(&transaction, meta::EPOCH)?;
    let epoch = meta::load_or_create_random(&transaction, meta::EPOCH)?;
    meta::skip_to(&transaction, kept.max(marker_position))?;
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
