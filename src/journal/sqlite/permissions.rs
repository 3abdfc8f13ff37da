//! File modes: a journal contains identifiers of customers' devices, so only its owner may read it.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use crate::journal::sqlite::paths::{DATABASE, LOCK, MARKER, ROLLBACK, SHARED_MEMORY, WAL};

const FILES: [&str; 6] = [DATABASE, WAL, MARKER, LOCK, SHARED_MEMORY, ROLLBACK];
const PRIVATE_FILE: u32 = 0o600;
const PRIVATE_DIRECTORY: u32 = 0o700;
const STICKY: u32 = 0o1000;
const WORLD_WRITABLE: u32 = 0o002;

/// Creates the directory with mode 0700. Keeps the mode of an existing directory, which may be a
/// volume with another owner.
pub(super) fn make_directory(dir: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(PRIVATE_DIRECTORY).create(dir)?;
    let mode = dir.metadata()?.permissions().mode();
    if mode & WORLD_WRITABLE != 0 && mode & STICKY == 0 {
        tracing::warn!(
            dir = %dir.display(),
            "journal.dir is world-writable: every user of this machine can remove and replace its \
             files; run chmod o-w on it"
        );
    }
    Ok(())
}

/// Sets the mode of all existing files to 0600.
pub(super) fn restrict_permissions(dir: &Path) -> io::Result<()> {
    for name in FILES {
        let path = dir.join(name);
        match path.symlink_metadata() {
            Ok(found) if found.is_file() => restrict(&path, found.permissions().mode())?,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn restrict(path: &Path, mode: u32) -> io::Result<()> {
    if mode & 0o777 == PRIVATE_FILE {
        return Ok(());
    }
    match fs::set_permissions(path, Permissions::from_mode(PRIVATE_FILE)) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            tracing::warn!(
                path = %path.display(),
                "journal file may be readable by other users and is not owned by this user; change \
                 its owner, or its mode to 0600"
            );
            Ok(())
        }
        result => result,
    }
}

/// Opens or creates a file with mode 0600, whatever the umask.
pub(super) fn open_private(path: &Path, truncate: bool) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(truncate)
        .mode(PRIVATE_FILE)
        .open(path)?;
    restrict(path, file.metadata()?.permissions().mode())?;
    Ok(file)
}
