//! Errors of statements.

use rusqlite::ErrorCode;

use crate::journal::{JournalError, apply::ApplyError, record::InvalidRecord};

/// The result of a statement.
pub(in crate::journal) type Result<T, E = SqlError> = std::result::Result<T, E>;

/// An error of a statement.
#[derive(Debug, thiserror::Error)]
pub(in crate::journal) enum SqlError {
    /// The database rejected a statement, or cannot be reached.
    #[error(transparent)]
    Database(Box<dyn std::error::Error + Send + Sync>),
    /// A stored value cannot be decoded.
    #[error(transparent)]
    Invalid(#[from] InvalidRecord),
    /// The transaction may be committed: its connection was lost, and its result cannot be read now.
    #[error("the result of a commit is unknown: {0}")]
    InDoubt(Box<SqlError>),
    /// The rules ran on incomplete rows, or found a damaged one.
    #[error(transparent)]
    Rules(#[from] ApplyError),
}

impl SqlError {
    /// The error of a column that does not have the expected type.
    pub(in crate::journal) fn column() -> Self {
        Self::Invalid(InvalidRecord("column"))
    }

    /// The error of a query that must have a row and has none.
    pub(in crate::journal) fn no_row() -> Self {
        Self::Invalid(InvalidRecord("reference to a row"))
    }

    /// True if a stored value cannot be decoded, or if SQLite finds damaged pages.
    pub(in crate::journal) fn is_damage(&self) -> bool {
        match self {
            Self::Invalid(_) => true,
            Self::Database(error) => error.downcast_ref().is_some_and(is_damaged_file),
            Self::InDoubt(_) | Self::Rules(_) => false,
        }
    }
}

/// True if the file of the database is damaged.
pub(in crate::journal) fn is_damaged_file(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
}

impl From<SqlError> for JournalError {
    fn from(error: SqlError) -> Self {
        let text = error.to_string();
        match error {
            SqlError::InDoubt(_) => Self::MayBeStored(text),
            _ => Self::Unavailable(text),
        }
    }
}

impl From<rusqlite::Error> for SqlError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(Box::new(error))
    }
}
