//! What is passed on to somebody else's webhook, as the journal keeps it.

use crate::domain::{clock::Timestamp, newtypes::CallbackService};

/// How a callback that is stored is to be passed on.
#[derive(Debug, Clone, Copy)]
pub struct ForwardOptions {
    /// So many wait at most: the oldest are given up for newer ones, so that storing a callback
    /// never depends on whom it is passed on to.
    pub max_queued: u64,
    /// When it is queued; its age counts from here.
    pub now: Timestamp,
}

/// A callback that waits to be passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedForward {
    /// Names it.
    pub id: u64,
    /// The callback service that its path named.
    pub service: Option<CallbackService>,
    /// How often it has been tried.
    pub tries: u32,
    /// Its body, without credentials; `None` when the journal's retention took it.
    pub body: Option<String>,
}

/// Callbacks that are due to be passed on.
#[derive(Debug, Clone, Default)]
pub struct DueForwards {
    /// Those that were never tried first; of each kind those that have been due for longest.
    pub due: Vec<QueuedForward>,
    /// When the next of the others is.
    pub next_due: Option<Timestamp>,
}

/// What became of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardOutcome {
    /// It is not to be tried again.
    Done,
    /// It is, at this time.
    RetryAt(Timestamp),
}

/// How the queue stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ForwardQueueStats {
    /// Callbacks that wait, as of the last commit.
    pub waiting: u64,
    /// Callbacks that were given up for newer ones since the journal was opened.
    pub displaced: u64,
}
