//! Errors of journal methods.

use crate::{domain::state::IllegalTransition, journal::record::InvalidRecord};

/// The result of a journal method.
pub type Result<T, E = JournalError> = std::result::Result<T, E>;

/// An error of a journal method.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// The journal cannot be written or read now, for example because the disk is full.
    #[error("the journal is unavailable: {0}")]
    Unavailable(String),
    /// The write may be stored, or is stored and not protected against a loss. A change of it must not be sent.
    #[error("the journal is unavailable: {0}")]
    MayBeStored(String),
    /// The queue of writes is full.
    #[error("the journal is overloaded")]
    Overloaded,
    /// No change has this id.
    #[error("the journal has no such change")]
    NoSuchChange,
    /// No quarantined callback has this id.
    #[error("the quarantine has no callback with this id")]
    NoSuchCallback,
    /// The change has a later attempt, or was settled by another replica.
    #[error("another attempt to send the change has replaced this one")]
    Superseded,
    /// The state of the change does not allow the transition.
    #[error(transparent)]
    IllegalTransition(#[from] IllegalTransition),
}

impl JournalError {
    /// The error of every call after the journal was closed.
    pub(super) fn closed() -> Self {
        Self::Unavailable("it is closed".into())
    }
}

impl From<InvalidRecord> for JournalError {
    fn from(error: InvalidRecord) -> Self {
        Self::Unavailable(error.to_string())
    }
}
