//! The journal of a gateway that cannot open its own yet.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{
    domain::{
        change::Change,
        clock::Timestamp,
        identifier::ReportedId,
        newtypes::{ChangeId, RequestId},
        state::ChangeState,
    },
    journal::{
        Attribution, ChangeDevice, ChangeFilter, ChangePage, ChangeSelector, ChangeStore, Claim,
        CommitListener, DeviceFilter, DueChanges, DueForwards, Durability, Epoch, EventPage,
        EventQuery, EventStore, ForwardOutcome, ForwardQueue, ForwardQueueStats, Intent, Journal,
        JournalError, JournalInfo, KeptRange, KeyValueStore, Origin, QuarantineLimits,
        QuarantineStore, QuarantinedCallback, ReceivedCallback, Reservation, Result, ResultStore,
        StateCounts, Step, Stored, UnmatchedResult, WatchTarget,
    },
};

/// A journal that is unavailable, for the callback listener while the database is away. It has no epoch, so it must not
/// serve watches.
#[derive(Debug)]
pub struct UnopenedJournal(pub Origin);

fn unopened<T>() -> Result<T> {
    Err(JournalError::Unavailable("the journal is not open yet".to_owned()))
}

#[async_trait]
impl ChangeStore for UnopenedJournal {
    async fn claim(&self, _: Intent) -> Result<Claim> {
        unopened()
    }
    async fn check_claim(&self, _: Intent) -> Result<Claim> {
        unopened()
    }
    async fn apply(&self, _: Step) -> Result<Change> {
        unopened()
    }
    async fn reserve(&self) -> Result<Box<dyn Reservation>> {
        unopened()
    }
    async fn change(&self, _: ChangeSelector) -> Result<Option<Change>> {
        unopened()
    }
    async fn changes(&self, _: ChangeFilter) -> Result<ChangePage> {
        unopened()
    }
    async fn devices(&self, _: ChangeId, _: DeviceFilter) -> Result<Vec<ChangeDevice>> {
        unopened()
    }
    async fn due_changes(&self, _: ChangeState, _: Timestamp, _: Timestamp) -> Result<DueChanges> {
        unopened()
    }
    async fn interrupted(&self) -> Result<Vec<ChangeId>> {
        unopened()
    }
    async fn settle(&self, _: ChangeId, _: Timestamp) -> Result<Option<Change>> {
        unopened()
    }
    fn can_send(&self) -> bool {
        false
    }
    fn state_counts(&self) -> StateCounts {
        StateCounts::default()
    }
}

#[async_trait]
impl ResultStore for UnopenedJournal {
    async fn store_callback(&self, _: ReceivedCallback) -> Result<Stored> {
        unopened()
    }
    fn expected_wait(&self) -> Duration {
        Duration::ZERO
    }
    async fn attribute(
        &self,
        _: RequestId,
        _: Option<Vec<Vec<ReportedId>>>,
        _: Option<u64>,
        _: Timestamp,
    ) -> Result<Attribution> {
        unopened()
    }
    async fn unattributed_requests(&self, _: ChangeId, _: usize) -> Result<Vec<RequestId>> {
        unopened()
    }
    async fn unmatched_results(
        &self,
        _: Timestamp,
        _: u64,
        _: usize,
    ) -> Result<Vec<UnmatchedResult>> {
        unopened()
    }
    async fn resolve_unmatched_result(
        &self,
        _: ChangeId,
        _: u64,
        _: Vec<ReportedId>,
        _: Timestamp,
    ) -> Result<bool> {
        unopened()
    }
}

#[async_trait]
impl EventStore for UnopenedJournal {
    async fn events(&self, _: WatchTarget, _: EventQuery) -> Result<EventPage> {
        unopened()
    }
    fn add_commit_listener(&self, _: Arc<dyn CommitListener>) {}
}

#[async_trait]
impl QuarantineStore for UnopenedJournal {
    async fn quarantine(&self, _: QuarantinedCallback, _: QuarantineLimits) -> Result<Option<u64>> {
        unopened()
    }
    async fn list_quarantined(&self, _: u64, _: usize) -> Result<Vec<(u64, QuarantinedCallback)>> {
        unopened()
    }
    async fn release_quarantined(&self, _: u64, _: ReceivedCallback) -> Result<Stored> {
        unopened()
    }
    async fn mark_quarantined_reviewed(&self, _: u64) -> Result<()> {
        unopened()
    }
    async fn drop_quarantined(&self, _: u64) -> Result<bool> {
        unopened()
    }
}

#[async_trait]
impl ForwardQueue for UnopenedJournal {
    async fn due_forwards(&self, _: Timestamp, _: usize, _: usize) -> Result<DueForwards> {
        unopened()
    }
    async fn record_forward_outcomes(&self, _: Vec<(u64, ForwardOutcome)>) -> Result<()> {
        unopened()
    }
    async fn expire_forwards(&self, _: Timestamp) -> Result<usize> {
        unopened()
    }
    async fn reschedule_forwards(&self, _: Timestamp) -> Result<usize> {
        unopened()
    }
    fn forward_queue_stats(&self) -> ForwardQueueStats {
        ForwardQueueStats::default()
    }
}

#[async_trait]
impl KeyValueStore for UnopenedJournal {
    async fn get_kv(&self, _: String) -> Result<Vec<u8>> {
        unopened()
    }
    async fn put_kv(&self, _: String, _: Vec<u8>) -> Result<()> {
        unopened()
    }
}

#[async_trait]
impl Journal for UnopenedJournal {
    fn epoch(&self) -> Epoch {
        Epoch(0)
    }
    fn origin(&self) -> &Origin {
        &self.0
    }
    fn info(&self) -> JournalInfo {
        JournalInfo {
            engine: "",
            durability: Durability::Relaxed,
            database_settings: String::new(),
        }
    }
    fn fingerprint(&self, _: &[u8]) -> [u8; 32] {
        [0; 32]
    }
    async fn kept_range(&self) -> Result<KeptRange> {
        unopened()
    }
    async fn trim(&self, _: Timestamp, _: u64) -> Result<bool> {
        unopened()
    }
    fn is_writable(&self) -> bool {
        false
    }
    async fn close(&self) {}
}
