//! The callback addresses, and what happens to what is sent there.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{RawPathParams, Request, State, rejection::RawPathParamsRejection},
    routing::post,
};
use http::{HeaderMap, HeaderValue, Response};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;

use super::{
    auth::{Authenticator, PathAuth},
    body::{self, BodyBudget, BodyPermit, BodyRead},
    callback_log::{self, CallbackLog, LogContext},
    response::{self, CallbackRefusal, RefusalResponse},
    telemetry::StoredRequestId,
};
use crate::{
    background::FORWARDED_BY,
    domain::{callback::Callback, clock::Clock, newtypes::CallbackService},
    journal::{ForwardOptions, Journal, JournalError, ReceivedCallback, Stored},
};

/// Bytes that a part of the path may have.
const MAX_SEGMENT: usize = 128;

/// What all requests share.
pub(super) struct AppState {
    pub(super) authenticator: Authenticator,
    pub(super) journal: Arc<dyn Journal>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) steady_clock: Arc<dyn Clock>,
    pub(super) log: CallbackLog,
    pub(super) tasks: TaskTracker,
    pub(super) body_budget: BodyBudget,
    pub(super) response_timeout: Duration,
    pub(super) quarantine_bytes: u64,
    pub(super) max_queued_forwards: Option<u64>,
    /// Id of this gateway in the loop header.
    pub(super) forwarder_id: String,
}

/// What was read.
enum CallbackDisposition {
    /// A callback that may be stored, and the room that it takes.
    Accepted(Box<Callback>, BodyPermit),
    /// One that cannot be used, for this reason, and is kept.
    Quarantined(CallbackRefusal),
}

/// Who has connected: each connection puts it into its requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// The parts of a request's path.
#[derive(Default)]
pub(super) struct CallbackPath {
    pub(super) account: Option<String>,
    pub(super) service: String,
    secret: Option<String>,
}

/// The routes.
pub(super) fn router(state: Arc<AppState>) -> Router {
    let mut router = Router::new();
    for route in [
        "/callbacks/{service}",
        "/callbacks/{service}/{secret}",
        "/accounts/{account}/callbacks/{service}",
        "/accounts/{account}/callbacks/{service}/{secret}",
    ] {
        router = router.route(
            route,
            post(move |state, parameters, request| {
                handle_callback(route, state, parameters, request)
            }),
        );
    }
    router
        .fallback(|State(state): State<Arc<AppState>>, request| async move {
            state
                .refuse_unrouted(CallbackRefusal::NoSuchPath, request)
                .await
        })
        .method_not_allowed_fallback(|State(state): State<Arc<AppState>>, request| async move {
            state
                .refuse_unrouted(CallbackRefusal::MethodNotAllowed, request)
                .await
        })
        .with_state(state)
}

async fn handle_callback(
    route: &'static str,
    State(state): State<Arc<AppState>>,
    parameters: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
) -> Response<Body> {
    match parameters
        .ok()
        .and_then(|parts| CallbackPath::from_params(&parts))
    {
        Some(target) => state.receive(route, &target, request).await,
        None => {
            state
                .refuse_unrouted(CallbackRefusal::NoSuchPath, request)
                .await
        }
    }
}

// === impl Target ===

impl CallbackPath {
    /// None when a part is longer than any name.
    fn from_params(parameters: &RawPathParams) -> Option<Self> {
        let mut target = Self::default();
        for (name, value) in parameters {
            if value.len() > MAX_SEGMENT {
                return None;
            }
            match name {
                "account" => target.account = Some(value.to_owned()),
                "service" => target.service = value.to_owned(),
                _ => target.secret = Some(value.to_owned()),
            }
        }
        Some(target)
    }
}

// === impl Room ===

impl AppState {
    async fn receive(
        &self,
        route: &'static str,
        target: &CallbackPath,
        request: Request,
    ) -> Response<Body> {
        let deadline = Instant::now() + self.response_timeout;
        let (parts, body) = request.into_parts();
        let peer = peer(&parts.extensions);
        let source = self.authenticator.client_address(peer, &parts.headers);
        let context = LogContext {
            route,
            service: self.authenticator.loggable_service(&target.service),
            account: target
                .account
                .as_deref()
                .and_then(|account| self.authenticator.loggable_account(account)),
            source: source.ip,
        };

        let admitted = match self.own_forward(&parts.headers) {
            Some(id) => Err(RefusalResponse::forward_loop(id.clone())),
            None => self
                .authenticator
                .authenticate_request(target.secret.as_deref(), source)
                .map_err(RefusalResponse::from),
        };
        let admitted =
            admitted.and_then(|proof| self.check_append_deadline(deadline).map(|()| proof));
        let proof = match admitted {
            Ok(proof) => proof,
            Err(refused) => {
                return self
                    .discard_and_refuse(refused, body, deadline, context)
                    .await;
            }
        };
        let (callback, permit) = match self.read_callback(target, proof, body, deadline).await {
            Ok(CallbackDisposition::Accepted(callback, permit)) => (*callback, permit),
            Ok(CallbackDisposition::Quarantined(reason)) => {
                self.log.record_quarantined(reason, context);
                return response::quarantined();
            }
            Err(refused) => return self.refuse(&refused, context),
        };
        if !source.is_allowed {
            self.log.record_unlisted(context);
        }
        let arrival = ReceivedCallback {
            callback,
            account: self.account(target),
            service: CallbackService::parse(target.service.as_str()).ok(),
            receive_time: self.clock.now(),
            forwarding: self.forwarding(),
        };
        let request_id = arrival.callback.result.request_id.clone();
        match self.store(arrival, permit, deadline).await {
            Ok(stored) => {
                tracing::debug!(
                    route,
                    service = context.service,
                    ?stored,
                    "a callback is stored"
                );
                let mut response = response::stored(stored);
                response
                    .extensions_mut()
                    .insert(StoredRequestId(request_id));
                response
            }
            Err(refused) => self.refuse(&refused, context),
        }
    }

