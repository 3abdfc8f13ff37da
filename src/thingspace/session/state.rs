//! The state of the log-in: token, session and pending retries.

use std::{sync::Arc, time::Duration};

use reqwest::{RequestBuilder, header};
use secrecy::ExposeSecret;
use tokio::time::Instant;

use crate::{
    domain::{
        backoff::Backoff,
        refusal::{Refusal, RefusalKind},
    },
    thingspace::{
        classify::StaleAuth,
        credentials::{FailedLogins, ThingSpaceCredentials},
        http::JSON,
        login::HeaderSecret,
    },
};

/// A token with less than this left is renewed. A random part of up to a half is added, so that several
/// gateways do not renew theirs at the same time.
pub(super) const RENEWAL_MARGIN: Duration = Duration::from_secs(60);

/// Maximum time that a caller waits for a retry. If the retry is due later, the caller gets the error at
/// once.
const MAX_RETRY_WAIT: Duration = Duration::from_secs(2);

#[derive(Default)]
pub(super) struct SessionState {
    token: Option<AccessToken>,
    session: Option<Arc<HeaderSecret>>,
    /// The credentials of the latest log-in.
    pub(super) credentials: Option<Arc<ThingSpaceCredentials>>,
    /// The failed log-ins of `credentials`, as stored.
    pub(super) failed: FailedLogins,
    /// The retry of the latest refusal of `credentials`, until a log-in succeeds.
    pub(super) refusal_retry: Option<LoginRetry>,
    /// The retry of the latest other failure of a token request, until one succeeds.
    pub(super) token_retry: Option<LoginRetry>,
    /// The retry of the latest other failure of a session log-in, until one succeeds.
    pub(super) session_retry: Option<LoginRetry>,
}

pub(super) struct AccessToken {
    secret: Arc<HeaderSecret>,
    pub(super) renew_at: Instant,
    pub(super) expires_at: Instant,
}

/// The token and the session of a request.
#[derive(Clone)]
pub(crate) struct AuthHeaders {
    token: Arc<HeaderSecret>,
    session: Arc<HeaderSecret>,
    credentials: Arc<ThingSpaceCredentials>,
}

/// A failed log-in and the time of its retry.
#[derive(Clone)]
pub(super) struct LoginRetry {
    /// Consecutive failures.
    failures: u32,
    pub(super) failed_at: Instant,
    pub(super) due: Instant,
    refusal: Refusal,
}

impl SessionState {
    /// Returns the token if there is no session.
    pub(super) fn token_without_session(&self) -> Option<Arc<HeaderSecret>> {
        self.token(|token| token.expires_at).filter(|_| self.session.is_none()).cloned()
    }

    /// Returns the token until one of its times.
    pub(super) fn token(&self, end: fn(&AccessToken) -> Instant) -> Option<&Arc<HeaderSecret>> {
        let token = self.token.as_ref()?;
        (Instant::now() < end(token)).then_some(&token.secret)
    }

    /// Returns the headers if there are a session and a token, until one of the token's times.
    pub(super) fn headers(&self, end: fn(&AccessToken) -> Instant) -> Option<AuthHeaders> {
        Some(AuthHeaders {
            token: Arc::clone(self.token(end)?),
            session: self.session.clone()?,
            credentials: self.credentials.clone()?,
        })
    }

    pub(super) fn set_token(&mut self, secret: Arc<HeaderSecret>, lifetime: Duration) {
        let now = Instant::now();
        // ThingSpace may return the same token with only seconds left. Half of them are used, so that not every
        // call requests a token.
        let margin = RENEWAL_MARGIN + RENEWAL_MARGIN.mul_f64(fastrand::f64() / 2.0);
        self.token_retry = None;
        self.token = Some(AccessToken {
            secret,
            renew_at: now + (lifetime - margin.min(lifetime / 2)),
            expires_at: now + lifetime,
        });
    }

    pub(super) fn set_session(&mut self, secret: HeaderSecret) {
        self.session_retry = None;
        self.session = Some(Arc::new(secret));
    }

