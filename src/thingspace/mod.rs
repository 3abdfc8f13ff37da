//! The client of ThingSpace's REST interface: log-in, plan changes, and what
//! their answers mean.
//!
//! A plan change has no key at ThingSpace: one that is sent twice is executed
//! twice. So everything here is built around one question: is it *certain*
//! that nothing was executed? [`Answer`] has a variant for each way to answer
//! it, `answer.rs` is the only place that decides, and only a change whose
//! authentication was refused is ever sent a second time, once.

mod classify;
mod error_body;
mod error_codes;
mod http;
mod listeners;
mod login;
mod lookups;
mod rate_limit;
mod redactor;
mod service_plans;
mod session;
mod settings;
mod wire;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use reqwest::{Method, StatusCode, header};
use tokio::time::Instant;

use self::{
    classify::{Classification, StaleAuth},
    http::{Endpoint, Http, RequestInfo, SendError, UpstreamResponse},
    login::HttpLogin,
    rate_limit::RateLimit,
    redactor::Redactor,
    session::{AuthHeaders, SessionManager},
    wire::OutboundRequest,
};
use crate::{
    config::FiveGBiHttpMethod,
    domain::{
        change::{ChangeRequest, ChangeType, OperationPayload, Refusal, RefusalKind},
        newtypes::RequestId,
        trace::TraceParent,
    },
    telemetry::Instruments,
};

pub use self::{
    listeners::ListenerRegistration,
    lookups::{DeviceStatus, ListedDevice, LookupError},
    service_plans::ServicePlanInfo,
    settings::{
        ClientBuildError, CredentialSource, FailedLoginStore, FailedLogins, ThingSpaceCredentials,
        ThingSpaceSettings,
    },
};

/// A client of ThingSpace. Needs a Tokio runtime; share it behind an `Arc`.
pub struct ThingSpace {
    http: Http,
    endpoint: Endpoint,
    five_g_bi_method: Method,
    session_manager: SessionManager,
    change_rate_limit: RateLimit,
    lookup_rate_limit: RateLimit,
    has_reported_status: AtomicBool,
}

/// What became of a plan change that was to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeResponse {
    /// ThingSpace took it and gave it this name.
    Accepted(RequestId),
    /// ThingSpace refused it for good, and did not execute it.
    Refused(Refusal),
    /// It never left, or provably was not executed: it may be sent again.
    NotExecuted(Refusal),
    /// It left and no definite answer came. Says why in one line, without any
    /// secret, name or address. It must never be sent again.
    Unknown(String),
}

/// What an answer to a plan change means, and what is shown of it: `hidden` is blanked. An answer that
/// refuses the log-in is taken for the one to the replay. `None` when there is no such status.
///
/// This is all that stands between what comes from ThingSpace and what callers are told.
pub fn classify_response(
    status: u16,
    body: &[u8],
    change_type: ChangeType,
    hidden: &[&str],
) -> Option<ChangeResponse> {
    let reply = UpstreamResponse {
        status: StatusCode::from_u16(status).ok()?,
        retry_after: None,
        body: body.to_vec(),
    };
    let redactor = Redactor::new(hidden.iter().copied()).with_words(hidden.iter().copied());
    let classification =
        classify::classify(&reply, change_type).map_refusal(|refusal| redactor.redact(refusal));
    Some(match classification {
        Classification::Response(answer) => answer,
        Classification::StaleAuth(_, refusal) => ChangeResponse::NotExecuted(refusal),
    })
}

/// There is no token or no session to send a change with: nothing was sent.
///
/// Its kind is `NotSent` for connection trouble, time-outs and 5xx answers of
/// the log-in, `Throttled` when ThingSpace throttles it, and `Credentials`
/// when it refuses ours, or did so twice in a row and is no longer asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.detail)]
pub struct PrepareError(Refusal);

