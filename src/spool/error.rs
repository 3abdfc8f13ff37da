//! Errors of opening a spool.

use std::{io, path::PathBuf};

use crate::journal::sqlite::OpenFailure;

/// An error of opening a spool.
#[derive(Debug, thiserror::Error)]
#[error("journal.spool_dir {dir}: {failure}")]
pub struct SpoolOpenError {
    /// The directory.
    pub dir: PathBuf,
    /// The cause.
    pub failure: SpoolOpenFailure,
}

/// The cause of a [`SpoolOpenError`].
#[derive(Debug, thiserror::Error)]
pub enum SpoolOpenFailure {
    /// The directory or its database cannot be used, or another process uses it.
    #[error(transparent)]
    Open(#[from] OpenFailure),
    /// The database has tables of another version.
    #[error(
        "the spool has schema version {found}, and this version of the gateway supports {supported}. \
         Empty the spool with the version that wrote it, or set journal.spool_dir to another directory"
    )]
    SchemaVersion {
        /// The version of the database.
        found: i64,
        /// The version of this program.
        supported: i64,
    },
    /// The spool has callbacks of another ThingSpace.
    #[error(
        "it has callbacks of changes that were sent to {recorded}, and the settings name \
         {configured}: set journal.spool_dir to another directory, or restore the previous \
         thingspace.base_url"
    )]
    OtherOrigin {
        /// The origin of its callbacks.
        recorded: String,
        /// The origin in the settings.
        configured: String,
    },
}

impl SpoolOpenFailure {
    /// Returns true if a retry cannot help.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Open(failure) => failure.is_final(),
            Self::OtherOrigin { .. } => true,
            Self::SchemaVersion { .. } => false,
        }
    }
}

impl From<io::Error> for SpoolOpenFailure {
    fn from(error: io::Error) -> Self {
        Self::Open(error.into())
    }
}

impl From<rusqlite::Error> for SpoolOpenFailure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Open(error.into())
    }
}
