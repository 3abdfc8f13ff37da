//! What a power loss could still take away when a journal is opened.

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt,
    path::Path,
};

/// The database, its log, and the journal of its first transaction.
const FILES: [&str; 3] = ["journal.db", "journal.db-wal", "journal.db-journal"];

/// Has the names of a directory, and of those that it is in, on disk. They may have been made just now,
/// or by a process that did not get so far; without its name all that is in a directory is lost, synced
/// or not (fsync(2): "an explicit fsync() on a file descriptor for the directory is also needed").
pub(super) fn sync_ancestors(dir: &Path) -> io::Result<()> {
    let dir = fs::canonicalize(dir)?;
    let device = fs::metadata(&dir)?.dev();
    for ancestor in dir.ancestors().skip(1) {
        // What was mounted has no name on the disk that it is mounted on.
        if fs::metadata(ancestor)?.dev() != device {
            break;
        }
        sync_directory(ancestor)?;
    }
    Ok(())
}

/// Has on disk what an earlier process has left in the page cache, and was killed before it synced. From
/// here on it is read as if it had been: a callback that comes again is told to be stored already, a watch
/// is given its event.
pub(super) fn sync_files(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        // SQLite's shared memory is of no use to anybody later.
        let is_kept = FILES.iter().any(|file| name == *file);
        if is_kept && entry.file_type()?.is_file() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    sync_directory(dir)
}

pub(super) fn sync_directory(dir: &Path) -> io::Result<()> {
    match File::open(dir).and_then(|names| names.sync_all()) {
        // Nobody who may not read it has made anything in it; and some file systems keep names without
        // being asked, and do not know the question.
        Err(error) if is_needless(error.kind()) => Ok(()),
        result => result,
    }
}

fn is_needless(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::PermissionDenied | ErrorKind::InvalidInput | ErrorKind::Unsupported
    )
}
