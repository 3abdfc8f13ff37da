//! A journal for tests of its callers: it stores callbacks in memory, and fails or hangs on demand.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    domain::newtypes::RequestId,
    journal::{
        CallbackJournal, CallbackStore, Fingerprinter, JournalError, NewResult, QuarantineLimits,
        QuarantinedCallback, ReceivedCallback, RequestChange, Result, Stored,
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

    /// Returns an error as of a journal that is unavailable.
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
impl CallbackStore for StubJournal {
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

    fn is_writable(&self) -> bool {
        true
    }
}

impl Fingerprinter for StubJournal {
    fn fingerprint(&self, _: &[u8]) -> [u8; 32] {
        [0; 32]
    }
}

#[async_trait::async_trait]
impl CallbackJournal for StubJournal {
    async fn quarantine(&self, _: QuarantinedCallback, _: QuarantineLimits) -> Result<Option<u64>> {
        unreachable!()
    }

    async fn change_of_request(&self, _: RequestId) -> Result<Option<RequestChange>> {
        unreachable!()
    }
}
