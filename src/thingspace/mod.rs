//! The client of ThingSpace's REST interface: log-in, plan changes, and what
//! their answers mean.
//!
//! A plan change has no key at ThingSpace: one that is sent twice is executed
//! twice. So everything here is built around one question: is it *certain*
//! that nothing was executed? [`Answer`] has a variant for each way to answer
//! it, `answer.rs` is the only place that decides, and only a change whose
//! authentication was refused is ever sent a second time, once.

mod access;
mod answer;
mod blank;
mod error_body;
mod http;
mod listeners;
mod log_in;
mod look_ups;
mod pace;
mod refusals;
mod service_plans;
mod settings;
mod wire;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use reqwest::{Method, StatusCode, header};
use tokio::time::Instant;

use self::{
    access::{Access, AuthHeaders},
    answer::{Reading, Stale},
    blank::Blanks,
    http::{About, Endpoint, Failure, Http, Reply},
    log_in::LogIn,
    pace::Pace,
    wire::Parcel,
};
use crate::{
    domain::{
        change::{ChangeRequest, ChangeType, OperationPayload, Refusal, RefusalKind},
        newtypes::RequestId,
        trace::TraceParent,
    },
    telemetry::Instruments,
};

pub use self::{
    listeners::Registration,
    look_ups::{DeviceStatus, ListedDevice, LookUpError},
    service_plans::ServicePlanInfo,
    settings::{
        BuildError, CredentialSource, Credentials, FailedLoginStore, FailedLogins, FiveGBiMethod,
        Settings,
    },
};

/// A client of ThingSpace. Needs a Tokio runtime; share it behind an `Arc`.
pub struct ThingSpace {
    http: Http,
    endpoint: Endpoint,
    five_g_bi_method: Method,
    access: Access,
    change_pace: Pace,
    look_up_pace: Pace,
    tells_statuses: AtomicBool,
}

/// What became of a plan change that was to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
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
pub fn meaning(
    status: u16,
    body: &[u8],
    change_type: ChangeType,
    hidden: &[&str],
) -> Option<Answer> {
    let reply = Reply {
        status: StatusCode::from_u16(status).ok()?,
        retry_after: None,
        body: body.to_vec(),
    };
    let blanks = Blanks::new(hidden.iter().copied()).with_words(hidden.iter().copied());
    let reading = answer::read(&reply, change_type).with_refusal(|refusal| blanks.tidy(refusal));
    Some(match reading {
        Reading::Answer(answer) => answer,
        Reading::Stale(_, refusal) => Answer::NotExecuted(refusal),
    })
}

/// There is no token or no session to send a change with: nothing was sent.
///
/// Its kind is `NotSent` for connection trouble, time-outs and 5xx answers of
/// the log-in, `Throttled` when ThingSpace throttles it, and `Credentials`
/// when it refuses ours, or did so twice in a row and is no longer asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.detail)]
pub struct Unprepared(Refusal);

/// How long no change is sent after ThingSpace throttled one and did not say.
const UNTOLD_PAUSE: Duration = Duration::from_secs(1);

// === impl ThingSpace ===

