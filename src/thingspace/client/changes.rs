//! Construction, log-in and changes. The lookups are in `client/lookups.rs`.

use std::{
    fmt,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    domain::{
        refusal::{Refusal, RefusalKind},
        trace::TraceParent,
    },
    operations::{ChangeRequest, OutboundRequest, WireSettings},
    telemetry::Instruments,
    thingspace::{
        classify::{self, Classification, StaleAuth},
        error::{ClientBuildError, PrepareError},
        http::{HttpClient, SendError, no_retry_client},
        login::HttpLogin,
        lookups::LookupClient,
        rate_limit::RateLimit,
        redactor::Redactor,
        response::ChangeResponse,
        session::{AuthHeaders, SessionManager},
        settings::ThingSpaceSettings,
    },
};

/// Pause of all changes after ThingSpace throttled one without `Retry-After`.
const DEFAULT_THROTTLE_PAUSE: Duration = Duration::from_secs(1);

/// Maximum size of the response to a change, which has about 100 bytes.
const MAX_CHANGE_BODY: usize = 1024 * 1024;
/// Maximum size of the response to a lookup or log-in. The status of a request with 10,000 devices has about
/// 2 MiB, a page of 2,000 listed devices up to 6 MiB.
const MAX_LOOKUP_BODY: usize = 16 * 1024 * 1024;
/// Idle time after which a connection is closed. Proxies close idle connections after a minute.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// A client of ThingSpace. Needs a Tokio runtime.
pub struct ThingSpace {
    pub(in crate::thingspace) http: HttpClient,
    wire_settings: WireSettings,
    session_manager: Arc<SessionManager>,
    change_rate_limit: RateLimit,
    pub(super) lookups: LookupClient,
    /// True if ThingSpace has returned the status of a request.
    pub(super) has_reported_status: AtomicBool,
}

impl ThingSpace {
    /// Builds a client without sending anything.
    ///
    /// # Errors
    ///
    /// If the base URL is invalid, or the TLS set-up fails.
    pub fn new(
        settings: ThingSpaceSettings,
        instruments: Instruments,
    ) -> Result<Self, ClientBuildError> {
        let base_url = &settings.base_url;
        let builder = || no_retry_client(base_url, settings.request_timeout);
        // A reused connection may turn out to be closed after a change was written to it, which would make the
        // outcome unknown. HTTP/1.1 without idle connections opens a new one for each change.
        let builder_for_changes = builder().http1_only().pool_max_idle_per_host(0);
        let http =
            HttpClient::new(builder_for_changes, base_url, MAX_CHANGE_BODY, instruments.clone())?;
        let builder_for_lookups = builder().pool_idle_timeout(IDLE_TIMEOUT);
        let lookup_http =
            HttpClient::new(builder_for_lookups, base_url, MAX_LOOKUP_BODY, instruments)?;
        let session_manager = SessionManager::new(
            Arc::new(HttpLogin(lookup_http.clone())),
            settings.credentials,
            settings.failed_logins,
        );
        Ok(Self {
            lookups: LookupClient {
                http: lookup_http,
                session_manager: Arc::clone(&session_manager),
                rate_limit: RateLimit::new(settings.lookups_per_minute),
            },
            http,
            wire_settings: settings.wire,
            session_manager,
            change_rate_limit: RateLimit::new(settings.changes_per_minute),
            has_reported_status: AtomicBool::new(false),
        })
    }

    /// Logs in if necessary, and waits for the rate limit until `deadline`. Call it before a change is
    /// recorded as dispatched: if it fails, the change was certainly not sent.
    ///
    /// Concurrent callers share one log-in, which continues if they are dropped.
    ///
    /// # Errors
    ///
    /// If the log-in fails, or the rate limit has no permit before `deadline`.
    pub async fn prepare(
        &self,
        trace: Option<&TraceParent>,
        deadline: Instant,
    ) -> Result<(), PrepareError> {
        self.session_manager.fresh_headers(trace).await?;
        let permit = self.change_rate_limit.acquire(deadline).await;
        permit.map_err(|delay| {
            let detail =
                "rate limit reached (thingspace.changes_per_minute, or ThingSpace's Retry-After)";
            PrepareError(Refusal {
                retry_after: Some(delay),
                ..Refusal::new(RefusalKind::Throttled, detail)
            })
        })
    }

