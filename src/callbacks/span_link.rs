//! Links the span of a callback to the call that made its change.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Semaphore, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    domain::{change::Change, newtypes::RequestId},
    journal::{ChangeSelector, Journal},
    telemetry::CallbackCall,
};

/// Maximum number of spans that wait for their change. Further ones stay without a link.
const MAX_PENDING_LINKS: usize = 1_024;
/// Delays of the searches for a change. A callback can precede the response that names its request.
const LINK_RETRY_DELAYS: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(50),
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(4),
];

/// Request of a stored callback. An extension of its response.
#[derive(Clone)]
pub(super) struct StoredRequestId(pub(super) RequestId);

/// Searches for changes in the background.
#[derive(Clone)]
pub(super) struct SpanLinker {
    journal: Arc<dyn Journal>,
    tasks: TaskTracker,
    draining: CancellationToken,
    permits: Arc<Semaphore>,
}

impl SpanLinker {
    /// Runs the searches in `tasks`. A drain shortens and ends them.
    pub(super) fn new(
        journal: Arc<dyn Journal>,
        tasks: TaskTracker,
        draining: CancellationToken,
    ) -> Self {
        Self { journal, tasks, draining, permits: Arc::new(Semaphore::new(MAX_PENDING_LINKS)) }
    }

    /// Links a span to its change, after the response and without delaying it.
    pub(super) fn link_to_change(&self, call: CallbackCall, request_id: RequestId) {
        call.set_request(request_id.as_str());
        if !call.is_sampled() {
            return;
        }
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            return;
        };
        let this = self.clone();
        self.tasks.spawn(async move {
            if let Some(change) = this.find_change(&request_id).await
                && let Some(trace) = &change.trace
            {
                call.link(&change.change_id.to_string(), trace.as_str());
            }
            drop(permit);
        });
    }

    async fn find_change(&self, request_id: &RequestId) -> Option<Change> {
        for delay in LINK_RETRY_DELAYS {
            // A drain causes one last search at once.
            let _draining = timeout(delay, self.draining.cancelled()).await;
            let selector = ChangeSelector::Request(request_id.clone());
            if let Ok(Some(change)) = self.journal.change(selector).await {
                return Some(change);
            }
            if self.draining.is_cancelled() {
                return None;
            }
        }
        None
    }
}
