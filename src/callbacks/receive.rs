//! Authenticates, reads and stores a callback.

use std::{
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, header::CONNECTION, request::Parts};
use http_body::Body;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{
    background::FORWARDED_BY,
    callbacks::{
        append::{Append, outcome_of},
        auth::{ClientAddress, PathAuth},
        body::{self, BodyPermit, within},
        callback_log::LogContext,
        payload, quarantine,
        response::{self, Response, append_error},
        routes::{CallbackPath, RoutedPath},
        state::{AppState, RESPONSE_TIMEOUT},
        telemetry::StoredCallback,
    },
    connections::RequestGuard,
    domain::evidence::ResultService,
    journal::{ReceivedCallback, Stored},
    spool::Appended,
    telemetry::{CallbackOutcome, RejectionReason},
};

/// Time for the rest of the body of a request that was rejected before its authentication.
const UNAUTHENTICATED_BODY_TIMEOUT: Duration = Duration::from_millis(500);

/// A request on one of the callback routes.
struct CallbackRequest<'r> {
    path: &'r CallbackPath<'r>,
    parts: &'r Parts,
    client: ClientAddress,
}

impl AppState {
    /// Handles a request. Returns the response and, if `is_traced`, the request that a stored callback
    /// belongs to. `guard` protects the connection once the request is authenticated.
    pub(super) async fn handle(
        &self,
        routed: Option<RoutedPath<'_>>,
        parts: &Parts,
        body: impl Body<Data = Bytes> + Unpin,
        peer: SocketAddr,
        is_traced: bool,
        guard: &mut RequestGuard,
    ) -> (Response, Option<StoredCallback>) {
        let deadline = pin!(sleep_until(Instant::now() + RESPONSE_TIMEOUT));
        let client = self.authenticator.client_address(peer.ip(), &parts.headers);
        let reason = match routed {
            Some(_) if parts.method != Method::POST => RejectionReason::MethodNotAllowed,
            Some(routed) => match routed.decode() {
                Some(path) => {
                    let request = CallbackRequest { path: &path, parts, client };
                    return self.receive(&request, body, deadline, is_traced, guard).await;
                }
                None => RejectionReason::NotFound,
            },
            None => RejectionReason::NotFound,
        };
        let reason = match self.own_forward(&parts.headers) {
            Some(_) => RejectionReason::ForwardLoop,
            None => reason,
        };
        let client_ip = client.ip;
        let context = LogContext { route: "(none)", service: "-", account: "-", client_ip };
        (self.reject(reason, parts, body, deadline, context).await, None)
    }

    async fn receive(
        &self,
        request: &CallbackRequest<'_>,
        mut body: impl Body<Data = Bytes> + Unpin,
        mut deadline: Pin<&mut Sleep>,
        is_traced: bool,
        guard: &mut RequestGuard,
    ) -> (Response, Option<StoredCallback>) {
        match self.process(request, &mut body, deadline.as_mut(), is_traced, guard).await {
            Ok(done) => done,
            Err(reason) => {
                let context = self.log_context(request);
                if is_of_gateway(reason) {
                    let (time, outcome) = (self.clock.now(), CallbackOutcome::Rejected);
                    self.log.recent.push(request.path, time, outcome, Some(reason), None);
                }
                (self.reject(reason, request.parts, body, deadline, context).await, None)
            }
        }
    }

