//! Errors of PostgreSQL.

use std::{error::Error, fmt};

use tokio_postgres::error::{Severity, SqlState};

use crate::journal::{OtherOrigin, postgres::url::UrlError, sql::SqlError};

/// An error of the database or of the connection. Its message has no values of rows.
#[derive(Debug)]
pub(super) struct PostgresError {
    message: String,
    /// True if the connection cannot be used any more.
    is_connection_lost: bool,
    /// True if an earlier statement of the transaction has failed, which is the cause.
    has_earlier_cause: bool,
    /// True if the server finds a damaged page, row or index.
    is_damage: bool,
}

impl PostgresError {
    /// The error of a statement that takes too long.
    pub(super) fn timed_out() -> Self {
        Self::connection_lost("the database did not respond in time")
    }

    /// The error of a statement that may have been executed.
    pub(super) fn connection_lost(message: impl Into<String>) -> Self {
        Self { is_connection_lost: true, ..Self::new(message) }
    }

    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            is_connection_lost: false,
            has_earlier_cause: false,
            is_damage: false,
        }
    }

    /// True if the connection cannot be used any more.
    pub(super) fn is_connection_lost(error: &SqlError) -> bool {
        Self::of(error).is_some_and(|error| error.is_connection_lost)
    }

    /// True if an earlier statement of the transaction has failed, which is the cause.
    pub(super) fn has_earlier_cause(error: &SqlError) -> bool {
        Self::of(error).is_some_and(|error| error.has_earlier_cause)
    }

    /// True if the server finds a damaged page, row or index.
    pub(super) fn is_damage(error: &SqlError) -> bool {
        Self::of(error).is_some_and(|error| error.is_damage)
    }

    fn of(error: &SqlError) -> Option<&Self> {
        match error {
            SqlError::Database(error) => error.downcast_ref(),
            SqlError::Invalid(_) | SqlError::Rules(_) | SqlError::InDoubt(_) => None,
        }
    }
}

impl From<tokio_postgres::Error> for PostgresError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(server) = error.as_db_error() else {
            let source = error.source().map(|source| format!(": {source}"));
            let message = format!("{error}{}", source.unwrap_or_default());
            return Self::connection_lost(message);
        };
        // The detail of an error has values of rows.
        let message = format!("{} (SQLSTATE {})", server.message(), server.code().code());
        // The server closes the connection after a fatal error, perhaps after it has committed.
        let is_fatal = matches!(server.parsed_severity(), Some(Severity::Fatal | Severity::Panic));
        Self {
            message,
            is_connection_lost: is_fatal || error.is_closed(),
            has_earlier_cause: *server.code() == SqlState::IN_FAILED_SQL_TRANSACTION,
            is_damage: [SqlState::DATA_CORRUPTED, SqlState::INDEX_CORRUPTED]
                .contains(server.code()),
        }
    }
}

impl From<PostgresError> for SqlError {
    fn from(error: PostgresError) -> Self {
        Self::Database(Box::new(error))
    }
}

impl From<tokio_postgres::Error> for SqlError {
    fn from(error: tokio_postgres::Error) -> Self {
        PostgresError::from(error).into()
    }
}

impl fmt::Display for PostgresError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgreSQL: {}", self.message)
    }
}

impl Error for PostgresError {}

/// An error of opening a journal.
#[derive(Debug, thiserror::Error)]
#[error("journal.url: {0}")]
pub struct JournalOpenError(#[from] pub OpenFailure);

/// The cause of a [`JournalOpenError`].
#[derive(Debug, thiserror::Error)]
pub enum OpenFailure {
    /// The URL cannot be used.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The database cannot be reached, or rejects a statement.
    #[error("{0}")]
    Database(String),
    /// Another process creates the tables, or imports a journal.
    #[error(
        "another process creates or imports the journal in this database; try again when it has ended"
    )]
    Busy,
    /// The database is prepared for an import.
    #[error(
        "the database waits for a file: an import or a restore was prepared, has failed or was interrupted. Run \
         `thingspace-gateway journal import` or `journal restore`. To start with a new journal instead, drop the schema \
         thingspace_gateway"
    )]
    AwaitsImport,
    /// The server is too old.
    #[error("the server has version {0}, and the gateway needs PostgreSQL 14 or newer")]
    OldServer(String),
    /// The encoding of the database is not UTF-8.
    #[error("the database has the encoding {0}; create one with the encoding UTF8")]
    Encoding(String),
    /// The schema has tables of another program.
    #[error("the schema {0} of this database has tables of another program; use another database")]
    ForeignTables(&'static str),
    /// The database has no tables of a journal.
    #[error("the database has no journal")]
    NoJournal,
    /// Replicas use the journal.
    #[error(
        "gateways use the journal ({0}). Stop all of them, and try again 10 seconds later. A gateway \
         that runs while commits are lost detects the loss without this command"
    )]
    InUse(String),
    /// The tables have another version.
    #[error(
        "the journal has schema version {found}, and this version of the gateway supports \
         {supported}. Use the version that wrote it, or another database"
    )]
    SchemaVersion {
        /// The version of the tables.
        found: i64,
        /// The version of this program.
        supported: i64,
    },
    /// A commit does not survive a power loss.
    #[error(
        "a commit of this server does not survive a power loss ({0}). Acknowledged results could be \
         lost and changes be sent twice. Set fsync, full_page_writes and synchronous_commit to on, or \
         accept the loss with journal.durability = relaxed"
    )]
    NotDurable(String),
    /// The journal belongs to another ThingSpace.
    #[error("{0}: use another database, or restore the previous thingspace.base_url")]
    OtherOrigin(#[from] OtherOrigin),
}

impl OpenFailure {
    /// True if a retry cannot help. The database may only be unreachable, busy or in use for now.
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Database(_) | Self::Busy | Self::AwaitsImport | Self::InUse(_))
    }
}

impl From<SqlError> for OpenFailure {
    fn from(error: SqlError) -> Self {
        Self::Database(error.to_string())
    }
}

impl From<PostgresError> for OpenFailure {
    fn from(error: PostgresError) -> Self {
        Self::Database(error.to_string())
    }
}
