//! Figures about the journal, for metrics.

use std::time::Duration;

use async_trait::async_trait;

use crate::{
    domain::{clock::Timestamp, evidence::ResultService},
    journal::error::Result,
};

/// Reads figures about the journal. Every read is bounded: none scans a table of results.
#[async_trait]
pub trait StatisticsStore: Send + Sync {
    /// Reads the figures that need a query.
    async fn statistics(&self) -> Result<Statistics>;

    /// Returns the space that the journal takes. Costs more than [`statistics`](Self::statistics): an engine may
    /// look at each of its files.
    async fn space(&self) -> Result<Space>;

    /// Returns the time since the lease of this process was renewed. `None` if it needs no lease.
    fn lease_age(&self) -> Option<Duration>;
}

/// Figures about the content of a journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Statistics {
    /// The acceptance of the oldest change that waits for results.
    pub oldest_pending: Option<Timestamp>,
    /// The acceptance of the oldest ACCEPTED change without any result, by the callback service that carries its
    /// results. Only the oldest [`MAX_EXAMINED`](Self::MAX_EXAMINED) ACCEPTED changes are examined.
    pub oldest_without_result: Vec<(ResultService, Timestamp)>,
    /// The time since which the outcome of a change is unknown, the earliest.
    pub oldest_unknown: Option<Timestamp>,
    /// The number of requests that belong to no change and have results since `oldest_unknown`, at most
    /// [`MAX_COUNTED`](Self::MAX_COUNTED).
    pub waiting_requests: u64,
    /// The quarantine.
    pub quarantine: QuarantineStatistics,
    /// The replicas. `None` if no other replica can use the journal.
    pub replicas: Option<ReplicaStatistics>,
}

/// Figures about the quarantine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QuarantineStatistics {
    /// The number of callbacks that were listed.
    pub reviewed: u64,
    /// The number of callbacks that were never listed.
    pub unreviewed: u64,
    /// The size of all callbacks, in bytes, as `callbacks.quarantine_max_bytes` counts it.
    pub bytes: u64,
}

/// Figures about the replicas.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReplicaStatistics {
    /// The number of replicas that hold their lease.
    pub live: u64,
    /// The number of replicas whose lease expired within the last hour, that did not give it up, and that no live
    /// replica with the same name replaces.
    pub lost: u64,
}

/// The space that a journal takes, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Space {
    /// The size of the database.
    pub used: u64,
    /// The file system of the journal. `None` if it is on another machine.
    pub file_system: Option<FileSystemSpace>,
}

/// The space of a file system, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FileSystemSpace {
    /// The space that this user can still allocate.
    pub free: u64,
    /// The total size.
    pub capacity: u64,
}

impl Statistics {
    /// Maximum number of changes that one read examines.
    pub const MAX_EXAMINED: usize = 500;
    /// Maximum number of requests that one read counts.
    pub const MAX_COUNTED: usize = 1_000;
}
