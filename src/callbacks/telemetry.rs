//! Span and duration of each request, and the link of its span to the call that made the change.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body::Body;
use tokio::{sync::Semaphore, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    callbacks::{response::Response, routes, state::AppState},
    connections::{RequestGuard, ShareKey},
    domain::{
        newtypes::{ChangeId, RequestId},
        trace::TraceParent,
    },
    journal::RequestChange,
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

/// A stored callback, to trace it.
pub(super) struct StoredCallback {
    /// The request that it belongs to.
    pub(super) request_id: RequestId,
    /// The change that made the request, with the trace of its call, if the journal has returned it.
    pub(super) change: Option<RequestChange>,
}

/// Handles and measures requests.
pub(super) struct CallbackService {
    state: Arc<AppState>,
    /// `http` or `https`.
    scheme: &'static str,
    draining: CancellationToken,
    link_permits: Arc<Semaphore>,
}

impl CallbackService {
    /// Creates the service. A drain shortens and ends the searches for changes.
    pub(super) fn new(
        state: Arc<AppState>,
        scheme: &'static str,
        draining: CancellationToken,
    ) -> Arc<Self> {
        let link_permits = Arc::new(Semaphore::new(MAX_PENDING_LINKS));
        Arc::new(Self { state, scheme, draining, link_permits })
    }

    /// Returns the share of the connections that an address has. `None` if it may use all of them.
    pub(super) fn connection_share(&self, peer: IpAddr) -> Option<ShareKey> {
        self.state.authenticator.connection_share(peer)
    }

    /// Handles a request. It protects its connection once it is authenticated.
    pub(super) async fn handle(
        self: Arc<Self>,
        request: Request<impl Body<Data = Bytes> + Unpin>,
        peer: SocketAddr,
        mut guard: RequestGuard,
    ) -> Response {
        let (parts, body) = request.into_parts();
        let routed = routes::find(parts.uri.path());
        let route = routed.map_or("(none)", |routed| routed.route);
        let instruments = &self.state.log.instruments;
        let mut call = CallbackCall::begin(instruments, &parts.method, route, self.scheme);
        let is_sampled = call.is_sampled();
        let handled = self.state.handle(routed, &parts, body, peer, is_sampled, &mut guard);
        let (response, stored) = handled.await;
        call.record_response(response.status().as_u16());
        if let Some(stored) = stored {
            call.set_request(stored.request_id.as_str());
            match stored.change {
                Some((change_id, Some(trace))) => link(&call, change_id, &trace),
                Some((_, None)) => {}
                None => self.search_change(call, stored.request_id),
            }
        }
        response
    }

    /// Links a span to its change, after the response and without delaying it.
    fn search_change(self: Arc<Self>, call: CallbackCall, request_id: RequestId) {
        let Ok(permit) = Arc::clone(&self.link_permits).try_acquire_owned() else {
            return;
        };
        let tasks = self.state.tasks.clone();
        tasks.spawn(async move {
            if let Some((change_id, Some(trace))) = self.find_change(request_id).await {
                link(&call, change_id, &trace);
            }
            drop(permit);
        });
    }

    async fn find_change(&self, request_id: RequestId) -> Option<RequestChange> {
        for delay in LINK_RETRY_DELAYS {
            // A drain causes one last search at once.
            let _draining = timeout(delay, self.draining.cancelled()).await;
            let found = self.state.journal.change_of_request(request_id.clone()).await;
            if let Ok(Some(change)) = found {
                return Some(change);
            }
            if self.draining.is_cancelled() {
                return None;
            }
        }
        None
    }
}

fn link(call: &CallbackCall, change_id: ChangeId, trace: &TraceParent) {
    call.link(&change_id.to_string(), trace.as_str());
}
