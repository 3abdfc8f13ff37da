//! A journal for tests of its callers: it stores callbacks in memory, and fails or hangs on demand.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::Notify;

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
        CommitListener, DeviceFilter, DueChanges, DueForwards, Epoch, EventPage, EventQuery,
        EventStore, ForwardOutcome, ForwardQueue, ForwardQueueStats, Intent, Journal, JournalError,
        JournalInfo, KeptRange, KeyValueStore, NewResult, Origin, QuarantineLimits,
        QuarantineStore, QuarantinedCallback, ReceivedCallback, Reservation, Result, ResultStore,
        StateCounts, Step, Stored, UnmatchedResult, WatchTarget,
    },
};

/// The steps of a call of `store_callback`.
#[derive(Debug, Clone, Default)]
pub(crate) enum StoreStep {
    /// Stores the callback when the test releases it.
    #[default]
    StoreWhenReleased,
    Store,
    Fail(JournalError),
    /// Stores the callback, and reports a failure all the same.
    StoreAndFail(JournalError),
    /// Never answers.
    Hang,
    /// Stores the callback, and never answers.
    StoreAndHang,
}

/// Selects the step of a call.
pub(crate) type StoreScript = Box<dyn FnMut(&ReceivedCallback) -> StoreStep + Send>;

/// A journal of callbacks only, in memory.
pub(crate) struct StubJournal {
    /// The wait that it reports.
    pub(crate) wait: Duration,
    pub(crate) script: Mutex<StoreScript>,
    /// The callbacks in the order of their positions.
    pub(crate) stored: Mutex<Vec<ReceivedCallback>>,
    pub(crate) store_called: Notify,
    pub(crate) release: Notify,
}

impl Default for StubJournal {
    fn default() -> Self {
        Self::with_step(StoreStep::default())
    }
}

impl StubJournal {
    pub(crate) fn with_step(step: StoreStep) -> Self {
        Self {
            wait: Duration::ZERO,
            script: Mutex::new(Box::new(move |_| step.clone())),
            stored: Mutex::default(),
            store_called: Notify::new(),
            release: Notify::new(),
        }
    }

    pub(crate) fn set_step(&self, step: StoreStep) {
        *self.script.lock() = Box::new(move |_| step.clone());
    }

    /// Returns an error as of a journal that is away.
    pub(crate) fn unavailable() -> JournalError {
        JournalError::Unavailable("it is away".to_owned())
    }

    fn store(&self, received: ReceivedCallback) -> Stored {
        let mut stored = self.stored.lock();
        let key = |received: &ReceivedCallback| {
            (received.callback.result.request_id.clone(), received.callback.digest)
        };
        if stored.iter().any(|other| key(other) == key(&received)) {
            return Stored::Duplicate;
        }
        stored.push(received);
        let position = u64::try_from(stored.len()).unwrap();
        Stored::New(NewResult { position, change: None })
    }
}

#[async_trait::async_trait]
impl ChangeStore for StubJournal {
    async fn claim(&self, _: Intent) -> Result<Claim> {
        unreachable!()
    }
    async fn check_claim(&self, _: Intent) -> Result<Claim> {
        unreachable!()
    }
    async fn apply(&self, _: Step) -> Result<Change> {
        unreachable!()
    }
    async fn reserve(&self) -> Result<Box<dyn Reservation>> {
        unreachable!()
    }
    async fn change(&self, _: ChangeSelector) -> Result<Option<Change>> {
        unreachable!()
    }
    async fn changes(&self, _: ChangeFilter) -> Result<ChangePage> {
        unreachable!()
    }
    async fn devices(&self, _: ChangeId, _: DeviceFilter) -> Result<Vec<ChangeDevice>> {
        unreachable!()
    }
    async fn due_changes(&self, _: ChangeState, _: Timestamp, _: Timestamp) -> Result<DueChanges> {
        unreachable!()
    }
    async fn interrupted(&self) -> Result<Vec<ChangeId>> {
        unreachable!()
    }
    async fn settle(&self, _: ChangeId, _: Timestamp) -> Result<Option<Change>> {
        unreachable!()
    }
    fn can_send(&self) -> bool {
        unreachable!()
    }
    fn state_counts(&self) -> StateCounts {
        unreachable!()
    }
}

