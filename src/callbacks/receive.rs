//! Authenticates, reads and stores a callback.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{body::Body, extract::Request};
use http::{Response, request};
use tokio::time::{Instant, timeout_at};

use crate::{
    callbacks::{
        auth::{ClientAddress, PathAuth},
        body::{self, BodyPermit, BodyRead},
        callback_log::{self, LogContext},
        client_ip::peer_ip,
        path::CallbackPath,
        payload, quarantine,
        response::{self, RejectionResponse},
        span_link::StoredRequestId,
        state::{AppState, RESPONSE_TIMEOUT},
    },
    domain::callback::Callback,
    journal::{JournalError, ReceivedCallback, Stored},
    telemetry::RejectionReason,
};

/// A callback that was read.
enum CallbackDisposition {
    /// It may be stored. The permit covers its body.
    Accepted(Box<Callback>, BodyPermit),
    /// It is in the quarantine for this reason.
    Quarantined(RejectionReason),
}

impl AppState {
    /// Handles a request on one of the callback routes.
    pub(super) async fn receive(
        &self,
        route: &'static str,
        path: &CallbackPath,
        request: Request,
    ) -> Response<Body> {
        let deadline = Instant::now() + RESPONSE_TIMEOUT;
        let (parts, body) = request.into_parts();
        let client = self.client_address(&parts);
        let context = LogContext {
            route,
            service: self.authenticator.loggable_service(&path.service),
            account: path
                .account
                .as_deref()
                .and_then(|account| self.authenticator.loggable_account(account)),
            client_ip: client.ip,
        };
        let path_auth = match self.admit(path, &parts, client, deadline) {
            Ok(path_auth) => path_auth,
            Err(rejection) => {
                return self.discard_and_reject(rejection, body, deadline, context).await;
            }
        };
        let (callback, permit) = match self.read(path, path_auth, body, deadline).await {
            Ok(CallbackDisposition::Accepted(callback, permit)) => (*callback, permit),
            Ok(CallbackDisposition::Quarantined(reason)) => {
                self.log.record_quarantined(reason, context);
                return response::quarantined();
            }
            Err(rejection) => return self.reject(&rejection, context),
        };
        if !client.is_allowed {
            self.log.record_unlisted(context);
        }
        let received = ReceivedCallback {
            callback,
            account: path.account_name(),
            service: path.callback_service(),
            receive_time: self.clock.now(),
            forwarding: self.forwarding(),
        };
        let request_id = received.callback.result.request_id.clone();
        match self.store(received, permit, deadline).await {
            Ok(stored) => {
                tracing::debug!(route, service = context.service, ?stored, "callback stored");
                let mut response = response::stored(stored);
                response.extensions_mut().insert(StoredRequestId(request_id));
                response
            }
            Err(rejection) => self.reject(&rejection, context),
        }
    }

    /// Rejects a request that matches no route or method.
    pub(super) async fn reject_unrouted(
        &self,
        rejection: RejectionReason,
        request: Request,
    ) -> Response<Body> {
        let deadline = Instant::now() + RESPONSE_TIMEOUT;
        let (parts, body) = request.into_parts();
        let context = LogContext {
            route: "(none)",
            service: None,
            account: None,
            client_ip: self.client_address(&parts).ip,
        };
        let rejection = match self.own_forward(&parts.headers) {
            Some(id) => RejectionResponse::forward_loop(id.clone()),
            None => rejection.into(),
        };
        self.discard_and_reject(rejection, body, deadline, context).await
    }

    fn client_address(&self, parts: &request::Parts) -> ClientAddress {
        let peer = peer_ip(&parts.extensions);
        self.authenticator.client_address(peer, &parts.headers)
    }

    /// Decides whether to read the body.
    fn admit(
        &self,
        path: &CallbackPath,
        parts: &request::Parts,
        client: ClientAddress,
        deadline: Instant,
    ) -> Result<PathAuth, RejectionResponse> {
        if let Some(id) = self.own_forward(&parts.headers) {
            return Err(RejectionResponse::forward_loop(id.clone()));
        }
        let path_auth = self.authenticator.authenticate_request(path.secret.as_deref(), client)?;
        self.check_append_deadline(deadline)?;
        Ok(path_auth)
    }