    /// Returns the loggable values of a request. The check of a name costs a hash, so only a log message asks.
    fn log_context<'r>(&self, request: &CallbackRequest<'r>) -> LogContext<'r> {
        let path = request.path;
        LogContext {
            route: path.route,
            service: self.authenticator.loggable_service(&path.service),
            account: self.authenticator.loggable_account(path.account.as_deref()),
            client_ip: request.client.ip,
        }
    }

    /// Stores a callback, or quarantines an unusable one with the correct path secret.
    async fn process(
        &self,
        request: &CallbackRequest<'_>,
        body: &mut (impl Body<Data = Bytes> + Unpin),
        mut deadline: Pin<&mut Sleep>,
        is_traced: bool,
        guard: &mut RequestGuard,
    ) -> Result<(Response, Option<StoredCallback>), RejectionReason> {
        let CallbackRequest { path, parts, client } = request;
        if self.own_forward(&parts.headers).is_some() {
            return Err(RejectionReason::ForwardLoop);
        }
        let path_auth = self.authenticator.authenticate_request(path.secret.as_deref(), *client)?;
        if path_auth == PathAuth::Verified {
            guard.protect();
        }
        self.check_append_deadline(deadline.deadline())?;
        let (bytes, permit) = self.body_budget.read(body, client.share, deadline.as_mut()).await?;
        let parsed = match payload::parse(&bytes) {
            Some(callback) => self
                .authenticator
                .authenticate_body(&path.service, path_auth, &callback)
                .map(|()| callback),
            None => Err(self.authenticator.malformed_body_rejection(path_auth)),
        };
        let callback = match parsed {
            Ok(callback) => callback,
            Err(reason) if path_auth == PathAuth::Verified => {
                let deadline = deadline.deadline();
                let stored = quarantine::store(self, path, reason, (bytes, permit), deadline);
                let id = stored.await?;
                let (time, outcome) = (self.clock.now(), CallbackOutcome::Quarantined);
                self.log.recent.push(path, time, outcome, Some(reason), Some(id));
                self.log.record_quarantined(reason, self.log_context(request));
                return Ok((response::quarantined(), None));
            }
            Err(reason) => return Err(reason),
        };
        drop(bytes);
        guard.protect();
        let receive_time = self.clock.now();
        let service = ResultService::from_name(&path.service);
        self.log.instruments.status().callback_received(service, receive_time);
        if !client.is_allowed {
            self.log.record_unlisted(self.log_context(request));
        }
        let request_id = is_traced.then(|| callback.result.request_id.clone());
        let received = ReceivedCallback {
            callback,
            account: path.account_name(),
            service: path.callback_service(),
            receive_time,
            forwarding: self.forwarding(),
        };
        let stored = self.store(received, permit, deadline).await?;
        if tracing::enabled!(tracing::Level::DEBUG) {
            let LogContext { route, service, .. } = self.log_context(request);
            tracing::debug!(route, service, ?stored, "callback stored");
        }
        self.log.recent.push(path, receive_time, outcome_of(&stored), None, None);
        let response = response::stored(&stored);
        let change = match stored {
            Appended::Stored(Stored::New(result)) => result.change,
            Appended::Stored(Stored::Duplicate) | Appended::Spooled => None,
        };
        let traced = request_id.map(|request_id| StoredCallback { request_id, change });
        Ok((response, traced))
    }

    /// Stores a callback: neither a disconnect nor the deadline stops the append.
    async fn store(
        &self,
        received: ReceivedCallback,
        permit: BodyPermit,
        deadline: Pin<&mut Sleep>,
    ) -> Result<Appended, RejectionReason> {
        self.check_append_deadline(deadline.deadline())?;
        let (journal, spool) = (Arc::clone(&self.journal), self.spool.clone());
        let respond_by = deadline.deadline();
        let append = async move {
            let _until_stored = permit;
            match spool {
                Some(spool) => spool.store(received, respond_by).await,
                None => journal.store_callback(received).await.map(Appended::Stored),
            }
        };
        let mut append = Append::new(append, &self.log.instruments, &self.tasks);
        match within(deadline, &mut append).await {
            Some(result) => result.map_err(|error| append_error(&error)),
            None => {
                append.reject();
                Err(RejectionReason::StoreTimeout)
            }
        }
    }

    /// Rejects a callback that neither the journal can store in time nor the spool: ThingSpace sends it again
    /// after a rejection.
    fn check_append_deadline(&self, deadline: Instant) -> Result<(), RejectionReason> {
        if self.spool.as_ref().is_some_and(|spool| spool.has_room()) {
            return Ok(());
        }
        if self.journal.expected_wait() > deadline.saturating_duration_since(Instant::now()) {
            return Err(RejectionReason::Overloaded);
        }
        Ok(())
    }

    /// Reads the rest of the body before it responds, so that the sender sees the response. A request that was rejected
    /// before its authentication has little time for this.
    async fn reject(
        &self,
        reason: RejectionReason,
        parts: &Parts,
        body: impl Body<Data = Bytes> + Unpin,
        mut deadline: Pin<&mut Sleep>,
        context: LogContext<'_>,
    ) -> Response {
        if is_unauthenticated(reason) {
            let earlier = deadline.deadline().min(Instant::now() + UNAUTHENTICATED_BODY_TIMEOUT);
            deadline.as_mut().reset(earlier);
        }
        let is_read = body::discard(body, deadline).await;
        self.log.record_rejected(reason, context);
        let mut response = response::rejected(reason, self.journal.expected_wait());
        if !is_read || reason == RejectionReason::IncompleteBody {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(id) = self.own_forward(&parts.headers) {
            response.headers_mut().insert(FORWARDED_BY, id.clone());
        }
        response
    }
}

/// True if a request is rejected for this reason because of the state of the gateway, not of the request.
fn is_of_gateway(reason: RejectionReason) -> bool {
    matches!(
        reason,
        RejectionReason::Overloaded
            | RejectionReason::StoreTimeout
            | RejectionReason::Unavailable
            | RejectionReason::QuarantineFull
    )
}

/// True if a request is rejected for this reason before its authentication.
fn is_unauthenticated(reason: RejectionReason) -> bool {
    matches!(
        reason,
        RejectionReason::NotFound
            | RejectionReason::WrongPathSecret
            | RejectionReason::MethodNotAllowed
            | RejectionReason::Forbidden
            | RejectionReason::ForwardLoop
    )
}
