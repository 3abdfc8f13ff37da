//! The client: construction, log-in and changes. The lookups are in `lookups/mod.rs`.

use std::{
    fmt,
    num::NonZeroU32,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use futures_util::FutureExt as _;
use reqwest::ClientBuilder;
use tokio::time::Instant;
use url::Url;

use crate::{
    config::ThingSpaceConfig,
    domain::{
        refusal::{Refusal, RefusalKind},
        trace::TraceParent,
    },
    operations::{ChangeRequest, OutboundRequest},
    telemetry::Instruments,
    thingspace::{
        classify::{self, ChangeResponse, StaleAuth},
        credentials::{CredentialSource, FailedLoginStore},
        http::{ClientBuildError, HttpClient, SendError, no_retry_client},
        login::HttpLogin,
        lookup_limits::LookupLimits,
        rate_limit::{NoPermit, RateLimit},
        redactor::Redactor,
        session::{AuthHeaders, LoginStatus, SessionManager},
        shared::SharedState,
    },
};

/// Pause of all changes after ThingSpace throttled one without `Retry-After`.
const DEFAULT_THROTTLE_PAUSE: Duration = Duration::from_secs(1);

/// Maximum number of repetitions of a request because another replica's token or session had expired.
pub(super) const MAX_SHARED_REPLAYS: u32 = 2;

/// Maximum size of the response to a change, which has about 100 bytes.
const MAX_CHANGE_BODY: usize = 1024 * 1024;
/// Maximum size of the response to a lookup or log-in. The status of a request with 10,000 devices has about
/// 2 MiB, a page of 2,000 listed devices up to 6 MiB.
const MAX_LOOKUP_BODY: usize = 16 * 1024 * 1024;
/// Idle time after which a connection is closed. Proxies close idle connections after a minute.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// Returns the builder of a client for changes, which opens a connection for each request.
///
/// A reused connection may turn out to be closed after a change was written to it, which would make the outcome
/// unknown. TLS sessions are resumed: the connections of one client share their tickets.
pub(super) fn change_client(base_url: &Url, request_timeout: Duration) -> ClientBuilder {
    // HTTP/1.1 without idle connections.
    no_retry_client(base_url, request_timeout).http1_only().pool_max_idle_per_host(0)
}

/// A client of ThingSpace. Needs a Tokio runtime.
pub struct ThingSpace {
    pub(super) http: HttpClient,
    pub(super) lookup_http: HttpClient,
    pub(super) session_manager: Arc<SessionManager>,
    change_rate_limit: RateLimit,
    pub(super) lookup_limits: LookupLimits,
    config: ThingSpaceConfig,
    pub(super) has_reported_status: AtomicBool,
}

impl ThingSpace {
    /// Builds a client without sending anything. Its identity at ThingSpace is shared with the replicas that use
    /// the same `shared`.
    pub fn new(
        config: &ThingSpaceConfig,
        credentials: Arc<dyn CredentialSource>,
        failed_logins: Arc<dyn FailedLoginStore>,
        shared: Option<SharedState>,
        instruments: Instruments,
    ) -> Result<Self, ClientBuildError> {
        let base_url = &config.base_url;
        let (shared_session, shared_limits) =
            shared.map(|shared| (shared.sessions, shared.rate_limits)).unzip();
        let rate = |per_minute| NonZeroU32::new(per_minute).unwrap_or(NonZeroU32::MIN);
        let changes_per_minute = rate(config.changes_per_minute);
        let lookups_per_minute = rate(config.lookups_per_minute);
        let for_changes = change_client(base_url, config.request_timeout);
        let for_lookups = no_retry_client(base_url, config.request_timeout);
        let for_lookups = for_lookups.pool_idle_timeout(IDLE_TIMEOUT);
        let lookup_http =
            HttpClient::new(for_lookups, base_url, MAX_LOOKUP_BODY, instruments.clone())?;
        Ok(Self {
            http: HttpClient::new(for_changes, base_url, MAX_CHANGE_BODY, instruments)?,
            session_manager: SessionManager::new(
                Arc::new(HttpLogin(lookup_http.clone())),
                credentials,
                failed_logins,
                shared_session,
            ),
            lookup_http,
            change_rate_limit: RateLimit::new("changes", changes_per_minute, shared_limits.clone()),
            lookup_limits: LookupLimits::new(lookups_per_minute, shared_limits),
            config: config.clone(),
            has_reported_status: AtomicBool::new(false),
        })
    }

    /// Logs in if necessary, and waits for the rate limit until `deadline`. Call it before a change is
    /// recorded as dispatched: if it fails, the change was certainly not sent.
    ///
    /// Concurrent callers share one log-in, which continues if they are dropped. The error is `NotSent` if the
    /// log-in failed or got no usable response, `Throttled` if ThingSpace or the rate limit throttled it,
    /// `Credentials` if ThingSpace refused the credentials.
    pub async fn prepare(
        &self,
        trace: Option<&TraceParent>,
        deadline: Instant,
    ) -> Result<(), Refusal> {
        self.session_manager.fresh_headers(trace).await?;
        let permit = self.change_rate_limit.acquire(deadline).await;
        let detail =
            "rate limit reached (thingspace.changes_per_minute, or ThingSpace's Retry-After)";
        permit.map_err(|error| match error {
            NoPermit::Delayed(delay) => {
                Refusal { retry_after: Some(delay), ..Refusal::new(RefusalKind::Throttled, detail) }
            }
            NoPermit::Unavailable(error) => Refusal::not_sent(format!(
                "cannot take a permit of thingspace.changes_per_minute in the journal: {error}"
            )),
        })
    }

    /// Prepares a change as [`prepare`](Self::prepare) does, if no wait is necessary. Returns true if the
    /// change can be sent now: never if replicas share the rate limit, because the permit is in the database.
    pub fn try_prepare(&self, trace: Option<&TraceParent>) -> bool {
        // A log-in that is necessary starts here and continues in the background.
        let headers = self.session_manager.fresh_headers(trace).now_or_never();
        matches!(headers, Some(Ok(_))) && self.change_rate_limit.try_acquire().is_ok()
    }

    /// Undoes [`prepare`](Self::prepare) or [`try_prepare`](Self::try_prepare) for a change that is not sent.
    pub async fn give_back_permit(&self) {
        self.change_rate_limit.give_back().await;
    }

    /// Renews the token before it expires, until the future is dropped. Retries failed renewals with
    /// growing delays.
    pub async fn run_token_renewal(&self) {
        self.session_manager.run_token_renewal().await;
    }

    /// Ends the lock-out of the credentials, so that the next call logs in again. Only an operator may
    /// decide this: ThingSpace locks the account after five refusals in a row. The error is one line with
    /// the reason why the reset cannot be stored.
    pub async fn reset_lockout(&self) -> Result<(), String> {
        self.session_manager.reset_lockout().await
    }

    /// Returns the state of the log-in. Reads the credentials and their stored failures, and sends nothing. The
    /// error is one line with the reason why these cannot be read.
    pub async fn login_status(&self) -> Result<LoginStatus, String> {
        self.session_manager.login_status().await
    }

    /// Sends a change once. Sends it again only if ThingSpace refused the token or the session, which it
    /// checks before it executes anything; at most once for each of the two, and twice more if another replica
    /// had stored them.
    ///
    /// Must not be cancelled: dropping the future after the request was sent loses its outcome.
    pub async fn send_change(
        &self,
        change_request: &ChangeRequest,
        trace: Option<&TraceParent>,
    ) -> ChangeResponse {
        let outbound = change_request.operation.outbound_request(change_request, &self.config);
        let Ok(outbound) = outbound else {
            let detail = "could not encode the change as JSON";
            return ChangeResponse::NotExecuted(Refusal::not_sent(detail));
        };
        let mut renewed = None;
        let mut shared_replays = 0;
        loop {
            let auth = match self.session_manager.valid_headers(trace).await {
                Ok(auth) => auth,
                Err(refusal) => return ChangeResponse::NotExecuted(refusal),
            };
            let (response, stale) = self.send_once(&outbound, &auth, change_request, trace).await;
            let Some(stale) = stale else {
                return response;
            };
            self.session_manager.discard(&auth, stale);
            if auth.is_shared(stale) && shared_replays < MAX_SHARED_REPLAYS {
                shared_replays += 1;
                continue;
            }
            renewed = match (renewed, stale) {
                (None, stale) => Some(stale),
                // If both have expired, ThingSpace refuses the session only after the token was renewed.
                (Some(StaleAuth::Token), StaleAuth::Session)
                | (Some(StaleAuth::Session), StaleAuth::Token) => Some(StaleAuth::Both),
                _ => return response,
            };
        }
    }

    async fn send_once(
        &self,
        outbound: &OutboundRequest,
        auth: &AuthHeaders,
        change_request: &ChangeRequest,
        trace: Option<&TraceParent>,
    ) -> (ChangeResponse, Option<StaleAuth>) {
        let info = change_request.operation.info();
        let operation = info.rpc;
        let request = self.http.request(outbound.method.clone(), outbound.path, &[]);
        let request = auth.add_to(request.body(outbound.body.clone()));
        let received = match self.http.send(request, outbound.path, trace).await {
            Ok(received) => received,
            Err(error) => {
                // The caller logs an unknown outcome.
                if let SendError::NotSent(reason) = error {
                    tracing::warn!(operation, reason, "change not sent: connection failed");
                }
                return (classify::classify_send_error(error), None);
            }
        };
        let (mut response, stale) = classify::classify(&received, info.endpoint_settings);
        let mut thingspace_code = None;
        if let Some(refusal) = response.refusal_mut() {
            let values = change_request.operation.sensitive_values();
            Redactor::new(auth.secrets(), &values).redact(refusal);
            thingspace_code.clone_from(&refusal.thingspace_code);
            if refusal.kind == RefusalKind::Throttled {
                let pause = refusal.retry_after.unwrap_or(DEFAULT_THROTTLE_PAUSE);
                self.change_rate_limit.pause(pause).await;
            }
        }
        let status = received.status.as_u16();
        tracing::info!(operation, status, thingspace_code, "ThingSpace responded");
        (response, stale)
    }
}

impl fmt::Debug for ThingSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThingSpace").finish_non_exhaustive()
    }
}