    /// Reads and authenticates a callback. Quarantines an unusable one with the correct path secret.
    async fn read(
        &self,
        path: &CallbackPath,
        path_auth: PathAuth,
        body: Body,
        deadline: Instant,
    ) -> Result<CallbackDisposition, RejectionResponse> {
        let (bytes, permit) = match body::read_bounded(body, &self.body_budget, deadline).await {
            BodyRead::Complete(bytes, permit) => (bytes, permit),
            BodyRead::TooLarge { is_fully_read } => {
                return Err(RejectionResponse {
                    close_connection: !is_fully_read,
                    ..RejectionReason::TooLarge.into()
                });
            }
            BodyRead::OverBudget { is_fully_read } => {
                return Err(RejectionResponse {
                    close_connection: !is_fully_read,
                    ..RejectionResponse::busy(self.journal.expected_wait())
                });
            }
            BodyRead::Incomplete => {
                return Err(RejectionResponse {
                    close_connection: true,
                    ..RejectionReason::IncompleteBody.into()
                });
            }
        };
        let result = match payload::parse(&bytes) {
            Ok(callback) => self
                .authenticator
                .authenticate_body(&path.service, path_auth, &callback)
                .map(|()| callback),
            Err(_) => Err(self.authenticator.malformed_body_rejection(path_auth)),
        };
        match result {
            Ok(callback) => Ok(CallbackDisposition::Accepted(Box::new(callback), permit)),
            Err(reason) if path_auth == PathAuth::Verified => {
                quarantine::store(self, path, reason, (bytes, permit), deadline).await?;
                Ok(CallbackDisposition::Quarantined(reason))
            }
            Err(rejection) => Err(rejection.into()),
        }
    }

    /// Stores a callback in a separate task: neither a disconnect nor the deadline stops the append.
    async fn store(
        &self,
        received: ReceivedCallback,
        permit: BodyPermit,
        deadline: Instant,
    ) -> Result<Stored, RejectionResponse> {
        self.check_append_deadline(deadline)?;
        let journal = Arc::clone(&self.journal);
        let instruments = self.log.instruments.clone();
        // Set by the first of task and deadline: a callback counts as stored or as rejected, not both.
        let is_counted = Arc::new(AtomicBool::new(false));
        let is_rejected = Arc::clone(&is_counted);
        let mut append = self.tasks.spawn(async move {
            let _until_stored = permit;
            let stored = journal.store_callback(received).await;
            match stored {
                _ if is_rejected.swap(true, Ordering::Relaxed) => {
                    if stored.is_ok() {
                        instruments.callback_stored_after_timeout();
                    }
                }
                Ok(stored) => callback_log::count_stored(&instruments, stored),
                Err(_) => {}
            }
            stored
        });
        let result = match timeout_at(deadline, &mut append).await {
            Ok(result) => result,
            Err(_) if is_counted.swap(true, Ordering::Relaxed) => append.await,
            Err(_) => return Err(RejectionReason::StoreTimeout.into()),
        };
        match result {
            Ok(Ok(stored)) => Ok(stored),
            Ok(Err(JournalError::Overloaded)) => {
                Err(RejectionResponse::busy(self.journal.expected_wait()))
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "cannot store a callback");
                Err(RejectionReason::Unavailable.into())
            }
            Err(_) => Err(RejectionReason::StoreTimeout.into()),
        }
    }

    /// Rejects a callback that the journal cannot store in time: ThingSpace sends it again after a
    /// rejection.
    fn check_append_deadline(&self, deadline: Instant) -> Result<(), RejectionResponse> {
        let wait = self.journal.expected_wait();
        if wait > deadline.saturating_duration_since(Instant::now()) {
            return Err(RejectionResponse::busy(wait));
        }
        Ok(())
    }

    /// Reads the body before it responds, so that the sender sees the response.
    async fn discard_and_reject(
        &self,
        mut rejection: RejectionResponse,
        body: Body,
        deadline: Instant,
        context: LogContext<'_>,
    ) -> Response<Body> {
        rejection.close_connection = !body::discard(body, deadline).await;
        self.reject(&rejection, context)
    }

    fn reject(&self, rejection: &RejectionResponse, context: LogContext<'_>) -> Response<Body> {
        self.log.record_rejected(rejection.reason, context);
        rejection.to_response()
    }
}
