//! The rules of the journal, as pure functions over the data of one batch.
//!
//! An engine commits the queued commands of all callers together, as one unit of work:
//!
//! 1. *collect*: each [`Command`] adds the keys of all rows that it may touch to [`Keys`];
//! 2. *load*: the engine reads these rows into a [`WorkingSet`];
//! 3. *apply*: each command modifies the working set, in order. This is the same code for every engine;
//! 4. *store*: the engine writes the difference, commits and syncs;
//! 5. the commands reply, and the listeners are notified of the [`Commit`].
//!
//! Nothing here performs I/O. A command that is rejected leaves the working set as it was.

mod attribution;
mod callback;
mod change_devices;
mod claim;
mod keys;
mod link;
mod settle;
mod transition;
mod unmatched;
mod working_set;

pub(super) use attribution::AttributeRequest;
pub(super) use callback::{StoreCallback, StoreCallbacks};
pub(super) use change_devices::{ChangeDevices, LoadedState};
pub(super) use claim::{ClaimChange, UnfinishedChange, check_claim};
pub(super) use keys::{Keys, LookupKeys};
pub(super) use settle::{SettleChange, UNCERTAIN_OWNER};
pub(super) use transition::ApplyTransition;
pub(super) use unmatched::ResolveUnmatched;
pub(super) use working_set::{
    Counts, Dirty, EarlyResult, EventContent, LoadedChange, LoadedRequest, NewEvent, NewForward,
    Row, WorkingSet,
};

use crate::journal::{JournalError, record::InvalidRecord};

/// A command: it names the rows that it may touch, and then modifies them.
pub(super) trait Command: Send + 'static {
    /// The reply.
    type Output: Send + 'static;

    /// Adds the keys of all rows that the command may touch.
    fn collect(&self, keys: &mut Keys);

    /// Applies the command.
    fn apply(self, set: &mut WorkingSet) -> Result<Self::Output, ApplyError>;
}

/// An error of a command.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApplyError {
    /// Fails only the command, which has changed nothing.
    #[error(transparent)]
    Rejected(#[from] JournalError),
    /// A stored value is damaged. Fails the batch.
    #[error(transparent)]
    Invalid(#[from] InvalidRecord),
    /// A row was not loaded: [`Command::collect`] lacks a key. Fails the batch.
    #[error("{0} was not loaded")]
    NotLoaded(&'static str),
}