impl ThingSpace {
    /// Builds a client. Sends nothing.
    ///
    /// # Errors
    ///
    /// When the base URL cannot be one, or the TLS set-up fails.
    pub fn new(settings: Settings, instruments: Instruments) -> Result<Self, BuildError> {
        let endpoint = Endpoint::new(&settings.base_url)?;
        let http = Http::new(&settings.base_url, settings.request_timeout, instruments)?;
        let log_in = LogIn {
            http: http.clone(),
            endpoint: endpoint.clone(),
        };
        let access = Access::new(
            Arc::new(log_in),
            settings.credentials,
            settings.failed_logins,
        );
        Ok(Self {
            http,
            endpoint,
            five_g_bi_method: match settings.five_g_bi_method {
                FiveGBiMethod::Post => Method::POST,
                FiveGBiMethod::Put => Method::PUT,
            },
            access,
            change_pace: Pace::new(settings.changes_per_minute),
            look_up_pace: Pace::new(settings.lookups_per_minute),
            tells_statuses: AtomicBool::new(false),
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
    ) -> Result<(), Unprepared> {
        self.access.fresh_headers(trace).await?;
        self.change_pace.wait(deadline).await.map_err(|wait| {
            let detail = "more changes than ThingSpace takes (thingspace.changes_per_minute, or \
                 what it said itself)";
            Unprepared(Refusal {
                retry_after: Some(wait),
                ..refusal(RefusalKind::Throttled, detail)
            })
        })
    }

    /// Renews the token ahead of its end, for as long as it is polled. A renewal that fails is tried
    /// again ever more seldom.
    pub async fn keep_fresh(&self) {
        self.access.keep_fresh().await;
    }

    /// Ends the lock-out of the credentials, so that the next call logs in again: an operator's
    /// decision, since the fifth refusal in a row locks the account ("Start Connectivity Management
    /// Session").
    ///
    /// # Errors
    ///
    /// One line that says why this cannot be stored.
    pub async fn reset_lockout(&self) -> Result<(), String> {
        self.access.reset_lockout().await
    }

    /// Sends a plan change, once: again only when ThingSpace refused the token or
    /// the session, which it does before it executes anything; at most once for
    /// each of the two.
    ///
    /// Not to be cancelled: who drops the future after a byte has left does
    /// not learn the outcome.
    pub async fn change(&self, demand: &ChangeRequest, trace: Option<&TraceParent>) -> Answer {
        let Ok(parcel) = Parcel::pack(demand, &self.five_g_bi_method) else {
            return Answer::NotExecuted(refusal(
                RefusalKind::NotSent,
                "the change could not be written as JSON",
            ));
        };
        let mut renewed: Option<Stale> = None;
        loop {
            let headers = match self.access.valid_headers(trace).await {
                Ok(headers) => headers,
                Err(unprepared) => return Answer::NotExecuted(unprepared.into()),
            };
            let (stale, refusal) = match self.send(&parcel, &headers, demand, trace).await {
                Reading::Answer(answer) => return answer,
                Reading::Stale(stale, refusal) => (stale, refusal),
            };
            self.access.discard(&headers, stale);
            match (renewed, stale) {
                (None, _) => renewed = Some(stale),
                // Both had ended: the token is judged first, so the session shows only now.
                (Some(Stale::Token), Stale::Session) | (Some(Stale::Session), Stale::Token) => {
                    renewed = Some(Stale::Both);
                }
                _ => return Answer::NotExecuted(refusal),
            }
        }
    }

    /// Sends it as it is, exactly once.
    async fn send(
        &self,
        parcel: &Parcel,
        auth: &AuthHeaders,
        demand: &ChangeRequest,
        trace: Option<&TraceParent>,
    ) -> Reading {
        let operation = parcel.operation;
        let request = self
            .http
            .changes
            .request(parcel.method.clone(), self.endpoint.at(parcel.path))
            .header(header::AUTHORIZATION, auth.bearer())
            .header(http::SESSION_HEADER, auth.session())
            .header(header::CONTENT_TYPE, http::JSON)
            .header(header::ACCEPT, http::JSON)
            .body(parcel.body.clone());
        let about = About {
            method: &parcel.method,
            template: parcel.path,
            trace,
            max_body: http::MAX_BODY,
        };
        let reply = match self.http.send(request, about).await {
            Ok(reply) => reply,
            Err(Failure::NotSent(why)) => {
                tracing::warn!(operation, why, "the change did not leave");
                return Reading::Answer(Answer::NotExecuted(refusal(RefusalKind::NotSent, why)));
            }
            Err(Failure::Unclear(why)) => {
                tracing::warn!(operation, why, "no definite answer");
                return Reading::Answer(Answer::Unknown(why.to_owned()));
            }
        };
        let reading = answer::read(&reply, demand.change_type())
            .with_refusal(|refusal| tidy(refusal, auth, demand));
        if let Some(refusal) = reading.refusal()
            && refusal.kind == RefusalKind::Throttled
        {
            self.change_pace
                .pause(refusal.retry_after.unwrap_or(UNTOLD_PAUSE));
        }
        let code = reading
            .refusal()
            .and_then(|refusal| refusal.thingspace_code.as_deref());
        let status = reply.status.as_u16();
        tracing::info!(operation, status, code, "ThingSpace answered");
        reading
    }
}

/// Takes names, addresses and credentials out of what ThingSpace said.
fn tidy(refusal: &mut Refusal, auth: &AuthHeaders, demand: &ChangeRequest) {
    let places = match &demand.payload {
        OperationPayload::EsimPlan => &[][..],
        OperationPayload::FiveGBiPlan {
            places_of_use: places,
            ..
        } => places,
    };
    let texts = || places.iter().flat_map(|place| place.sensitive_values());
    Blanks::new(texts().chain(auth.secrets()))
        .with_words(texts())
        .tidy(refusal);
}

/// A refusal in our own words.
fn refusal(kind: RefusalKind, detail: impl Into<String>) -> Refusal {
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

impl Unprepared {
    /// Why, in the words of a change that was not sent.
    pub fn refusal(&self) -> &Refusal {
        &self.0
    }
}

impl From<Unprepared> for Refusal {
    fn from(unprepared: Unprepared) -> Self {
        unprepared.0
    }
}

#[cfg(test)]
mod tests;