    /// Renews the token before it expires, until the future is dropped. Retries failed renewals with
    /// growing delays.
    pub async fn run_token_renewal(&self) {
        self.session_manager.run_token_renewal().await;
    }

    /// Ends the lock-out of the credentials, so that the next call logs in again. Only an operator may
    /// decide this: ThingSpace locks the account after five refusals in a row.
    ///
    /// # Errors
    ///
    /// One line with the reason why the reset cannot be stored.
    pub async fn reset_lockout(&self) -> Result<(), String> {
        self.session_manager.reset_lockout().await
    }

    /// Sends a change once. Sends it again only if ThingSpace refused the token or the session, which it
    /// checks before it executes anything; at most once for each of the two.
    ///
    /// Must not be cancelled: dropping the future after the request was sent loses its outcome.
    pub async fn send_change(
        &self,
        change_request: &ChangeRequest,
        trace: Option<&TraceParent>,
    ) -> ChangeResponse {
        let outbound =
            change_request.operation.outbound_request(change_request, &self.wire_settings);
        let Ok(outbound) = outbound else {
            let detail = "could not encode the change as JSON";
            return ChangeResponse::NotExecuted(Refusal::new(RefusalKind::NotSent, detail));
        };
        let mut renewed: Option<StaleAuth> = None;
        loop {
            let auth = match self.session_manager.valid_headers(trace).await {
                Ok(auth) => auth,
                Err(error) => return ChangeResponse::NotExecuted(error.into()),
            };
            let classification = self.send_once(&outbound, &auth, change_request, trace);
            let (stale, refusal) = match classification.await {
                Classification::Response(response) => return response,
                Classification::StaleAuth(stale, refusal) => (stale, refusal),
            };
            self.session_manager.discard(&auth, stale);
            renewed = match (renewed, stale) {
                (None, stale) => Some(stale),
                // If both have expired, ThingSpace refuses the session only after the token was renewed.
                (Some(StaleAuth::Token), StaleAuth::Session)
                | (Some(StaleAuth::Session), StaleAuth::Token) => Some(StaleAuth::Both),
                _ => return ChangeResponse::NotExecuted(refusal),
            };
        }
    }

    async fn send_once(
        &self,
        outbound: &OutboundRequest,
        auth: &AuthHeaders,
        change_request: &ChangeRequest,
        trace: Option<&TraceParent>,
    ) -> Classification {
        let info = change_request.operation.info();
        let operation = info.rpc;
        let request = self
            .http
            .request(outbound.method.clone(), outbound.path, &[])
            .body(outbound.body.clone());
        let request = auth.add_to(request);
        let response = match self.http.send(request, outbound.path, trace).await {
            Ok(response) => response,
            Err(SendError::NotSent(reason)) => {
                tracing::warn!(operation, reason, "change not sent: connection failed");
                let refusal = Refusal::new(RefusalKind::NotSent, reason);
                return Classification::Response(ChangeResponse::NotExecuted(refusal));
            }
            // The caller logs an unknown outcome.
            Err(SendError::NoResponse(reason)) => {
                return Classification::Response(ChangeResponse::Unknown(reason.to_owned()));
            }
        };
        let mut classification = classify::classify(&response, info.endpoint_settings);
        let mut thingspace_code = None;
        if let Some(refusal) = classification.refusal_mut() {
            redact_refusal(refusal, auth, change_request);
            thingspace_code.clone_from(&refusal.thingspace_code);
            if refusal.kind == RefusalKind::Throttled {
                let pause = refusal.retry_after.unwrap_or(DEFAULT_THROTTLE_PAUSE);
                self.change_rate_limit.pause(pause);
            }
        }
        let status = response.status.as_u16();
        tracing::info!(operation, status, thingspace_code, "ThingSpace responded");
        classification
    }
}

fn redact_refusal(refusal: &mut Refusal, auth: &AuthHeaders, change_request: &ChangeRequest) {
    let values = change_request.operation.sensitive_values();
    Redactor::new(values.iter().copied().chain(auth.secrets()))
        .with_words(values.iter().copied())
        .redact(refusal);
}

impl fmt::Debug for ThingSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThingSpace").finish_non_exhaustive()
    }
}
