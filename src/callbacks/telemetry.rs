//! What is told of each request: how long it took, and whose result it brought.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{MatchedPath, Request, State},
    middleware::{Next, from_fn_with_state},
};
use http::Response;
use tokio::{sync::Semaphore, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    domain::{change::Change, newtypes::RequestId},
    journal::{ChangeSelector, Journal},
    telemetry::{CallbackCall, Instruments},
};

/// Spans that may wait at a time for the change that they belong to; more go out without a link.
const MAX_WAITING: usize = 1_024;
/// When the change is looked for: at once, and again because a callback may come before the answer
/// that binds its request.
const LINK_RETRY_DELAYS: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(50),
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(4),
];

/// Observes requests.
pub(super) struct CallbackTelemetry {
    instruments: Instruments,
    journal: Arc<dyn Journal>,
    scheme: &'static str,
    /// Where the look for a change runs: a drain waits for it, and ends it.
    tasks: TaskTracker,
    draining: CancellationToken,
    link_permits: Arc<Semaphore>,
}

/// The request that a stored callback belongs to: an answer says it to its observer.
#[derive(Clone)]
pub(super) struct StoredRequestId(pub(super) RequestId);

/// The routes, observed from outside.
pub(super) fn with_telemetry(routes: Router, observer: CallbackTelemetry) -> Router {
    routes.layer(from_fn_with_state(Arc::new(observer), record_request))
}

/// Begins and ends a request's span, and measures it.
async fn record_request(
    State(observer): State<Arc<CallbackTelemetry>>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let route = request.extensions().get::<MatchedPath>();
    let mut call = CallbackCall::begin(
        &observer.instruments,
        request.method(),
        route.map_or("(none)", MatchedPath::as_str),
        observer.scheme,
    );
    let response = next.run(request).await;
    call.record_response(response.status().as_u16());
    if let Some(StoredRequestId(request_id)) = response.extensions().get() {
        observer.link_to_change(call, request_id.clone());
    }
    response
}

// === impl Observer ===

impl CallbackTelemetry {
    pub(super) fn new(
        instruments: Instruments,
        journal: Arc<dyn Journal>,
        scheme: &'static str,
        tasks: TaskTracker,
        ending: CancellationToken,
    ) -> Self {
        Self {
            instruments,
            journal,
            scheme,
            tasks,
            draining: ending,
            link_permits: Arc::new(Semaphore::new(MAX_WAITING)),
        }
    }

    /// Links a callback's span to the call that made its change, after the answer and without
    /// keeping anybody waiting.
    fn link_to_change(self: &Arc<Self>, call: CallbackCall, request_id: RequestId) {
        call.set_request(request_id.as_str());
        if !call.is_sampled() {
            return;
        }
        let Ok(permit) = Arc::clone(&self.link_permits).try_acquire_owned() else {
            return;
        };
        let this = Arc::clone(self);
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
        for wait in LINK_RETRY_DELAYS {
            // A drain looks once more, at once.
            let _ending = timeout(wait, self.draining.cancelled()).await;
            let name = ChangeSelector::Request(request_id.clone());
            if let Ok(Some(change)) = self.journal.change(name).await {
                return Some(change);
            }
            if self.draining.is_cancelled() {
                return None;
            }
        }
        None
    }
}
