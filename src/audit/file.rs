//! The file of the log: appends, rotates and repairs it.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, OFlags, flock};

use crate::audit::output::{AppendError, LineFile, Output};

/// Mode of the file: only its owner may read it.
const PRIVATE_FILE: u32 = 0o600;
/// Mode of a directory that is created for the file.
const PRIVATE_DIRECTORY: u32 = 0o700;
/// Number of digits that end the name of a rotated file.
const NUMBER_DIGITS: usize = 10;

/// The file of the log, open to append.
pub(super) struct LogFile {
    path: PathBuf,
    max_bytes: u64,
    max_files: usize,
    current: OpenFile,
}

/// The open file.
struct OpenFile {
    lines: LineFile,
    size: u64,
}

/// A rotated file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RotatedFile {
    /// Files with lower numbers are older.
    pub(super) number: u64,
    pub(super) path: PathBuf,
}

// === impl LogFile ===

impl LogFile {
    /// Opens the file, or creates it and its directory.
    ///
    /// # Errors
    ///
    /// The file cannot be opened, is not a regular file, or another process writes to it.
    pub(super) fn open(path: PathBuf, max_bytes: u64, max_files: u32) -> io::Result<Self> {
        if let Some(directory) = directory(&path) {
            DirBuilder::new().recursive(true).mode(PRIVATE_DIRECTORY).create(directory)?;
        }
        let current = OpenFile::open(&path)?;
        let max_files = usize::try_from(max_files).unwrap_or(usize::MAX);
        Ok(Self { path, max_bytes, max_files, current })
    }

    /// Opens a new file at the path if another program has moved the current one away.
    fn reopen_if_moved(&mut self) -> io::Result<()> {
        let open = self.current.lines.file.metadata()?;
        match fs::symlink_metadata(&self.path) {
            Ok(found) if (found.dev(), found.ino()) == (open.dev(), open.ino()) => Ok(()),
            Ok(_) => self.replace_current(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.replace_current(),
            Err(error) => Err(error),
        }
    }

    fn replace_current(&mut self) -> io::Result<()> {
        self.current.lines.file.sync_data()?;
        self.current = OpenFile::open(&self.path)?;
        Ok(())
    }

    /// Gives the file the next number and opens a new one. A crash in between leaves no current file, which the next
    /// start creates.
    fn rotate(&mut self) -> io::Result<()> {
        self.current.lines.file.sync_data()?;
        let rotated = rotated_files(&self.path)?;
        let number = rotated.last().map_or(1, |last| last.number.saturating_add(1));
        fs::rename(&self.path, numbered(&self.path, number))?;
        self.current = OpenFile::open(&self.path)?;
        // With the current file and the one that was just rotated.
        let excess = (rotated.len() + 2).saturating_sub(self.max_files);
        for file in rotated.iter().take(excess) {
            // The log is worth more than the space: it continues.
            if let Err(error) = fs::remove_file(&file.path) {
                tracing::error!(%error, path = %file.path.display(), "cannot delete an old file of the audit log");
            }
        }
        Ok(())
    }
}

impl Output for LogFile {
    fn prepare(&mut self, length: usize) -> io::Result<()> {
        self.reopen_if_moved()?;
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        let is_full = self.current.size.saturating_add(length) > self.max_bytes;
        if is_full && self.current.size > 0 && !self.current.lines.is_torn {
            self.rotate()
        } else {
            Ok(())
        }
    }

    fn is_torn(&self) -> bool {
        self.current.lines.is_torn
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), AppendError> {
        let appended = self.current.lines.append(bytes);
        let written = appended.as_ref().map_or_else(|failure| failure.written, |()| bytes.len());
        let written = u64::try_from(written).unwrap_or(u64::MAX);
        self.current.size = self.current.size.saturating_add(written);
        appended
    }

    fn sync(&mut self) -> io::Result<()> {
        self.current.lines.file.sync_data()
    }
}

// === impl OpenFile ===

impl OpenFile {
    fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(PRIVATE_FILE)
            .custom_flags(flags.bits().cast_signed())
            .open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            rustix::io::Errno::WOULDBLOCK => io::Error::other("another process writes to it"),
            error => error.into(),
        })?;
        if metadata.permissions().mode() & 0o777 != PRIVATE_FILE {
            file.set_permissions(Permissions::from_mode(PRIVATE_FILE))?;
        }
        sync_directory(path)?;
        let size = metadata.len();
        let mut last = [b'\n'];
        if size > 0 {
            file.read_exact_at(&mut last, size - 1)?;
        }
        Ok(Self { lines: LineFile { file, is_torn: last != [b'\n'] }, size })
    }
}

/// Returns the rotated files of the log at `path`, the oldest first. Files with other names are not part of it.
pub(super) fn rotated_files(path: &Path) -> io::Result<Vec<RotatedFile>> {
    let name = path.file_name().unwrap_or_default().as_bytes();
    let mut files = Vec::new();
    for entry in fs::read_dir(directory(path).unwrap_or(Path::new(".")))? {
        let entry = entry?;
        let file_name = entry.file_name();
        let digits = file_name.as_bytes().strip_prefix(name).and_then(|end| end.strip_prefix(b"."));
        let digits = digits.filter(|digits| {
            digits.len() == NUMBER_DIGITS && digits.iter().all(u8::is_ascii_digit)
        });
        let number = digits.and_then(|digits| str::from_utf8(digits).ok());
        if let Some(number) = number.and_then(|number| number.parse().ok()) {
            files.push(RotatedFile { number, path: entry.path() });
        }
    }
    files.sort_unstable();
    Ok(files)
}

fn numbered(path: &Path, number: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number:0NUMBER_DIGITS$}"));
    name.into()
}

fn directory(path: &Path) -> Option<&Path> {
    path.parent().filter(|parent| !parent.as_os_str().is_empty())
}

/// Makes a new name in the directory of a file durable.
fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(directory(path).unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests;
