//! The sum of all capabilities, and the identity of a journal.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    domain::clock::Timestamp,
    journal::{
        callbacks::CallbackJournal, changes::ChangeStore, coordination::Coordination,
        error::Result, events::EventStore, forward_queue::ForwardQueue, origin::Origin,
        quarantine::QuarantineStore, results::ResultStore, statistics::StatisticsStore,
    },
};

/// A journal. Cheap to share as `Arc<dyn Journal>`.
///
/// When a writing method returns `Ok`, its effect is on disk. Reading methods see all writes that
/// had returned when they were called. All methods fail after [`close`](Self::close).
#[async_trait]
pub trait Journal:
    ChangeStore
    + CallbackJournal
    + ResultStore
    + EventStore
    + QuarantineStore
    + ForwardQueue
    + KeyValueStore
    + StatisticsStore
    + 'static
{
    /// The identity of the journal. It changes when a loss of data is accepted.
    fn epoch(&self) -> Epoch;

    /// The ThingSpace that the journal's changes are sent to.
    fn origin(&self) -> &Origin;

    /// Returns the engine, and the failures that a write survives.
    fn info(&self) -> JournalInfo;

    /// Returns the state that all replicas share. `None` if no other replica can use the journal.
    fn coordination(&self) -> Option<Arc<dyn Coordination>> {
        None
    }

    /// Returns the error of the last write, if it has failed: one line.
    fn write_error(&self) -> Option<String>;

    /// Returns the reason why nothing can be written until a restart of the process, if there is one.
    fn stop_reason(&self) -> Option<&'static str>;

    /// Returns the range of positions.
    async fn kept_range(&self) -> Result<KeptRange>;

    /// Removes one bounded slice of the final changes and unattributed requests whose last event is
    /// older than `before` and not after the position `up_to`. Returns true if there may be more.
    async fn trim(&self, before: Timestamp, up_to: u64) -> Result<bool>;

    /// Writes everything that is queued, then closes the journal.
    async fn close(&self);
}

/// Stores small values by name.
#[async_trait]
pub trait KeyValueStore: Send + Sync {
    /// Returns a value; empty if there is none.
    async fn get_kv(&self, name: String) -> Result<Vec<u8>>;

    /// Returns a value as [`get_kv`](Self::get_kv) does, and the epoch of the database that it was read from.
    async fn get_kv_and_epoch(&self, name: String) -> Result<(Vec<u8>, Epoch)>;

    /// Sets a value. An empty value deletes it.
    async fn put_kv(&self, name: String, value: Vec<u8>) -> Result<()>;
}

/// The identity of a journal: a random number that is created with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch(pub u64);

/// The engine of a journal, and its durability.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalInfo {
    /// The name of the engine, as in `journal.engine`.
    pub engine: &'static str,
    /// The failures that a write survives.
    pub durability: Durability,
    /// The settings of the database that decide it. Empty for an embedded journal.
    pub database_settings: String,
}

/// The failures that a write survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// A crash of the process. A power loss can lose the latest writes.
    Relaxed,
    /// A crash, and a power loss of the machine with the database.
    Synced,
    /// The loss of the machine with the database: a synchronous standby has each write.
    Replicated,
}

/// The range of positions in a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptRange {
    /// The newest position; 0 in a new journal.
    pub last: u64,
    /// The newest position that was trimmed; 0 if none was.
    pub trimmed: u64,
}
