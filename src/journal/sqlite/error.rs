//! Errors of opening a journal.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::journal::origin::Origin;

/// An error of opening a journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalOpenError {
    /// The directory cannot be created, or a file in it cannot be opened.
    #[error("journal.dir {dir}: {source}")]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Another process uses the directory.
    #[error("journal.dir {0}: another process is using it")]
    Locked(PathBuf),
    /// The directory is on a network file system.
    #[error(
        "journal.dir {dir}: it is on a network file system ({name}), where fsync is not reliable; \
         use a local disk, or set journal.allow_network_filesystem = true"
    )]
    NetworkFilesystem {
        /// The directory.
        dir: PathBuf,
        /// The file system.
        name: &'static str,
    },
    /// The database cannot be used.
    #[error("journal.dir {dir}: {reason}")]
    Database {
        /// The directory.
        dir: PathBuf,
        /// The cause.
        reason: String,
    },
    /// Data is missing.
    #[error(
        "journal.dir {dir}: {damage}. Lost changes would be sent again. Restore the directory from a \
         copy that is not older. If there is none, run `thingspace-gateway journal accept-loss`, which \
         makes a working journal from the data that is left"
    )]
    Damaged {
        /// The directory.
        dir: PathBuf,
        /// The missing part.
        damage: Damage,
    },
    /// The journal belongs to another ThingSpace.
    #[error(
        "journal.dir {dir}: its changes were sent to {recorded}, and the settings name {configured}. A \
         journal works with one ThingSpace only: set journal.dir to another directory, or restore the \
         previous thingspace.base_url"
    )]
    OtherOrigin {
        /// The directory.
        dir: PathBuf,
        /// The origin of its first start.
        recorded: Origin,
        /// The origin in the settings.
        configured: Origin,
    },
}

/// A missing part of a journal's directory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The database file is missing.
    #[error("journal.db is missing, and the journal was in use")]
    NoDatabase,
    /// The database file is empty.
    #[error("journal.db is empty, and the journal was in use")]
    EmptyDatabase,
    /// The database cannot be read.
    #[error("journal.db cannot be read ({0})")]
    Unreadable(String),
    /// The database has no tables: they were in the write-ahead log.
    #[error(
        "journal.db has no tables: they were in journal.db-wal, which is missing, damaged or of \
         another database"
    )]
    NoTables,
    /// The database and the marker belong to different journals.
    #[error("journal.db is not the database that journal.marker belongs to")]
    OtherEpoch,
    /// The database lacks its newest entries.
    #[error(
        "journal.db ends at position {database}, and the journal had reached {marker}: it is an old \
         copy, or journal.db-wal is missing or damaged"
    )]
    Behind {
        /// The newest position in the database.
        database: u64,
        /// The position that the journal had reached.
        marker: u64,
    },
    /// The marker is missing, so a loss cannot be detected.
    #[error("journal.marker is missing, so a loss in journal.db cannot be detected")]
    NoMarker,
    /// The marker cannot be read, so a loss cannot be detected.
    #[error("journal.marker is damaged, so a loss in journal.db cannot be detected")]
    UnreadableMarker,
}

impl JournalOpenError {
    pub(super) fn directory(dir: &Path, source: io::Error) -> Self {
        let dir = dir.to_owned();
        Self::Directory { dir, source }
    }

    pub(super) fn damaged(dir: &Path, damage: Damage) -> Self {
        let dir = dir.to_owned();
        Self::Damaged { dir, damage }
    }

    pub(super) fn database(dir: &Path, reason: &impl ToString) -> Self {
        Self::Database { dir: dir.to_owned(), reason: reason.to_string() }
    }
}
