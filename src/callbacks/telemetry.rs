//! Span and duration of each request, and the link of its span to the call that made the change.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{MatchedPath, Request, State},
    middleware::{Next, from_fn_with_state},
};
use http::Response;
use tokio::{sync::Semaphore, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    callbacks::state::AppState,
    domain::{change::Change, newtypes::RequestId},
    journal::ChangeSelector,
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

/// Measures requests.
struct CallbackTelemetry {
    state: Arc<AppState>,
    /// `http` or `https`.
    scheme: &'static str,
    draining: CancellationToken,
    link_permits: Arc<Semaphore>,
}

/// Adds the measurement to the routes. A drain shortens and ends the searches for changes.
pub(super) fn with_telemetry(
    routes: Router,
    state: Arc<AppState>,
    scheme: &'static str,
    draining: CancellationToken,
) -> Router {
    let link_permits = Arc::new(Semaphore::new(MAX_PENDING_LINKS));
    let telemetry = Arc::new(CallbackTelemetry { state, scheme, draining, link_permits });
    routes.layer(from_fn_with_state(telemetry, record_request))
}

async fn record_request(
    State(telemetry): State<Arc<CallbackTelemetry>>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let route = request.extensions().get::<MatchedPath>();
    let mut call = CallbackCall::begin(
        &telemetry.state.log.instruments,
        request.method(),
        route.map_or("(none)", MatchedPath::as_str),
        telemetry.scheme,
    );
    let response = next.run(request).await;
    call.record_response(response.status().as_u16());
    if let Some(StoredRequestId(request_id)) = response.extensions().get() {
        call.set_request(request_id.as_str());
        if call.is_sampled() {
            telemetry.link_to_change(call, request_id.clone());
        }
    }
    response
}

impl CallbackTelemetry {
    /// Links a span to its change, after the response and without delaying it.
    fn link_to_change(self: Arc<Self>, call: CallbackCall, request_id: RequestId) {
        let Ok(permit) = Arc::clone(&self.link_permits).try_acquire_owned() else {
            return;
        };
        let tasks = self.state.tasks.clone();
        tasks.spawn(async move {
            if let Some(change) = self.find_change(&request_id).await
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
            if let Ok(Some(change)) = self.state.journal.change(selector).await {
                return Some(change);
            }
            if self.draining.is_cancelled() {
                return None;
            }
        }
        None
    }
}
