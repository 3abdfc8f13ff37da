//! The queue of callbacks that are forwarded to a webhook.

use async_trait::async_trait;

use crate::{
    domain::{clock::Timestamp, newtypes::CallbackService},
    journal::error::Result,
};

/// Keeps callbacks until they are forwarded.
#[async_trait]
pub trait ForwardQueue: Send + Sync {
    /// Returns due callbacks: up to `first_attempts` that were never tried and up to `retries` that
    /// were. If there are fewer of one kind, returns more of the other.
    async fn due_forwards(
        &self,
        now: Timestamp,
        first_attempts: usize,
        retries: usize,
    ) -> Result<DueForwards>;

    /// Records the outcomes of attempts, by id.
    async fn record_forward_outcomes(&self, outcomes: Vec<(u64, ForwardOutcome)>) -> Result<()>;

    /// Drops a bounded slice of the callbacks that were queued before a time. Returns their number.
    async fn expire_forwards(&self, before: Timestamp) -> Result<usize>;

    /// Makes a bounded slice of the callbacks that wait for a retry due now. Returns their number.
    async fn reschedule_forwards(&self, now: Timestamp) -> Result<usize>;

    /// Returns the state of the queue.
    fn forward_queue_stats(&self) -> ForwardQueueStats;
}

/// Options for queueing a stored callback.
#[derive(Debug, Clone, Copy)]
pub struct ForwardOptions {
    /// Maximum length of the queue. A newer callback displaces the oldest, so that storing a callback
    /// never depends on the webhook.
    pub max_waiting: u64,
    /// The time of queueing, from which its age counts.
    pub now: Timestamp,
}

/// A callback in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedForward {
    /// The position of the callback's log entry.
    pub id: u64,
    /// The callback service in its path.
    pub service: Option<CallbackService>,
    /// Number of failed attempts.
    pub attempts: u32,
    /// Its body, without credentials; `None` if the callback was trimmed.
    pub body: Option<String>,
}

/// Callbacks that are due.
#[derive(Debug, Clone, Default)]
pub struct DueForwards {
    /// First those that were never tried, then the others; each in the order of their due time.
    pub due: Vec<QueuedForward>,
    /// The earliest due time of the rest of the queue.
    pub next_due: Option<Timestamp>,
}

/// The outcome of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardOutcome {
    /// Delivered, or given up.
    Done,
    /// Failed. Retry at this time.
    RetryAt(Timestamp),
}

/// The state of the queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ForwardQueueStats {
    /// Number of queued callbacks, as of the last commit.
    pub waiting: u64,
    /// Number of callbacks that newer ones displaced since the journal was opened.
    pub displaced: u64,
}
