//! Syncs directories, and files that an earlier process left unsynced.

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt,
    path::Path,
};

use crate::journal::sqlite::paths::{DATABASE, ROLLBACK, WAL};

/// Syncs the ancestors of a directory, up to its mount point. Their entries may be new. A file
/// survives a power loss only if the entry of each directory on its path is synced (see fsync(2)).
pub(super) fn sync_ancestors(dir: &Path) -> io::Result<()> {
    let dir = fs::canonicalize(dir)?;
    let device = fs::metadata(&dir)?.dev();
    for ancestor in dir.ancestors().skip(1) {
        if fs::metadata(ancestor)?.dev() != device {
            break;
        }
        sync_directory(ancestor)?;
    }
    Ok(())
}

/// Syncs files that an earlier process wrote and did not sync before it was killed. From here on they
/// count as durable: a repeated callback is acknowledged as stored, a watch delivers its event.
pub(super) fn sync_files(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_durable = [DATABASE, WAL, ROLLBACK].iter().any(|file| name == *file);
        if is_durable && entry.file_type()?.is_file() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    sync_directory(dir)
}

/// Syncs the entries of a directory. Ignores a directory that this user cannot read, and file systems
/// that do not support the call.
pub(super) fn sync_directory(dir: &Path) -> io::Result<()> {
    let synced = File::open(dir).and_then(|directory| directory.sync_all());
    match synced.as_ref().map_err(io::Error::kind) {
        Err(ErrorKind::PermissionDenied | ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
            Ok(())
        }
        _ => synced,
    }
}
