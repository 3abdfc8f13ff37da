//! The journal: every change, state transition and result, on disk.
//!
//! It is a log of entries at increasing positions, and tables that are updated in the same
//! transaction: the state and counts of each change, and its *timeline*, the ordered events that a
//! watch delivers. Events are decided when they are written, never by the clock of a reader.
//!
//! [`Journal`] is the sum of one trait per capability. [`sqlite`] implements it; the suite in
//! `conformance` checks an implementation.

mod changes;
#[cfg(test)]
mod conformance;
mod engine;
mod error;
mod events;
mod forward_queue;
mod origin;
mod quarantine;
mod results;
pub mod sqlite;

pub use changes::{
    BusyDevice, ChangeDevice, ChangeFilter, ChangePage, ChangeSelector, ChangeStore, Claim,
    DeviceFilter, DeviceOutcome, DueChanges, Intent, Reservation, StateCounts,
};
pub use engine::{Epoch, Journal, KeptRange, KeyValueStore};
pub use error::{JournalError, Result};
pub use events::{
    CommitListener, Cursor, Event, EventPage, EventPayload, EventStore, ResultEvent, WatchTarget,
};
pub use forward_queue::{
    DueForwards, ForwardOptions, ForwardOutcome, ForwardQueue, ForwardQueueStats, QueuedForward,
};
pub use origin::Origin;
pub use quarantine::{QuarantineLimits, QuarantineStore, QuarantinedCallback};
pub use results::{Attribution, ReceivedCallback, ResultStore, Stored, UnmatchedResult};
