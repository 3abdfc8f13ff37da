//! Errors of a submitted change.

use std::fmt;

use crate::{
    domain::newtypes::ChangeId,
    journal::{BusyDevice, JournalError},
};

/// The reason why a call did not return a change.
#[derive(Debug, thiserror::Error)]
pub enum DispatchError {
    /// The key belongs to a change with different content.
    #[error("the idempotency key was used for a different request")]
    KeyReused(ChangeId),
    /// A device is locked by another change.
    #[error("a device belongs to another unfinished change")]
    DeviceBusy(BusyDevice),
    /// Too many changes, or devices of changes, are in flight, for all callers or for this one. The change with the call's key, if there is
    /// one, may have been sent.
    #[error("too many changes or devices in flight (limits.inflight_changes, limits.devices)")]
    TooManyInFlight(ExistingChange),
    /// An operator has paused the changes of the account. The change with the call's key, if there is one, was not
    /// sent.
    #[error("changes of this account are paused by an operator")]
    Paused(ExistingChange),
    /// The journal failed. If `change_id` is set, the change is stored and was not sent.
    #[error("{error}")]
    Journal {
        /// The error of the journal.
        error: JournalError,
        /// The id of the change, if it was stored.
        change_id: Option<ChangeId>,
    },
}

/// The change that a call's key belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExistingChange {
    /// There is none.
    Absent,
    /// This change.
    Change(ChangeId),
    /// The journal did not respond, or another call with the key is in flight.
    Unknown,
}

impl DispatchError {
    /// Returns the ID of a change that an earlier call has created, perhaps one of another caller.
    pub fn existing_change(&self) -> Option<ChangeId> {
        match self {
            Self::KeyReused(id) => Some(*id),
            Self::DeviceBusy(busy) => Some(busy.change_id),
            Self::TooManyInFlight(existing) | Self::Paused(existing) => match existing {
                ExistingChange::Change(id) => Some(*id),
                ExistingChange::Absent | ExistingChange::Unknown => None,
            },
            // The change of the call itself.
            Self::Journal { .. } => None,
        }
    }

    /// An error of the journal before the change was stored.
    pub(super) fn before_claim(error: JournalError) -> Self {
        Self::Journal { error, change_id: None }
    }

    /// An error of the journal after the change was stored.
    pub(super) fn after_claim(change_id: ChangeId) -> impl FnOnce(JournalError) -> Self {
        move |error| Self::Journal { error, change_id: Some(change_id) }
    }

    /// A task of the dispatcher that panicked or was cancelled.
    pub(super) fn task_failed(error: &dyn fmt::Display, change_id: Option<ChangeId>) -> Self {
        tracing::error!(%error, "dispatch task panicked or was cancelled");
        Self::Journal {
            error: JournalError::Unavailable("the dispatch task failed".into()),
            change_id,
        }
    }
}