    /// Discards what ThingSpace refused, unless it has been replaced since.
    pub(super) fn discard(&mut self, headers: &AuthHeaders, stale: StaleAuth) {
        if stale != StaleAuth::Session {
            self.token.take_if(|token| Arc::ptr_eq(&token.secret, &headers.token));
        }
        if stale != StaleAuth::Token {
            self.session.take_if(|session| Arc::ptr_eq(session, &headers.session));
        }
    }

    /// Returns the time of the next token renewal; `None` without a token.
    pub(super) fn renewal_due(&self) -> Option<Instant> {
        let renew_at = self.token.as_ref()?.renew_at;
        let retries = [&self.token_retry, &self.refusal_retry];
        let due = retries.into_iter().flatten().map(|retry| retry.due);
        Some(due.fold(renew_at, Instant::max))
    }

    /// Returns the time of a retry that callers wait for: there are no valid headers, and it is due soon.
    pub(super) fn short_retry_wait(&self) -> Option<Instant> {
        if self.refusal_retry.is_some() || self.headers(|token| token.expires_at).is_some() {
            return None;
        }
        let now = Instant::now();
        let retries = [&self.token_retry, &self.session_retry];
        let due = retries.into_iter().flatten().map(|retry| retry.due);
        due.max().filter(|due| *due > now && *due <= now + MAX_RETRY_WAIT)
    }

    /// Fails if the retry of a refusal or of this step is not due yet.
    pub(super) fn check_retry_delay(&self, step_retry: &Option<LoginRetry>) -> Result<(), Refusal> {
        let pending = [&self.refusal_retry, step_retry].into_iter().flatten();
        let latest = pending.max_by_key(|retry| retry.due);
        latest.filter(|retry| Instant::now() < retry.due).map_or(Ok(()), |retry| Err(retry.error()))
    }

    pub(super) fn reset_failures(&mut self) {
        self.failed = FailedLogins::default();
        self.refusal_retry = None;
        self.token_retry = None;
        self.session_retry = None;
    }
}

impl AuthHeaders {
    /// Adds the headers of an authenticated JSON request.
    pub(crate) fn add_to(&self, request: RequestBuilder) -> RequestBuilder {
        request
            .header(header::AUTHORIZATION, self.token.header.clone())
            .header("VZ-M2M-Token", self.session.header.clone())
            .header(header::CONTENT_TYPE, JSON)
            .header(header::ACCEPT, JSON)
    }

    /// Returns everything that must be redacted in a response.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &str> {
        let secrets = [&self.token, &self.session].map(|secret| secret.text.expose_secret());
        secrets.into_iter().chain(self.credentials.secret_values())
    }
}

impl LoginRetry {
    /// Schedules a retry after `delay`, or after the refusal's own delay if that is longer.
    pub(super) fn after_delay(delay: Duration, refusal: Refusal) -> Self {
        let now = Instant::now();
        Self {
            failures: 1,
            failed_at: now,
            due: now + delay.max(refusal.retry_after.unwrap_or_default()),
            refusal,
        }
    }

    /// Schedules a retry after a delay that grows with the number of consecutive failures, and returns the
    /// error of this one.
    pub(super) fn schedule(
        retry: &mut Option<Self>,
        backoff: Backoff,
        refusal: Refusal,
    ) -> Refusal {
        let failures = retry.as_ref().map_or(1, |previous| previous.failures.saturating_add(1));
        let delay = backoff.jittered_delay(failures, fastrand::f64());
        retry.insert(Self { failures, ..Self::after_delay(delay, refusal) }).error()
    }

    /// Restores the retry of a refusal from before the gateway restarted; `None` if `interval` has passed
    /// since.
    pub(super) fn after_restart(failed: &FailedLogins, interval: Duration) -> Option<Self> {
        let since = failed.since_refused?;
        let remaining = interval.checked_sub(since)?;
        let detail = "ThingSpace refused the gateway's credentials shortly before it was restarted";
        let retry = Self::after_delay(remaining, Refusal::new(RefusalKind::Credentials, detail));
        let failed_at = retry.failed_at.checked_sub(since);
        Some(Self { failed_at: failed_at.unwrap_or(retry.failed_at), ..retry })
    }

    /// Returns the error with the remaining delay.
    pub(super) fn error(&self) -> Refusal {
        let remaining = self.due.saturating_duration_since(Instant::now());
        Refusal { retry_after: Some(remaining), ..self.refusal.clone() }
    }
}
