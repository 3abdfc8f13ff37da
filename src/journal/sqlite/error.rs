//! Errors of opening a journal.

use std::{io, path::PathBuf};

use rusqlite::ErrorCode;

use crate::journal::{OtherOrigin, sql::SqlError};

/// An error of opening a journal.
#[derive(Debug, thiserror::Error)]
#[error("journal.dir {dir}: {failure}")]
pub struct JournalOpenError {
    /// The directory.
    pub dir: PathBuf,
    /// The cause.
    pub failure: OpenFailure,
}

/// The cause of a [`JournalOpenError`].
#[derive(Debug, thiserror::Error)]
pub enum OpenFailure {
    /// The directory cannot be created, or a file in it cannot be opened.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The database cannot be used.
    #[error(transparent)]
    Database(#[from] rusqlite::Error),
    /// A value in the database cannot be used.
    #[error("{0}")]
    Value(String),
    /// The database has tables of another version.
    #[error(
        "the journal has schema version {found}, and this version of the gateway supports \
         {supported}. Use the version that wrote it, or set journal.dir to an empty directory"
    )]
    SchemaVersion {
        /// The version of the database.
        found: i64,
        /// The version of this program.
        supported: i64,
    },
    /// An import or a restore has failed, or has not ended.
    #[error(
        "it waits for a file: an import or a restore has failed or was interrupted. Repeat it. A gateway with \
         the empty journal would send repeated calls again. To start with a new journal instead, delete the \
         directory"
    )]
    AwaitsImport,
    /// A transaction was interrupted, and no process has rolled it back.
    #[error(
        "a transaction was interrupted. If it was an import or a restore, repeat it. Otherwise start the gateway, \
         which rolls it back"
    )]
    Interrupted,
    /// Another process uses the directory.
    #[error("another process is using it")]
    Locked,
    /// A command reads the stopped journal.
    #[error(
        "a backup or a check of the stopped journal is reading it. Wait until it has ended, or end it. While a \
         gateway runs, such a command does not lock it"
    )]
    BeingRead,
    /// A command cannot read the database now.
    #[error(
        "journal.db cannot be read now ({0}). If a gateway is starting or ending, repeat the command. If the volume \
         is read-only, copy the directory to another one, and set journal.dir to the copy"
    )]
    Unreadable(String),
    /// The directory is on a network file system.
    #[error(
        "it is on a network file system ({0}), where fsync is not reliable; use a local disk, or set \
         journal.allow_network_filesystem = true"
    )]
    NetworkFilesystem(&'static str),
    /// Data is missing.
    #[error(
        "{0}. Lost changes would be sent again. Restore the newest backup with `thingspace-gateway journal \
         restore` into an empty directory. Only if there is no backup, run `thingspace-gateway journal \
         accept-loss`, which makes a working journal from the data that is left"
    )]
    Damaged(#[from] Damage),
    /// The journal belongs to another ThingSpace.
    #[error("{0}: set journal.dir to another directory, or set the previous thingspace.base_url")]
    OtherOrigin(#[from] OtherOrigin),
}

impl OpenFailure {
    /// Returns [`Unreadable`](Self::Unreadable) instead of the errors of SQLite that a gateway which starts or ends, or a
    /// read-only volume, causes for a reader.
    pub(super) fn with_remedy_of_readers(self) -> Self {
        match self {
            Self::Database(error)
                if matches!(
                    error.sqlite_error_code(),
                    Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::DatabaseBusy)
                ) =>
            {
                Self::Unreadable(error.to_string())
            }
            failure => failure,
        }
    }

    /// True if a retry cannot help. A volume or a file may only be unreachable or in use for now.
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Self::SchemaVersion { .. }
                | Self::NetworkFilesystem(_)
                | Self::Damaged(_)
                | Self::OtherOrigin(_)
        )
    }
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
    /// The database lacks its newest events.
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
    /// An accepted loss is not complete.
    #[error("journal accept-loss was interrupted, so journal.db is not complete")]
    Unfinished,
}

impl From<SqlError> for OpenFailure {
    fn from(error: SqlError) -> Self {
        match error {
            SqlError::Database(error) => match error.downcast() {
                Ok(error) => Self::Database(*error),
                Err(error) => Self::Value(error.to_string()),
            },
            error => Self::Value(error.to_string()),
        }
    }
}