#[async_trait::async_trait]
impl ResultStore for StubJournal {
    async fn store_callback(&self, received: ReceivedCallback) -> Result<Stored> {
        self.store_called.notify_one();
        let step = (*self.script.lock())(&received);
        match step {
            StoreStep::StoreWhenReleased => {
                self.release.notified().await;
                Ok(self.store(received))
            }
            StoreStep::Store => Ok(self.store(received)),
            StoreStep::Fail(error) => Err(error),
            StoreStep::StoreAndFail(error) => {
                self.store(received);
                Err(error)
            }
            StoreStep::Hang => std::future::pending().await,
            StoreStep::StoreAndHang => {
                self.store(received);
                std::future::pending().await
            }
        }
    }
    fn expected_wait(&self) -> Duration {
        self.wait
    }
    async fn attribute(
        &self,
        _: RequestId,
        _: Option<Vec<Vec<ReportedId>>>,
        _: Option<u64>,
        _: Timestamp,
    ) -> Result<Attribution> {
        unreachable!()
    }
    async fn unattributed_requests(&self, _: ChangeId, _: usize) -> Result<Vec<RequestId>> {
        unreachable!()
    }
    async fn unmatched_results(
        &self,
        _: Timestamp,
        _: u64,
        _: usize,
    ) -> Result<Vec<UnmatchedResult>> {
        unreachable!()
    }
    async fn resolve_unmatched_result(
        &self,
        _: ChangeId,
        _: u64,
        _: Vec<ReportedId>,
        _: Timestamp,
    ) -> Result<bool> {
        unreachable!()
    }
}

#[async_trait::async_trait]
impl EventStore for StubJournal {
    async fn events(&self, _: WatchTarget, _: EventQuery) -> Result<EventPage> {
        unreachable!()
    }
    fn add_commit_listener(&self, _: Arc<dyn CommitListener>) {}
}

#[async_trait::async_trait]
impl QuarantineStore for StubJournal {
    async fn quarantine(&self, _: QuarantinedCallback, _: QuarantineLimits) -> Result<Option<u64>> {
        unreachable!()
    }
    async fn list_quarantined(&self, _: u64, _: usize) -> Result<Vec<(u64, QuarantinedCallback)>> {
        unreachable!()
    }
    async fn release_quarantined(&self, _: u64, _: ReceivedCallback) -> Result<Stored> {
        unreachable!()
    }
    async fn mark_quarantined_reviewed(&self, _: u64) -> Result<()> {
        unreachable!()
    }
    async fn drop_quarantined(&self, _: u64) -> Result<bool> {
        unreachable!()
    }
}

#[async_trait::async_trait]
impl ForwardQueue for StubJournal {
    async fn due_forwards(&self, _: Timestamp, _: usize, _: usize) -> Result<DueForwards> {
        unreachable!()
    }
    async fn record_forward_outcomes(&self, _: Vec<(u64, ForwardOutcome)>) -> Result<()> {
        unreachable!()
    }
    async fn expire_forwards(&self, _: Timestamp) -> Result<usize> {
        unreachable!()
    }
    async fn reschedule_forwards(&self, _: Timestamp) -> Result<usize> {
        unreachable!()
    }
    fn forward_queue_stats(&self) -> ForwardQueueStats {
        unreachable!()
    }
}

#[async_trait::async_trait]
impl KeyValueStore for StubJournal {
    async fn get_kv(&self, _: String) -> Result<Vec<u8>> {
        unreachable!()
    }
    async fn put_kv(&self, _: String, _: Vec<u8>) -> Result<()> {
        unreachable!()
    }
}

#[async_trait::async_trait]
impl Journal for StubJournal {
    fn epoch(&self) -> Epoch {
        unreachable!()
    }
    fn origin(&self) -> &Origin {
        unreachable!()
    }
    fn info(&self) -> JournalInfo {
        unreachable!()
    }
    fn fingerprint(&self, _: &[u8]) -> [u8; 32] {
        [0; 32]
    }
    async fn kept_range(&self) -> Result<KeptRange> {
        unreachable!()
    }
    async fn trim(&self, _: Timestamp, _: u64) -> Result<bool> {
        unreachable!()
    }
    fn is_writable(&self) -> bool {
        true
    }
    async fn close(&self) {}
}
