//! Authenticates, reads and stores a callback.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    body::Body,
    extract::{ConnectInfo, Request},
};
use http::{HeaderValue, Response, header::CONNECTION, request::Parts};
use tokio::time::{Instant, timeout_at};

use crate::{
    background::FORWARDED_BY,
    callbacks::{
        auth::{ClientAddress, PathAuth},
        body::{self, BodyPermit},
        callback_log::LogContext,
        payload, quarantine, response,
        routes::CallbackPath,
        state::{AppState, RESPONSE_TIMEOUT},
        telemetry::StoredRequestId,
    },
    journal::{ReceivedCallback, Stored},
    telemetry::{CallbackOutcome, RejectionReason},
};

impl AppState {
    /// Handles a request on one of the callback routes.
    pub(super) async fn receive(
        &self,
        route: &'static str,
        path: &CallbackPath,
        request: Request,
    ) -> Response<Body> {
        let deadline = Instant::now() + RESPONSE_TIMEOUT;
        let (parts, mut body) = request.into_parts();
        let client = self.client_address(&parts);
        let context = LogContext {
            route,
            service: self.authenticator.loggable_service(&path.service),
            account: self.authenticator.loggable_account(path.account.as_deref()),
            client_ip: client.ip,
        };
        match self.process(path, &parts, &mut body, client, deadline, context).await {
            Ok(response) => response,
            Err(reason) => self.reject(reason, &parts, body, deadline, context).await,
        }
    }

    /// Rejects a request that matches no route or method.
    pub(super) async fn reject_unrouted(
        &self,
        reason: RejectionReason,
        request: Request,
    ) -> Response<Body> {
        let deadline = Instant::now() + RESPONSE_TIMEOUT;
        let (parts, body) = request.into_parts();
        let client_ip = self.client_address(&parts).ip;
        let context = LogContext { route: "(none)", service: "-", account: "-", client_ip };
        let reason = match self.own_forward(&parts.headers) {
            Some(_) => RejectionReason::ForwardLoop,
            None => reason,
        };
        self.reject(reason, &parts, body, deadline, context).await
    }

    /// Returns `0.0.0.0` for a request that did not come through the server.
    fn client_address(&self, parts: &Parts) -> ClientAddress {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip());
        self.authenticator.client_address(peer, &parts.headers)
    }

    /// Stores a callback, or quarantines an unusable one with the correct path secret.
    async fn process(
        &self,
        path: &CallbackPath,
        parts: &Parts,
        body: &mut Body,
        client: ClientAddress,
        deadline: Instant,
        context: LogContext<'_>,
    ) -> Result<Response<Body>, RejectionReason> {
        if self.own_forward(&parts.headers).is_some() {
            return Err(RejectionReason::ForwardLoop);
        }
        let path_auth = self.authenticator.authenticate_request(path.secret.as_deref(), client)?;
        self.check_append_deadline(deadline)?;
        let (bytes, permit) = self.body_budget.read(body, deadline).await?;
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
                quarantine::store(self, path, reason, (bytes, permit), deadline).await?;
                self.log.record_quarantined(reason, context);
                return Ok(response::quarantined());
            }
            Err(reason) => return Err(reason),
        };
        drop(bytes);
        if !client.is_allowed {
            self.log.record_unlisted(context);
        }
        let request_id = callback.result.request_id.clone();
        let received = ReceivedCallback {
            callback,
            account: path.account_name(),
            service: path.callback_service(),
            receive_time: self.clock.now(),
            forwarding: self.forwarding(),
        };
        let stored = self.store(received, permit, deadline).await?;
        let (route, service) = (context.route, context.service);
        tracing::debug!(route, service, ?stored, "callback stored");
        let mut response = response::stored(stored);
        response.extensions_mut().insert(StoredRequestId(request_id));
        Ok(response)
    }

    /// Stores a callback in a separate task: neither a disconnect nor the deadline stops the append.
    async fn store(
        &self,
        received: ReceivedCallback,
        permit: BodyPermit,
        deadline: Instant,
    ) -> Result<Stored, RejectionReason> {
        self.check_append_deadline(deadline)?;
        let journal = Arc::clone(&self.journal);
        let instruments = self.log.instruments.clone();
        // Set by the first of task and deadline: a callback counts as stored or as rejected, not both.
        let is_counted = Arc::new(AtomicBool::new(false));
        let is_rejected = Arc::clone(&is_counted);
        let mut append = self.tasks.spawn(async move {
            let _until_stored = permit;
            let result = journal.store_callback(received).await;
            let is_rejected = is_rejected.swap(true, Ordering::Relaxed);
            match &result {
                Ok(_) if is_rejected => instruments.callback_stored_after_timeout(),
                Ok(Stored::New(_)) => instruments.callback(CallbackOutcome::Stored, None),
                Ok(Stored::Duplicate) => instruments.callback(CallbackOutcome::Duplicate, None),
                Err(_) => {}
            }
            result
        });
        let result = match timeout_at(deadline, &mut append).await {
            Ok(result) => result,
            Err(_) if is_counted.swap(true, Ordering::Relaxed) => append.await,
            Err(_) => return Err(RejectionReason::StoreTimeout),
        };
        response::append_result(result)
    }

    /// Rejects a callback that the journal cannot store in time: ThingSpace sends it again after a
    /// rejection.
    fn check_append_deadline(&self, deadline: Instant) -> Result<(), RejectionReason> {
        if self.journal.expected_wait() > deadline.saturating_duration_since(Instant::now()) {
            return Err(RejectionReason::Overloaded);
        }
        Ok(())
    }

    /// Reads the rest of the body before it responds, so that the sender sees the response.
    async fn reject(
        &self,
        reason: RejectionReason,
        parts: &Parts,
        body: Body,
        deadline: Instant,
        context: LogContext<'_>,
    ) -> Response<Body> {
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
