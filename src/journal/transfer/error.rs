//! Errors of exports, backups, imports and restores.

use std::{error::Error, io};

use crate::journal::{OtherOrigin, sql::SqlError};

/// An error of an export, a backup, a check, an import or a restore. An export, a backup and a check change nothing. After
/// an import or a restore, the journal is empty and waits for a file, except after [`CommitInDoubt`](Self::CommitInDoubt)
/// and [`NotFinished`](Self::NotFinished). If its target cannot be opened, is in use or has data, the data is unchanged.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The file cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file is something else.
    #[error("it is neither an export nor a backup of a journal")]
    NotAnExport,
    /// Another version of the gateway wrote the file.
    #[error("it has format version {0}, and this version of the gateway supports {supported}", supported = super::file::FORMAT_VERSION)]
    FormatVersion(u32),
    /// The file ends too early.
    #[error("it is incomplete: it ends before its end mark. Copy it again, or use another one")]
    Truncated,
    /// The file was modified.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// The tables in the file have another version.
    #[error(
        "it has schema version {found}, and this version of the gateway supports {supported}. Use the version \
         of the gateway that wrote it"
    )]
    SchemaVersion {
        /// The version of the file.
        found: i64,
        /// The version of this program.
        supported: i64,
    },
    /// The file belongs to another ThingSpace.
    #[error("{0}: correct thingspace.base_url")]
    OtherOrigin(#[from] OtherOrigin),
    /// The journal to export does not exist.
    #[error("there is no journal")]
    NoJournal,
    /// The journal is empty, and waits for a file.
    #[error(
        "the journal waits for a file: an import or a restore is running, has failed or was \
         interrupted. Repeat it"
    )]
    AwaitsImport,
    /// The rows of the file do not fit together.
    #[error(
        "the journal of the file was damaged when the file was written: {0}. Restore an earlier backup. Only if \
         there is none, repeat the command with --allow-unsound"
    )]
    Unsound(String),
    /// The file to import is a backup.
    #[error(
        "it is a backup, which lacks what the gateway stored later. Use `thingspace-gateway journal restore`, \
         which pauses changes"
    )]
    IsBackup,
    /// The journal to import into has data.
    #[error("the journal is not empty ({0}). Use an empty one")]
    NotEmpty(String),
    /// The journal was filled by an earlier command, which did not finish.
    #[error(
        "an earlier command has filled the journal, from another file or as another command, and was interrupted \
         before it was complete. Repeat that one, or delete the directory and repeat this one"
    )]
    FilledFromOther,
    /// The journal is filled, and waits for the command to be repeated.
    #[error(
        "{0}. The journal has the content of the file, but no gateway starts with it. Remove the cause, and repeat the \
         command with the same file, which completes it"
    )]
    NotFinished(String),
    /// The transaction of an import may be committed.
    #[error(
        "the result of the commit is unknown: {0}. Repeat the command. If it reports that the journal is not empty, the \
         journal has the content of the file"
    )]
    CommitInDoubt(String),
    /// Gateways use the journal that the file is to fill.
    #[error(
        "gateways use this journal: {0}. Stop them. The lease of a gateway that was killed expires after \
         10 seconds"
    )]
    InUse(String),
    /// The journal cannot be opened.
    #[error("{source}")]
    Open {
        /// The error of the engine.
        source: Box<dyn Error + Send + Sync>,
        /// True if a retry cannot help.
        is_final: bool,
    },
    /// The database, or a value in it, is damaged.
    #[error("{0}. Run `thingspace-gateway journal check`, which names the damage and the remedy")]
    DamagedDatabase(String),
    /// The database rejected a statement, or its connection was lost.
    #[error("{0}")]
    Database(String),
}

impl TransferError {
    /// Returns true if the settings must be changed, or the journal be repaired.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::OtherOrigin(_) | Self::Open { is_final: true, .. })
    }

    /// The error of data with a valid checksum that no gateway writes.
    pub(super) fn invalid(problem: impl Into<String>) -> Self {
        Self::Damaged(problem.into())
    }
}

impl From<SqlError> for TransferError {
    fn from(error: SqlError) -> Self {
        let text = error.to_string();
        if error.is_damage() { Self::DamagedDatabase(text) } else { Self::Database(text) }
    }
}