/// How long no change is sent after ThingSpace throttled one and did not say.
const DEFAULT_THROTTLE_PAUSE: Duration = Duration::from_secs(1);

// === impl ThingSpace ===

impl ThingSpace {
    /// Builds a client. Sends nothing.
    ///
    /// # Errors
    ///
    /// When the base URL cannot be one, or the TLS set-up fails.
    pub fn new(
        settings: ThingSpaceSettings,
        instruments: Instruments,
    ) -> Result<Self, ClientBuildError> {
        let endpoint = Endpoint::new(&settings.base_url)?;
        let http = Http::new(&settings.base_url, settings.request_timeout, instruments)?;
        let login = HttpLogin {
            http: http.clone(),
            endpoint: endpoint.clone(),
        };
        let access = SessionManager::new(
            Arc::new(login),
            settings.credentials,
            settings.failed_logins,
        );
        Ok(Self {
            http,
            endpoint,
            five_g_bi_method: match settings.five_g_bi_http_method {
                FiveGBiHttpMethod::Post => Method::POST,
                FiveGBiHttpMethod::Put => Method::PUT,
            },
            session_manager: access,
            change_rate_limit: RateLimit::new(settings.changes_per_minute),
            lookup_rate_limit: RateLimit::new(settings.lookups_per_minute),
            has_reported_status: AtomicBool::new(false),
        })
    }

    /// Makes sure that a token and a session are at hand, logging in where they
    /// are not. To be called before a change is marked as dispatched, so that
    /// trouble with the log-in leaves no doubt about the change. However many
    /// call it at once, there is one log-in, and it goes on when they give up.
    ///
    /// Then waits until one more change may be sent, unless that would be after
    /// `deadline`.
    ///
    /// # Errors
    ///
    /// When the log-in failed, or it is not this change's turn in time; nothing of
    /// any change was sent.
    pub async fn prepare(
        &self,
        trace: Option<&TraceParent>,
        deadline: Instant,
    ) -> Result<(), PrepareError> {
        self.session_manager.fresh_headers(trace).await?;
        self.change_rate_limit.acquire(deadline).await.map_err(|wait| {
            let detail = "more changes than ThingSpace takes (thingspace.changes_per_minute, or \
                 what it said itself)";
            PrepareError(Refusal {
                retry_after: Some(wait),
                ..new_refusal(RefusalKind::Throttled, detail)
            })
        })
    }

    /// Renews the token ahead of its end, for as long as it is polled. A renewal that fails is tried
    /// again ever more seldom.
    pub async fn run_token_renewal(&self) {
        self.session_manager.run_token_renewal().await;
    }

    /// Ends the lock-out of the credentials, so that the next call logs in again: an operator's
    /// decision, since the fifth refusal in a row locks the account ("Start Connectivity Management
    /// Session").
    ///
    /// # Errors
    ///
    /// One line that says why this cannot be stored.
    pub async fn reset_lockout(&self) -> Result<(), String> {
        self.session_manager.reset_lockout().await
    }

    /// Sends a plan change, once: again only when ThingSpace refused the token or
    /// the session, which it does before it executes anything; at most once for
    /// each of the two.
    ///
    /// Not to be cancelled: who drops the future after a byte has left does
    /// not learn the outcome.
    pub async fn send_change(
        &self,
        change_request: &ChangeRequest,
        trace: Option<&TraceParent>,
    ) -> ChangeResponse {
        let Ok(outbound) =
            OutboundRequest::from_change_request(change_request, &self.five_g_bi_method)
        else {
            return ChangeResponse::NotExecuted(new_refusal(
                RefusalKind::NotSent,
                "the change could not be written as JSON",
            ));
        };
        let mut renewed: Option<StaleAuth> = None;
        loop {
            let headers = match self.session_manager.valid_headers(trace).await {
                Ok(headers) => headers,
                Err(unprepared) => return ChangeResponse::NotExecuted(unprepared.into()),
            };
            let (stale, refusal) = match self.send(&outbound, &headers, change_request, trace).await
            {
                Classification::Response(answer) => return answer,
                Classification::StaleAuth(stale, refusal) => (stale, refusal),
            };
            self.session_manager.discard(&headers, stale);
            match (renewed, stale) {
                (None, _) => renewed = Some(stale),
                // Both had ended: the token is judged first, so the session shows only now.
                (Some(StaleAuth::Token), StaleAuth::Session)
                | (Some(StaleAuth::Session), StaleAuth::Token) => {
                    renewed = Some(StaleAuth::Both);
                }
                _ => return ChangeResponse::NotExecuted(refusal),
            }
        }
    }

