//! File names, modes and syncing of the journal's directory. The spool uses the functions for its own.
//!
//! A journal contains identifiers of customers' devices, so only its owner may read its files.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use crate::journal::{FileSystemSpace, Space, sqlite::error::OpenFailure};

pub(super) const DATABASE: &str = "journal.db";
pub(super) const WAL: &str = "journal.db-wal";
/// Epoch and position that the database is compared with at startup.
pub(super) const MARKER: &str = "journal.marker";
/// Locked by the process that uses the directory.
pub(super) const LOCK: &str = "journal.lock";
/// Memory shared by SQLite's connections. Worthless once they are closed.
pub(super) const SHARED_MEMORY: &str = "journal.db-shm";
/// SQLite's rollback journal. Only the first transaction, and those of an import, have one.
pub(super) const ROLLBACK: &str = "journal.db-journal";

const PRIVATE_FILE: u32 = 0o600;
const PRIVATE_DIRECTORY: u32 = 0o700;
const STICKY: u32 = 0o1000;
const WORLD_WRITABLE: u32 = 0o002;

/// Magic numbers of network file systems in statfs(2).
const NETWORK_FILESYSTEMS: [(i64, &str); 7] = [
    (0x6969, "NFS"),
    (0x517B, "SMB"),
    (0xFF53_4D42, "CIFS"),
    (0xFE53_4D42, "SMB2"),
    (0x00C3_6400, "Ceph"),
    (0x0102_1997, "9p"),
    (0x0BD0_0BD0, "Lustre"),
];

/// Creates the directory with mode 0700, and syncs its ancestors up to the mount point: a file survives
/// a power loss only if the entry of each directory on its path is synced (see fsync(2)). Keeps the
/// mode of an existing directory, which may be a volume with another owner. `setting` names the directory.
pub(crate) fn create(dir: &Path, setting: &str) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(PRIVATE_DIRECTORY).create(dir)?;
    let metadata = dir.metadata()?;
    let mode = metadata.permissions().mode();
    if mode & WORLD_WRITABLE != 0 && mode & STICKY == 0 {
        tracing::warn!(
            dir = %dir.display(),
            "{setting} is world-writable: every user of this machine can remove and replace its files; \
             run chmod o-w on it"
        );
    }
    for ancestor in fs::canonicalize(dir)?.ancestors().skip(1) {
        if fs::metadata(ancestor)?.dev() != metadata.dev() {
            break;
        }
        sync(ancestor)?;
    }
    Ok(())
}

/// Returns true if the directory is on a network file system, and an error if that is not allowed.
pub(crate) fn is_on_network_filesystem(dir: &Path, is_allowed: bool) -> Result<bool, OpenFailure> {
    let found = rustix::fs::statfs(dir).map_err(io::Error::from)?;
    // The integer type of `f_type` differs by platform.
    match NETWORK_FILESYSTEMS
        .iter()
        .find(|(magic, _)| i128::from(*magic) == i128::from(found.f_type))
    {
        Some((_, name)) if !is_allowed => Err(OpenFailure::NetworkFilesystem(name)),
        filesystem => Ok(filesystem.is_some()),
    }
}

/// Returns the size of the database with its write-ahead log, and the space of its file system.
pub(super) fn space(dir: &Path) -> io::Result<Space> {
    let mut used = 0;
    for name in [DATABASE, WAL] {
        used += match dir.join(name).metadata() {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
    }
    let found = rustix::fs::statvfs(dir)?;
    let file_system = FileSystemSpace {
        free: found.f_bavail.saturating_mul(found.f_frsize),
        capacity: found.f_blocks.saturating_mul(found.f_frsize),
    };
    Ok(Space { used, file_system: Some(file_system) })
}

/// Syncs files that an earlier process wrote and did not sync before it was killed, and sets the mode
/// of all files to 0600. From here on the files count as durable: a repeated callback is acknowledged
/// as stored, and a watch delivers its event.
pub(super) fn sync_and_restrict_files(dir: &Path) -> io::Result<()> {
    for name in [DATABASE, WAL, ROLLBACK, MARKER, LOCK, SHARED_MEMORY] {
        let path = dir.join(name);
        match path.symlink_metadata() {
            Ok(found) if found.is_file() => {
                if [DATABASE, WAL, ROLLBACK].contains(&name) {
                    File::open(&path)?.sync_all()?;
                }
                restrict(&path, &found.permissions())?;
            }
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    sync(dir)
}

/// Syncs the entries of a directory. Ignores a directory that this user cannot read, and file systems
/// that do not support the call.
pub(crate) fn sync(dir: &Path) -> io::Result<()> {
    let synced = File::open(dir).and_then(|directory| directory.sync_all());
    match synced.as_ref().map_err(io::Error::kind) {
        Err(ErrorKind::PermissionDenied | ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
            Ok(())
        }
        _ => synced,
    }
}

/// Opens or creates a file with mode 0600, whatever the umask.
pub(crate) fn open_private(path: &Path, truncate: bool) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(truncate)
        .mode(PRIVATE_FILE)
        .open(path)?;
    restrict(path, &file.metadata()?.permissions())?;
    Ok(file)
}

fn restrict(path: &Path, permissions: &Permissions) -> io::Result<()> {
    if permissions.mode() & 0o777 == PRIVATE_FILE {
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
