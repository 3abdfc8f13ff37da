//! A file that gets its name only once it is complete.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::{
        fd::AsRawFd as _,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    process, thread,
};

use futures_util::future::select_all;
use rustix::fs::{AtFlags, CWD, OFlags, linkat};
use tempfile::{Builder, NamedTempFile};
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
};

use crate::journal::sqlite::directory;

/// The mode of the file: it has identifiers of devices.
const MODE: u32 = 0o600;

/// The directory of the descriptors of this process, through which an unnamed file gets its name.
const DESCRIPTORS: &str = "/proc/self/fd";

/// A new file without its name.
pub(super) struct NewFile {
    path: PathBuf,
    parent: PathBuf,
    content: Content,
}

enum Content {
    /// A file without any name: the end of the process removes it.
    Unnamed(File),
    /// A file with another name, on a file system that has no files without a name. A signal removes it.
    Hidden(NamedTempFile),
}

impl NewFile {
    /// Creates the file with mode 0600. Replaces no other file.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new(".")).to_owned();
        check_path(path, &parent)?;
        let unnamed = OpenOptions::new()
            .write(true)
            .mode(MODE)
            .custom_flags(OFlags::TMPFILE.bits().cast_signed())
            .open(&parent);
        let content = match unnamed {
            Ok(file) if Path::new(DESCRIPTORS).exists() => Content::Unnamed(file),
            // The file system has no such files, or the file could not get its name.
            _ => Content::create_hidden(path, &parent)?,
        };
        Ok(Self { path: path.to_owned(), parent, content })
    }

    /// Returns the device of the file.
    pub(super) fn device(&self) -> io::Result<u64> {
        Ok(self.content.file().metadata()?.dev())
    }

    /// Syncs the file, and gives it its name.
    pub(super) fn finish(self) -> io::Result<()> {
        self.content.file().sync_all()?;
        match self.content {
            Content::Unnamed(file) => {
                let descriptor = format!("{DESCRIPTORS}/{}", file.as_raw_fd());
                linkat(CWD, descriptor, CWD, &self.path, AtFlags::SYMLINK_FOLLOW)?;
            }
            Content::Hidden(file) => {
                file.persist_noclobber(&self.path).map_err(|error| error.error)?;
            }
        }
        directory::sync(&self.parent)
    }
}

/// Checks a path before the whole file is written.
fn check_path(path: &Path, parent: &Path) -> io::Result<()> {
    let text = path.as_os_str().as_encoded_bytes();
    if path.file_name().is_none() || text.ends_with(b"/") || text.ends_with(b"/.") {
        let problem = "it names a directory. Append the name of the new file";
        return Err(io::Error::new(ErrorKind::IsADirectory, problem));
    }
    if path.symlink_metadata().is_ok() {
        let problem = "a file of this name exists. Use another name, or delete it";
        return Err(io::Error::new(ErrorKind::AlreadyExists, problem));
    }
    parent.read_dir().map(drop).or_else(|error| match error.kind() {
        // A directory can be written and not be readable.
        ErrorKind::PermissionDenied => Ok(()),
        kind => Err(io::Error::new(
            kind,
            format!("cannot use the directory {}: {error}. Create it first", parent.display()),
        )),
    })
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.content.file().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Content {
    fn create_hidden(path: &Path, parent: &Path) -> io::Result<Self> {
        let name = path.file_name().unwrap_or(OsStr::new("journal")).to_string_lossy();
        let file = Builder::new().prefix(&format!(".{name}.incomplete-")).tempfile_in(parent)?;
        remove_on_signal(file.path().to_owned())?;
        Ok(Self::Hidden(file))
    }

    fn file(&self) -> &File {
        match self {
            Self::Unnamed(file) => file,
            Self::Hidden(file) => file.as_file(),
        }
    }
}

/// Removes a file and ends the process at a signal that ends it, with the exit code of a shell for the signal.
fn remove_on_signal(path: PathBuf) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let kinds = [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::hangup(),
        SignalKind::quit(),
    ];
    let signals: Vec<_> = {
        let _context = runtime.enter();
        kinds.into_iter().map(|kind| Ok((kind, signal(kind)?))).collect::<io::Result<_>>()?
    };
    thread::Builder::new().name("signals".into()).spawn(move || {
        let received = signals.into_iter().map(|(kind, mut signal)| {
            Box::pin(async move {
                signal.recv().await;
                kind
            })
        });
        let (kind, ..) = runtime.block_on(select_all(received));
        // It may have its name already.
        let _ = fs::remove_file(path);
        process::exit(128 + kind.as_raw_value());
    })?;
    Ok(())
}

#[cfg(test)]
mod tests;