    /// Sends it as it is, exactly once.
    async fn send(
        &self,
        outbound: &OutboundRequest,
        auth: &AuthHeaders,
        change_request: &ChangeRequest,
        trace: Option<&TraceParent>,
    ) -> Classification {
        let operation = outbound.operation;
        let request = self
            .http
            .change_client
            .request(outbound.method.clone(), self.endpoint.join(outbound.path))
            .header(header::AUTHORIZATION, auth.bearer())
            .header(http::SESSION_HEADER, auth.session())
            .header(header::CONTENT_TYPE, http::JSON)
            .header(header::ACCEPT, http::JSON)
            .body(outbound.body.clone());
        let info = RequestInfo {
            method: &outbound.method,
            template: outbound.path,
            trace,
            max_body: http::MAX_BODY,
        };
        let reply = match self.http.send(request, info).await {
            Ok(reply) => reply,
            Err(SendError::NotSent(why)) => {
                tracing::warn!(operation, why, "the change did not leave");
                return Classification::Response(ChangeResponse::NotExecuted(new_refusal(
                    RefusalKind::NotSent,
                    why,
                )));
            }
            Err(SendError::NoResponse(why)) => {
                tracing::warn!(operation, why, "no definite answer");
                return Classification::Response(ChangeResponse::Unknown(why.to_owned()));
            }
        };
        let classification = classify::classify(&reply, change_request.change_type())
            .map_refusal(|refusal| redact_refusal(refusal, auth, change_request));
        if let Some(refusal) = classification.refusal()
            && refusal.kind == RefusalKind::Throttled
        {
            self.change_rate_limit
                .pause(refusal.retry_after.unwrap_or(DEFAULT_THROTTLE_PAUSE));
        }
        let code = classification
            .refusal()
            .and_then(|refusal| refusal.thingspace_code.as_deref());
        let status = reply.status.as_u16();
        tracing::info!(operation, status, code, "ThingSpace answered");
        classification
    }
}

/// Takes names, addresses and credentials out of what ThingSpace said.
fn redact_refusal(refusal: &mut Refusal, auth: &AuthHeaders, change_request: &ChangeRequest) {
    let places = match &change_request.payload {
        OperationPayload::EsimPlan => &[][..],
        OperationPayload::FiveGBiPlan {
            places_of_use: places,
            ..
        } => places,
    };
    let texts = || places.iter().flat_map(|place| place.sensitive_values());
    Redactor::new(texts().chain(auth.secrets()))
        .with_words(texts())
        .redact(refusal);
}

/// A refusal in our own words.
fn new_refusal(kind: RefusalKind, detail: impl Into<String>) -> Refusal {
    Refusal {
        kind,
        detail: detail.into(),
        thingspace_code: None,
        thingspace_text: None,
        retry_after: None,
    }
}

impl std::fmt::Debug for ThingSpace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ThingSpace").finish_non_exhaustive()
    }
}

// === impl Unprepared ===

impl PrepareError {
    /// Why, in the words of a change that was not sent.
    pub fn refusal(&self) -> &Refusal {
        &self.0
    }
}

impl From<PrepareError> for Refusal {
    fn from(unprepared: PrepareError) -> Self {
        unprepared.0
    }
}

#[cfg(test)]
mod tests;
