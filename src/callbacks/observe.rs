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
const LOOKS: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(50),
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(4),
];

/// Observes requests.
pub(super) struct Observer {
    instruments: Instruments,
    journal: Arc<dyn Journal>,
    scheme: &'static str,
    /// Where the look for a change runs: a drain waits for it, and ends it.
    tasks: TaskTracker,
    ending: CancellationToken,
    places: Arc<Semaphore>,
}

/// The request that a stored callback belongs to: an answer says it to its observer.
#[derive(Clone)]
pub(super) struct Kept(pub(super) RequestId);

/// The routes, observed from outside.
pub(super) fn observed(routes: Router, observer: Observer) -> Router {
    routes.layer(from_fn_with_state(Arc::new(observer), observe))
}

/// Begins and ends a request's span, and measures it.
async fn observe(
    State(observer): State<Arc<Observer>>,
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
    call.answer(response.status().as_u16());
    if let Some(Kept(request_id)) = response.extensions().get() {
        observer.link(call, request_id.clone());
    }
    response
}

// === impl Observer ===

impl Observer {
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
            ending,
            places: Arc::new(Semaphore::new(MAX_WAITING)),
        }
    }

    /// Links a callback's span to the call that made its change, after the answer and without
    /// keeping anybody waiting.
    fn link(self: &Arc<Self>, call: CallbackCall, request_id: RequestId) {
        call.set_request(request_id.as_str());
        if !call.is_seen() {
            return;
        }
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return;
        };
        let this = Arc::clone(self);
        self.tasks.spawn(async move {
            if let Some(change) = this.owner(&request_id).await
                && let Some(trace) = &change.trace
            {
                call.link(&change.change_id.to_string(), trace.as_str());
            }
            drop(place);
        });
    }

    async fn owner(&self, request_id: &RequestId) -> Option<Change> {
        for wait in LOOKS {
            // A drain looks once more, at once.
            let _ending = timeout(wait, self.ending.cancelled()).await;
            let name = ChangeSelector::Request(request_id.clone());
            if let Ok(Some(change)) = self.journal.change(name).await {
                return Some(change);
            }
            if self.ending.is_cancelled() {
                return None;
            }
        }
        None
    }
}