    /// Reads a callback and judges it. One that cannot be used is kept where it
    /// came behind the right path secret.
    async fn read_callback(
        &self,
        target: &CallbackPath,
        proof: PathAuth,
        body: Body,
        deadline: Instant,
    ) -> Result<CallbackDisposition, RefusalResponse> {
        let (bytes, permit) = match body::read_bounded(body, &self.body_budget, deadline).await {
            BodyRead::Complete(bytes, permit) => (bytes, permit),
            BodyRead::TooLarge {
                is_fully_read: ended,
            } => {
                return Err(RefusalResponse {
                    close_connection: !ended,
                    ..CallbackRefusal::TooLarge.into()
                });
            }
            BodyRead::OverBudget {
                is_fully_read: ended,
            } => {
                return Err(RefusalResponse {
                    close_connection: !ended,
                    ..RefusalResponse::busy(self.journal.expected_wait())
                });
            }
            BodyRead::Incomplete => {
                return Err(RefusalResponse {
                    close_connection: true,
                    ..CallbackRefusal::Incomplete.into()
                });
            }
        };
        let judged = match Callback::parse(&bytes) {
            Ok(callback) => self
                .authenticator
                .authenticate_body(&target.service, proof, &callback)
                .map(|()| callback),
            Err(_) => Err(self.authenticator.malformed_body_refusal(proof)),
        };
        match judged {
            Ok(callback) => Ok(CallbackDisposition::Accepted(Box::new(callback), permit)),
            Err(refusal) if proof == PathAuth::Verified => {
                self.quarantine(target, refusal, (bytes, permit), deadline)
                    .await?;
                Ok(CallbackDisposition::Quarantined(refusal))
            }
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// Returns the loop header if this gateway has forwarded the request.
    fn own_forward<'h>(&self, headers: &'h HeaderMap) -> Option<&'h HeaderValue> {
        let mut ids = headers.get_all(FORWARDED_BY).iter();
        ids.find(|id| id.as_bytes() == self.forwarder_id.as_bytes())
    }

    /// How what is stored now is passed on.
    pub(super) fn forwarding(&self) -> Option<ForwardOptions> {
        let now = self.clock.now();
        self.max_queued_forwards.map(|most| ForwardOptions {
            max_queued: most,
            now,
        })
    }

    /// Stores a callback on a task of its own: a sender that hangs up, or a
    /// deadline that passes, ends the wait and not the append.
    async fn store(
        &self,
        arrival: ReceivedCallback,
        permit: BodyPermit,
        deadline: Instant,
    ) -> Result<Stored, RefusalResponse> {
        self.check_append_deadline(deadline)?;
        let journal = Arc::clone(&self.journal);
        let instruments = self.log.instruments.clone();
        let append = self.tasks.spawn(async move {
            let _until_stored = permit;
            let stored = journal.store_callback(arrival).await;
            if let Ok(stored) = stored {
                callback_log::count_stored(&instruments, stored);
            }
            stored
        });
        match timeout_at(deadline, append).await {
            Ok(Ok(Ok(stored))) => Ok(stored),
            Ok(Ok(Err(JournalError::Overloaded))) => {
                Err(RefusalResponse::busy(self.journal.expected_wait()))
            }
            Ok(Ok(Err(error))) => {
                tracing::debug!(%error, "a callback could not be stored");
                Err(CallbackRefusal::Unavailable.into())
            }
            // Whether it was stored is not known.
            Ok(Err(_)) | Err(_) => Err(CallbackRefusal::Late.into()),
        }
    }

    /// Refuses what the journal cannot store in time anyway: ThingSpace sends
    /// again after a refusal, and gives up waiting after about 4 s.
    fn check_append_deadline(&self, deadline: Instant) -> Result<(), RefusalResponse> {
        let wait = self.journal.expected_wait();
        if wait > deadline.saturating_duration_since(Instant::now()) {
            return Err(RefusalResponse::busy(wait));
        }
        Ok(())
    }

    async fn refuse_unrouted(&self, refusal: CallbackRefusal, request: Request) -> Response<Body> {
        let deadline = Instant::now() + self.response_timeout;
        let (parts, body) = request.into_parts();
        let peer = peer(&parts.extensions);
        let context = LogContext {
            route: "(none)",
            service: None,
            account: None,
            source: self.authenticator.client_address(peer, &parts.headers).ip,
        };
        let refusal = match self.own_forward(&parts.headers) {
            Some(id) => RefusalResponse::forward_loop(id.clone()),
            None => refusal.into(),
        };
        self.discard_and_refuse(refusal, body, deadline, context)
            .await
    }

    /// Refuses once the body is read, so that the sender sees the answer.
    async fn discard_and_refuse(
        &self,
        mut refused: RefusalResponse,
        body: Body,
        deadline: Instant,
        context: LogContext<'_>,
    ) -> Response<Body> {
        refused.close_connection = !body::discard(body, deadline).await;
        self.refuse(&refused, context)
    }

    fn refuse(&self, refused: &RefusalResponse, context: LogContext<'_>) -> Response<Body> {
        self.log.record_refused(refused.refusal, context);
        refused.to_response()
    }
}

fn peer(extensions: &http::Extensions) -> IpAddr {
    extensions
        .get::<Peer>()
        .map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.0)
}
