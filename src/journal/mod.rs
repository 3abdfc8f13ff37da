//! The journal: every change, state transition and result, on disk.
//!
//! It is a log of events at increasing positions, and tables that are updated in the same transaction:
//! the state and counts of each change, its devices and their results. Events are decided when they are
//! written, never by the clock of a reader.
//!
//! The rules are in `apply`, the stored forms in `record`; an engine loads and stores rows.
//! [`Journal`] is the sum of one trait per capability. `sql` implements it for the engines [`sqlite`] and
//! [`postgres`]; the suite in `conformance` checks an engine.

mod apply;
mod callbacks;
mod changes;
mod check;
#[cfg(test)]
mod conformance;
mod coordination;
mod engine;
mod error;
mod events;
mod forward_queue;
mod origin;
pub mod postgres;
mod quarantine;
mod record;
mod results;
mod sql;
pub mod sqlite;
mod statistics;
#[cfg(test)]
pub(crate) mod stub_journal;
pub mod transfer;
mod unopened;

pub use callbacks::{CallbackJournal, Fingerprinter};
pub use changes::{
    BusyDevice, ChangeDevice, ChangeFilter, ChangePage, ChangeSelector, ChangeStore, Claim,
    DeviceFilter, DeviceOutcome, Dispatch, DueChanges, Intent, Owner, Reservation, StateCounts,
    Step, VisibleAccounts,
};
pub use check::{CheckReport, Finding};
pub use coordination::{Coordination, Rate};
pub use engine::{Durability, Epoch, Journal, JournalInfo, KeptRange, KeyValueStore};
pub use error::{JournalError, Result};
pub use events::{
    Commit, CommitListener, Cursor, Event, EventPage, EventPayload, EventQuery, EventStore,
    Removal, Removed, WatchTarget,
};
pub use forward_queue::{
    DueForwards, ForwardOptions, ForwardOutcome, ForwardQueue, ForwardQueueStats, QueuedForward,
};
pub use origin::{Origin, OtherOrigin};
pub use quarantine::{QuarantineLimits, QuarantineStore, QuarantinedCallback};
pub use record::{InvalidRecord, ResultRecord};
pub(crate) use record::{decode_result, encode_result};
pub use results::{
    Attribution, CallbackStore, NewResult, ReceivedCallback, RequestChange, ResultStore, Stored,
    UnmatchedResult,
};
pub use statistics::{
    FileSystemSpace, QuarantineStatistics, ReplicaStatistics, Space, Statistics, StatisticsStore,
};
pub use unopened::UnopenedJournal;
